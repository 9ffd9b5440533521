"""vault.db as a file: who may open it, what is left when something fails, and that writers wait for each other."""

import contextlib
import os
import sqlite3
import stat
import subprocess
import sys

import pytest

from addon.errors import Conflict, Fault, Locked
from addon.vault import database
from addon.vault.database import connect, create, query, write


@pytest.fixture
def path(tmp_path):
    tmp_path.chmod(0o700)
    return tmp_path / "vault.db"


@pytest.fixture
def made(path):
    """A new database, open."""
    data = create(path)
    yield data
    data.close()


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


# ── the file ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_file_and_all_that_sqlite_puts_beside_it_are_closed_to_others(path, made):
    os.umask(0)
    try:
        with write(made) as connection:
            connection.execute("INSERT INTO meta (name, value) VALUES ('a', 'b')")
            beside = names(path.parent)
            assert {mode(entry) for entry in path.parent.iterdir()} == {0o600}
    finally:
        os.umask(0o077)
    assert {"vault.db"} < set(beside)


def test_every_table_is_strict(made):
    tables = query(made, "SELECT name, strict FROM pragma_table_list WHERE schema = 'main' AND type = 'table'", {})
    ours = {name: strict for name, strict in tables if not name.startswith(("sqlite_", "_sqlite"))}
    assert len(ours) > 8
    assert set(ours.values()) == {1}


def test_the_connection_trusts_nothing_and_forgets_nothing(made):
    def pragma(name):
        return made.conn.execute(f"PRAGMA {name}").fetchone()[0]

    assert pragma("journal_mode") == ("wal" if database.engine()[1] else "delete")
    assert (pragma("trusted_schema"), pragma("cell_size_check"), pragma("mmap_size")) == (0, 1, 0)
    assert (pragma("foreign_keys"), pragma("secure_delete"), pragma("synchronous")) == (1, 1, 2)


def test_a_reader_cannot_write(path, made):
    with contextlib.closing(connect(path, writable=False)) as reader:
        assert query(reader, "SELECT count(*) FROM meta WHERE name <> 'policies'", {}) == [(0,)]
        with pytest.raises(database.ERRORS, match="readonly"):
            reader.conn.execute("INSERT INTO meta (name, value) VALUES ('a', 'b')")


def test_nothing_is_overwritten(path):
    for occupy in (lambda: path.write_bytes(b"precious"), lambda: path.symlink_to("nowhere"), path.mkdir):
        occupy()
        with pytest.raises(Conflict):
            create(path)
        assert names(path.parent) == ["vault.db"]
        path.rmdir() if path.is_dir() else path.unlink()


@pytest.mark.parametrize("step", ["_connect", "_choose_journal", "migrate"])
@pytest.mark.parametrize(
    "error", [KeyboardInterrupt, database.ERRORS[0]("disk I/O error")], ids=["interrupted", "no disk"]
)
def test_a_database_that_could_not_be_finished_leaves_nothing(path, monkeypatch, step, error):
    def broken(*_):
        raise error

    monkeypatch.setattr(database, step, broken)
    with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else Locked):
        create(path)
    assert names(path.parent) == []


# ── opening ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def nothing(path):
    path.unlink()


def link(path):
    path.rename(path.with_name("elsewhere.db"))
    path.symlink_to("elsewhere.db")


def folder(path):
    path.unlink()
    path.mkdir()


def pipe(path):
    path.unlink()
    os.mkfifo(path)


def truncated(path):
    path.write_bytes(path.read_bytes()[:700])


def garbage(path):
    path.write_bytes(os.urandom(8192))


def other_database(path):
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE meta (name TEXT, value TEXT)")
    path.chmod(0o600)


UNUSABLE = {
    "missing": nothing,
    "a symbolic link": link,
    "a folder": folder,
    "a pipe": pipe,
    "open to others": lambda path: path.chmod(0o604),
    "in a folder open to others": lambda path: path.parent.chmod(0o705),
    "empty": lambda path: path.write_bytes(b""),
    "truncated": truncated,
    "garbage": garbage,
    "another database": other_database,
}


@pytest.mark.parametrize("spoil", UNUSABLE.values(), ids=UNUSABLE)
@pytest.mark.parametrize("writable", [True, False])
def test_a_file_that_cannot_be_trusted_is_not_opened(path, spoil, writable):
    create(path).close()
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    spoil(path)
    try:
        with pytest.raises(Locked) as refused:
            connect(path, writable=writable)
        assert refused.value.hint
    finally:
        path.parent.chmod(0o700)


def test_an_sqlite_that_can_corrupt_a_write_ahead_log_never_uses_one(path, monkeypatch):
    monkeypatch.setattr(database, "engine", lambda: ("3.40.1", False))
    with contextlib.closing(create(path)) as made:
        assert made.conn.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    connect(path, writable=True).close()


@pytest.mark.skipif(not database.engine()[1], reason="needs an SQLite that may make one")
def test_an_sqlite_that_can_corrupt_a_write_ahead_log_opens_no_vault_that_has_one(path, monkeypatch):
    create(path).close()
    monkeypatch.setattr(database, "engine", lambda: ("3.51.2", False))
    with pytest.raises(Locked, match=r"3\.51\.2 can corrupt"):
        connect(path, writable=True)


@pytest.mark.parametrize(
    ("version", "safe"),
    [((3, 40, 1), False), ((3, 51, 2), False), ((3, 51, 3), True), ((3, 53, 4), True), ((4, 0, 0), True)],
)
def test_the_first_safe_sqlite_is_known(version, safe):
    assert (version >= database.SAFE_WAL) is safe


def test_a_connection_that_is_refused_is_closed(path, monkeypatch):
    create(path).close()
    opened = []
    original = database._connect
    monkeypatch.setattr(database, "_connect", lambda path: opened.append(original(path)) or opened[-1])
    monkeypatch.setattr("addon.vault.migrations.check", lambda _: (_ for _ in ()).throw(Locked("x", hint="y")))
    with pytest.raises(Locked):
        connect(path, writable=True)
    with pytest.raises(database.ERRORS, match="closed"):
        opened[0].conn.execute("SELECT 1")


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def count(data):
    return query(data, "SELECT count(*) FROM meta WHERE name <> 'policies'", {})[0][0]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_write_that_is_broken_off_never_happened(made, error):
    with pytest.raises(error), write(made) as connection:
        connection.execute("INSERT INTO meta (name, value) VALUES ('a', 'b')")
        raise error
    assert count(made) == 0
    with write(made) as connection:
        connection.execute("INSERT INTO meta (name, value) VALUES ('a', 'b')")
    assert count(made) == 1


def test_a_full_disk_is_told_in_words_and_nothing_is_changed(made):
    made.conn.execute(f"PRAGMA max_page_count = {made.conn.execute('PRAGMA page_count').fetchone()[0]}")
    with pytest.raises(Locked, match="is as it was") as refused, write(made) as connection:
        connection.execute("INSERT INTO meta (name, value) VALUES ('a', hex(zeroblob(200000)))")
    assert "disk" in refused.value.hint
    assert count(made) == 0


def test_a_damaged_page_is_told_in_words(path, made):
    with write(made) as connection:
        connection.executemany("INSERT INTO meta (name, value) VALUES (?, 'x')", [(str(n) * 50,) for n in range(3000)])
    made.close()
    data = bytearray(path.read_bytes())
    data[len(data) // 2 :] = b"\xff" * (len(data) - len(data) // 2)
    path.write_bytes(data)
    spoiled = database._connect(path)
    with contextlib.closing(spoiled), pytest.raises(Locked), write(spoiled) as connection:
        connection.execute("DELETE FROM meta")


def test_a_mistake_of_ours_is_not_called_a_full_disk(made):
    with pytest.raises(database.ERRORS, match="UNIQUE"), write(made) as connection:
        connection.execute("INSERT INTO meta (name, value) VALUES ('a', 'b'), ('a', 'c')")


def test_a_writer_that_waits_too_long_is_told_to_try_again(path, made):
    with contextlib.closing(connect(path, writable=True)) as second:
        second.conn.execute("PRAGMA busy_timeout = 20")
        with write(made), pytest.raises(Locked, match="busy"), write(second):
            pytest.fail("two writers at once")
        with write(second) as connection:
            connection.execute("INSERT INTO meta (name, value) VALUES ('a', 'b')")
    assert count(made) == 1


def test_a_reader_sees_a_commit_with_its_next_statement_and_nothing_before(path, made):
    with contextlib.closing(connect(path, writable=False)) as reader:
        with write(made) as connection:
            connection.execute("INSERT INTO meta (name, value) VALUES ('a', 'b')")
            assert count(reader) == 0
        assert count(reader) == 1


def test_a_statement_that_cannot_be_answered_is_a_fault(made):
    with pytest.raises(Fault, match=r"^vault_unavailable: OperationalError$"):
        query(made, "SELECT * FROM nowhere", {})
    made.close()
    with pytest.raises(Fault, match="vault_unavailable"):
        query(made, "SELECT 1", {})


WRITER = """
import sys, time
from pathlib import Path
from addon.vault import database, log
path, who = Path(sys.argv[1]), sys.argv[2]
data = database.connect(path, writable=True)
for n in range(50):
    with database.write(data) as connection:
        log.append(connection, at=float(n), action="test", subject=who, n=n)
data.close()
"""


def test_four_processes_write_at_once_and_all_succeed(path, made):
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(n)], stderr=subprocess.PIPE) for n in range(4)
    ]
    errors = [writer.communicate(timeout=60)[1].decode() for writer in writers]
    assert [(writer.returncode, error) for writer, error in zip(writers, errors, strict=True)] == [(0, "")] * 4
    rows = query(made, "SELECT subject, count(*) FROM admin_log GROUP BY subject", {})
    assert rows == [(str(n), 50) for n in range(4)]
    assert query(made, "PRAGMA integrity_check", {}) == [("ok",)]
