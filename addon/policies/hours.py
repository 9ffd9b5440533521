"""
`hours`: only inside weekly windows, in the wall time of an IANA zone.

A window is `DAYS HH:MM-HH:MM ZONE`; several are alternatives. One that ends before it begins crosses midnight and belongs
to the day it begins on. Wall time decides, so on the night clocks go back an hour inside a window counts twice.
"""

import functools
import re
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from addon.errors import Usage
from addon.policies.policy import Attempt, PolicyKind, listed

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")

_WINDOW = re.compile(r"(\S+) ([0-2]\d:[0-5]\d)-([0-2]\d:[0-5]\d) (\S+)")
_HINT = "write e.g. 'Mon-Fri 09:00-18:00 Europe/Berlin', 'Sat,Sun 00:00-24:00 UTC' or 'Mon-Sun 22:00-06:00 UTC'"

Window = tuple[frozenset[int], int, int, ZoneInfo]


class Hours:
    """Passes inside one of the windows."""

    tag: ClassVar[str] = "hours"

    def parse(self, values: tuple[str, ...]) -> dict[str, Any]:
        """The stored parameters."""
        texts = [" ".join(value.split()) for value in values]
        for text in texts:
            try:
                parse_window(text)
            except ValueError:
                raise Usage(f"not weekly hours: {text!r}", hint=_HINT) from None
        return {"windows": texts}

    def check(self, params: dict[str, Any], attempt: Attempt) -> str | None:
        """None, or what was compared."""
        texts = listed(params, "windows")
        if any(_inside(parse_window(text), attempt.now) for text in texts):
            return None
        at = datetime.fromtimestamp(attempt.now, UTC)
        return f"{DAYS[at.weekday()]} {at:%H:%M} UTC is not within {', '.join(texts)}"

    def describe(self, params: dict[str, Any]) -> str:
        """What passes."""
        return ", ".join(listed(params, "windows"))


@functools.lru_cache(maxsize=256)
def parse_window(text: str) -> Window:
    """Days (0 is Monday), minutes from midnight, zone. Raises ValueError."""
    match = _WINDOW.fullmatch(text)
    if match is None:
        raise ValueError(text)
    try:
        zone = ZoneInfo(match[4])
    except (ZoneInfoNotFoundError, OSError) as error:
        raise ValueError(text) from error
    start, end = _minutes(match[2]), _minutes(match[3])
    if start in {end, 24 * 60}:
        raise ValueError(text)
    return _days(match[1]), start, end, zone


def _inside(window: Window, now: float) -> bool:
    days, start, end, zone = window
    local = datetime.fromtimestamp(now, UTC).astimezone(zone)
    minute = local.hour * 60 + local.minute
    if start < end:
        return local.weekday() in days and start <= minute < end
    yesterday = (local.replace(tzinfo=None) - timedelta(days=1)).weekday()
    return (local.weekday() in days and minute >= start) or (yesterday in days and minute < end)


def _minutes(text: str) -> int:
    minutes = int(text[:2]) * 60 + int(text[3:])
    if minutes > 24 * 60:
        raise ValueError(text)
    return minutes


def _days(text: str) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        begin, end = DAYS.index(first), DAYS.index(last or first)
        found |= {(begin + step) % 7 for step in range((end - begin) % 7 + 1)}
    return frozenset(found)


KIND: PolicyKind = Hours()
