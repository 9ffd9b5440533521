"""
The admin log: who changed what in the vault, written in the same transaction as the change, hash-chained.

    hash = SHA256(previous hash ‖ PAE(seq, at, actor, action, subject, detail))

Details are names, ids and counts; never values.
"""

import hashlib
import json
import os
import pwd
from dataclasses import dataclass
from typing import Any

from sqlite_utils import Database

from addon.vault.database import Connection, query
from addon.vault.seal import pae


@dataclass(frozen=True, slots=True)
class Entry:
    """One change. `at` is seconds since the epoch, UTC."""

    seq: int
    at: float
    actor: str
    action: str
    subject: str
    detail: dict[str, Any]


def append(connection: Connection, *, at: float, action: str, subject: str, **detail: object) -> None:
    """Add an entry inside the caller's write transaction."""
    row = connection.execute("SELECT seq, hash FROM admin_log ORDER BY seq DESC LIMIT 1").fetchone()
    seq, previous = (row[0] + 1, row[1]) if row else (1, b"")
    who, text = actor(), json.dumps(detail, separators=(",", ":"), sort_keys=True)
    connection.execute(
        "INSERT INTO admin_log (seq, at, actor, action, subject, detail, hash) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (seq, at, who, action, subject, text, _chain(previous, seq, at, who, action, subject, text)),
    )


def entries(database: Database) -> list[Entry]:
    """All entries, oldest first."""
    rows = query(database, "SELECT seq, at, actor, action, subject, detail FROM admin_log ORDER BY seq", {})
    return [Entry(seq, at, who, action, subject, json.loads(detail)) for seq, at, who, action, subject, detail in rows]


def first_bad(database: Database) -> int | None:
    """The `seq` of the first entry that breaks the chain, or None."""
    previous, expected = b"", 1
    for *fields, stored in query(database, "SELECT seq, at, actor, action, subject, detail, hash FROM admin_log ORDER BY seq", {}):  # fmt: skip
        if fields[0] != expected or _chain(previous, *fields) != stored:
            return int(fields[0])
        previous, expected = stored, expected + 1
    return None


def actor() -> str:
    """The operating system's name for whoever runs this."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name  # not getpass.getuser(), which believes $LOGNAME
    except KeyError:
        return f"uid:{os.getuid()}"


def _chain(previous: bytes, seq: int, at: float, *texts: str) -> bytes:
    fields = (str(seq), repr(float(at)), *texts)
    return hashlib.sha256(previous + pae(*(field.encode() for field in fields))).digest()
