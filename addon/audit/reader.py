"""
Records as they were written, from all streams, in the order of their times. Safe while workers write.

A line that is no record of ours is passed over here: `chain.verify` is what finds it.
"""

import heapq
import time
from collections.abc import Callable, Iterator
from itertools import groupby, islice
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import TypedDict, Unpack

from addon.audit import entry
from addon.audit.entry import Row
from addon.audit.segments import Segment, backward, forward, open_to_read, segments

_POLL = 0.2

_SLACK = 300.0
"""Seconds by which the lines of one stream may be out of order."""

_COLUMNS = {
    "grant": "grant_id",
    "principal": "principal",
    "caller": "caller",
    "secret": "secret",
    "decision": "decision",
    "code": "code",
    "request_id": "id",
}


class Filters(TypedDict, total=False):
    """What records must have: `since` <= time < `until` (seconds since the epoch), and exactly these values."""

    since: float | None
    until: float | None
    grant: str | None
    principal: str | None
    caller: str | None
    secret: str | None
    decision: str | None
    code: str | None
    request_id: str | None


def read(folder: Path, *, limit: int | None = None, **filters: Unpack[Filters]) -> Iterator[Row]:
    """
    The records that pass, the newest last; with `limit` the last so many, found from the end without reading the rest.

    `since` is found fast by trusting the order of the lines to five minutes: what a worker wrote while its clock was
    further ahead is not looked for.
    """
    if limit is not None:
        return _last(folder, limit, {}, filters)
    return heapq.merge(*(_oldest_first(group, filters) for group in _streams(folder)), key=itemgetter("at"))


def follow(
    folder: Path, *, last: int = 10, sleep: Callable[[float], object] = time.sleep, **filters: Unpack[Filters]
) -> Iterator[Row]:
    """The last records that pass, then each new one as it is written, without end. Waits by `sleep`."""
    seen = {each.path: _end(each) for each in segments(folder)}
    yield from _last(folder, last, seen, filters)
    sieve = _sieve(filters)
    while True:
        fresh = []
        for each in segments(folder):
            size = each.path.stat().st_size
            start = seen[each.path] = min(seen.get(each.path, 0), size)
            if start == size:
                continue
            with open_to_read(each) as file:
                for offset, line in forward(file, start=start):
                    seen[each.path] = offset + len(line)
                    fresh.append(sieve(line))
        yield from sorted(filter(None, fresh), key=itemgetter("at"))
        if not fresh:
            sleep(_POLL)


def _streams(folder: Path) -> list[list[Segment]]:
    return [list(group) for _, group in groupby(segments(folder), key=attrgetter("slot"))]


def _last(folder: Path, limit: int, ends: dict[Path, int], filters: Filters) -> Iterator[Row]:
    """The last `limit` records that pass, of what stands before `ends`."""
    streams = (_newest_first(group, ends, filters) for group in _streams(folder))
    newest = list(islice(heapq.merge(*streams, key=itemgetter("at"), reverse=True), limit))
    return reversed(newest)


def _oldest_first(group: list[Segment], filters: Filters) -> Iterator[Row]:
    sieve, earliest = _sieve(filters), _earliest(filters)
    start = next((n for n in reversed(range(len(group))) if _began(group[n]) < earliest), 0)
    for each in group[start:]:
        with open_to_read(each) as file:
            yield from filter(None, (sieve(line) for _, line in forward(file)))


def _newest_first(group: list[Segment], ends: dict[Path, int], filters: Filters) -> Iterator[Row]:
    sieve, earliest = _sieve(filters), _earliest(filters)
    for each in reversed(group):
        with open_to_read(each) as file:
            for _, line in backward(file, end=ends.get(each.path)):
                if entry.time_of(line) < earliest:
                    return
                if found := sieve(line):
                    yield found


def _sieve(filters: Filters) -> Callable[[bytes], Row | None]:
    """line → its record if it passes. Bytes are looked at first: parsing a line costs twenty times as much."""
    since, until = filters.get("since"), filters.get("until")
    first = b"" if since is None else entry.timestamp(since).encode()
    bound = b"\x7f" if until is None else entry.timestamp(until).encode()
    wanted = {column: str(value) for name, column in _COLUMNS.items() if (value := filters.get(name)) is not None}
    fragments = [entry.fragment(column, value) for column, value in wanted.items()]

    def passes(line: bytes) -> Row | None:
        if not first <= entry.time_of(line) < bound or not all(fragment in line for fragment in fragments):
            return None
        row = entry.row(line)
        if row is None or any(row[column] != value for column, value in wanted.items()):
            return None
        return row

    return passes


def _earliest(filters: Filters) -> bytes:
    since = filters.get("since")
    return b"" if since is None else entry.timestamp(since - _SLACK).encode()


def _began(each: Segment) -> bytes:
    with open_to_read(each) as file:
        return next((entry.time_of(line) for _, line in forward(file)), b"\x7f")


def _end(each: Segment) -> int:
    with open_to_read(each) as file:
        return next((offset + len(line) for offset, line in backward(file)), 0)
