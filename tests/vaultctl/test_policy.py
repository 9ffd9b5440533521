"""`policy`: set, shown and cleared for one layer at a time, and the same options on a grant."""

import sqlite3

import pytest

CHARGES = "https://api.stripe.com/v1/charges"

TYPED = {
    "methods": (("--method", "get", "--method", "POST"), {"methods": ["GET", "POST"]}, "GET, POST"),
    "paths": (("--path", "/v1"), {"paths": ["/v1"]}, "/v1"),
    "cidr": (("--cidr", "10.0.0.0/8"), {"networks": ["10.0.0.0/8"]}, "10.0.0.0/8"),
    "hours": (("--hours", "Mon-Fri 09:00-18:00 Europe/Berlin"), {"windows": ["Mon-Fri 09:00-18:00 Europe/Berlin"]}, "Mon-Fri 09:00-18:00 Europe/Berlin"),
    "period": (("--not-before", "2026-01-01T00:00:00Z"), {"not_before": 1767225600.0}, "from 2026-01-01 00:00:00Z"),
    "max_body": (("--max-body", "64KiB"), {"bytes": 65536}, "65536 bytes"),
    "content_type": (("--content-type", "Application/JSON"), {"types": ["application/json"]}, "application/json"),
    "json": (("--json-member", ' m in ["a", 1]', "--json-member", "n.o<=5"), {"rules": ['m in ["a", 1]', "n.o<=5"]}, 'm in ["a", 1], and n.o<=5'),
    "rate": (("--rate", "5/second", "--rate", "60/Minute"), {"limits": ["5/second", "60/minute"]}, "5/second, 60/minute"),
    "quota": (("--max-uses", "100", "--max-uses", "9/day"), {"limits": ["100", "9/day"]}, "100 in all, 9/day"),
    "reason": (("--require-reason",), {"characters": 1}, "1 or more characters"),
}  # fmt: skip


@pytest.mark.parametrize("kind", TYPED)
@pytest.mark.parametrize("subject", ["vault", "secret:stripe", "app:billing", "agent:helper"])
def test_what_is_set_is_shown(cli, stripe, kind, subject):
    assert cli("agent", "create", "helper").code == 0
    args, params, words = TYPED[kind]
    ran = cli("policy", "set", subject, *args, "--json")
    assert ran.code == 0
    shown = cli("policy", "show", subject, "--json").json
    layer, _, name = subject.partition(":")
    assert shown == ran.json == {"layer": layer, "name": name or None, "policies": [{"kind": kind, **params}]}
    table = cli("policy", "show", subject).out.splitlines()
    assert table[1].split(maxsplit=1) == [kind, words]


@pytest.mark.parametrize("kind", TYPED)
def test_a_grant_takes_the_same_options(cli, stripe, kind):
    args, params, words = TYPED[kind]
    issued = cli("grant", "issue", "stripe", "--to", "system:billing", *args).out.strip()
    assert cli("grant", "show", issued, "--json").json["policies"] == [{"kind": kind, **params}]
    assert f"{kind}: {words}" in cli("grant", "show", issued).out


def test_set_replaces_and_clear_takes_away(cli, stripe):
    assert cli("policy", "set", "vault", "--method", "GET").code == 0
    assert cli("policy", "set", "vault", "--cidr", "::/0").code == 0
    assert [each["kind"] for each in cli("policy", "show", "vault", "--json").json["policies"]] == ["cidr"]
    ran = cli("policy", "clear", "vault")
    assert (ran.code, "--yes" in ran.err) == (2, True)
    assert cli("policy", "clear", "vault", "--yes", "--json").json["policies"] == []
    assert cli("policy", "show", "vault", "--json").json["policies"] == []
    assert cli("policy", "clear", "vault").code == 0


def test_a_policy_of_another_layer_is_in_the_explanation(cli, stripe):
    assert cli("policy", "set", "secret:stripe", "--method", "GET").code == 0
    assert cli("policy", "set", "app:billing", "--path", "/v1").code == 0
    assert cli("grant", "explain", stripe, "--url", CHARGES).code == 0
    ran = cli("grant", "explain", stripe, "--url", CHARGES, "--method", "POST", "--json")
    assert (ran.code, ran.json["code"], ran.json["steps"][-1]["detail"]) == (4, "policy_denied", "secret.methods")
    ran = cli("grant", "explain", stripe, "--url", "https://api.stripe.com/v2", "--json")
    assert (ran.code, ran.json["steps"][-1]["detail"]) == (4, "app.paths")


def test_a_period_may_have_an_end(cli, stripe):
    assert cli("policy", "set", "app:billing", "--expires", "2027-01-01T00:00:00Z").code == 0
    assert cli("policy", "show", "app:billing", "--json").json["policies"] == [{"kind": "period", "expires": 1798761600.0}]  # fmt: skip
    assert cli("policy", "set", "app:billing", "--not-before", "2d", "--expires", "1d").code == 2


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("vault",), 2),
        (("vault:x", "--method", "GET"), 2),
        (("secret", "--method", "GET"), 2),
        (("secret:", "--method", "GET"), 2),
        (("grant:x", "--method", "GET"), 2),
        (("user:a/b", "--method", "GET"), 2),
        (("secret:nothing", "--method", "GET"), 3),
        (("app:nothing", "--method", "GET"), 3),
        (("agent:billing", "--method", "GET"), 3),
        (("delegation:nothing", "--method", "GET"), 3),
        (("vault", "--method", "TRACE"), 2),
        (("vault", "--hours", "always"), 2),
        (("vault", "--max-body", "much"), 2),
        (("vault", "--content-type", "json"), 2),
        (("vault", "--not-before", "soon"), 2),
        (("vault", "--rate", "60"), 2),
        (("vault", "--rate", "0/minute"), 2),
        (("vault", "--rate", "10001/day"), 2),
        (("vault", "--rate", "1/minute", "--rate", "2/minute"), 2),
        (("vault", "--max-uses", "1/second"), 2),
        (("vault", "--max-uses", "-1"), 2),
        (("vault", "--max-uses", "1", "--max-uses", "2"), 2),
    ],
)
def test_what_is_wrong_changes_nothing(cli, stripe, args, code):
    ran = cli("policy", "set", *args)
    assert (ran.code, ran.out, bool(ran.error)) == (code, "", True)
    assert cli("policy", "show", "vault", "--json").json["policies"] == []


def test_policies_that_cannot_be_read_are_said_so_and_can_be_cleared(cli, home, stripe):
    with sqlite3.connect(home / "vault.db") as data:
        data.execute("""UPDATE meta SET value = '[["later", {}]]' WHERE name = 'policies'""")
    data.close()
    assert cli("policy", "show", "vault").code == 5
    assert cli("grant", "explain", stripe, "--url", CHARGES).code == 5
    assert cli("policy", "clear", "vault", "--yes").code == 0
    assert cli("grant", "explain", stripe, "--url", CHARGES).code == 0
