"""Waiting for a person: until a yes, a no, too long, or nobody waits any more."""

import asyncio

import pytest

from addon import supervision
from addon.errors import Refusal
from addon.policies.policy import Ask
from addon.supervision import HELD_SECONDS, Pending, Question, read, settle
from addon.vault.approvals import Subject

ASK = Ask("grant.approval", 600)


class Clock:
    def __init__(self, now):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture
def clock(story, monkeypatch):
    """Time that passes only while somebody waits."""
    clock, sleep = Clock(story.now), asyncio.sleep

    async def pass_(seconds):
        clock.now += seconds
        await sleep(0)

    monkeypatch.setattr(supervision.asyncio, "sleep", pass_)
    return clock


@pytest.fixture
def subject(story):
    return Subject("app:billing", "", story.grants["stripe"], "POST", "api.stripe.test", 443, b"/v1/refunds", "ab" * 32)


@pytest.fixture
def wait(story, clock, subject):
    story.announced = []

    def wait(*, subject=subject, gone=lambda: False, **said):
        question = Question(**({"policy": "grant.approval", "seconds": 600, "approval_id": "", "later": False} | said))
        return settle(
            question,
            subject,
            grant_id=story.grants["stripe"],
            approvals=story.vault.approvals,
            clock=clock,
            gone=gone,
            announce=story.announced.append,
        )

    return wait


def answer(story, clock, decision, **how):
    """Answer whatever waits."""
    [pending] = story.vault.approvals.list(state="pending", now=clock.now)
    return story.vault.approvals.decide(pending.id, decision, by="operator:eve", now=clock.now, **how)


async def asked(story, clock, waiting):
    """The task of somebody who waits, once the question is there."""
    task = asyncio.ensure_future(waiting)
    while not story.vault.approvals.list(state="pending", now=clock.now):
        await asyncio.tasks.sleep(0)
    return task


@pytest.mark.parametrize(
    ("headers", "question"),
    [
        ([], Question("grant.approval", 600, "", False)),
        ([(b"Prefer", b"respond-async")], Question("grant.approval", 600, "", True)),
        ([(b"prefer", b"return=minimal, Respond-Async; x=1")], Question("grant.approval", 600, "", True)),
        ([(b"Prefer", b"respond-asynchronously")], Question("grant.approval", 600, "", False)),
        ([(b"X-Alter-Approval", b"0" * 36)], Question("grant.approval", 600, "0" * 36, False)),
    ],
)
def test_what_the_sender_says_of_the_answer(story, headers, question):
    assert read(story.request(headers=headers), [ASK, Ask("vault.approval", 900)]) == question


@pytest.mark.parametrize("values", [[b"0" * 36] * 2, [b""], [b"x" * 36], [b"0" * 37]])
def test_what_is_no_approval_is_refused(story, values):
    with pytest.raises(Refusal, match="approval_denied"):
        read(story.request(headers=[(b"X-Alter-Approval", value) for value in values]), [ASK])


def test_without_a_policy_nobody_is_asked(story):
    assert read(story.request(headers=[(b"X-Alter-Approval", b"nonsense")]), []) is None


async def test_a_request_is_held_until_the_yes(story, clock, wait):
    task = await asked(story, clock, wait())
    given = answer(story, clock, "approved")
    found = await task
    assert (found.id, found.decided_by) == (given.id, "operator:eve")
    assert story.vault.approvals.get(given.id).state(clock.now) == "used"


async def test_a_no_refuses(story, clock, wait):
    task = await asked(story, clock, wait())
    answer(story, clock, "denied")
    with pytest.raises(Refusal, match="approval_denied"):
        await task


async def test_nobody_is_held_for_longer_than_a_minute_and_the_question_ends_with_it(story, clock, wait):
    with pytest.raises(Refusal, match="approval_expired"):
        await wait()
    assert HELD_SECONDS <= clock.now - story.now < HELD_SECONDS + 1
    assert story.vault.approvals.list(state="pending", now=clock.now) == []


async def test_a_client_that_left_is_not_waited_for(story, clock, wait):
    with pytest.raises(Refusal):
        await wait(gone=lambda: True)
    assert clock.now == story.now


async def test_whoever_comes_back_later_is_told_the_id_at_once(story, clock, wait):
    with pytest.raises(Pending) as told:
        await wait(later=True)
    assert clock.now == story.now
    asked = told.value.approval
    assert asked.expires_at == story.now + 600
    with pytest.raises(Pending):
        await wait(later=True, approval_id=asked.id)
    assert story.announced == [asked]
    answer(story, clock, "approved")
    assert (await wait(later=True, approval_id=asked.id)).id == asked.id
    with pytest.raises(Refusal, match="approval_expired"):
        await wait(approval_id=asked.id)


async def test_whoever_comes_back_may_wait_a_minute_more(story, clock, wait):
    with pytest.raises(Pending) as told:
        await wait(later=True)
    with pytest.raises(Pending):
        await wait(approval_id=told.value.approval.id)
    assert clock.now - story.now >= HELD_SECONDS


async def test_the_id_of_another_request_is_a_no(story, clock, wait, subject):
    with pytest.raises(Pending) as told:
        await wait(later=True)
    answer(story, clock, "approved")
    for other in (subject._replace(body_sha256="cd" * 32), subject._replace(target=b"/v1/refunds?all=1")):
        with pytest.raises(Refusal, match="approval_denied"):
            await wait(subject=other, approval_id=told.value.approval.id)
    with pytest.raises(Refusal, match="approval_denied"):
        await wait(approval_id="0" * 36)


async def test_a_yes_for_a_time_lets_those_that_wait_and_those_that_come_through(story, clock, wait, subject):
    first = await asked(story, clock, wait())
    second = asyncio.ensure_future(wait(subject=subject._replace(body_sha256="cd" * 32)))
    while len(story.vault.approvals.list(state="pending", now=clock.now)) < 2:
        await asyncio.tasks.sleep(0)
    approval = story.vault.approvals.list()[0]
    story.vault.approvals.decide(approval.id, "approved", by="operator:eve", now=clock.now, lasts_until=clock.now + 600, prefix="/v1")  # fmt: skip
    assert {(await first).id, (await second).id} == {approval.id}
    assert (await wait(subject=subject._replace(target=b"/v1/other"))).id == approval.id
    assert len(story.vault.approvals.list()) == 2


async def test_of_two_that_bring_the_same_id_one_goes_through(story, clock, wait):
    with pytest.raises(Pending) as told:
        await wait(later=True)
    answer(story, clock, "approved")
    both = await asyncio.gather(*(wait(approval_id=told.value.approval.id) for _ in range(2)), return_exceptions=True)
    assert sorted(type(each).__name__ for each in both) == ["Approval", "Refusal"]
