"""A version is destroyed when its grace is over, whether or not anybody changes a secret."""

import contextlib

import pytest

from addon.errors import Locked
from addon.pipeline import Refused
from addon.vault import Vault, database, log
from addon.vault.database import query


@pytest.fixture
def rotated(story):
    """The story, in which version 1 of `stripe` has a minute left."""
    story.vault.secrets.rotate("stripe", values={"token": "sk_live_second"}, now=story.now, grace=60.0)
    return story


@pytest.fixture
def reader(rotated):
    """The vault as a proxy has it open."""
    with contextlib.closing(Vault.connect(rotated.vault.home, writable=False)) as vault:
        yield vault


def versions(story):
    return [each.version for each in story.vault.secrets.get("stripe").versions]


@pytest.mark.parametrize(("later", "left"), [(59.9, [1, 2]), (60.0, [2]), (1e9, [2])])
def test_what_is_due_is_destroyed_with_all_that_belongs_to_it_and_nothing_else(rotated, reader, later, left):
    assert reader.destroy_expired(now=rotated.now + later) == 2 - len(left)
    assert versions(rotated) == left
    for table in ("wraps", "destinations"):
        sql = f"SELECT version FROM {table} t JOIN secrets s ON s.id = t.secret_id WHERE s.name = 'stripe'"
        assert [version for (version,) in query(rotated.vault.database, sql, {})] == left


def test_the_current_version_is_never_due(rotated, reader):
    rotated.vault.database.conn.execute("UPDATE versions SET destroys_at = 1.0")
    assert reader.destroy_expired(now=rotated.now) == 1
    assert versions(rotated) == [2]


@pytest.mark.parametrize("by", ["the proxy", "a rotation"])
def test_the_admin_log_tells_which_version_of_which_secret_went_and_when(rotated, reader, by):
    if by == "the proxy":
        reader.destroy_expired(now=rotated.now + 75.0)
    else:
        rotated.vault.secrets.rotate("openai", values={"token": "x"}, now=rotated.now + 75.0)
    told = [each for each in log.entries(rotated.vault.database) if each.action == "secret.expire"]
    assert [(each.subject, each.detail, each.at) for each in told] == [("stripe", {"version": 1}, rotated.now + 75.0)]
    assert rotated.vault.first_bad_change() is None


def test_where_nothing_is_due_nothing_is_written_nor_read_anew(rotated, reader):
    reader.destroy_expired(now=rotated.now + 75.0)
    before = query(rotated.vault.database, "PRAGMA data_version", ())
    with contextlib.closing(Vault.connect(rotated.vault.home)) as another:
        assert another.destroy_expired(now=rotated.now + 150.0) == 0
    assert query(rotated.vault.database, "PRAGMA data_version", ()) == before


def test_past_its_grace_a_version_is_used_by_nobody_and_still_recognised(rotated, reader):
    mine = [(b"X-Mine", rotated.canary.encode())]
    assert rotated.decide(later=90.0).grant.version == 2
    for _ in range(2):
        outcome = rotated.decide(later=90.0, headers=mine)
        assert isinstance(outcome, Refused)
        assert outcome.code == "secret_in_request"
        reader.destroy_expired(now=rotated.now + 90.0)
    assert versions(rotated) == [2]


def test_while_somebody_writes_it_has_to_wait_for_the_next_time(rotated, reader):
    with database.write(rotated.vault.database), pytest.raises(Locked):
        reader.destroy_expired(now=rotated.now + 60.0)
    assert versions(rotated) == [1, 2]
    reader.destroy_expired(now=rotated.now + 60.0)
    assert versions(rotated) == [2]
