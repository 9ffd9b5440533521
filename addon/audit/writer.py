"""
Many requests, one thread, one fsync.

Whatever is waiting when the disk is free is written together: the more requests there are, the less each one pays.
A record that cannot be kept is a Fault for whoever waits for it, and the next one tries again.
"""

import asyncio
import contextlib
import logging
import threading
import time
from pathlib import Path
from queue import Empty, SimpleQueue

from addon.audit import entry
from addon.audit.stream import SEGMENT_BYTES, Stream
from addon.errors import Fault, Usage
from addon.model import Clock, Record

_log = logging.getLogger(__name__)

DURABILITIES = ("power", "process")
"""What an acknowledged record survives: loss of power, or (faster) only the death of the process."""

_LINGER = 0.02
"""Seconds a posted record may wait for company."""

_Waiter = asyncio.Future[None]
_Item = tuple[bytes, _Waiter | None]


class Writer:
    """
    The audit log of this process.

    Opening it claims a stream in `folder` and raises what `Stream` raises. Make it after forking.
    """

    def __init__(
        self, folder: Path, *, clock: Clock, durability: str = "power", segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        if durability not in DURABILITIES:
            raise Usage(f"unknown audit durability {durability!r}", hint=f"one of: {', '.join(DURABILITIES)}")
        self._clock = clock
        self._durable = durability == "power"
        self._stream = Stream(folder, now=clock(), segment_bytes=segment_bytes)
        self._queue: SimpleQueue[_Item | None] = SimpleQueue()
        self._gate = threading.Lock()
        self._closed = False
        self._lost = 0
        self._lost_since = 0.0
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    @property
    def available(self) -> bool:
        """Whether the last attempt to write succeeded."""
        return not self._lost and not self._closed

    def record(self, record: Record) -> asyncio.Future[None]:
        """Await it: the record is kept when it returns. Raises Fault(audit_unavailable). For the thread of a loop."""
        waiter: _Waiter = asyncio.get_running_loop().create_future()
        self._put(record, waiter)
        return waiter

    def post(self, record: Record) -> None:
        """Hand a record over without waiting: in its turn, but if it cannot be written it is only counted as lost."""
        self._put(record, None)

    def close(self) -> None:
        """Write what was handed over, then give the stream up. From now on `record` and `post` raise Fault."""
        with self._gate:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()

    def _put(self, record: Record, waiter: _Waiter | None) -> None:
        line = entry.record(record)
        with self._gate:
            if self._closed:
                raise Fault("audit_unavailable", "the audit log is closed")
            self._queue.put((line, waiter))

    def _run(self) -> None:
        closing = False
        while not closing:
            taken = self._take()
            closing = taken[-1] is None
            batch = [each for each in taken if each is not None]
            if batch:
                self._commit(batch)
        self._stream.close()

    def _take(self) -> list[_Item | None]:
        """What has been handed over. Records nobody waits for stay a moment, to share the write of one somebody does."""
        taken = fresh = self._drain(timeout=None)
        deadline = time.monotonic() + _LINGER
        while fresh and all(each is not None and each[1] is None for each in fresh):
            fresh = self._drain(timeout=max(0.0, deadline - time.monotonic()))
            taken = taken + fresh
        return taken

    def _drain(self, *, timeout: float | None) -> list[_Item | None]:
        try:
            first = self._queue.get(timeout=timeout)
        except Empty:
            return []
        return [first, *(self._queue.get() for _ in range(self._queue.qsize()))]

    def _commit(self, batch: list[_Item]) -> None:
        entries = [line for line, _ in batch]
        failure, now = None, self._lost_since
        try:
            now = self._clock()
            if self._lost:
                entries.insert(0, self._confession(now))
            self._stream.append(entries, now=now, durable=self._durable)
        except Exception as error:  # noqa: BLE001  whatever went wrong, nobody may believe that it was kept
            failure = str(error)
            if not self._lost:
                self._lost_since = now
                _log.error("audit stream %02d: %s; requests are refused", self._stream.slot, failure)
            self._lost += len(batch)
        else:
            if self._lost:
                _log.warning("audit stream %02d is written again; %d records were lost", self._stream.slot, self._lost)
            self._lost = 0
        _settle([waiter for _, waiter in batch if waiter is not None], failure)

    def _confession(self, now: float) -> bytes:
        """The log says of itself what is missing in it."""
        return entry.note("resumed", now=now, lost=self._lost, since=entry.timestamp(self._lost_since))


def _settle(waiters: list[_Waiter], failure: str | None) -> None:
    """Wake everybody, with one call into each loop."""
    loops: dict[asyncio.AbstractEventLoop, list[_Waiter]] = {}
    for waiter in waiters:
        loops.setdefault(waiter.get_loop(), []).append(waiter)
    for loop, group in loops.items():
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_resolve, group, failure)


def _resolve(waiters: list[_Waiter], failure: str | None) -> None:
    for waiter in waiters:
        if waiter.done():
            continue
        if failure is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(Fault("audit_unavailable", failure))
