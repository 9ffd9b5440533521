"""The admin log: every change is in it, in the same transaction, and none can be edited away."""

import os
import pwd

import pytest

from addon.errors import NotFound
from addon.vault import log
from addon.vault.database import query, write


@pytest.fixture
def data(story):
    return story.vault.database


def actions(data):
    return [(entry.action, entry.subject) for entry in log.entries(data)]


def test_every_change_is_logged_with_its_subject(story, data):
    vault, now = story.vault, story.now
    before = len(log.entries(data))
    vault.secrets.rotate("stripe", values={"token": "new"}, now=now)
    vault.secrets.rollback("stripe", now=now)
    vault.secrets.set_state("stripe", "disabled", now=now)
    vault.secrets.set_state("stripe", "active", now=now)
    key_id, _ = vault.callers.mint_key("app", "billing", now=now)
    vault.callers.revoke_key("app", key_id, now=now)
    vault.callers.set_state("app", "billing", "disabled", now=now)
    grant = vault.grants.issue("openai", principal="agent:helper", now=now).id
    vault.grants.revoke(ids=(grant,), now=now, reason="test")
    vault.secrets.delete("stripe", now=now)
    assert actions(data)[before:] == [
        ("secret.rotate", "stripe"),
        ("secret.rollback", "stripe"),
        ("secret.disable", "stripe"),
        ("secret.enable", "stripe"),
        ("key.create", "billing"),
        ("app.key.revoke", "billing"),
        ("app.disable", "billing"),
        ("grant.issue", grant),
        ("grant.revoke", grant),
        ("secret.delete", "stripe"),
    ]
    assert log.first_bad(data) is None


def test_what_did_not_happen_is_not_logged(story, data):
    before = actions(data)
    with pytest.raises(NotFound):
        story.vault.grants.revoke(ids=(story.grants["stripe"], "0" * 36), now=story.now)
    with pytest.raises(NotFound):
        story.vault.secrets.rollback("stripe", now=story.now)
    assert actions(data) == before


def test_no_value_is_in_the_log(story, data):
    story.vault.secrets.rotate("stripe", values={"token": "rotated-canary"}, now=story.now)
    text = repr(log.entries(data))
    for value in (story.canary, "rotated-canary", *story.keys.values()):
        assert value not in text


def test_the_actor_is_whom_the_system_says_and_not_whom_the_environment_says(monkeypatch):
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "somebody-else")
    assert log.actor() == pwd.getpwuid(os.getuid()).pw_name


def test_a_user_without_a_name_is_a_number(monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: 987_654)
    assert log.actor() == "uid:987654"


EDITS = [
    "UPDATE admin_log SET at = at + 1 WHERE seq = 3",
    "UPDATE admin_log SET actor = 'nobody' WHERE seq = 3",
    "UPDATE admin_log SET action = 'secret.delete' WHERE seq = 3",
    "UPDATE admin_log SET subject = subject || ' ' WHERE seq = 3",
    "UPDATE admin_log SET detail = '{}' WHERE seq = 3",
    "UPDATE admin_log SET hash = zeroblob(32) WHERE seq = 3",
    "UPDATE admin_log SET action = action || substr(subject, 1, 1), subject = substr(subject, 2) WHERE seq = 3",
]


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_entry_is_found(data, edit):
    data.conn.execute(edit)
    assert log.first_bad(data) == 3


def test_a_deleted_entry_is_found(data):
    for seq, found in ((4, 5), (1, 2)):
        data.conn.execute("DELETE FROM admin_log WHERE seq = ?", (seq,))
        assert log.first_bad(data) == found


def test_exchanged_entries_are_found(data):
    data.conn.execute("UPDATE admin_log SET seq = -seq WHERE seq IN (2, 3)")
    data.conn.execute("UPDATE admin_log SET seq = CASE seq WHEN -2 THEN 3 ELSE 2 END WHERE seq < 0")
    assert log.first_bad(data) == 2


def test_an_inserted_entry_is_found(data):
    columns = "at, actor, action, subject, detail, hash"
    data.conn.execute(f"INSERT INTO admin_log (seq, {columns}) SELECT 0, {columns} FROM admin_log WHERE seq = 1")
    assert log.first_bad(data) == 0


def test_an_entry_belongs_to_its_transaction(data):
    before = actions(data)
    with pytest.raises(ValueError, match="no"), write(data) as connection:
        log.append(connection, at=1.0, action="test", subject="x")
        raise ValueError("no")
    assert actions(data) == before


def test_entries_are_numbered_without_gaps(data):
    seqs = [seq for (seq,) in query(data, "SELECT seq FROM admin_log ORDER BY seq", {})]
    assert seqs == list(range(1, len(seqs) + 1))
