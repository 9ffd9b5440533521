"""Approvals through a real proxy: held, or asked again later, and never more than was looked at."""

import concurrent.futures
import time

import pytest

from tests.e2e.stage import HOSTS, refusal

URL = f"https://{HOSTS['bearer']}/v1/refunds"


@pytest.fixture
def own(launch, engine):
    """A proxy on a vault of this test's own."""
    return launch(engine=engine, workers=2)


@pytest.fixture(params=[False, True], ids=["h1", "h2"])
def client(request, own):
    with own.client(http2=request.param) as client:
        yield client


@pytest.fixture
def tag(own):
    """The header that asks for a grant under approval, of which one use is allowed."""
    return {"X-Alter-Grant": own.vaultctl.grant("bearer", "system:billing", "--approval", "--max-uses", "1")}


@pytest.fixture
def later():
    """`later(function, …)` runs it beside the test."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        yield pool.submit


def waiting(stage):
    """The approval that waits, once there is one."""
    deadline = time.monotonic() + 10
    while not (found := stage.vaultctl.json("approval", "list", "--state", "pending")):
        assert time.monotonic() < deadline
    return found[0]


def test_a_request_is_held_until_somebody_says_yes(own, client, tag, upstream, later):
    answer = later(client.post, URL, headers=tag | {"X-Alter-Reason": "ticket 7"}, content=b"amount=5")
    shown = waiting(own)
    assert (shown["caller"], shown["method"], shown["host"], shown["path"], shown["reason"]) == ("app:billing", "POST", HOSTS["bearer"], "/v1/refunds", "ticket 7")  # fmt: skip
    assert upstream.untouched()
    own.vaultctl.run("approval", "approve", shown["approval_id"])
    assert answer.result().status_code == 200
    assert (upstream.last.body, upstream.last.header("x-alter-reason")) == (b"amount=5", None)
    record = own.audit(own.records()[-1]["id"])
    assert (record["approval_id"], record["decision"]) == (shown["approval_id"], "authorized")
    assert record["approved_by"].startswith("operator:")


def test_a_no_refuses_and_uses_up_nothing(own, client, tag, upstream, later):
    answer = later(client.get, URL, headers=tag)
    own.vaultctl.run("approval", "deny", waiting(own)["approval_id"])
    body = refusal(answer.result(), "approval_denied", status=403, stage=own)
    assert body["policy"] == own.audit(body["request_id"])["policy"] == "grant.approval"
    assert upstream.untouched()
    assert own.vaultctl("grant", "explain", tag["X-Alter-Grant"], "--url", URL).returncode == 0


def test_a_request_may_come_back_later_and_only_the_same_one(own, client, tag, upstream):
    headers = tag | {"Prefer": "respond-async"}
    answer = client.post(URL, headers=headers, content=b"amount=5")
    assert (answer.status_code, answer.json()["code"]) == (202, "approval_pending")
    bearing = headers | {"X-Alter-Approval": answer.json()["approval_id"]}
    assert client.post(URL, headers=bearing, content=b"amount=5").status_code == 202
    own.vaultctl.run("approval", "approve", bearing["X-Alter-Approval"])
    for changed in ({"content": b"amount=500"}, {"content": b"amount=5", "params": {"all": "1"}}):
        refusal(client.post(URL, headers=bearing, **changed), "approval_denied", status=403, stage=own)
    refusal(client.put(URL, headers=bearing, content=b"amount=5"), "approval_denied", status=403, stage=own)
    assert upstream.untouched()
    assert client.post(URL, headers=bearing, content=b"amount=5").status_code == 200
    assert upstream.last.header("x-alter-approval") is None
    assert client.post(URL, headers=bearing, content=b"amount=5").status_code == 429
    assert len(upstream.seen()) == 1


def test_an_approval_is_used_once(own, client, upstream):
    tag = {"X-Alter-Grant": own.vaultctl.grant("bearer", "system:billing", "--approval"), "Prefer": "respond-async"}
    bearing = tag | {"X-Alter-Approval": client.get(URL, headers=tag).json()["approval_id"]}
    own.vaultctl.run("approval", "approve", bearing["X-Alter-Approval"])
    assert client.get(URL, headers=bearing).status_code == 200
    refusal(client.get(URL, headers=bearing), "approval_expired", status=403, stage=own)
    assert len(upstream.seen()) == 1


def test_a_grant_that_is_revoked_while_a_request_waits_is_revoked(own, client, tag, upstream, later):
    answer = later(client.get, URL, headers=tag)
    shown = waiting(own)
    own.vaultctl.run("grant", "revoke", tag["X-Alter-Grant"])
    own.vaultctl.run("approval", "approve", shown["approval_id"])
    refusal(answer.result(), "grant_revoked", status=403, stage=own)
    assert upstream.untouched()
