"""Who may decide about approvals: nobody, unless the operator says so."""

import pytest

from addon.errors import Fault, NotFound
from addon.vault import log


@pytest.fixture
def approvers(story):
    return story.vault.approvers


def test_nobody_is_one_by_itself(approvers):
    assert approvers.list() == []
    assert not any(approvers.includes(*who) for who in (("app", "billing"), ("agent", "helper"), ("app", "")))


@pytest.mark.parametrize("who", [("app", "billing"), ("agent", "helper")])
def test_one_is_added_and_removed(story, approvers, who):
    for _ in range(2):
        approvers.add(*who, now=story.now)
    assert [tuple(each) for each in approvers.list()] == [(*who, "active", story.now)]
    assert approvers.includes(*who)
    approvers.remove(*who, now=story.now)
    assert not approvers.includes(*who)
    with pytest.raises(NotFound, match="is no approver"):
        approvers.remove(*who, now=story.now)


def test_an_app_and_an_agent_of_one_name_are_two(story, approvers):
    story.vault.callers.create("agent", "billing", cidrs=(), now=story.now)
    approvers.add("app", "billing", now=story.now)
    assert not approvers.includes("agent", "billing")


def test_only_a_caller_can_be_one(story, approvers):
    for who in (("app", "nobody"), ("app", "helper"), ("agent", "billing")):
        with pytest.raises(NotFound):
            approvers.add(*who, now=story.now)
        with pytest.raises(NotFound):
            approvers.remove(*who, now=story.now)


def test_changes_are_in_the_admin_log(story, approvers):
    approvers.add("app", "billing", now=story.now)
    approvers.remove("app", "billing", now=story.now)
    told = [(each.action, each.subject) for each in log.entries(story.vault.database)[-2:]]
    assert told == [("approver.add", "app:billing"), ("approver.remove", "app:billing")]


def test_a_vault_that_cannot_tell_is_a_fault_and_not_a_no(story, approvers):
    story.vault.database.conn.execute("ALTER TABLE approvers RENAME TO lost")
    with pytest.raises(Fault, match="vault_unavailable"):
        approvers.includes("app", "billing")
