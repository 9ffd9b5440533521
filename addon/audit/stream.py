"""
One worker's stream: claimed, checked, and then only ever added to.

A slot belongs to whoever holds the lock on `NN.lock`; the lock dies with the process, and the next one to come takes
the slot over and goes on with its chain. Make a Stream after forking: a lock is shared with forked children.
"""

import contextlib
import fcntl
import os
import secrets
import sys
from collections.abc import Iterable
from pathlib import Path

from addon import files
from addon.audit import entry
from addon.audit.chain import tail
from addon.audit.segments import open_private, segment, segments
from addon.errors import Conflict, Fault, Locked

SEGMENT_BYTES = 256 << 20
"""A segment that has reached this size is left, and the next one begun."""

_SLOTS = 100
_CLOCK_TOLERANCE = 60.0


class Stream:
    """
    An open stream, for one thread; only `sync` may run in another.

    Raises Locked if the folder or a file in it is unsafe or cannot be written, or if `now` is more than a minute before
    the last line (the clock was set back: expired grants would live again); Corrupt if the last line does not fit.
    """

    def __init__(self, folder: Path, *, now: float, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._descriptor = -1
        self._unsure = False
        self._end: tuple[int, bytes, int]
        try:
            files.make_folder(folder)
            self.slot, self._lock = _claim(folder)
            try:
                self._resume(now)
            except BaseException:
                self.close()
                raise
        except OSError as error:
            raise Locked(
                f"the audit folder {folder} cannot be written ({_reason(error)})",
                hint="give the disk room, and the folder to the user that runs this",
            ) from error

    def append(self, entries: Iterable[bytes], *, now: float, durable: bool) -> None:
        """
        Add lines, all or none; `durable` means they have reached the disk.

        Raises Fault(audit_unavailable); whatever part was written is taken away again, at the latest by the next call.
        """
        self.write(entries, now=now)
        try:
            if durable:
                self.sync()
        except Fault:
            self.take_back()
            raise
        self.keep()

    def write(self, entries: Iterable[bytes], *, now: float) -> None:
        """
        Add lines, all or none, that are not part of the stream before `keep`. Raises Fault as `append`.

        Each call is followed by `keep` or `take_back`, before the next one and after a `sync` that may be wanted.
        """
        try:
            self._restore()
            if self._size >= self._segment_bytes:
                self._begin(self._stream, seq=self._seq, previous=self._previous, now=now)
            self._write(entries)
        except OSError as error:
            raise _fault(error) from error
        except Locked as error:
            raise Fault("audit_unavailable", error.message) from error

    def sync(self) -> None:
        """Wait until what was written has reached the disk. May run in another thread. Raises Fault."""
        try:
            _sync(self._descriptor)
        except OSError as error:
            raise _fault(error) from error

    def keep(self) -> None:
        """The lines last written are part of the stream."""
        self._seq, self._previous, self._size = self._end

    def take_back(self) -> None:
        """The lines last written, or whatever part of them was, go away: now, or else before the next are written."""
        self._unsure = True
        with contextlib.suppress(OSError, Fault):
            self._restore()

    def close(self) -> None:
        """Give the slot up. A second call does nothing."""
        for descriptor in (self._descriptor, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._descriptor = self._lock = -1

    def _resume(self, now: float) -> None:
        existing = segments(self._folder, slot=self.slot)
        last = tail(existing[-1]) if existing else None
        if existing and last is None:
            # A crash while this segment was begun. It has no line that anybody relied on, so it never was.
            existing.pop().path.unlink()
            last = tail(existing[-1]) if existing else None
        if last is None:
            self._begin(secrets.token_hex(16), seq=0, previous=entry.GENESIS, now=now)
            return
        if now < last.at - _CLOCK_TOLERANCE:
            raise Locked(
                f"the clock is {last.at - now:.0f} s behind the last audit record",
                hint=f"set the clock; if it was the record's clock that was wrong, move {existing[-1].path} to another folder",
            )
        self._descriptor = open_private(existing[-1].path, os.O_RDWR | os.O_APPEND)
        self._stream, self._seq, self._previous, self._size = last.stream, last.seq + 1, last.digest, last.end
        if last.size > last.end:
            os.ftruncate(self._descriptor, last.end)
            self._write([entry.note("recovered", now=now, bytes=last.size - last.end)])
            _sync(self._descriptor)
            self.keep()

    def _begin(self, stream: str, *, seq: int, previous: bytes, now: float) -> None:
        """Start the next segment, durably, and only then leave the one before."""
        path = segment(self._folder, slot=self.slot, first=seq).path
        members = entry.header(stream, slot=self.slot, previous=previous, now=now)
        line, digest = entry.link(members, seq=seq, previous=previous)
        descriptor = open_private(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL)
        try:
            _write_all(descriptor, line)
            _sync(descriptor)
            files.sync_folder(self._folder)
        except OSError:
            os.close(descriptor)
            path.unlink()
            raise
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = descriptor
        self._stream, self._seq, self._previous, self._size = stream, seq + 1, digest, len(line)

    def _write(self, entries: Iterable[bytes]) -> None:
        lines, previous = [], self._previous
        for seq, members in enumerate(entries, start=self._seq):
            line, previous = entry.link(members, seq=seq, previous=previous)
            lines.append(line)
        data = b"".join(lines)
        try:
            _write_all(self._descriptor, data)
        except OSError:
            self.take_back()
            raise
        self._end = self._seq + len(lines), previous, self._size + len(data)

    def _restore(self) -> None:
        """Make sure that the file ends where the last good line does, and that it is still the file in the folder."""
        status = os.fstat(self._descriptor)
        excess = status.st_size - self._size
        if excess < 0 or (excess and not self._unsure) or not status.st_nlink:
            raise Fault("audit_unavailable", "another program changed the stream")
        if excess:
            os.ftruncate(self._descriptor, self._size)
        self._unsure = False


def _claim(folder: Path) -> tuple[int, int]:
    """The first free slot, and the descriptor that holds it."""
    for slot in range(_SLOTS):
        descriptor = open_private(folder / f"{slot:02}.lock", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
        else:
            return slot, descriptor
    raise Conflict(f"all {_SLOTS} audit streams in {folder} are in use", hint="run fewer workers on one home")


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync(descriptor: int) -> None:
    if sys.platform == "darwin":
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)  # fsync there stops at the cache of the drive
    else:
        os.fdatasync(descriptor)


def _fault(error: OSError) -> Fault:
    return Fault("audit_unavailable", _reason(error))


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else type(error).__name__
