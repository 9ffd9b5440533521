"""
vault.db as a file: how it is created, opened and written.

* WAL only where the linked SQLite is free of the WAL-reset bug (>= 3.51.3), otherwise the rollback journal.
* Every write runs inside BEGIN IMMEDIATE: a deferred BEGIN that later upgrades fails under contention.
* The file is input we do not trust: no schema functions, strict cells, foreign keys on.
"""

import contextlib
import os
import sqlite3 as _stdlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlite_utils import Database
from sqlite_utils.utils import sqlite3  # type: ignore[attr-defined]  # pysqlite3 where it is installed

from addon import files
from addon.errors import Conflict, Corrupt, Fault, Locked
from addon.vault import migrations

Connection = _stdlib.Connection

SAFE_WAL = (3, 51, 3)
"""The first SQLite whose WAL survives a checkpoint that races a commit."""

ERRORS: tuple[type[Exception], ...] = (sqlite3.Error, _stdlib.Error, UnicodeDecodeError)
"""What the library raises; the last where the text of an error, or a name in it, comes from a damaged file."""


class Unanswered(Fault):
    """The vault cannot be read now, and may be later."""


def engine() -> tuple[str, bool]:
    """The version of SQLite in use, and whether its write-ahead log is safe to use."""
    return sqlite3.sqlite_version, sqlite3.sqlite_version_info >= SAFE_WAL


def create(path: Path) -> Database:
    """A new, migrated database at `path`, mode 0600. Raises Conflict if anything is there, Locked if it cannot be."""
    if path.exists() or path.is_symlink():
        raise Conflict(f"a vault exists already at {path.parent}", hint="use another --home, or move the old one away")
    files.create(path, b"")
    try:
        with contextlib.ExitStack() as undo:
            database = _connect(path)
            undo.callback(database.close)
            _choose_journal(database)
            migrate(database)
            undo.pop_all()
    except BaseException as error:
        discard(path)
        if isinstance(error, ERRORS):
            raise Locked("the vault cannot be written", hint="check the free space of the folder") from error
        raise
    return database


def connect(path: Path, *, writable: bool) -> Database:
    """
    The database at `path`, of exactly the format this software knows.

    Raises Locked if it is missing, unsafe, damaged, or of another format.
    """
    _check_file(path)
    try:
        with contextlib.ExitStack() as undo:
            database = _connect(path)
            undo.callback(database.close)
            if not writable:
                database.conn.execute("PRAGMA query_only = ON")
            _check_journal(database)
            migrations.check(database)
            undo.pop_all()
    except ERRORS as error:
        raise _unreadable(path) from error
    return database


def migrate(database: Database) -> None:
    """Apply the steps that are missing, all of them or none."""
    with write(database):
        migrations.MIGRATIONS.apply(database)


def upgrade(path: Path) -> tuple[str, ...]:
    """
    Bring the database at `path` to the format this software knows. Returns the names of the steps it took.

    Raises Locked as `connect` does, except for an older format.
    """
    _check_file(path)
    try:
        with contextlib.closing(_connect(path)) as database:
            steps = migrations.missing(database)
            if steps:
                migrate(database)
            return steps
    except ERRORS as error:
        raise _unreadable(path) from error


def copy(database: Database, path: Path) -> None:
    """One consistent copy as a new file, mode 0600, durable. Raises Conflict if anything is there, leaving nothing."""
    files.create(path, b"")
    try:
        database.conn.execute("VACUUM INTO ?", (str(path),))
    except ERRORS as error:
        path.unlink()
        raise Locked("the copy cannot be written", hint="check the free space of the folder") from error


def restore(path: Path, data: bytes) -> None:
    """
    Put the bytes of a copy in place at `path`, checked and brought up to date.

    Raises Conflict if anything is there, Corrupt for damage, Locked for what is no vault or a newer one; then nothing
    is left at `path`.
    """
    files.create(path, data)
    try:
        _check_whole(path)
        upgrade(path)
    except BaseException:
        discard(path)
        raise


def discard(path: Path) -> None:
    """Remove a database that was only just made, with what SQLite keeps beside it."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


@contextlib.contextmanager
def write(database: Database) -> Iterator[Connection]:
    """
    One write transaction: committed at the end of the block, rolled back by any exception.

    Raises Locked where the file cannot be written.
    """
    connection = database.conn
    try:
        connection.execute("BEGIN IMMEDIATE")
    except ERRORS as error:
        raise Locked("the vault is busy or cannot be written", hint="try again; check owner, mode and free disk space") from error  # fmt: skip
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        if isinstance(error, sqlite3.OperationalError) or type(error) is sqlite3.DatabaseError:
            raise Locked(
                "the vault could not be written, and is as it was",
                hint="check the free disk space, and that the file is undamaged",
            ) from error
        raise


def close(database: Database) -> None:
    """
    Close the file. What this connection wiped is then gone from it, and from the log beside it, unless others use it just then.

    Without this it would stay there for as long as a proxy has the file open.
    """
    with contextlib.suppress(*ERRORS):
        if database.conn.total_changes:
            database.conn.execute("PRAGMA busy_timeout = 0")
            database.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()


def _connect(path: Path) -> Database:
    connection = sqlite3.connect(str(path), isolation_level=None, timeout=5.0, cached_statements=256)
    try:
        for pragma in (
            "trusted_schema = OFF",
            "cell_size_check = ON",
            "foreign_keys = ON",
            "secure_delete = ON",
            "synchronous = FULL",
            "mmap_size = 0",
        ):
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return Database(connection, execute_plugins=False)


def _check_whole(path: Path) -> None:
    """Raises Corrupt unless the file is an undamaged database with the identity of a vault."""
    try:
        with contextlib.closing(_connect(path)) as database:
            sound = database.conn.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            named = database.conn.execute("SELECT 1 FROM meta WHERE name = 'vault_id'").fetchall()
            _choose_journal(database)
    except ERRORS:
        sound, named = False, []
    if not (sound and named):
        raise Corrupt("the file is damaged, or no backup of a vault", hint="take an older one")


def _choose_journal(database: Database) -> None:
    database.conn.execute(f"PRAGMA journal_mode = {'WAL' if engine()[1] else 'DELETE'}")


def _check_journal(database: Database) -> None:
    """The journal is the file's, and a newer SQLite may have chosen one that this one does not keep safely."""
    if not engine()[1] and database.conn.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
        raise Locked(
            f"the vault uses a write-ahead log, which SQLite {engine()[0]} can corrupt",
            hint="install pysqlite3, or a Python whose SQLite is 3.51.3 or later",
        )


def _unreadable(path: Path) -> Locked:
    return Locked(
        f"the vault at {path} cannot be read", hint="restore a backup; the file is damaged, locked or not a vault"
    )


def _check_file(path: Path) -> None:
    if not path.is_file() or path.is_symlink():
        raise Locked(f"no vault at {path.parent}", hint="make one with `vaultctl init`, or name another with --home")
    files.check_folder(path.parent)
    if path.stat().st_mode & 0o007:
        raise Locked(f"{path} is open to every user", hint=f"close it: chmod 600 {path}")
    if not os.access(path, os.R_OK):
        raise Locked(f"{path} cannot be read by this user", hint="run as the user or group that owns the vault")


def identity(path: Path) -> tuple[int, int] | None:
    """Which file is at `path`: another one, another value. None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def query(database: Database, sql: str, values: dict[str, Any] | tuple[()]) -> list[tuple[Any, ...]]:
    """Rows of one parameterised statement, read now. Raises Unanswered, which is a Fault."""
    try:
        return database.conn.execute(sql, values).fetchall()
    except ERRORS as error:
        raise Unanswered("vault_unavailable", type(error).__name__) from error
