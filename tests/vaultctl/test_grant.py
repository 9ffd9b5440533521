import time

import pytest

UNKNOWN = "00000000-0000-4000-8000-000000000000"
URL = "https://api.stripe.com/v1/charges"


@pytest.fixture
def agent(cli, stripe):
    assert cli("agent", "create", "helper").code == 0


def test_issue_prints_the_id_alone_on_stdout(cli, stripe):
    ran = cli("grant", "issue", "stripe", "--to", "system:billing")
    assert ran.code == 0
    assert len(ran.out.strip()) == 36
    assert cli("grant", "show", ran.out.strip(), "--json").json["state"] == "active"


def test_issue_gives_scripts_id_secret_principal_and_expiry(cli, stripe, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1_900_000_000.0)
    document = cli("grant", "issue", "stripe", "--to", "system:billing", "--expires", "1d", "--json").json
    assert document | {"grant_id": ""} == {
        "grant_id": "",
        "secret": "stripe",
        "principal": "system:billing",
        "expires_at": "2030-03-18T17:46:40.000Z",
    }


def test_the_id_survives_a_rotation(cli, stripe, canary):
    assert cli("secret", "rotate", "stripe", input=canary + "2").code == 0
    assert cli("grant", "show", stripe, "--json").json["state"] == "active"


def test_policies_are_kept_as_typed(cli, stripe):
    options = ["--method", "get", "--method", "POST", "--path", "/v1/", "--cidr", "10.0.0.0/8", "--label", "nightly"]
    document = cli("grant", "issue", "stripe", "--to", "system:billing", *options, "--json").json
    shown = cli("grant", "show", document["grant_id"], "--json").json
    assert shown["label"] == "nightly"
    assert shown["policies"] == [
        {"kind": "methods", "methods": ["GET", "POST"]},
        {"kind": "paths", "paths": ["/v1/"]},
        {"kind": "cidr", "networks": ["10.0.0.0/8"]},
    ]
    assert "methods: GET, POST" in cli("grant", "show", document["grant_id"]).out


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("nothing", "--to", "system:billing"), 3),
        (("stripe", "--to", "system:nobody"), 3),
        (("stripe", "--to", "agent:billing"), 3),
        (("stripe", "--to", "billing"), 2),
        (("stripe", "--to", "robot:billing"), 2),
        (("stripe",), 2),
        (("stripe", "--to", "system:billing", "--expires", "yesterday"), 2),
        (("stripe", "--to", "system:billing", "--expires", "1000"), 2),
        (("stripe", "--to", "system:billing", "--method", "TRACE"), 2),
        (("stripe", "--to", "system:billing", "--path", "v1"), 2),
        (("stripe", "--to", "system:billing", "--path", "/a/../b"), 2),
        (("stripe", "--to", "system:billing", "--cidr", "10.0.0.1/8"), 2),
    ],
)
def test_a_wrong_grant_is_not_issued(cli, stripe, args, code):
    ran = cli("grant", "issue", *args)
    assert (ran.code, ran.out, bool(ran.error)) == (code, "", True)
    assert len(cli("grant", "list", "--json").json) == 1


def test_list_chooses_by_secret_principal_and_state(cli, stripe, agent):
    other = cli("grant", "issue", "stripe", "--to", "agent:helper").out.strip()
    assert cli("grant", "revoke", stripe).code == 0

    def ids(*args):
        return [each["grant_id"] for each in cli("grant", "list", *args, "--json").json]

    assert ids() == ids("--secret", "stripe") == [stripe, other]
    assert ids("--state", "active") == ids("--principal", "agent:helper") == [other]
    assert ids("--state", "revoked") == [stripe]
    assert cli("grant", "list", "--secret", "nothing").code == 3
    assert cli("grant", "list", "--principal", "helper").code == 2


def test_revoke_is_for_good_and_keeps_the_reason(cli, stripe):
    ran = cli("grant", "revoke", stripe, "--reason", "left", "--json")
    assert (ran.code, ran.json) == (0, {"revoked": [stripe]})
    shown = cli("grant", "show", stripe, "--json").json
    assert (shown["state"], shown["revoked_reason"]) == ("revoked", "left")
    assert cli("grant", "revoke", stripe, "--json").json == {"revoked": []}


def test_revoking_with_one_unknown_id_revokes_none(cli, stripe):
    assert cli("grant", "revoke", stripe, UNKNOWN).code == 3
    assert cli("grant", "show", stripe, "--json").json["state"] == "active"


def test_revoking_all_of_a_secret_needs_a_yes(cli, stripe, agent):
    cli("grant", "issue", "stripe", "--to", "agent:helper")
    ran = cli("grant", "revoke", "--secret", "stripe")
    assert ran.code == 2
    assert "--yes" in ran.err
    assert len(cli("grant", "revoke", "--secret", "stripe", "--yes", "--json").json["revoked"]) == 2


@pytest.mark.parametrize("args", [(), (UNKNOWN, "--secret", "stripe")])
def test_revoke_takes_ids_or_a_choice(cli, stripe, args):
    assert cli("grant", "revoke", *args).code == 2


# ── explain ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def explain(cli, grant_id, *args, url=URL):
    return cli("grant", "explain", grant_id, "--url", url, *args, "--json")


def test_explain_walks_through_every_step_of_an_authorized_request(cli, stripe):
    ran = explain(cli, stripe)
    assert ran.code == 0
    assert (ran.json["decision"], ran.json["code"]) == ("authorized", "")
    assert {step["name"] for step in ran.json["steps"]} >= {"tag", "caller", "grant", "binding", "policies"}
    assert {step["verdict"] for step in ran.json["steps"]} == {"passed"}


def test_explain_ends_with_the_step_that_refuses_and_exit_code_4(cli, stripe):
    ran = explain(cli, stripe, url="https://evil.example/v1/charges")
    assert ran.code == 4
    assert (ran.json["decision"], ran.json["code"]) == ("refused", "destination_not_bound")
    last = ran.json["steps"][-1]
    assert (last["name"], last["verdict"]) == ("binding", "destination_not_bound")
    assert "vaultctl secret show" in last["remedy"]
    text = cli("grant", "explain", stripe, "--url", "https://evil.example/")
    assert text.code == 4
    assert "refused: destination_not_bound" in text.out


def test_explain_looks_at_the_body_it_is_given(cli, stripe, tmp_path):
    assert cli("policy", "set", "secret:stripe", "--json-member", 'm = "a"', "--max-body", "20").code == 0
    body = tmp_path / "body.json"
    for written, code, policy in (
        ('{"m": "a"}', 0, ""),
        ('{"m": "b"}', 4, "secret.json"),
        ("x" * 21, 4, "secret.max_body"),
    ):
        body.write_text(written)
        ran = explain(cli, stripe, "--method", "POST", "--body", f"@{body}")
        assert (ran.code, ran.json["policy"]) == (code, policy)
    body.write_text('{"m": "b"}')
    last = explain(cli, stripe, "--body", f"@{body}").json["steps"][-1]
    assert (last["name"], last["verdict"], last["detail"]) == ("body", "policy_denied", "secret.json")
    assert (last["compared"], last["remedy"]) == ('it is "b": m = "a"', 'it passes with json: m = "a"')
    as_text = ("--header", "Content-Type: text/plain")
    assert explain(cli, stripe, *as_text, "--body", f"@{body}").json["steps"][-1]["name"] == "policies"
    ran = cli("grant", "explain", stripe, "--url", URL, "--body", "@-", input='{"m": "a"}')
    assert ran.code == 0


def test_explain_says_when_only_the_body_could_tell(cli, stripe):
    assert cli("policy", "set", "secret:stripe", "--json-member", "m = 1").code == 0
    for said in ((), ("--header", "Content-Type: application/json")):
        ran = cli("grant", "explain", stripe, "--url", URL, *said)
        assert (ran.code, "cannot be said without the body" in ran.err) == (4, True)


def test_a_body_is_named_as_a_file(cli, stripe):
    ran = explain(cli, stripe, "--body", '{"m": 1}')
    assert (ran.code, ran.error) == (2, "the body is not named as a file")
    assert explain(cli, stripe, "--body", "@nothing.json").code == 2


def test_explain_judges_at_the_time_it_is_given(cli, stripe):
    grant_id = cli("grant", "issue", "stripe", "--to", "system:billing", "--expires", "1d").out.strip()
    assert explain(cli, grant_id).code == 0
    ran = explain(cli, grant_id, "--at", "2099-01-01T00:00:00Z")
    assert (ran.code, ran.json["code"]) == (4, "grant_expired")


def test_explain_judges_method_path_and_address(cli, stripe):
    options = ("--method", "GET", "--path", "/v1/", "--cidr", "10.0.0.0/8")
    grant_id = cli("grant", "issue", "stripe", "--to", "system:billing", *options).out.strip()
    assert explain(cli, grant_id, "--ip", "10.1.2.3").code == 0
    for args in [("--ip", "10.1.2.3", "--method", "POST"), ("--ip", "192.0.2.1")]:
        ran = explain(cli, grant_id, *args)
        assert (ran.code, ran.json["code"]) == (4, "policy_denied")


def test_explain_for_another_caller_tells_what_that_caller_would_hear(cli, stripe, agent):
    ran = explain(cli, stripe, "--as", "agent:helper")
    assert (ran.code, ran.json["code"]) == (4, "grant_unavailable")
    assert explain(cli, stripe, "--as", "billing").code == explain(cli, stripe, "--as", "system:billing").code == 0


def test_explain_knows_a_caller_whose_keys_do_not_work(cli, stripe):
    cli("app", "disable", "billing")
    ran = explain(cli, stripe)
    assert (ran.code, ran.json["code"]) == (4, "caller_invalid")


def test_explain_knows_from_where_a_caller_may_call(cli, stripe):
    cli("app", "create", "fixed", "--cidr", "10.0.0.0/8")
    grant_id = cli("grant", "issue", "stripe", "--to", "system:fixed").out.strip()
    assert explain(cli, grant_id, "--ip", "10.9.9.9").code == 0
    assert explain(cli, grant_id).json["code"] == "caller_invalid"


def test_explain_knows_a_disabled_secret_and_a_revoked_grant(cli, stripe):
    cli("secret", "disable", "stripe")
    assert explain(cli, stripe).json["code"] == "secret_disabled"
    cli("grant", "revoke", stripe)
    assert explain(cli, stripe).json["code"] == "grant_revoked"


@pytest.mark.parametrize(
    "url", ["", "api.stripe.com", "ftp://api.stripe.com/", "https://", "https://127.0.0.1/", "https://h:x/"]
)
def test_explain_needs_a_whole_url(cli, stripe, url):
    ran = cli("grant", "explain", stripe, "--url", url)
    assert ran.code in {2, 4}
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    ("args", "code"), [(("--as", "nobody"), 3), (("--as", "robot:x"), 2), (("--ip", "here"), 2), (("--at", "noon"), 2)]
)
def test_explain_refuses_what_it_cannot_understand(cli, stripe, args, code):
    assert explain(cli, stripe, *args).code == code
    assert explain(cli, UNKNOWN).code == 3
