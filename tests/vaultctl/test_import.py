from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addon.vault.secrets import Secrets
from vaultctl import dotenv

STRIPE = "sk_live_51CanaryImport"
OPENAI = "sk-proj-CanaryImport"


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / ".env"
        path.write_text(text)
        return str(path)

    return write


def outcomes(ran):
    return {each["name"]: each["outcome"] for each in ran.json}


def names(cli):
    return [each["name"] for each in cli("secret", "list", "--json").json]


def test_recognised_variables_become_secrets_of_their_providers(cli, file):
    path = file(
        f"# keys\nexport STRIPE_API_KEY='{STRIPE}'\nDATABASE_URL=postgres://x\nOPENAI_API_KEY={OPENAI} # mine\n"
    )
    ran = cli("import", path, "--json")
    assert ran.code == 0
    assert outcomes(ran) == {"stripe": "stored", "openai": "stored"}
    assert ran.json[0]["variables"] == ["STRIPE_API_KEY"]
    assert names(cli) == ["openai", "stripe"]
    assert STRIPE not in ran.out + ran.err


def test_a_dry_run_stores_nothing(cli, file):
    ran = cli("import", file(f"STRIPE_API_KEY={STRIPE}"), "--dry-run", "--json")
    assert (ran.code, outcomes(ran)) == (0, {"stripe": "stored"})
    assert names(cli) == []


def test_the_file_is_not_changed(cli, file):
    path = file(f"STRIPE_API_KEY={STRIPE}\n")
    cli("import", path)
    assert Path(path).read_text() == f"STRIPE_API_KEY={STRIPE}\n"


def test_several_variables_make_one_secret(cli, file):
    ran = cli("import", file(f"DD_API_KEY={'a' * 32}\nDD_APP_KEY={'b' * 40}\n"), "--json")
    assert outcomes(ran) == {"datadog": "stored"}


def test_what_cannot_be_told_from_the_file_is_left_out_and_said(cli, file, stripe):
    path = file(f"STRIPE_API_KEY={STRIPE}\nDD_API_KEY={'a' * 32}\nAWS_ACCESS_KEY_ID=AKIA\nSLACK_TOKEN=\n")
    found = outcomes(cli("import", path, "--json"))
    assert found["stripe"] == "exists already"
    assert found["datadog"] == "lacks its app_key"
    assert found["aws"].startswith("needs a host: vaultctl secret set aws --provider aws --host ")
    assert "slack" not in found
    assert names(cli) == ["stripe"]


def test_one_value_that_cannot_be_stored_stores_none(cli, file):
    ran = cli("import", file(f"STRIPE_API_KEY={STRIPE}\nOPENAI_API_KEY='{'x' * 9000}'\n"))
    assert ran.code == 2
    assert names(cli) == []


def test_a_failure_on_the_way_takes_back_what_was_stored(cli, file, monkeypatch):
    put = Secrets.put

    def failing(self, name, **kwargs):
        if name == "openai":
            raise OSError(28, "No space left on device")
        return put(self, name, **kwargs)

    monkeypatch.setattr(Secrets, "put", failing)
    assert cli("import", file(f"STRIPE_API_KEY={STRIPE}\nOPENAI_API_KEY={OPENAI}\n")).code == 1
    assert names(cli) == []


def test_two_variables_that_disagree_are_refused(cli, file):
    ran = cli("import", file("GITHUB_TOKEN=ghp_one\nGH_TOKEN=ghp_two\n"))
    assert ran.code == 2
    assert "GITHUB_TOKEN and GH_TOKEN" in ran.error
    assert "ghp_one" not in ran.err
    assert outcomes(cli("import", file("GITHUB_TOKEN=ghp_one\nGH_TOKEN=ghp_one\n"), "--json")) == {"github": "stored"}


def test_a_file_without_any_is_no_error(cli, file):
    ran = cli("import", file("A=1\n"), "--json")
    assert (ran.code, ran.json) == (0, [])
    assert "provider list" in ran.err


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_is_no_text_is_a_wrong_command(cli, tmp_path, content):
    path = tmp_path / ".env"
    if content is not None:
        path.write_bytes(content)
    assert cli("import", str(path)).code == 2


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=x", "x"),
        ("  export A = x  ", "x"),
        ("A=x y # note", "x y"),
        ("A=x#y", "x#y"),
        ("A='x # y' # note", "x # y"),
        ("A='$B \\n'", "$B \\n"),
        ('A="x \\"y\\" \\\\z"', 'x "y" \\z'),
        ("A=", ""),
        ("A=''", ""),
        ("A=a=b", "a=b"),
    ],
)
def test_a_line_is_read_as_its_common_readers_do(line, value):
    assert dotenv.parse(line) == {"A": value}


@pytest.mark.parametrize("line", ["", "# A=x", "A", "1A=x", "A-B=x", "A='x", 'A="x', "A='x' y", "=x"])
def test_any_other_line_is_passed_over(line):
    assert dotenv.parse(line) == {}


@given(st.text(max_size=60))
def test_no_text_makes_the_reader_fail(text):
    assert isinstance(dotenv.parse(text), dict)
