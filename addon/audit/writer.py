"""
Many requests, one write, one sync.

    handed over ── write ──► batch ── sync ──► acknowledged

Everything happens in the thread of the loop, once per turn of it, but for waiting for the disk: a thread does that and
nothing else, since whatever Python it ran would hold up the loop. What is handed over while it waits becomes the next
batch: the more requests there are, the less each one pays. A record that cannot be kept is a Fault for whoever waits for
it, and the next one tries again. So is whatever else goes wrong here: nobody is left waiting.

The loop itself never waits for the disk, except where a segment ends.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

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
    The audit log of this process, for the thread of its loop.

    Opening it claims a stream in `folder` and raises what `Stream` raises. Make it after forking.
    """

    def __init__(
        self, folder: Path, *, clock: Clock, durability: str = "power", segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        if durability not in DURABILITIES:
            raise Usage(f"unknown audit durability {durability!r}", hint=f"one of: {', '.join(DURABILITIES)}")
        self._clock = clock
        self._stream = Stream(folder, now=clock(), segment_bytes=segment_bytes)
        self._disk = _Disk(self._stream, wake=self._wake) if durability == "power" else None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._handed_over: list[_Item] = []
        self._due = False
        self._timer: asyncio.TimerHandle | None = None
        self._batch: list[_Item] = []
        self._begun = 0.0
        self._closed = False
        self._lost = 0
        self._lost_since = 0.0

    @property
    def available(self) -> bool:
        """Whether the last attempt to write succeeded."""
        return not self._lost and not self._closed

    def record(self, record: Record) -> asyncio.Future[None]:
        """Await it: the record is kept when it returns. Raises Fault(audit_unavailable)."""
        loop = asyncio.get_running_loop()
        waiter: _Waiter = loop.create_future()
        self._hand_over(record, waiter)
        if not self._due or loop is not self._loop:
            self._loop = loop
            loop.call_soon(self._turn)
            self._due = True
        return waiter

    def post(self, record: Record) -> None:
        """
        Hand a record over without waiting: in its turn, but if it cannot be written it is only counted as lost.

        It goes with the next record that somebody waits for, or after a moment; where no loop runs, when closing.
        """
        self._hand_over(record, None)
        if self._timer is None:
            with contextlib.suppress(RuntimeError):
                self._loop = asyncio.get_running_loop()
                self._timer = self._loop.call_later(_LINGER, self._linger_no_more)

    def close(self) -> None:
        """Write what was handed over, then give the stream up. From now on `record` and `post` raise Fault."""
        if self._closed:
            return
        self._closed = True
        if self._disk is not None:
            self._disk.close()
        try:
            if self._batch and self._disk is not None:
                self._end(self._disk.failure)
            if self._handed_over and self._begin():
                self._end(self._disk.wait() if self._disk is not None else None)
        except Exception as error:  # noqa: BLE001  as in `_turn`
            self._give_up(type(error).__name__)
        self._stream.close()

    def _hand_over(self, record: Record, waiter: _Waiter | None) -> None:
        if self._closed:
            raise Fault("audit_unavailable", "the audit log is closed")
        self._handed_over.append((entry.record(record), waiter))

    def _linger_no_more(self) -> None:
        self._timer = None
        self._due = bool(self._handed_over)
        self._turn()

    def _wake(self) -> None:
        """The disk is free: called from its thread."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._turn)

    def _turn(self) -> None:
        """Go on; what goes wrong is a Fault for everybody who waits, and the next record begins anew."""
        if self._closed:
            return
        try:
            self._advance()
        except Exception as error:  # noqa: BLE001  whatever went wrong, nobody may wait for what does not come
            self._give_up(type(error).__name__)

    def _give_up(self, failure: str) -> None:
        """Nothing of what is under way or handed over is kept."""
        waiting = self._batch + self._handed_over
        self._batch, self._handed_over, self._due = [], [], False
        self._lost_since = self._lost_since if self._lost else self._begun
        self._lost += len(waiting)
        _tell(waiting, failure)
        _log.error("audit stream %02d: %s; requests are refused", self._stream.slot, failure)
        with contextlib.suppress(Exception):
            self._stream.take_back()

    def _advance(self) -> None:
        """End the batch that has reached the disk, then begin the next one if it is due and the disk is free."""
        if self._disk is not None and self._disk.busy:
            return
        if self._batch and self._disk is not None:
            self._end(self._disk.failure)
        if self._due and not self._batch and self._begin():
            if self._disk is None:
                self._end(None)
            else:
                self._disk.start()

    def _begin(self) -> bool:
        """Write what was handed over, as the batch under way. False if that failed, and ended it."""
        self._batch, self._handed_over, self._due = self._handed_over, [], False
        entries = [line for line, _ in self._batch]
        try:
            self._begun = self._clock()
            if self._lost:
                entries.insert(0, self._confession())
            self._stream.write(entries, now=self._begun)
        except Exception as error:  # noqa: BLE001  whatever went wrong, nobody may believe that it was kept
            self._settle(str(error))
            return False
        return True

    def _end(self, failure: str | None) -> None:
        """The batch under way has reached the disk, or has failed to."""
        if failure is None:
            self._stream.keep()
        else:
            self._stream.take_back()
        self._settle(failure)

    def _settle(self, failure: str | None) -> None:
        batch, self._batch = self._batch, []
        _tell(batch, failure)
        if failure is None:
            if self._lost:
                _log.warning("audit stream %02d is written again; %d records were lost", self._stream.slot, self._lost)
            self._lost = 0
        else:
            if not self._lost:
                self._lost_since = self._begun
                _log.error("audit stream %02d: %s; requests are refused", self._stream.slot, failure)
            self._lost += len(batch)

    def _confession(self) -> bytes:
        """The log says of itself what is missing in it."""
        return entry.note("resumed", now=self._begun, lost=self._lost, since=entry.timestamp(self._lost_since))


def _tell(batch: list[_Item], failure: str | None) -> None:
    for _, waiter in batch:
        if waiter is None or waiter.done():
            continue
        if failure is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(Fault("audit_unavailable", failure))


class _Disk:
    """The thread that waits for the disk, and then calls `wake`. `failure` is what came of it; None if all is well."""

    def __init__(self, stream: Stream, *, wake: Callable[[], None]) -> None:
        self._stream = stream
        self._wake = wake
        self._calls: SimpleQueue[bool] = SimpleQueue()
        self.busy = False
        self.failure: str | None = None
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    def start(self) -> None:
        """Begin to wait for what was written to the stream. Only when not busy."""
        self.busy = True
        self._calls.put(True)

    def close(self) -> None:
        """Come to an end, once the wait under way is over."""
        self._calls.put(False)
        self._thread.join()

    def wait(self) -> str | None:
        """Wait here and now. Gives what `failure` would be."""
        try:
            self._stream.sync()
        except Exception as error:  # noqa: BLE001  whatever went wrong, nobody may believe that it was kept
            return str(error)
        return None

    def _run(self) -> None:
        while self._calls.get():
            try:
                self.failure = self.wait()
            except BaseException as error:  # noqa: BLE001  without this thread nobody would be told anything again
                self.failure = type(error).__name__
            self.busy = False
            self._wake()
