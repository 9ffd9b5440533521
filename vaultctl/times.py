"""
Times as operators write them.

    DURATION = 1*(number unit)      30s, 10m, 1h30m, 30d, 2w
    TIME     = RFC 3339 date-time with an offset, or Unix seconds

Everything inside is seconds since the epoch, UTC; only this file knows other notations.
"""

import contextlib
import re
from datetime import UTC, datetime

from addon.errors import Usage

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_PART = re.compile(r"([0-9]{1,9})([smhdw])")
_DURATION = re.compile(rf"(?:{_PART.pattern})+")
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII)
_UNIX = re.compile(r"[0-9]{1,11}(?:\.[0-9]{1,9})?")

_LONGEST = 100 * 365.25 * 86_400
_LATEST = 253_402_300_799.0  # the last second of the year 9999, where RFC 3339 ends


def parse_duration(text: str) -> float:
    """Seconds. Raises Usage."""
    seconds = sum(int(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    if not _DURATION.fullmatch(text) or seconds > _LONGEST:
        raise Usage(f"not a duration: {text!r}", hint="write a number and a unit, such as 10m, 1h, 30d or 2w")
    return float(seconds)


def parse_time(text: str) -> float:
    """Seconds since the epoch. Raises Usage."""
    seconds = -1.0
    if _UNIX.fullmatch(text):
        seconds = float(text)
    elif _RFC3339.fullmatch(text):
        with contextlib.suppress(ValueError, OverflowError):
            seconds = datetime.fromisoformat(text.upper()).timestamp()
    if not 0 <= seconds <= _LATEST:
        raise Usage(f"not a time: {text!r}", hint="write RFC 3339 such as 2026-12-31T18:00:00Z, or Unix seconds")
    return seconds


def deadline(text: str, *, now: float) -> float:
    """A duration from now, or a time. Raises Usage."""
    return now + parse_duration(text) if _DURATION.fullmatch(text) else parse_time(text)


def past(text: str, *, now: float) -> float:
    """A duration before now, or a time. Raises Usage."""
    return now - parse_duration(text) if _DURATION.fullmatch(text) else parse_time(text)


def rfc3339(seconds: float) -> str:
    """For programs: UTC with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def rfc3339_or_none(seconds: float | None) -> str | None:
    """The same for a time that may be missing."""
    return None if seconds is None else rfc3339(seconds)


def readable(seconds: float | None) -> str:
    """For tables: UTC to the second, or `-`."""
    return "-" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
