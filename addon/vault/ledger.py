"""
What requests have used up: `limits.db`, beside the vault and written by the proxy alone.

All limits of a request are counted in one BEGIN IMMEDIATE transaction, all of them or none, so a limit is exact however
many workers share it, and a request that one limit refuses uses up nothing of the others. A crash of the proxy loses
nothing; a power failure may lose the last moments.

* A rate remembers every request of its window: no burst at an edge, as counters per window would let through.
* A rate is measured on a clock of its own, which goes on only by time that surely has passed (`_elapsed`): setting the
  clock of the machine changes nothing, and a reboot or suspend only makes it wait longer.
* A quota counts in periods of the calendar, in UTC, by the clock of the machine. It never goes back to a period that was
  over, so a clock that is set back gives nothing back.
"""

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from sqlite_utils import Database
from sqlite_utils.utils import sqlite3  # type: ignore[attr-defined]  # pysqlite3 where it is installed

from addon import files
from addon.errors import Conflict, Fault, Locked, Refusal
from addon.model import Clock
from addon.policies.policy import Due
from addon.vault.database import ERRORS, Connection, engine

FILE = "limits.db"

_FORMAT = 1
_LONGEST = 86_400.0
_WAIT_SECONDS = 2.0
"""The event loop waits with us: a ledger that others hold for longer gets the request refused."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS clock (id INTEGER PRIMARY KEY CHECK (id = 1), at REAL NOT NULL, ticks REAL NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS hits (id INTEGER PRIMARY KEY, key TEXT NOT NULL, at REAL NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS hits_by_key ON hits (key, at);
CREATE TABLE IF NOT EXISTS counts (key TEXT PRIMARY KEY, start REAL NOT NULL, used INTEGER NOT NULL) STRICT, WITHOUT ROWID
"""


class Mark(NamedTuple):
    """
    One limit that was counted: `place` is when on the clock of the rates, or in which period of the quota.

    `used` counts this request, too; only a preview tells it of a rate.
    """

    due: Due
    place: float
    used: int
    hit: int | None = None

    @property
    def told(self) -> str:
        """How much of it is used, this request included."""
        amount, unit, _ = self.due.limit
        return f"{self.used} of {amount}" + (f" in this {unit}" if unit else "")


Receipt = tuple[Mark, ...]


class Ledger:
    """
    The counts of one installation, shared by all its workers.

    `ticks` is a clock that all of them share and that never goes back while the machine runs.
    """

    def __init__(self, data: Database, *, ticks: Clock) -> None:
        self._database = data
        self._ticks = ticks

    @classmethod
    def open(cls, path: Path, *, ticks: Clock = time.monotonic) -> "Ledger":
        """The ledger at `path`, made if there is none. Raises Locked."""
        with contextlib.suppress(Conflict):
            files.create(path, b"")
        try:
            ledger = cls(_connect(path), ticks=ticks)
            ledger._prepare()
        except ERRORS as error:
            raise Locked(f"{path} cannot be used", hint="check its owner, its mode and the free space; if it is damaged, move it away, and all counts begin anew") from error  # fmt: skip
        return ledger

    def take(self, dues: Sequence[Due], *, now: float) -> Receipt:
        """
        Count one request at `now` (seconds since the epoch) against all limits, or against none of them.

        Raises Refusal `rate_limited` or `quota_exceeded` for the one to be waited for longest, Fault if it cannot be told.
        """
        with self._writing() as connection:
            at = self._advance(connection)
            _judge(connection, dues, at=at, now=now)
            return tuple(_count(connection, due, at=at, now=now) for due in dues)

    def give_back(self, receipt: Receipt) -> None:
        """Undo `take` for a request of which nothing left. Raises Fault."""
        with self._writing() as connection:
            for mark in receipt:
                if mark.hit is not None:
                    connection.execute("DELETE FROM hits WHERE id = ? AND key = ? AND at = ?", (mark.hit, mark.due.key, mark.place))  # fmt: skip
                else:
                    connection.execute("UPDATE counts SET used = used - 1 WHERE key = ? AND start = ? AND used > 0", (mark.due.key, mark.place))  # fmt: skip

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _prepare(self) -> None:
        connection = self._database.conn
        connection.execute(f"PRAGMA journal_mode = {'WAL' if engine()[1] else 'DELETE'}")
        connection.execute("BEGIN IMMEDIATE")
        if connection.execute("PRAGMA user_version").fetchone()[0] not in {0, _FORMAT}:
            connection.execute("ROLLBACK")
            raise Locked("the ledger of limits has a newer format than this software", hint="upgrade alter-egress here")
        for statement in _SCHEMA.split(";\n"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {_FORMAT}")
        connection.execute("INSERT OR IGNORE INTO clock (id, at, ticks) VALUES (1, 0, ?)", (self._ticks(),))
        connection.execute("DELETE FROM hits WHERE at <= ?", (self._advance(connection) - _LONGEST,))
        connection.execute("COMMIT")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Connection]:
        connection = self._database.conn
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
        except ERRORS as error:
            raise Fault("fault", f"limits cannot be counted: {type(error).__name__}") from error

    def _advance(self, connection: Connection) -> float:
        """The time on the clock of the rates. Ticks are read under the lock, so nobody else has stored later ones."""
        at, ticks = _elapsed(connection, self._ticks)
        connection.execute("UPDATE clock SET at = ?, ticks = ?", (at, ticks))
        return at


class Preview:
    """What a ledger would say, for an explanation: counts nothing. A ledger that is not there (None) has counted nothing."""

    def __init__(self, path: Path | None, *, ticks: Clock = time.monotonic) -> None:
        self._path = path
        self._ticks = ticks

    def take(self, dues: Sequence[Due], *, now: float) -> Receipt:
        """As `Ledger.take`."""
        if self._path is None or not self._path.exists():
            return tuple(Mark(due, now, 1) for due in dues)
        try:
            with contextlib.closing(_connect(self._path)) as data:
                data.conn.execute("PRAGMA query_only = ON")
                data.conn.execute("BEGIN")
                at, _ = _elapsed(data.conn, self._ticks)
                _judge(data.conn, dues, at=at, now=now)
                return tuple(Mark(due, now, _used(data.conn, due, at=at, now=now) + 1) for due in dues)
        except ERRORS as error:
            raise Fault("fault", f"limits cannot be read: {type(error).__name__}") from error


def _connect(path: Path) -> Database:
    connection = sqlite3.connect(str(path), isolation_level=None, timeout=_WAIT_SECONDS)
    try:
        for pragma in ("trusted_schema = OFF", "synchronous = NORMAL", "mmap_size = 0"):
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return Database(connection, execute_plugins=False)


def _elapsed(connection: Connection, clock: Clock) -> tuple[float, float]:
    """
    Where the clock of the rates stands now, and the ticks by which that is known.

    Ticks that are lower than before began anew with a reboot; since then at least so much has passed. Were they higher
    after a reboot, the difference would still be less than what has passed.
    """
    at, before = connection.execute("SELECT at, ticks FROM clock").fetchone()
    ticks = clock()
    return float(at + (ticks - before if ticks >= before else ticks)), ticks


def _judge(connection: Connection, dues: Sequence[Due], *, at: float, now: float) -> None:
    """Raises Refusal unless every limit has room for one more."""
    waits = [(wait, due) for due in dues if (wait := _wait(connection, due, at=at, now=now)) > 0]
    if not waits:
        return
    wait, due = max(waits, key=lambda each: each[0])
    amount, unit, sliding = due.limit
    seconds = sliding or (_end(unit, now) - _start(unit, now) if unit else None)
    raise Refusal(
        "rate_limited" if sliding else "quota_exceeded",
        policy=due.policy,
        retry_after=None if math.isinf(wait) else math.ceil(wait),
        limit=(amount, None if seconds is None else int(seconds)),
        found=f"{_used(connection, due, at=at, now=now)} of {amount} used" + (f" in this {unit}" if unit else ""),
        remedy="a new grant, or a higher limit" if math.isinf(wait) else f"it passes in {math.ceil(wait)} seconds",
    )


def _wait(connection: Connection, due: Due, *, at: float, now: float) -> float:
    """Seconds until there is room; 0 where there is, infinite where there never will be."""
    amount, unit, sliding = due.limit
    if sliding:
        full = connection.execute(
            "SELECT at FROM hits WHERE key = ? AND at > ? ORDER BY at DESC LIMIT 1 OFFSET ?",
            (due.key, at - sliding, amount - 1),
        ).fetchone()
        return float(full[0] + sliding - at) if full else 0.0
    if _used(connection, due, at=at, now=now) < amount:
        return 0.0
    return _end(unit, _period(connection, due, now=now)) - now if unit else math.inf


def _used(connection: Connection, due: Due, *, at: float, now: float) -> int:
    if due.limit.sliding_seconds:
        since = at - due.limit.sliding_seconds
        row = connection.execute("SELECT count(*) FROM hits WHERE key = ? AND at > ?", (due.key, since)).fetchone()
    else:
        period = _period(connection, due, now=now)
        row = connection.execute("SELECT used FROM counts WHERE key = ? AND start = ?", (due.key, period)).fetchone()
    return int(row[0]) if row else 0


def _count(connection: Connection, due: Due, *, at: float, now: float) -> Mark:
    if due.limit.sliding_seconds:
        connection.execute("DELETE FROM hits WHERE key = ? AND at <= ?", (due.key, at - due.limit.sliding_seconds))
        row = connection.execute("INSERT INTO hits (key, at) VALUES (?, ?) RETURNING id", (due.key, at)).fetchone()
        return Mark(due, at, 0, int(row[0]))
    period = _period(connection, due, now=now)
    row = connection.execute(
        "INSERT INTO counts (key, start, used) VALUES (?, ?, 1) ON CONFLICT (key) DO UPDATE SET"
        " used = CASE WHEN start = excluded.start THEN used + 1 ELSE 1 END, start = excluded.start RETURNING used",
        (due.key, period),
    ).fetchone()
    return Mark(due, period, int(row[0]))


def _period(connection: Connection, due: Due, *, now: float) -> float:
    """When the period began that a use at `now` belongs to: none before the last one that was counted in."""
    row = connection.execute("SELECT start FROM counts WHERE key = ?", (due.key,)).fetchone()
    return max(_start(due.limit.unit, now), row[0] if row else 0.0)


def _start(unit: str, now: float) -> float:
    """When the hour, day or month (UTC) of `now` began; 0 for all time."""
    at = datetime.fromtimestamp(now, UTC).replace(minute=0, second=0, microsecond=0)
    match unit:
        case "hour":
            return at.timestamp()
        case "day":
            return at.replace(hour=0).timestamp()
        case "month":
            return at.replace(hour=0, day=1).timestamp()
    return 0.0


def _end(unit: str, now: float) -> float:
    """When it ends. No month is longer than 31 days, and none that follows it is shorter than 28."""
    longest = {"hour": 3600, "day": 86_400, "month": 31 * 86_400}[unit]
    return _start(unit, _start(unit, now) + longest)
