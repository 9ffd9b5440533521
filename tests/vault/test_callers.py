"""Apps and agents, and their keys: shown once, kept as digests, and off at once."""

import math

import pytest

from addon.callers import key as keys
from addon.errors import Conflict, NotFound, Usage
from addon.vault.database import query

NOW = 1_800_000_000.0


@pytest.fixture
def callers(story):
    return story.vault.callers


def everything(story):
    """All that the vault holds, as bytes and text."""
    tables = [
        name for (name,) in query(story.vault.database, "SELECT name FROM sqlite_schema WHERE type = 'table'", {})
    ]
    return repr([query(story.vault.database, f'SELECT * FROM "{name}"', {}) for name in tables])


@pytest.mark.parametrize(("caller_type", "key_type"), [("app", "app"), ("agent", "agt")])
def test_a_caller_begins_with_one_key_of_its_type(callers, caller_type, key_type):
    key_id, text = callers.create(caller_type, "new", cidrs=("10.0.0.0/8",), now=NOW)
    member = callers.get(caller_type, "new")
    assert (member.type, member.name, member.state, member.cidrs, member.created_at) == (
        caller_type, "new", "active", ("10.0.0.0/8",), NOW,
    )  # fmt: skip
    assert keys.parse(text).type == key_type
    assert [key.id for key in callers.keys(caller_type, "new")] == [key_id]


def test_a_key_is_kept_as_its_digest_alone(story):
    kept = everything(story)
    for text in story.keys.values():
        assert text not in kept
        assert text.split("_")[2] not in kept
        assert repr(keys.parse(text).digest) in kept


def test_a_name_is_used_once_for_each_type(callers):
    for name in ("billing", "helper"):
        with pytest.raises(Conflict) as refused:
            callers.create("app" if name == "billing" else "agent", name, cidrs=(), now=NOW)
        assert "key create" in refused.value.hint
    callers.create("agent", "billing", cidrs=(), now=NOW)


@pytest.mark.parametrize(
    ("name", "cidrs"), [("a b", ()), ("", ()), ("a:b", ()), ("new", ("10.0.0.1/8",)), ("new", ("",))]
)
def test_what_cannot_work_leaves_nothing(callers, name, cidrs):
    with pytest.raises(Usage):
        callers.create("app", name, cidrs=cidrs, now=NOW)
    assert [member.name for member in callers.list("app")] == ["billing", "other"]


def test_keys_overlap_so_that_they_can_be_changed(callers):
    first = callers.keys("app", "billing")[0].id
    second, _ = callers.mint_key("app", "billing", now=NOW + 1, expires_at=NOW + 60)
    session, text = callers.mint_key("app", "billing", now=NOW + 2, session=True, grants=("g",))
    listed = callers.keys("app", "billing")
    assert [(key.id, key.type, key.expires_at, key.grants) for key in listed] == [
        (first, "app", None, ()), (second, "app", NOW + 60, ()), (session, "run", None, ("g",)),
    ]  # fmt: skip
    assert keys.parse(text).type == "run"


def test_only_keys_that_work_now_are_counted_and_sessions_are_not(callers):
    expiring, _ = callers.mint_key("app", "billing", now=NOW, expires_at=NOW + 60)
    callers.mint_key("app", "billing", now=NOW, session=True)

    def count(now):
        return {member.name: member.keys for member in callers.list("app", now=now)}["billing"]

    assert (count(NOW), count(NOW + 60)) == (2, 1)
    callers.revoke_key("app", expiring, now=NOW)
    assert count(NOW) == 1


@pytest.mark.parametrize("expires_at", [NOW, NOW - 1, 0.0, -math.inf, math.nan])
def test_a_key_that_would_never_work_or_never_end_by_accident_is_not_made(callers, expires_at):
    before = callers.keys("app", "billing")
    with pytest.raises(Usage, match="expire at once"):
        callers.mint_key("app", "billing", now=NOW, expires_at=expires_at)
    assert callers.keys("app", "billing") == before


def test_the_first_revocation_of_a_key_is_the_one_that_counts(callers):
    key_id = callers.keys("app", "billing")[0].id
    callers.revoke_key("app", key_id, now=NOW + 1)
    callers.revoke_key("app", key_id, now=NOW + 2)
    assert callers.keys("app", "billing")[0].revoked_at == NOW + 1


def test_a_key_is_revoked_under_the_type_of_its_caller(callers):
    key_id = callers.keys("app", "billing")[0].id
    for caller_type, unknown in (("agent", key_id), ("app", "key_0"), ("app", ""), ("app", "%")):
        with pytest.raises(NotFound):
            callers.revoke_key(caller_type, unknown, now=NOW)
    assert callers.keys("app", "billing")[0].revoked_at is None


def test_disabling_stops_all_keys_and_enabling_brings_them_back(story, callers):
    _, session = callers.mint_key("app", "billing", now=NOW, session=True)
    callers.set_state("app", "billing", "disabled", now=NOW)
    for key in (story.keys["billing"], session):
        assert story.decide(caller=key).code == "caller_invalid"
    callers.set_state("app", "billing", "active", now=NOW)
    for key in (story.keys["billing"], session):
        assert story.decide(caller=key).record.decision == "authorized"


@pytest.mark.parametrize(
    ("caller_type", "name"), [("app", "helper"), ("agent", "billing"), ("app", "Billing"), ("app", "")]
)
def test_a_caller_that_is_not_there_is_not_found(callers, caller_type, name):
    for attempt in (
        lambda: callers.get(caller_type, name),
        lambda: callers.keys(caller_type, name),
        lambda: callers.mint_key(caller_type, name, now=NOW),
        lambda: callers.set_state(caller_type, name, "disabled", now=NOW),
    ):
        with pytest.raises(NotFound) as refused:
            attempt()
        assert f"vaultctl {caller_type} create" in refused.value.hint
