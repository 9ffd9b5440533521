"""Approvals through a real proxy: held, or asked again later, and never more than was looked at."""

import concurrent.futures
import contextlib
import hashlib
import hmac
import json
import queue
import secrets
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from addon.vault import Vault
from tests.e2e.stage import HOSTS, refusal

URL = f"https://{HOSTS['bearer']}/echo"


@pytest.fixture(params=[False, True], ids=["h1", "h2"])
def http2(request):
    return request.param


@pytest.fixture
def client(stage, http2):
    with stage.client(http2=http2) as client:
        yield client


@pytest.fixture
def tag(stage):
    """The header that asks for a grant under approval, of which one use is allowed."""
    return {"X-Alter-Grant": stage.vaultctl.grant("bearer", "system:billing", "--approval", "--max-uses", "1")}


@pytest.fixture
def later():
    """`later(function, …)` runs it beside the test."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        yield pool.submit


def waiting(stage, tag):
    """The approval that waits, once there is one."""
    deadline = time.monotonic() + 10
    while True:
        for found in stage.vaultctl.json("approval", "list", "--state", "pending"):
            if found["grant_id"] == tag["X-Alter-Grant"]:
                return found
        assert time.monotonic() < deadline


def test_a_request_is_held_until_somebody_says_yes(stage, client, tag, upstream, later):
    answer = later(client.post, URL, headers=tag | {"X-Alter-Reason": "ticket 7"}, content=b"amount=5")
    shown = waiting(stage, tag)
    assert (shown["caller"], shown["method"], shown["host"], shown["path"], shown["reason"]) == ("app:billing", "POST", HOSTS["bearer"], "/echo", "ticket 7")  # fmt: skip
    assert upstream.untouched()
    stage.vaultctl.run("approval", "approve", shown["approval_id"])
    assert answer.result().status_code == 200
    assert (upstream.last.body, upstream.last.header("x-alter-reason")) == (b"amount=5", None)
    record = stage.audit(stage.records(grant=tag["X-Alter-Grant"])[-1]["id"])
    assert (record["approval_id"], record["decision"]) == (shown["approval_id"], "authorized")
    assert record["approved_by"].startswith("operator:")


def test_a_no_refuses_and_uses_up_nothing(stage, client, tag, upstream, later):
    answer = later(client.get, URL, headers=tag)
    stage.vaultctl.run("approval", "deny", waiting(stage, tag)["approval_id"])
    body = refusal(answer.result(), "approval_denied", status=403, stage=stage)
    assert body["policy"] == stage.audit(body["request_id"])["policy"] == "grant.approval"
    assert upstream.untouched()
    assert stage.vaultctl("grant", "explain", tag["X-Alter-Grant"], "--url", URL).returncode == 0


def test_a_request_may_come_back_later_and_only_the_same_one(stage, client, tag, upstream):
    headers = tag | {"Prefer": "respond-async"}
    answer = client.post(URL, headers=headers, content=b"amount=5")
    assert (answer.status_code, answer.json()["code"]) == (202, "approval_pending")
    bearing = headers | {"X-Alter-Approval": answer.json()["approval_id"]}
    assert client.post(URL, headers=bearing, content=b"amount=5").status_code == 202
    stage.vaultctl.run("approval", "approve", bearing["X-Alter-Approval"])
    for changed in ({"content": b"amount=500"}, {"content": b"amount=5", "params": {"all": "1"}}):
        refusal(client.post(URL, headers=bearing, **changed), "approval_denied", status=403, stage=stage)
    refusal(client.put(URL, headers=bearing, content=b"amount=5"), "approval_denied", status=403, stage=stage)
    assert upstream.untouched()
    assert client.post(URL, headers=bearing, content=b"amount=5").status_code == 200
    assert upstream.last.header("x-alter-approval") is None
    assert client.post(URL, headers=bearing, content=b"amount=5").status_code == 429
    assert len(upstream.seen()) == 1


def test_an_approval_is_used_once(stage, client, upstream):
    tag = {"X-Alter-Grant": stage.vaultctl.grant("bearer", "system:billing", "--approval"), "Prefer": "respond-async"}
    bearing = tag | {"X-Alter-Approval": client.get(URL, headers=tag).json()["approval_id"]}
    stage.vaultctl.run("approval", "approve", bearing["X-Alter-Approval"])
    assert client.get(URL, headers=bearing).status_code == 200
    refusal(client.get(URL, headers=bearing), "approval_expired", status=403, stage=stage)
    assert len(upstream.seen()) == 1


def test_a_grant_that_is_revoked_while_a_request_waits_is_revoked(stage, client, tag, upstream, later):
    answer = later(client.get, URL, headers=tag)
    shown = waiting(stage, tag)
    stage.vaultctl.run("grant", "revoke", tag["X-Alter-Grant"])
    stage.vaultctl.run("approval", "approve", shown["approval_id"])
    refusal(answer.result(), "grant_revoked", status=403, stage=stage)
    assert upstream.untouched()


@pytest.fixture
def bot():
    """Somebody else's program on this machine; `told` is what it was sent."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            server.told.put((self.headers["X-Alter-Signature"], body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.told = queue.Queue()
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_bot_is_told_what_waits_and_can_tell_that_it_is_true(launch, engine, bot, upstream):
    stage = launch(f"--approval-webhook=http://127.0.0.1:{bot.server_port}/", engine=engine)
    headers = {
        "X-Alter-Grant": stage.vaultctl.grant("bearer", "system:billing", "--approval"),
        "Prefer": "respond-async",
    }
    with stage.client() as client:
        answer = client.post(URL, headers=headers, content=b"amount=5")
    signature, body = bot.told.get(timeout=10)
    assert json.loads(body)["approval_id"] == answer.json()["approval_id"]
    key = (stage.vaultctl.home / "webhook.key").read_bytes().strip()
    at, value = (part.partition("=")[2] for part in signature.split(","))
    assert hmac.compare_digest(hmac.new(key, at.encode() + b"." + body, hashlib.sha256).hexdigest(), value)
    assert b"amount" not in body


# ── decided by an app ────────────────────────────────────────────────────────────────────────────────────────────────

PENDING = "https://alter.internal/v1/approvals"


@pytest.fixture
def chatbot(stage):
    """The name and key of an app that is an approver."""
    name, now = f"chatbot-{secrets.token_hex(4)}", time.time()
    with contextlib.closing(Vault.connect(stage.vaultctl.home)) as vault:  # each command would be a process
        _, key = vault.callers.create("app", name, cidrs=(), now=now)
        vault.approvers.add("app", name, now=now)
    return name, key


@pytest.fixture
def bots(stage, chatbot, http2):
    """The approver's own client."""
    with stage.proxy.client(*chatbot, http2=http2) as client:
        yield client


def asked(bots, tag):
    """What the approver finds waiting under a grant, once it is there."""
    deadline = time.monotonic() + 10
    while True:
        for found in bots.get(PENDING).json()["approvals"]:
            if found["grant_id"] == tag["X-Alter-Grant"]:
                return found
        assert time.monotonic() < deadline


def test_a_request_that_waits_goes_out_once_when_an_approver_says_so(
    stage, client, bots, chatbot, tag, upstream, later
):
    answer = later(client.post, URL, headers=tag | {"X-Alter-Reason": "ticket 7"}, content=b"amount=5")
    shown = asked(bots, tag)
    assert (shown["caller"], shown["method"], shown["host"], shown["path"], shown["reason"]) == ("app:billing", "POST", HOSTS["bearer"], "/echo", "ticket 7")  # fmt: skip
    assert upstream.untouched()
    decided = bots.post(f"{PENDING}/{shown['approval_id']}", json={"decision": "approve", "reason": "asked ada"})
    assert (decided.status_code, decided.json()["state"], decided.json()["decided_by"]) == (200, "approved", f"app:{chatbot[0]}")  # fmt: skip
    assert answer.result().status_code == 200
    assert [seen.body for seen in upstream.seen()] == [b"amount=5"]
    record = stage.audit(stage.records(grant=tag["X-Alter-Grant"])[-1]["id"])
    assert (record["approval_id"], record["approved_by"], record["decision"]) == (shown["approval_id"], f"app:{chatbot[0]}", "authorized")  # fmt: skip
    again = bots.post(f"{PENDING}/{shown['approval_id']}", json={"decision": "deny"})
    refusal(again, "approval_closed", status=409, stage=stage)
    own = stage.audit(decided.headers["x-alter-request-id"])
    assert (own["caller"], own["host"], own["path"], own["status"]) == (f"app:{chatbot[0]}", "alter.internal", f"/v1/approvals/{shown['approval_id']}", 200)  # fmt: skip


def test_its_no_refuses(stage, client, bots, tag, upstream, later):
    answer = later(client.get, URL, headers=tag)
    shown = asked(bots, tag)
    assert bots.post(f"{PENDING}/{shown['approval_id']}", json={"decision": "deny"}).status_code == 200
    refusal(answer.result(), "approval_denied", status=403, stage=stage)
    assert upstream.untouched()


def test_neither_the_one_that_waits_nor_one_that_is_no_approver_any_more_decides(
    stage, client, bots, chatbot, tag, upstream
):
    headers = tag | {"Prefer": "respond-async"}
    url = f"{PENDING}/{client.get(URL, headers=headers).json()['approval_id']}"
    stage.vaultctl.run("approval", "approver", "add", "billing")
    try:
        refusal(client.post(url, json={"decision": "approve"}), "approver_required", status=403, stage=stage)
        assert tag["X-Alter-Grant"] not in client.get(PENDING).text
    finally:
        stage.vaultctl.run("approval", "approver", "remove", "billing")
    stage.vaultctl.run("approval", "approver", "remove", chatbot[0])
    refusal(bots.post(url, json={"decision": "approve"}), "approver_required", status=403, stage=stage)
    with stage.proxy.client() as nobody:
        refusal(nobody.post(url, json={"decision": "approve"}), "caller_required", status=407)
    assert client.get(URL, headers=headers | {"X-Alter-Approval": url.rpartition("/")[2]}).status_code == 202
    assert upstream.untouched()


def test_a_yes_of_an_approver_may_be_for_a_time(stage, client, bots, upstream, later):
    tag = {"X-Alter-Grant": stage.vaultctl.grant("bearer", "system:billing", "--approval")}
    headers = tag | {"Prefer": "respond-async"}
    approval = client.get(URL, headers=headers).json()["approval_id"]
    assert bots.post(f"{PENDING}/{approval}", json={"decision": "approve", "for": 60}).json()["lasts_under"] == "/echo"
    assert client.get(f"{URL}?x=1", headers=headers).status_code == 200
    assert client.post(URL, headers=headers).status_code == 202
    assert len(upstream.seen()) == 1
