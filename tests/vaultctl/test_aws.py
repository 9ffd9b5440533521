"""`run` and `env` for AWS: an SDK finds the grant where it looks for an access key."""

import json

import pytest

KEY = {"access_key_id": "AKIAEXAMPLE", "secret_access_key": "canary-aws-secret"}


@pytest.fixture
def grant(cli):
    """`grant(name, *options)`: the grant of a new AWS secret to one app."""
    assert cli("app", "create", "reports").code == 0

    def make(name, *options):
        stored = cli("secret", "set", name, "--kind", "sigv4", *options, "--fields-from", "-", input=json.dumps(KEY))
        assert stored.code == 0, stored.err
        return cli("grant", "issue", name, "--to", "system:reports").out.strip()

    return make


@pytest.fixture
def variables(cli):
    """What `env` prints for these grants."""

    def make(*grants):
        ran = cli("env", *(part for grant in grants for part in ("--grant", grant)), "--json")
        assert ran.code == 0, ran.err
        return {name: value for name, value in json.loads(ran.out).items() if name.startswith("AWS_")}

    return make


def test_the_access_key_id_is_the_grant(grant, variables):
    issued = grant("s3", "--host", "s3.amazonaws.com", "--host", "bucket.s3.eu-west-1.amazonaws.com")
    found = variables(issued)
    assert found.pop("AWS_CA_BUNDLE")
    assert found == {"AWS_ACCESS_KEY_ID": f"alter_grant_{issued}", "AWS_SECRET_ACCESS_KEY": "dummy"}


@pytest.mark.parametrize(
    "options",
    [
        ["--host", "s3.amazonaws.com", "--region", "eu-west-1"],
        ["--host", "s3.eu-west-1.amazonaws.com", "--host", "bucket.s3.eu-west-1.amazonaws.com"],
        ["--host", "minio.example.com", "--service", "s3", "--region", "eu-west-1"],
    ],
)
def test_a_region_is_named_if_there_is_but_one(grant, variables, options):
    found = variables(grant("s3", *options))
    assert found["AWS_REGION"] == found["AWS_DEFAULT_REGION"] == "eu-west-1"


@pytest.mark.parametrize(
    "options",
    [
        ["--host", "s3.eu-west-1.amazonaws.com", "--host", "sqs.us-east-1.amazonaws.com"],
        ["--host", "minio.example.com", "--service", "s3", "--region", "a", "--region", "b"],
        ["--host", "minio.example.com", "--service", "s3"],
    ],
)
def test_no_region_is_made_up(grant, variables, options):
    assert "AWS_REGION" not in variables(grant("s3", *options))


def test_a_secret_may_be_for_every_bucket_of_a_region(cli, grant, variables):
    issued = grant("s3", "--host", "s3.eu-west-1.amazonaws.com", "--host", "*.s3.eu-west-1.amazonaws.com")
    assert variables(issued)["AWS_REGION"] == "eu-west-1"
    bearer = ("secret", "set", "x", "--kind", "bearer", "--host", "*.s3.eu-west-1.amazonaws.com")
    assert "hosts of strangers" in cli(*bearer, input="canary\n").err
    sigv4 = ("secret", "set", "y", "--kind", "sigv4", "--service", "s3", "--host", "*.co.uk", "--fields-from", "-")
    assert "hosts of strangers" in cli(*sigv4, input=json.dumps(KEY)).err


def test_of_several_grants_the_destination_chooses(grant, variables):
    first = grant("s3", "--host", "s3.eu-west-1.amazonaws.com")
    second = grant("sqs", "--host", "sqs.eu-west-1.amazonaws.com")
    found = variables(first, second)
    assert (found["AWS_ACCESS_KEY_ID"], found["AWS_REGION"]) == ("dummy", "eu-west-1")


def test_other_grants_bring_nothing_of_aws(stripe, variables):
    assert variables(stripe).keys() == {"AWS_CA_BUNDLE"}


def test_a_session_token_of_the_user_is_taken_away(cli, grant):
    issued = grant("s3", "--host", "s3.eu-west-1.amazonaws.com")
    assert "unset AWS_SESSION_TOKEN" in cli("env", "--grant", issued).out.splitlines()
    assert "set -e AWS_SESSION_TOKEN" in cli("env", "--grant", issued, "--shell", "fish").out.splitlines()


def test_services_regions_and_minting_are_stored_and_changed(cli, grant):
    host = ("--host", "minio.example.com")
    grant("s3", *host, "--service", "s3", "--service", "sts", "--region", "a", "--allow-credential-minting")
    shown = json.loads(cli("secret", "show", "s3", "--json").out)
    assert (shown["services"], shown["regions"], shown["flags"]) == (["s3", "sts"], ["a"], ["allow-credential-minting"])
    bound = cli(
        "secret", "bind", "s3", "--service", "s3", "--forbid-credential-minting", "--fields-from", "-",
        input=json.dumps(KEY),
    )  # fmt: skip
    assert bound.code == 0, bound.err
    shown = json.loads(cli("secret", "show", "s3", "--json").out)
    assert (shown["services"], shown["regions"], shown["flags"]) == (["s3"], ["a"], [])


@pytest.mark.parametrize("option", [["--allow-credential-minting"], ["--service", "s3"], ["--region", "a"]])
def test_other_kinds_do_not_sign_for_aws(cli, option):
    ran = cli("secret", "set", "x", "--kind", "bearer", "--host", "api.example.com", *option, input="canary\n")
    assert ran.code == 2
    assert "does not sign for AWS" in ran.err
