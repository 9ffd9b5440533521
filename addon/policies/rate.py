"""`rate`: at most so many requests in any second, minute, hour or day on end."""

import re
from typing import Any, ClassVar

from addon.errors import Usage
from addon.policies.policy import Attempt, Limit, LimitKind, listed, spread

MOST = 10_000
"""Each request within a window is remembered one by one: that is what makes it exact."""

_RATE = re.compile(r"([1-9][0-9]{0,4})/(second|minute|hour|day)")
_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}


class Rate:
    """Passes while every limit has room. Counting is the ledger's, after every other policy has passed."""

    tag: ClassVar[str] = "rate"

    def parse(self, values: tuple[str, ...]) -> dict[str, Any]:
        """The stored parameters, from texts such as `60/minute`."""
        texts = [value.strip().lower() for value in values]
        try:
            spread(parse_rate(text) for text in texts)
        except ValueError:
            raise Usage(
                f"not a rate: {', '.join(values)}",
                hint=f"write N/second, N/minute, N/hour or N/day, each once, with N up to {MOST}",
            ) from None
        return {"limits": texts}

    def check(self, params: dict[str, Any], attempt: Attempt) -> None:  # noqa: ARG002  the protocol's signature
        """Passes. Raises ValueError for what could not be counted."""
        self.limits(params)

    def limits(self, params: dict[str, Any]) -> tuple[Limit, ...]:
        """What is to be counted."""
        return spread(parse_rate(text) for text in listed(params, "limits"))

    def describe(self, params: dict[str, Any]) -> str:
        """What passes."""
        return ", ".join(listed(params, "limits"))


def parse_rate(text: str) -> Limit:
    """Raises ValueError."""
    match = _RATE.fullmatch(text)
    if match is None or int(match[1]) > MOST:
        raise ValueError(text)
    return Limit(int(match[1]), match[2], sliding_seconds=_SECONDS[match[2]])


KIND: LimitKind = Rate()
