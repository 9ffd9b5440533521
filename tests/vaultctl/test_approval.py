"""`approval`: what waits is shown, and answered once."""

import time

import pytest

from addon.vault import Vault
from addon.vault.approvals import Subject

ID = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def waiting(home, stripe):
    """`waiting(**changes)`: a request that waits; gives the id of its approval."""

    def waiting(*, seconds=60.0, **changes):
        vault, now = Vault.connect(home), time.time()
        subject = Subject("app:billing", "", stripe, "POST", "api.stripe.com", 443, b"/v1/refunds?id=7", "ab" * 32, "ticket 7")  # fmt: skip
        made = vault.approvals.ask(subject._replace(**changes), grant_id=stripe, now=now, expires_at=now + seconds)
        vault.close()
        return made.id

    return waiting


def test_what_waits_is_listed_without_its_query(cli, waiting):
    approval = waiting()
    [shown] = cli("approval", "list", "--json").json
    assert (shown["approval_id"], shown["state"], shown["caller"], shown["secret"]) == (approval, "pending", "app:billing", "stripe")  # fmt: skip
    assert (shown["method"], shown["host"], shown["path"], shown["reason"]) == ("POST", "api.stripe.com", "/v1/refunds", "ticket 7")  # fmt: skip
    text = cli("approval").out
    assert "POST api.stripe.com/v1/refunds" in text
    assert "id=7" not in text


def test_a_yes_names_who_gave_it(cli, waiting):
    approval = waiting()
    ran = cli("approval", "approve", approval, "--json")
    assert (ran.code, ran.json["state"], ran.json["lasts_until"]) == (0, "approved", None)
    assert ran.json["decided_by"].startswith("operator:")
    assert cli("approval", "list", "--state", "pending", "--json").json == []
    assert cli("approval", "show", approval, "--json").json == ran.json


def test_a_no_keeps_its_reason(cli, waiting):
    approval = waiting()
    assert cli("approval", "deny", approval, "--reason", "not at night").code == 0
    shown = cli("approval", "show", approval, "--json").json
    assert (shown["state"], shown["decided_reason"]) == ("denied", "not at night")


@pytest.mark.parametrize(("path", "under"), [((), "/v1/refunds"), (("--path", "/v1"), "/v1")])
def test_a_yes_may_be_for_alike_requests_for_a_time(cli, waiting, path, under):
    ran = cli("approval", "approve", waiting(), "--for", "10m", *path, "--json")
    assert (ran.code, ran.json["lasts_under"]) == (0, under)
    assert ran.json["lasts_until"] is not None


def test_a_path_with_a_star_is_no_prefix_unless_the_operator_says_so(cli, waiting):
    approval = waiting(target=b"/v1/*/refunds")
    ran = cli("approval", "approve", approval, "--for", "10m")
    assert (ran.code, "no prefix of its own" in ran.error) == (2, True)
    assert cli("approval", "show", approval, "--json").json["state"] == "pending"
    ran = cli("approval", "approve", approval, "--for", "10m", "--path", "/v1/*/refunds", "--json")
    assert (ran.code, ran.json["lasts_under"]) == (0, "/v1/*/refunds")


def test_apps_and_named_agents_become_approvers_and_cease_to_be(cli, stripe):
    assert cli("agent", "create", "helper").code == 0
    assert cli("approval", "approver", "list", "--json").json == []
    for named, whole in (("billing", "app:billing"), ("agent:helper", "agent:helper")):
        ran = cli("approval", "approver", "add", named, "--json")
        assert (ran.code, ran.json) == (0, {"caller": whole, "approver": True})
    found = cli("approval", "approver", "--json")
    assert found.code == 0
    assert [(each["caller"], each["state"]) for each in found.json] == [
        ("app:billing", "active"),
        ("agent:helper", "active"),
    ]
    assert "app:billing" in cli("approval", "approver", "list").out
    assert cli("approval", "approver", "remove", "app:billing", "--json").json == {
        "caller": "app:billing",
        "approver": False,
    }
    assert [each["caller"] for each in cli("approval", "approver", "list", "--json").json] == ["agent:helper"]


@pytest.mark.parametrize(("named", "code"), [("nobody", 3), ("helper", 3), ("user:acme/ada", 2), ("", 2)])
def test_an_approver_is_a_caller(cli, stripe, named, code):
    for verb in ("add", "remove"):
        assert cli("approval", "approver", verb, named).code == code
    assert cli("approval", "approver", "remove", "billing").code == 3


def test_an_answer_is_given_once(cli, waiting):
    approval = waiting()
    assert cli("approval", "deny", approval).code == 0
    for verb in ("approve", "deny"):
        assert cli("approval", verb, approval).code == 7
    assert cli("approval", "approve", waiting(seconds=-1.0)).code == 7


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("approve", ID), 3),
        (("deny", ID), 3),
        (("show", ID), 3),
        (("approve", ID, "--path", "/v1"), 2),
        (("approve", ID, "--for", "soon"), 3),
        (("list", "--state", "open"), 2),
    ],
)
def test_what_is_wrong_says_so(cli, stripe, args, code):
    ran = cli("approval", *args)
    assert (ran.code, bool(ran.error)) == (code, True)


def test_a_path_that_could_be_read_as_another_cannot_be_approved_for_a_time(cli, waiting):
    approval = waiting(target=b"/v1/../refunds")
    assert cli("approval", "approve", approval, "--for", "10m").code == 2
    assert cli("approval", "approve", approval).code == 0


def test_a_policy_asks_for_approval(cli, stripe):
    assert cli("policy", "set", "vault", "--approval").code == 0
    assert cli("policy", "show", "vault", "--json").json["policies"] == [{"kind": "approval", "seconds": 600}]
    assert cli("policy", "set", "vault", "--approval", "--approval-within", "2h").code == 0
    assert cli("policy", "show", "vault", "--json").json["policies"] == [{"kind": "approval", "seconds": 7200}]
    for args in (("--approval-within", "2h"), ("--approval", "--approval-within", "2d"), ("--approval", "--approval-within", "x")):  # fmt: skip
        assert cli("policy", "set", "vault", *args).code == 2


def test_an_explanation_says_that_a_person_is_asked(cli, stripe):
    assert cli("policy", "set", "vault", "--approval").code == 0
    ran = cli("grant", "explain", stripe, "--url", "https://api.stripe.com/v1", "--json")
    [step] = [step for step in ran.json["steps"] if step["detail"] == "vault.approval"]
    assert (ran.code, step["verdict"], step["compared"]) == (0, "passed", "approved by a person within 600 seconds")
    assert cli("approval", "list", "--json").json == []
