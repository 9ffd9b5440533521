"""Approvals as they are kept: one yes, one use, of the very request that was looked at."""

import pytest

from addon.errors import Conflict, Fault, NotFound, Refusal
from addon.vault import log
from addon.vault.approvals import MOST_PENDING, Subject


@pytest.fixture
def subject(story):
    return Subject(
        caller="app:billing", user="", tag=story.grants["stripe"], method="POST", host="api.stripe.test", port=443,
        target=b"/v1/refunds?id=7", body_sha256="ab" * 32, reason="ticket 7",
    )  # fmt: skip


@pytest.fixture
def approvals(story):
    return story.vault.approvals


@pytest.fixture
def ask(story, approvals, subject):
    def ask(**changes):
        what = subject._replace(**changes)
        return approvals.ask(what, grant_id=story.grants["stripe"], now=story.now, expires_at=story.now + 60)

    return ask


def decide(story, approval, decision="approved", *, later=1.0, **how):
    return story.vault.approvals.decide(approval.id, decision, by="operator:eve", now=story.now + later, **how)


def test_what_is_asked_shows_the_request_and_not_its_query(story, ask):
    asked = ask()
    assert (asked.caller, asked.secret, asked.method, asked.host, asked.path) == ("app:billing", "stripe", "POST", "api.stripe.test", "/v1/refunds")  # fmt: skip
    assert (asked.reason, asked.body_sha256, asked.state(story.now)) == ("ticket 7", "ab" * 32, "pending")
    assert "id=7" not in repr(asked)
    assert story.vault.approvals.list(state="pending", now=story.now) == [asked]


def test_a_yes_lets_the_request_through_once(story, approvals, ask, subject):
    asked = ask()
    assert not approvals.use(asked.id, subject, now=story.now)
    decide(story, asked)
    assert approvals.get(asked.id).state(story.now + 2) == "approved"
    assert approvals.use(asked.id, subject, now=story.now + 2)
    assert not approvals.use(asked.id, subject, now=story.now + 2)
    assert approvals.get(asked.id).state(story.now + 2) == "used"


@pytest.mark.parametrize(
    "change",
    [
        {"caller": "app:other"}, {"user": "user:acme/ada"}, {"tag": "another"}, {"method": "PUT"}, {"host": "evil.test"},
        {"port": 8443}, {"target": b"/v1/refunds?id=8"}, {"target": b"/v1/refunds"}, {"body_sha256": "cd" * 32},
    ],
    ids=str,
)  # fmt: skip
def test_no_other_request_can_use_it(story, approvals, ask, subject, change):
    asked = ask()
    decide(story, asked)
    assert not approvals.use(asked.id, subject._replace(**change), now=story.now + 2)
    assert approvals.use(asked.id, subject._replace(reason="another reason"), now=story.now + 2)


def test_a_no_is_for_good(story, approvals, ask, subject):
    asked = ask()
    decide(story, asked, "denied", reason="not today")
    assert approvals.get(asked.id).decided_reason == "not today"
    assert not approvals.use(asked.id, subject, now=story.now + 2)
    with pytest.raises(Conflict, match="is denied"):
        decide(story, asked)


def test_it_ends_by_itself_before_and_after_the_answer(story, approvals, ask, subject):
    first, second = ask(), ask()
    with pytest.raises(Conflict, match="is expired"):
        decide(story, first, later=60)
    decide(story, second, later=59)
    assert not approvals.use(second.id, subject, now=story.now + 60)


def test_an_answer_is_in_the_admin_log_with_who_gave_it(story, ask):
    asked = ask()
    decide(story, asked)
    last = log.entries(story.vault.database)[-1]
    assert (last.action, last.subject, last.detail["by"]) == ("approval.approved", asked.id, "operator:eve")


def test_alike_requests_go_through_for_a_time_where_that_was_said(story, approvals, ask, subject):
    decide(story, ask(), lasts_until=story.now + 600, prefix="/v1/refunds")

    def lasting(*, later=500.0, **changes):
        return approvals.lasting(subject._replace(**changes), now=story.now + later) is not None

    assert lasting()
    assert lasting(target=b"/v1/refunds/9?x=y", body_sha256="")
    assert not lasting(later=600.0)
    for change in (
        {"target": b"/v1/refunds2"}, {"target": b"/v1/refunds/../charges"}, {"method": "PUT"}, {"caller": "app:other"},
        {"user": "user:acme/ada"}, {"tag": "another"}, {"host": "files.stripe.test"}, {"port": 8443},
    ):  # fmt: skip
        assert not lasting(**change), change


def test_one_yes_alone_lasts_no_longer_than_its_request(story, approvals, ask, subject):
    decide(story, ask())
    assert approvals.lasting(subject, now=story.now + 2) is None


def test_only_so_many_of_a_caller_wait(story, ask):
    waiting = [ask() for _ in range(MOST_PENDING)]
    with pytest.raises(Refusal, match="rate_limited") as too_many:
        ask()
    assert too_many.value.retry_after == 10
    assert ask(caller="app:other")
    decide(story, waiting[0], "denied")
    assert ask()


def test_it_goes_with_its_grant(story, approvals, ask):
    ask()
    story.vault.secrets.delete("stripe", now=story.now)
    assert approvals.list() == []


def test_what_was_never_asked_is_not_found(story, approvals, subject):
    with pytest.raises(NotFound):
        approvals.get("nothing")
    assert not approvals.use("nothing", subject, now=story.now)


def test_a_vault_that_cannot_be_written_is_a_fault(story, approvals, ask, subject):
    asked = ask()
    approvals._connected().conn.execute("PRAGMA query_only = ON")
    with pytest.raises(Fault):
        ask()
    with pytest.raises(Fault):
        approvals.use(asked.id, subject, now=story.now)
