"""
Checking that streams are as they were written. See the package for what that can prove and what it cannot.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby, islice
from operator import attrgetter
from pathlib import Path

from addon.audit import entry
from addon.audit.segments import Segment, backward, forward, open_to_read, segments
from addon.errors import Corrupt, Locked


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Where a stream had got to: line `seq` of it has this hash. Noted elsewhere, it anchors all lines up to there."""

    stream: str
    slot: int
    seq: int
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """The last complete line of a segment, checked. `end` is the offset after it, `size` that of the file."""

    stream: str
    seq: int
    digest: bytes
    at: float
    end: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bad:
    """
    The first thing wrong: the file (only its slot, if it is missing), the line in it from 1 (0: the file itself), the
    `seq` expected there, and what is wrong.
    """

    file: str
    line: int
    seq: int
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`records` counts the records found intact, up to `first_bad` if there is one."""

    records: int
    first_bad: Bad | None = None

    @property
    def ok(self) -> bool:
        """Whether everything is as it was written."""
        return self.first_bad is None


def tail(each: Segment) -> Tail | None:
    """
    The end of a segment; None if it has no complete line yet.

    Checks the last line against the one before it. Raises Corrupt if they do not fit, Locked for a format newer than ours.
    """
    with open_to_read(each) as file:
        last = list(islice(backward(file), 2))
        if not last:
            return None
        _, first_line = next(forward(file))
        size = os.fstat(file.fileno()).st_size
    head = entry.parse(first_line)
    if head.get("format") != entry.FORMAT:
        if isinstance(head.get("format"), int):
            raise Locked(
                f"{each.path} has a format this version does not know", hint="use the newer version that wrote it"
            )
        raise _corrupt(each)
    offset, line = last[0]
    members = entry.parse(line)
    previous = entry.parse(last[1][1]).get("hash") if len(last) > 1 else (head.get("prev") or entry.GENESIS.hex())
    try:
        seq = int(str(members["seq"]))
        digest = entry.check(line, seq=seq, previous=bytes.fromhex(str(previous)))
        at = entry.seconds(str(members["at"]))
    except (KeyError, ValueError):
        raise _corrupt(each) from None
    if digest is None or head.get("slot") != each.slot:
        raise _corrupt(each)
    return Tail(stream=str(head.get("stream")), seq=seq, digest=digest, at=at, end=offset + len(line), size=size)


def heads(folder: Path) -> list[Head]:
    """The last line of each stream, to be noted where whoever can change this folder cannot. Raises as `tail` does."""
    found = []
    for slot, each in groupby(segments(folder), key=attrgetter("slot")):
        last = next(filter(None, map(tail, reversed(list(each)))), None)
        if last:
            found.append(Head(stream=last.stream, slot=slot, seq=last.seq, hash=last.digest.hex()))
    return found


def verify(folder: Path, *, noted: Iterable[Head] = ()) -> Verdict:
    """
    Reads every line of every stream and says what the first one is that is not as it was written.

    May run while workers write. `noted` are heads taken earlier: each line they name must be there, with that hash.
    """
    run = _Run(noted)
    bad = run.folder(folder)
    return Verdict(records=run.records, first_bad=bad)


class _Run:
    """One run of `verify`. Each method returns the first thing wrong in its part, and ends the run with it."""

    def __init__(self, noted: Iterable[Head]) -> None:
        self.records = 0
        self._noted = {(each.stream, each.seq): each for each in noted}
        self._stream = ""
        self._seq = 0
        self._previous = entry.GENESIS

    def folder(self, folder: Path) -> Bad | None:
        for expected, (slot, group) in enumerate(groupby(segments(folder), key=attrgetter("slot"))):
            if slot != expected:
                return Bad(file=f"{expected:02}", line=0, seq=0, problem="the stream is missing")
            if bad := self.stream(list(group)):
                return bad
        for head in self._noted.values():
            return Bad(file=f"{head.slot:02}", line=0, seq=head.seq, problem="a line that was noted is missing")
        return None

    def stream(self, group: list[Segment]) -> Bad | None:
        self._stream, self._seq, self._previous = "", 0, entry.GENESIS
        for each in group:
            if each.first != self._seq:
                return self._bad(each, 0, "the lines before this file are missing")
            with open_to_read(each) as file:
                number, end = 0, 0
                for number, (offset, line) in enumerate(forward(file), start=1):
                    if problem := self.line(line, header_of=each if number == 1 else None):
                        return self._bad(each, number, problem)
                    end = offset + len(line)
                if each is not group[-1] and end != os.fstat(file.fileno()).st_size:
                    return self._bad(each, number + 1, "an incomplete line, and the stream goes on after it")
        return None

    def line(self, line: bytes, *, header_of: Segment | None) -> str | None:
        digest = entry.check(line, seq=self._seq, previous=self._previous)
        if digest is None:
            return "not the line that was written here"
        if header_of:
            members = entry.parse(line)
            if (members.get("format"), members.get("slot")) != (entry.FORMAT, header_of.slot):
                return "not the header of this file"
            self._stream = str(members.get("stream"))
        head = self._noted.pop((self._stream, self._seq), None)
        if head and head.hash != digest.hex():
            return "not the line that was noted"
        self.records += entry.is_record(line)
        self._seq, self._previous = self._seq + 1, digest
        return None

    def _bad(self, each: Segment, number: int, problem: str) -> Bad:
        return Bad(file=each.path.name, line=number, seq=self._seq, problem=problem)


def _corrupt(each: Segment) -> Corrupt:
    return Corrupt(
        f"the end of {each.path} is not as it was written",
        hint="`vaultctl audit verify` names the first bad line; keep the file as evidence elsewhere, then start again",
    )
