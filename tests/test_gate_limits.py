"""What the gate gives back of limits: whatever a request took of which nothing left."""

import asyncio
import contextlib
import hashlib
import json

import pytest

from addon.errors import Fault
from addon.gate import Denial, Gate, Permit
from addon.settings import Settings
from addon.vault.ledger import Ledger


class NoSessions:
    """No secret of these tests is used through a role."""

    def concern(self, _):
        return False


class Log:
    """An audit log that records until it `breaks`."""

    breaks = None

    async def record(self, _):
        if self.breaks:
            raise self.breaks

    def post(self, _):
        pass


@pytest.fixture
def log():
    return Log()


@pytest.fixture
def gate(story, log, tmp_path):
    ledger = Ledger.open(story.vault.home / "limits.db")
    rules = (("quota", {"limits": ["1"]}), ("rate", {"limits": ["1/hour"]}))
    story.grants["once"] = story.vault.grants.issue("stripe", principal="system:billing", rules=rules, now=story.now).id
    asked = ("json", {"rules": ["n <= 5"]})
    story.grants["json"] = story.vault.grants.issue(
        "stripe", principal="system:billing", rules=(*rules, asked), now=story.now
    ).id
    settings = Settings(home=str(story.vault.home))
    yield Gate(
        settings,
        vault=story.vault,
        key_sets=None,
        audit=log,
        resolver=None,
        limits=ledger,
        sessions=NoSessions(),
        clock=lambda: story.now,
    )
    ledger.close()


@pytest.fixture
def enter(gate, story):
    async def enter():
        return await gate.enter(story.request(grant="once"))

    return enter


async def test_a_request_that_was_released_has_used_its_limit(gate, enter):
    permit = await enter()
    assert not isinstance(gate.release(permit), Denial)
    gate.leave(permit, status=None, code="interrupted")
    denial = await enter()
    assert (denial.answer.status, dict(denial.answer.headers)[b"RateLimit"]) == (429, b'"grant.quota";r=0')


@pytest.mark.parametrize("code", ["upstream_unverified", "upstream_unreachable", "body_too_large", "fault"])
async def test_one_that_is_abandoned_before_gives_it_back_once(gate, enter, code):
    for _ in range(3):
        permit = await enter()
        assert isinstance(permit, Permit)
        gate.abandon(permit, code)
        for _ in range(2):
            gate.leave(permit, status=502)
    assert isinstance(await enter(), Permit)
    assert isinstance(await enter(), Denial)


async def test_one_whose_client_left_before_gives_it_back(gate, enter):
    permit = await enter()
    gate.leave(permit, status=None, code="interrupted")
    assert isinstance(await enter(), Permit)


async def test_one_whose_secret_cannot_be_opened_gives_it_back(gate, enter, story):
    kept = story.vault.database.conn.execute("SELECT rowid, payload FROM versions").fetchall()
    story.vault.database.conn.execute("UPDATE versions SET payload = randomblob(200)")
    permit = await enter()
    assert gate.release(permit).answer.status == 503
    gate.leave(permit, status=503)
    for rowid, payload in kept:
        story.vault.database.conn.execute("UPDATE versions SET payload = ? WHERE rowid = ?", (payload, rowid))
    assert isinstance(await enter(), Permit)


@pytest.mark.parametrize("error", [Fault("audit_unavailable"), asyncio.CancelledError()])
async def test_one_that_cannot_be_recorded_gives_it_back(log, enter, error):
    log.breaks = error
    with contextlib.suppress(asyncio.CancelledError):
        assert (await enter()).answer.status == 503
    log.breaks = None
    assert isinstance(await enter(), Permit)


async def test_what_cannot_be_given_back_stays_used_and_harms_nobody(gate, enter, monkeypatch):
    def broken(*_):
        raise Fault("fault")

    permit = await enter()
    monkeypatch.setattr(Ledger, "give_back", broken)
    gate.leave(permit, status=None)
    assert (await enter()).answer.status == 429


async def test_without_a_ledger_a_limit_is_a_fault(gate, enter, monkeypatch):
    monkeypatch.setattr(gate, "_limits", None)
    assert (await enter()).answer.status == 503


# ── policies that look at the body ───────────────────────────────────────────────────────────────────────────────────

JSON = [(b"Content-Type", b"application/json")]


def digest(body):
    return hashlib.sha256(body).hexdigest()


@pytest.fixture
def judge(gate, story):
    """`judge(body)` brings a request with that body as far as a gate lets it: (permit, what it is answered at last)."""

    async def judge(body, *, grant="json", sent=None):
        permit = await gate.enter(story.request(grant=grant, method="POST", headers=JSON))
        assert permit.needs_body
        outcome = gate.hold(permit, len(body)) or gate.examine(permit, [body[:3], body[3:]])
        if outcome is None:
            outcome = gate.release(permit, body_sha256=digest(body if sent is None else sent))
        gate.leave(permit, status=None)
        return permit, outcome

    return judge


async def test_a_body_that_a_policy_refuses_gives_back_what_its_head_has_taken(judge):
    for body in (b'{"n": 6}', b'{"n": 1, "n": 1}', b"", b"x"):
        permit, denial = await judge(body)
        answer = json.loads(denial.answer.body)
        assert (denial.answer.status, answer["code"], answer["policy"]) == (403, "policy_denied", "grant.json")
        assert (permit.record.decision, permit.record.policy) == ("refused", "grant.json")
    assert not isinstance((await judge(b'{"n": 5}'))[1], Denial)


async def test_one_that_is_larger_than_is_looked_at_is_too_large_and_uses_up_nothing(judge):
    _, denial = await judge(b'{"n": 5}'.ljust((1 << 20) + 1))
    answer = json.loads(denial.answer.body)
    assert (denial.answer.status, answer["code"], answer["policy"]) == (413, "body_too_large", "grant.json")
    assert not isinstance((await judge(b'{"n": 5}'.ljust(1 << 20)))[1], Denial)


async def test_only_the_body_that_was_looked_at_is_released(gate, story, judge):
    _, denial = await judge(b'{"n": 5}', sent=b'{"n": 6}')
    assert denial.answer.status == 503
    for body_sha256 in (None, "", digest(b"")):
        permit = await gate.enter(story.request(grant="json", method="POST", headers=JSON))
        assert gate.release(permit, body_sha256=body_sha256).answer.status == 503
        gate.leave(permit, status=503)


async def test_a_policy_that_breaks_while_it_looks_refuses(judge, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError

    monkeypatch.setattr("addon.policies.json_members.read", broken)
    assert (await judge(b'{"n": 5}'))[1].answer.status == 503


async def test_what_nobody_looks_at_is_not_read(gate, enter):
    def pieces():
        raise AssertionError
        yield

    permit = await enter()
    assert not permit.needs_body
    assert gate.examine(permit, pieces()) is None


async def test_too_many_that_wait_for_a_person_are_told_when_to_try_again(gate, story, monkeypatch):
    rules = (("approval", {"seconds": 600}),)
    story.grants["asked"] = story.vault.grants.issue(
        "stripe", principal="system:billing", rules=rules, now=story.now
    ).id
    monkeypatch.setattr("addon.vault.approvals.MOST_PENDING", 1)
    answers = []
    for _ in range(2):
        permit = await gate.enter(story.request(grant="asked", headers=[(b"Prefer", b"respond-async")]))
        assert permit.needs_body
        answers.append((await gate.approve(permit, body_sha256="ab" * 32)).answer)
        gate.leave(permit, status=answers[-1].status)
    assert [each.status for each in answers] == [202, 429]
    assert dict(answers[1].headers)[b"Retry-After"] == b"10"


async def test_a_vault_that_cannot_take_the_question_refuses(gate, story, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError

    rules = (("approval", {"seconds": 600}),)
    story.grants["asked"] = story.vault.grants.issue(
        "stripe", principal="system:billing", rules=rules, now=story.now
    ).id
    monkeypatch.setattr(story.vault.approvals, "ask", broken)
    permit = await gate.enter(story.request(grant="asked"))
    assert (await gate.approve(permit, body_sha256="")).answer.status == 503
