"""`quota`: at most so many uses, ever, or in each calendar hour, day or month (UTC)."""

import re
from typing import Any, ClassVar

from addon.errors import Usage
from addon.policies.policy import Attempt, Limit, LimitKind, listed, spread

_QUOTA = re.compile(r"([1-9][0-9]{0,11})(?:/(hour|day|month))?")


class Quota:
    """Passes while every limit has room. Counting is the ledger's, after every other policy has passed."""

    tag: ClassVar[str] = "quota"

    def parse(self, values: tuple[str, ...]) -> dict[str, Any]:
        """The stored parameters, from texts such as `100` or `1000/day`."""
        texts = [value.strip().lower() for value in values]
        try:
            spread(parse_quota(text) for text in texts)
        except ValueError:
            raise Usage(
                f"not a number of uses: {', '.join(values)}",
                hint="write N, N/hour, N/day or N/month, each once",
            ) from None
        return {"limits": texts}

    def check(self, params: dict[str, Any], attempt: Attempt) -> None:  # noqa: ARG002  the protocol's signature
        """Passes. Raises ValueError for what could not be counted."""
        self.limits(params)

    def limits(self, params: dict[str, Any]) -> tuple[Limit, ...]:
        """What is to be counted."""
        return spread(parse_quota(text) for text in listed(params, "limits"))

    def describe(self, params: dict[str, Any]) -> str:
        """What passes."""
        return ", ".join(f"{text} in all" if text.isdecimal() else text for text in listed(params, "limits"))


def parse_quota(text: str) -> Limit:
    """Raises ValueError."""
    match = _QUOTA.fullmatch(text)
    if match is None:
        raise ValueError(text)
    return Limit(int(match[1]), match[2] or "")


KIND: LimitKind = Quota()
