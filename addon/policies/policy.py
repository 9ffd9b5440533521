"""What a kind of policy must be able to do."""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from addon.model import Caller, Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What a policy judges: one request of one caller at one time (seconds since the epoch, UTC)."""

    request: Request
    caller: Caller
    now: float


class PolicyKind(Protocol):
    """A kind of policy. `tag` is stored and never changes its meaning."""

    tag: ClassVar[str]

    def parse(self, values: tuple[str, ...]) -> dict[str, Any]:
        """The stored parameters from what an operator typed. Raises Usage."""

    def check(self, params: dict[str, Any], attempt: Attempt) -> str | None:
        """None when the attempt passes, otherwise what was compared, in words for the operator."""
