"""`reason`: only requests that say why, in `X-Alter-Reason`, in at least so many characters."""

from typing import Any, ClassVar

from addon.errors import Usage
from addon.policies.policy import Attempt, PolicyKind


class Reason:
    """Passes when a reason was given; it is in the audit record."""

    tag: ClassVar[str] = "reason"

    def parse(self, values: tuple[str, ...]) -> dict[str, Any]:
        """The stored parameters, from the fewest characters (none given: 1)."""
        least = values[0] if values else "1"
        if not least.isdecimal() or not 1 <= int(least) <= 512:
            raise Usage(f"not a number of characters: {least!r}", hint="give 1 to 512")
        return {"characters": int(least)}

    def check(self, params: dict[str, Any], attempt: Attempt) -> str | None:
        """None, or what was compared."""
        least = params["characters"]
        if len(params) > 1 or not isinstance(least, int) or isinstance(least, bool):
            raise ValueError(self.tag)
        given = b"".join(attempt.request.values(b"x-alter-reason")).decode("utf-8", "replace").strip()
        return None if len(given) >= least else f"a reason of at least {least} characters is required"

    def describe(self, params: dict[str, Any]) -> str:
        """What passes."""
        return f"{params['characters']} or more characters"


KIND: PolicyKind = Reason()
