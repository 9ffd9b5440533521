"""Decisions over HTTP: by an approver, about what waits, never about its own requests, and the first one stands."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from addon import pipeline, selfservice
from addon.errors import Fault, Refusal
from addon.pipeline import Local
from addon.selfservice import HOST, SelfService
from addon.vault import Vault, log
from addon.vault.approvals import Subject

JSON = (b"Content-Type", b"application/json")
NOBODY = "00000000-0000-4000-8000-000000000000"


class Counter:
    """Where approvers ask: `chatbot` is one, and so is the agent `reviewer`; `billing` waits."""

    def __init__(self, story):
        self.story, self.vault = story, story.vault
        self.service = SelfService(self.vault)
        for caller_type, name in (("app", "chatbot"), ("agent", "reviewer")):
            _, story.keys[name] = self.vault.callers.create(caller_type, name, cidrs=(), now=story.now)
            self.vault.approvers.add(caller_type, name, now=story.now)

    def waiting(self, *, after=0.0, **changes):
        subject = Subject(
            caller="app:billing", user="", tag=self.story.grants["stripe"], method="POST", host="api.stripe.test", port=443,
            target=b"/v1/refunds?id=7", body_sha256="ab" * 32, reason="ticket 7",
        )._replace(**changes)  # fmt: skip
        now = self.story.now + after
        return self.vault.approvals.ask(
            subject, grant_id=self.story.grants["stripe"], now=now, expires_at=self.story.now + 60.0
        ).id

    def ask(self, method, path, *, caller="chatbot", body=b"", later=1.0, headers=(JSON,), service=None):
        """(status, document), or (0, code) for a refusal."""
        request = self.story.request(
            grant=None, caller=caller, url=f"https://{HOST}{path}", method=method, headers=list(headers)
        )
        local = pipeline.receive(request, vault=self.vault, now=self.story.now, key_sets=None)
        if not isinstance(local, Local):
            return 0, local.code
        try:
            answer = (service or self.service).answer(request, body, caller=local.caller, now=self.story.now + later)
        except Refusal as refusal:
            return 0, refusal.code
        return answer.status, json.loads(answer.body)

    def decide(self, approval, decision="approve", *, raw=None, caller="chatbot", later=1.0, **members):
        body = json.dumps({"decision": decision} | members).encode() if raw is None else raw
        return self.ask("POST", f"/v1/approvals/{approval}", caller=caller, body=body, later=later)

    def state(self, approval, *, later=2.0):
        return self.vault.approvals.get(approval).state(self.story.now + later)


@pytest.fixture
def counter(story):
    return Counter(story)


def test_an_approver_sees_what_waits_oldest_first_and_neither_query_nor_body(counter):
    first, second = counter.waiting(), counter.waiting(caller="app:other", method="PUT", after=0.5)
    counter.decide(counter.waiting(), "deny")
    status, document = counter.ask("GET", "/v1/approvals")
    assert (status, [each["approval_id"] for each in document["approvals"]]) == (200, [first, second])
    shown = document["approvals"][0]
    assert (shown["caller"], shown["method"], shown["host"], shown["path"], shown["reason"], shown["state"]) == ("app:billing", "POST", "api.stripe.test", "/v1/refunds", "ticket 7", "pending")  # fmt: skip
    assert "id=7" not in json.dumps(document)
    assert counter.ask("GET", "/v1/approvals", later=60.0)[1] == {"approvals": []}


@pytest.mark.parametrize(("caller", "by"), [("chatbot", "app:chatbot"), ("reviewer", "agent:reviewer")])
def test_a_yes_is_the_approvers_and_for_one_use(counter, caller, by):
    approval = counter.waiting()
    status, document = counter.decide(approval, caller=caller, reason="asked ada")
    assert (status, document["state"], document["decided_by"], document["decided_reason"]) == (200, "approved", by, "asked ada")  # fmt: skip
    assert (document["lasts_until"], document["lasts_under"]) == (None, None)
    entry = log.entries(counter.vault.database)[-1]
    assert (entry.action, entry.subject, entry.detail["by"]) == ("approval.approved", approval, by)


def test_a_no_is_for_good(counter):
    approval = counter.waiting()
    assert counter.decide(approval, "deny", reason="not at night")[1]["state"] == "denied"
    assert counter.decide(approval) == (0, "approval_closed")
    assert counter.state(approval) == "denied"


def test_a_yes_may_be_for_alike_requests_for_a_time(counter):
    document = counter.decide(counter.waiting(), **{"for": 600})[1]
    assert (document["lasts_until"], document["lasts_under"]) == (counter.story.now + 601.0, "/v1/refunds")


@pytest.mark.parametrize("target", [b"/v1/*/refunds", b"/*", b"/v1/%2e%2e/x", b"/v1//x", b"/v1/;x"])
def test_a_path_that_would_stand_for_others_is_approved_once_or_not_at_all(counter, target):
    approval = counter.waiting(target=target)
    assert counter.decide(approval, **{"for": 600}) == (0, "request_malformed")
    assert counter.state(approval) == "pending"
    assert counter.decide(approval)[0] == 200


@pytest.mark.parametrize("caller", ["billing", "other", "helper"])
def test_nobody_else_decides_or_learns_what_there_is(counter, caller):
    approval = counter.waiting()
    assert counter.ask("GET", "/v1/approvals", caller=caller) == (0, "approver_required")
    for asked in (approval, NOBODY):
        assert counter.decide(asked, caller=caller) == (0, "approver_required")
    assert counter.state(approval) == "pending"
    assert counter.decide(approval, caller=None) == (0, "caller_required")


def test_an_approver_never_decides_about_its_own_request(counter):
    own = counter.waiting(caller="app:chatbot")
    assert counter.ask("GET", "/v1/approvals") == (200, {"approvals": []})
    for decision in ("approve", "deny"):
        assert counter.decide(own, decision) == (0, "approver_required")
    assert counter.state(own) == "pending"
    assert counter.decide(own, caller="reviewer")[0] == 200
    agents = counter.waiting(caller="agent:reviewer")
    assert counter.decide(agents, caller="reviewer") == (0, "approver_required")


def test_the_key_of_a_session_decides_nothing(counter):
    approval = counter.waiting()
    _, counter.story.keys["run"] = counter.vault.callers.mint_key("app", "chatbot", now=counter.story.now, session=True)
    assert counter.decide(approval, caller="run") == (0, "approver_required")
    assert counter.ask("GET", "/v1/approvals", caller="run") == (0, "approver_required")


def test_taking_it_away_holds_for_the_very_next_decision(counter):
    approval = counter.waiting()
    counter.vault.approvers.remove("app", "chatbot", now=counter.story.now)
    assert counter.decide(approval) == (0, "approver_required")
    counter.vault.approvers.add("app", "chatbot", now=counter.story.now)
    counter.vault.callers.set_state("app", "chatbot", "disabled", now=counter.story.now)
    assert counter.decide(approval) == (0, "caller_invalid")
    assert counter.state(approval) == "pending"


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"nonsense", b"[]", b'"approve"', b"{}", b'{"decision": null}', b'{"decision": "yes"}', b'{"decision": "approved"}',
        b'{"decision": ["approve"]}', b'{"decision": "deny", "decision": "approve"}', b'{"decision": "approve", "by": "operator:root"}',
        b'{"decision": "approve", "for": 0}', b'{"decision": "approve", "for": -1}', b'{"decision": "approve", "for": 86401}',
        b'{"decision": "approve", "for": "600"}', b'{"decision": "approve", "for": 1.5}', b'{"decision": "approve", "for": true}',
        b'{"decision": "deny", "for": 600}', b'{"decision": "deny", "reason": 1}', b'{"decision": "deny", "reason": "a\\nb"}',
        b'{"decision": "deny", "reason": "' + b"x" * 513 + b'"}',
    ],
)  # fmt: skip
def test_what_is_no_decision_decides_nothing(counter, raw):
    approval = counter.waiting()
    assert counter.decide(approval, raw=raw) == (0, "request_malformed")
    assert counter.state(approval) == "pending"


def test_a_decision_is_said_to_be_json(counter):
    path, body = f"/v1/approvals/{counter.waiting()}", b'{"decision": "approve"}'
    for headers in ((), ((b"Content-Type", b"text/plain"),), (JSON, JSON)):
        assert counter.ask("POST", path, body=body, headers=headers) == (0, "request_malformed")


def test_what_is_over_or_was_never_asked_is_not_decided(counter):
    approval = counter.waiting()
    assert counter.decide(NOBODY) == (0, "not_found")
    for method, path in (("GET", f"/v1/approvals/{approval}"), ("POST", f"/v1/approvals/{approval}?x"), ("POST", "/v1/approvals"), ("DELETE", f"/v1/approvals/{approval}"), ("POST", "/v1/approvals/x")):  # fmt: skip
        assert counter.ask(method, path) == (0, "not_found")
    assert counter.decide(approval, later=60.0) == (0, "approval_closed")


def test_one_that_was_used_is_not_decided_again(counter):
    approval = counter.waiting()
    counter.decide(approval)
    subject = Subject("app:billing", "", counter.story.grants["stripe"], "POST", "api.stripe.test", 443, b"/v1/refunds?id=7", "ab" * 32)  # fmt: skip
    assert counter.vault.approvals.use(approval, subject, now=counter.story.now + 2)
    for decision in ("approve", "deny"):
        assert counter.decide(approval, decision, later=3.0) == (0, "approval_closed")
    assert not counter.vault.approvals.use(approval, subject, now=counter.story.now + 3)


def test_of_many_decisions_at_once_one_stands(counter):
    approval = counter.waiting()
    path = f"/v1/approvals/{approval}"

    def decide(number):
        vault = Vault.connect(counter.vault.home)
        body = json.dumps({"decision": "approve" if number % 2 else "deny", "reason": str(number)}).encode()
        request = counter.story.request(grant=None, caller="chatbot", url=f"https://{HOST}{path}", method="POST", headers=[JSON])  # fmt: skip
        try:
            local = pipeline.receive(request, vault=vault, now=counter.story.now, key_sets=None)
            service = SelfService(vault)
            answer = service.answer(request, body, caller=local.caller, now=counter.story.now + 1)
            return json.loads(answer.body)["decided_reason"]
        except (Refusal, Fault) as no:
            return no.code
        finally:
            if service._writer is not None:
                service._writer.close()
            vault.close()

    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(decide, range(16)))
    won = [each for each in told if each.isdecimal()]
    assert len(won) == 1
    assert counter.vault.approvals.get(approval).decided_reason == won[0]
    assert {*told} - {*won} <= {"approval_closed", "vault_unavailable"}


def test_a_vault_that_cannot_be_written_is_a_fault(counter):
    approval = counter.waiting()
    counter.service._changes().database.conn.execute("PRAGMA query_only = ON")
    with pytest.raises(Fault, match="vault_unavailable"):
        counter.decide(approval)
    assert counter.state(approval) == "pending"


def test_every_answer_has_the_members_that_are_described(counter):
    schema = selfservice.openapi()["components"]["schemas"]["Approval"]
    approval = counter.waiting()
    listed = counter.ask("GET", "/v1/approvals")[1]["approvals"][0]
    decided = counter.decide(approval)[1]
    for document in (listed, decided):
        assert set(document) == set(schema["required"]) == set(schema["properties"])
