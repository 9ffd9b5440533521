import json
import time

import pytest

from addon.vault import Vault
from addon.vault.keyring import Keyring

BEARER = ("--kind", "bearer", "--host", "api.example.com")


@pytest.fixture
def opened(home):
    """What the proxy would open for a secret, by way of a grant made for it."""

    def call(cli, name):
        cli("app", "create", "probe")
        grant_id = cli("grant", "issue", name, "--to", "system:probe").out.strip()
        vault = Vault.connect(home, keyring=Keyring.load(home / "proxy.key"))
        try:
            return dict(vault.open(vault.lookup(digest=b"", tag=grant_id).grant))
        finally:
            vault.close()

    return call


def names(cli):
    return [each["name"] for each in cli("secret", "list", "--json").json]


# ── set ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_provider_says_everything_but_the_value(cli, canary, opened):
    ran = cli("secret", "set", "stripe", "--provider", "stripe", "--json", input=canary + "\n")
    assert ran.code == 0
    assert set(ran.json) == {"name", "secret_id", "version"}
    shown = cli("secret", "show", "stripe", "--json").json
    assert (shown["kind"], shown["provider"], "api.stripe.com" in shown["hosts"]) == ("bearer", "stripe", True)
    assert opened(cli, "stripe") == {"token": canary}


@pytest.mark.parametrize(
    ("args", "stdin", "fields"),
    [
        (BEARER, "v-1", {"token": "v-1"}),
        (("--kind", "header", "--header", "X-Api-Key", "--host", "h.example.com"), "v-1", {"token": "v-1"}),
        (("--kind", "query", "--query-param", "key", "--host", "h.example.com"), "v-1", {"token": "v-1"}),
        (
            ("--kind", "basic", "--host", "h.example.com", "--field", "user=bot"),
            "v-1",
            {"user": "bot", "password": "v-1"},
        ),
        (("--kind", "basic", "--host", "h.example.com", "--format", "{token}:"), "v-1", {"token": "v-1"}),
        (
            (
                "--kind",
                "sigv4",
                "--host",
                "sqs.eu-west-1.amazonaws.com",
                "--field",
                "access_key_id=AKIAIOSFODNN7EXAMPLE",
            ),
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            {"access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"},
        ),
        (
            ("--provider", "datadog", "--fields-from", "-"),
            json.dumps({"api_key": "a" * 32, "app_key": "b" * 40}),
            {"api_key": "a" * 32, "app_key": "b" * 40},
        ),
    ],
    ids=lambda value: value[1] if isinstance(value, tuple) else "",
)
def test_each_kind_is_stored_and_opens_as_it_was_given(cli, opened, args, stdin, fields):
    ran = cli("secret", "set", "one", *args, input=stdin)
    assert ran.code == 0, ran.err
    assert opened(cli, "one") == fields


def test_everything_of_a_binding_can_be_said(cli):
    ran = cli(
        "secret", "set", "one", "--kind", "header", "--host", "a.example.com", "--host", "*.b.example.com:8443",
        "--method", "get", "--path", "/v1/", "--header", "X-Api-Key", "--format", "Key {api_key}",
        "--header", "X-App-Key", "--format", "{app_key}", "--constant", "X-Version: 3", "--private", "--note", "for tests",
        "--fields-from", "-", input='{"api_key": "a", "app_key": "b"}',
    )  # fmt: skip
    assert ran.code == 0, ran.err
    shown = cli("secret", "show", "one", "--json").json
    assert {
        name: shown[name] for name in ("hosts", "methods", "paths", "placements", "constants", "flags", "note")
    } == {
        "hosts": ["a.example.com", "*.b.example.com:8443"],
        "methods": ["GET"],
        "paths": ["/v1/"],
        "placements": [
            {"where": "header", "name": "X-Api-Key", "format": "Key {api_key}"},
            {"where": "header", "name": "X-App-Key", "format": "{app_key}"},
        ],
        "constants": [{"name": "X-Version", "value": "3"}],
        "flags": ["private"],
        "note": "for tests",
    }


def test_one_format_for_the_headers_leaves_the_parameters_their_own(cli):
    args = (
        "--kind",
        "query",
        "--host",
        "h.example.com",
        "--header",
        "X-A",
        "--format",
        "T {token}",
        "--query-param",
        "key",
    )
    assert cli("secret", "set", "one", *args, input="v").code == 0
    formats = [each["format"] for each in cli("secret", "show", "one", "--json").json["placements"]]
    assert formats == ["T {token}", "{token}"]


@pytest.mark.parametrize(
    ("args", "code"),
    [
        ((), 2),
        (("--kind", "bearer"), 2),
        (("--kind", "nonsense", "--host", "h.example.com"), 2),
        (("--provider", "nonsense"), 3),
        (("--provider", "stripe", "--kind", "bearer"), 2),
        (("--provider", "stripe", "--header", "X-Key"), 2),
        (("--provider", "algolia"), 2),
        ((*BEARER, "--header", "X-Key"), 2),
        ((*BEARER, "--format", "{token}"), 2),
        ((*BEARER, "--service", "s3"), 2),
        ((*BEARER, "--method", "CONNECT"), 2),
        ((*BEARER, "--path", "v1"), 2),
        ((*BEARER, "--constant", "no colon"), 2),
        ((*BEARER, "--constant", "Authorization: x"), 2),
        (("--kind", "bearer", "--host", "https://api.example.com"), 2),
        (("--kind", "bearer", "--host", "api.example.com/v1"), 2),
        (("--kind", "bearer", "--host", "*.com"), 2),
        (("--kind", "bearer", "--host", "*.co.uk"), 2),
        (("--kind", "bearer", "--host", "*"), 2),
        (("--kind", "bearer", "--host", "127.0.0.1"), 2),
        (("--kind", "bearer", "--host", "h.example.com:0"), 2),
        (("--kind", "header", "--host", "h.example.com"), 2),
        (("--kind", "header", "--host", "h.example.com", "--header", "Host"), 2),
        (("--kind", "header", "--host", "h.example.com", "--header", "X-A", "--format", "no field"), 2),
        (("--kind", "header", "--host", "h.example.com", "--header", "X-A", "--format", "{a}", "--format", "{b}"), 2),
        (("--kind", "query", "--host", "h.example.com"), 2),
        (("--kind", "basic", "--host", "h.example.com"), 2),
        ((*BEARER, "--field", "other=@x"), 2),
        ((*BEARER, "--fields-from", "/nonexistent"), 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_wrong_option_is_refused_with_its_mend_and_stores_nothing(cli, canary, args, code):
    ran = cli("secret", "set", "one", *args, input=canary)
    assert ran.code == code, ran.err
    assert ran.error
    assert ran.out == ""
    assert canary not in ran.err
    assert names(cli) == []


@pytest.mark.parametrize("value", ["", "\n", "a\0b", "a\nb\n", " ", "x" * 8193, "\x1b[A", "a\x7f"])
def test_a_value_that_cannot_be_used_stores_nothing(cli, value):
    ran = cli("secret", "set", "one", *BEARER, input=value)
    assert ran.code == 2, ran.err
    assert ran.error
    assert names(cli) == []


@pytest.mark.parametrize("name", ["a b", ".x", "", "x/y", "x" * 65, "naïve"])
def test_a_wrong_name_is_refused(cli, name):
    assert cli("secret", "set", "--", name).code == 2


def test_a_name_is_taken_once_and_the_first_stays(cli, canary, stripe, opened):
    ran = cli("secret", "set", "stripe", *BEARER, input="other")
    assert ran.code == 7
    assert "secret rotate" in ran.err
    assert opened(cli, "stripe") == {"token": canary}


def test_a_value_that_does_not_look_right_is_stored_with_a_warning(cli):
    ran = cli("secret", "set", "stripe", "--provider", "stripe", input="pk_live_public")
    assert ran.code == 0
    assert "warning: this does not look like the token of Stripe" in ran.err
    assert "pk_live_public" not in ran.err


def test_forgetting_the_provider_of_a_known_name_is_mended_by_the_hint(cli):
    assert "hint: add --provider stripe" in cli("secret", "set", "stripe", input="x").err


def test_a_provider_without_hosts_takes_yours(cli):
    assert (
        cli("secret", "set", "es", "--provider", "elasticsearch", "--host", "es.example.com:9243", input="a" * 40).code
        == 0
    )
    assert cli("secret", "show", "es", "--json").json["hosts"] == ["es.example.com:9243"]


# ── versions ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_rotate_adds_a_version_and_keeps_the_binding(cli, canary, stripe, opened):
    before = cli("secret", "show", "stripe", "--json").json
    ran = cli("secret", "rotate", "stripe", "--json", input=canary + "2\n")
    assert ran.json == {"name": "stripe", "secret_id": before["secret_id"], "version": 2}
    after = cli("secret", "show", "stripe", "--json").json
    assert (after["hosts"], [each["version"] for each in after["versions"]]) == (before["hosts"], [1, 2])
    assert opened(cli, "stripe") == {"token": canary + "2"}


def test_rollback_goes_back_and_forth(cli, canary, stripe, opened):
    cli("secret", "rotate", "stripe", input=canary + "2")
    assert cli("secret", "rollback", "stripe", "--json").json["version"] == 1
    assert opened(cli, "stripe") == {"token": canary}
    assert cli("secret", "rollback", "stripe", "--to", "2", "--json").json["version"] == 2
    assert cli("secret", "rollback", "stripe", "--to", "9").code == 3


def test_the_old_version_is_gone_when_its_grace_is_over(cli, canary, stripe, monkeypatch):
    now = time.time()
    cli("secret", "rotate", "stripe", "--grace", "10m", input=canary + "2")
    assert cli("secret", "show", "stripe", "--json").json["versions"][0]["destroys_at"] is not None
    monkeypatch.setattr(time, "time", lambda: now + 700)
    assert cli("secret", "rollback", "stripe").code == 3


def test_any_command_that_changes_the_vault_destroys_what_is_past_its_grace(cli, canary, stripe, monkeypatch):
    now = time.time()
    cli("secret", "rotate", "stripe", "--grace", "10m", input=canary + "2")
    monkeypatch.setattr(time, "time", lambda: now + 700)

    def versions():
        return [each["version"] for each in cli("secret", "show", "stripe", "--json").json["versions"]]

    assert versions() == [1, 2]  # to look changes nothing
    cli("app", "create", "billing")
    assert versions() == [2]


@pytest.mark.parametrize("grace", ["soon", "10", "-1h"])
def test_a_wrong_grace_rotates_nothing(cli, canary, stripe, grace):
    assert cli("secret", "rotate", "stripe", "--grace", grace, input=canary).code == 2
    assert cli("secret", "show", "stripe", "--json").json["version"] == 1


def test_bind_changes_what_is_given_and_keeps_the_rest(cli, canary, stripe, opened):
    cli("secret", "bind", "stripe", "--method", "GET", input=canary)
    ran = cli("secret", "bind", "stripe", "--host", "api.example.com", "--private", "--json", input=canary)
    assert ran.json["version"] == 3
    shown = cli("secret", "show", "stripe", "--json").json
    assert (shown["hosts"], shown["methods"], shown["flags"]) == (["api.example.com"], ["GET"], ["private"])
    cli("secret", "bind", "stripe", "--no-private", input=canary)
    assert cli("secret", "show", "stripe", "--json").json["flags"] == []
    assert opened(cli, "stripe") == {"token": canary}


def test_whether_responses_are_searched_and_may_set_cookies_is_part_of_the_binding(cli, canary):
    cli("secret", "set", "x", "--kind", "bearer", "--host", "a.test", "--no-redact", "--allow-cookies", input=canary)
    assert cli("secret", "show", "x", "--json").json["flags"] == ["cookies", "no-redact"]
    cli("secret", "bind", "x", "--redact", input=canary)
    assert cli("secret", "show", "x", "--json").json["flags"] == ["cookies"]
    cli("secret", "bind", "x", "--forbid-cookies", "--no-redact", input=canary)
    assert cli("secret", "show", "x", "--json").json["flags"] == ["no-redact"]


def test_bind_needs_the_value_and_a_change(cli, stripe, canary):
    assert cli("secret", "bind", "stripe", "--host", "evil.example.com", input="").code == 2
    assert cli("secret", "bind", "stripe", input=canary).code == 2
    assert cli("secret", "show", "stripe", "--json").json["version"] == 1


# ── states ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_disable_and_enable_keep_versions_and_grants(cli, stripe):
    assert cli("secret", "disable", "stripe").code == 0
    assert cli("secret", "show", "stripe", "--json").json["state"] == "disabled"
    assert cli("secret", "enable", "stripe").code == 0
    assert cli("grant", "show", stripe, "--json").json["state"] == "active"


def test_delete_needs_a_yes_and_takes_the_grants_along(cli, stripe):
    ran = cli("secret", "delete", "stripe")
    assert ran.code == 2
    assert names(cli) == ["stripe"]
    assert cli("secret", "delete", "stripe", "--yes", "--json").json == {
        "name": "stripe",
        "state": "deleted",
        "grants": 1,
    }
    assert names(cli) == []
    assert cli("grant", "show", stripe).code == 3


def test_access_lists_who_can_reach_it_now(cli, stripe):
    cli("agent", "create", "helper")
    cli("agent", "disable", "helper")
    cli("grant", "issue", "stripe", "--to", "agent:helper", "--method", "GET", "--expires", "1d")
    cli("grant", "revoke", cli("grant", "issue", "stripe", "--to", "system:billing").out.strip())
    found = cli("secret", "access", "stripe", "--json").json
    assert [(each["principal"], each["caller_state"], each["keys"], each["policies"]) for each in found] == [
        ("system:billing", "active", 1, []),
        ("agent:helper", "disabled", 1, ["methods"]),
    ]
    assert found[0]["grant_id"] == stripe
    cli("secret", "disable", "stripe")
    assert "disabled" in cli("secret", "access", "stripe").err


@pytest.mark.parametrize("verb", ["show", "rotate", "rollback", "disable", "enable", "delete", "access"])
def test_a_secret_that_is_not_there_is_exit_code_3(cli, verb):
    ran = cli("secret", verb, "nothing", input="x")
    assert (ran.code, ran.out) == (3, "")
    assert ran.error
