"""
The files of the streams: `NN.FIRST.jsonl`, where NN is the slot of a worker and FIRST the `seq` of its first line.

A name never changes its meaning: a segment is only ever added, never renamed, so a reader that listed the folder can
open what it saw. Only the last segment of a slot grows. What stands there after the last newline is a line being
written, or one that a crash cut short; in both cases nobody has been told that it was kept, so it does not count.
"""

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from addon.errors import Locked

_NAME = re.compile(r"([0-9]{2})\.([0-9]{12})\.jsonl")
_BLOCK = 1 << 16


@dataclass(frozen=True, slots=True, order=True)
class Segment:
    """A file of slot `slot` whose first line has number `first`. In order: by slot, then as written."""

    slot: int
    first: int
    path: Path = field(compare=False)


def segment(folder: Path, *, slot: int, first: int) -> Segment:
    """The segment that has, or would get, this place."""
    return Segment(slot, first, folder / f"{slot:02}.{first:012}.jsonl")


def segments(folder: Path, *, slot: int | None = None) -> list[Segment]:
    """All segments (of one slot), in order. A folder that does not exist yet has none."""
    try:
        names = [each.name for each in folder.iterdir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Locked(
            f"the audit folder {folder} cannot be read ({os.strerror(error.errno or 0)})",
            hint="run as the user that owns it",
        ) from error
    matches = filter(None, map(_NAME.fullmatch, names))
    found = (Segment(int(match[1]), int(match[2]), folder / match[0]) for match in matches)
    return sorted(each for each in found if slot in (None, each.slot))


def open_private(path: Path, flags: int) -> int:
    """
    A descriptor of a regular file of ours that others cannot read and the group cannot change; created as 0600.

    Raises Locked, saying which of these does not hold.
    """
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    except OSError as error:
        raise Locked(
            f"{path} cannot be opened ({os.strerror(error.errno or 0)})",
            hint="it must be a regular file that this user may use, not a link",
        ) from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        problem, hint = "is not a regular file", "move it out of the audit folder"
    elif status.st_uid not in (os.getuid(), 0):
        problem, hint = "belongs to another user", "run as the user that owns it"
    elif status.st_mode & 0o027:
        problem, hint = "is open to others", f"close it: chmod 600 {path}"
    else:
        return descriptor
    os.close(descriptor)
    raise Locked(f"{path} {problem}", hint=hint)


def open_to_read(each: Segment) -> BinaryIO:
    """The segment, for `forward` and `backward`. Raises Locked if it is anything but a regular file we may read."""
    try:
        descriptor = os.open(each.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise Locked(
            f"{each.path} cannot be opened ({os.strerror(error.errno or 0)})",
            hint="run as the user that owns it; links are not followed",
        ) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Locked(f"{each.path} is not a regular file", hint="move it out of the audit folder")
    return os.fdopen(descriptor, "rb")


def forward(file: BinaryIO, *, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """The complete lines from offset `start` on, each with its offset."""
    file.seek(start)
    for line in file:
        if not line.endswith(b"\n"):
            return
        yield start, line
        start += len(line)


def backward(file: BinaryIO, *, end: int | None = None) -> Iterator[tuple[int, bytes]]:
    """The complete lines before offset `end`, the last one first, each with its offset. Reads as far as it is asked."""
    end = file.seek(0, os.SEEK_END) if end is None else end
    rest, complete = b"", False
    while end > 0:
        start = max(0, end - _BLOCK)
        file.seek(start)
        rest, *lines = (file.read(end - start) + rest).split(b"\n")
        offset = start + len(rest) + 1 + sum(len(line) + 1 for line in lines)
        for line in reversed(lines):
            offset -= len(line) + 1
            if complete:
                yield offset, line + b"\n"
            complete = True
        end = start
    if complete:
        yield 0, rest + b"\n"
