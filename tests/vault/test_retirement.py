"""A version is destroyed when its grace is over, whether or not anybody changes or asks for anything."""

import threading

import pytest

from addon.pipeline import Refused
from addon.vault import Vault, log
from addon.vault.database import query
from addon.vault.retirement import Retirement


@pytest.fixture
def rotated(story):
    """The story, in which version 1 of `stripe` has a minute left."""
    story.vault.secrets.rotate("stripe", values={"token": "sk_live_second"}, now=story.now, grace=60.0)
    return story


def versions(story):
    return [each.version for each in story.vault.secrets.get("stripe").versions]


def look(story, *, later):
    Retirement(connect=lambda: Vault.connect(story.vault.home), clock=lambda: story.now + later).look()


@pytest.mark.parametrize(("later", "left"), [(59.9, [1, 2]), (60.0, [2]), (1e9, [2])])
def test_what_is_due_is_destroyed_and_nothing_else(rotated, later, left):
    look(rotated, later=later)
    assert versions(rotated) == left
    for table in ("wraps", "destinations"):
        sql = f"SELECT version FROM {table} t JOIN secrets s ON s.id = t.secret_id WHERE s.name = 'stripe'"
        assert [version for (version,) in query(rotated.vault.database, sql, {})] == left


def test_the_current_version_is_never_due(rotated):
    rotated.vault.database.conn.execute("UPDATE versions SET destroys_at = 1.0")
    look(rotated, later=0)
    assert versions(rotated) == [2]


def test_the_admin_log_tells_which_version_went_and_when(rotated):
    look(rotated, later=75.0)
    last = log.entries(rotated.vault.database)[-1]
    assert (last.action, last.subject, last.detail, last.at) == (
        "secret.destroy", "stripe", {"version": 1}, rotated.now + 75.0,
    )  # fmt: skip
    assert rotated.vault.first_bad_change() is None


def test_where_nothing_is_due_nothing_is_written(rotated):
    look(rotated, later=75.0)
    before = query(rotated.vault.database, "PRAGMA data_version", ())
    look(rotated, later=150.0)
    assert query(rotated.vault.database, "PRAGMA data_version", ()) == before


def test_a_version_past_its_grace_is_recognised_to_the_end_and_used_by_nobody(rotated):
    outcome = rotated.decide(later=90.0, headers=[(b"X-Mine", rotated.canary.encode())])
    assert isinstance(outcome, Refused)
    assert outcome.code == "secret_in_request"
    assert rotated.decide(later=90.0).grant.version == 2
    look(rotated, later=90.0)
    assert rotated.decide(later=90.0, headers=[(b"X-Mine", rotated.canary.encode())]).code == "secret_in_request"


def test_a_vault_that_cannot_be_written_is_complained_of_and_looked_at_again(rotated, caplog):
    ways = iter([Vault.connect(rotated.vault.home, writable=False), Vault.connect(rotated.vault.home)])
    retirement = Retirement(connect=lambda: next(ways), clock=lambda: rotated.now + 60.0)
    retirement.look()
    assert "versions whose grace is over cannot be destroyed" in caplog.text
    assert versions(rotated) == [1, 2]
    retirement.look()
    assert versions(rotated) == [2]


def test_it_looks_at_once_and_then_again_and_again(rotated):
    later, looked = iter([0.0, 30.0, 60.0]), threading.Semaphore(0)

    def clock():
        looked.release()
        return rotated.now + next(later, 60.0)

    retirement = Retirement(connect=lambda: Vault.connect(rotated.vault.home), clock=clock, pause=0.001)
    retirement.start()
    for _ in range(4):  # by the fourth, the third is over
        assert looked.acquire(timeout=30)
    retirement.stop()
    assert versions(rotated) == [2]
