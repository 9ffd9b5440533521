"""`period`: not before one time, and not from another on. Times are seconds since the epoch, UTC."""

from datetime import UTC, datetime
from typing import Any, ClassVar

from addon.errors import Usage
from addon.policies.policy import Attempt, PolicyKind


class Period:
    """Passes from `not_before` on, and until just before `expires`. Either may be absent, not both."""

    tag: ClassVar[str] = "period"

    def parse(self, values: tuple[str, ...]) -> dict[str, Any]:
        """The stored parameters, from `(not_before, expires)` in seconds; an empty text leaves one out."""
        begin, end = values
        params = {name: float(text) for name, text in (("not_before", begin), ("expires", end)) if text}
        if not params or params.get("not_before", 0.0) >= params.get("expires", float("inf")):
            raise Usage("the period has no time in it", hint="it begins before it ends")
        return params

    def check(self, params: dict[str, Any], attempt: Attempt) -> str | None:
        """None, or what was compared."""
        if not params or params.keys() - {"not_before", "expires"}:
            raise ValueError(self.tag)
        if attempt.now < float(params.get("not_before", attempt.now)):
            return "it is too early"
        return "it is over" if attempt.now >= float(params.get("expires", float("inf"))) else None

    def describe(self, params: dict[str, Any]) -> str:
        """What passes."""
        words = (("from", "not_before"), ("until", "expires"))
        return " ".join(f"{word} {_utc(params[name])}" for word, name in words if name in params)


def _utc(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%SZ}"


KIND: PolicyKind = Period()
