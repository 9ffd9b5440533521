"""`approval`: only what a person has looked at. The request waits, or asks again later; one yes is for one request."""

from typing import Any, ClassVar

from addon.errors import Usage
from addon.policies.policy import Attempt, PolicyKind

LONGEST = 86_400


class Approval:
    """Passes what can be asked about. Asking is the gate's, when the body is known and every other policy has passed."""

    tag: ClassVar[str] = "approval"

    def parse(self, values: tuple[str, ...]) -> dict[str, Any]:
        """The stored parameters, from the seconds within which a person must answer."""
        if len(values) != 1 or not values[0].isdecimal() or not 1 <= int(values[0]) <= LONGEST:
            raise Usage("not a time to approve within", hint="give one from 1s to 24h, such as 10m")
        return {"seconds": int(values[0])}

    def check(self, params: dict[str, Any], attempt: Attempt) -> None:  # noqa: ARG002  the protocol's signature
        """Passes. Raises ValueError for what could not be asked about."""
        self.seconds(params)

    def seconds(self, params: dict[str, Any]) -> int:
        """Within which a person must answer. Raises ValueError."""
        seconds = params["seconds"]
        if len(params) > 1 or not isinstance(seconds, int) or isinstance(seconds, bool) or not 1 <= seconds <= LONGEST:
            raise ValueError(self.tag)
        return seconds

    def describe(self, params: dict[str, Any]) -> str:
        """What passes."""
        return f"approved by a person within {self.seconds(params)} seconds"


APPROVAL = Approval()
KIND: PolicyKind = APPROVAL
