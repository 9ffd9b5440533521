"""What a kind of policy must be able to do."""

from collections.abc import Iterable
from typing import Any, ClassVar, NamedTuple, Protocol

from addon.model import Caller, Request


class Attempt(NamedTuple):
    """What a policy judges: one request of one caller at one time (seconds since the epoch, UTC)."""

    request: Request
    caller: Caller
    now: float


class Layer(NamedTuple):
    """
    Where policies stand, as stored there.

    `name` is `vault`, `app`, `agent`, `secret`, `grant` or `delegation`; `subject` tells one of that sort from another.
    """

    name: str
    subject: str
    stored: str


class PolicyKind(Protocol):
    """A kind of policy. `tag` is stored and never changes its meaning."""

    tag: ClassVar[str]

    def parse(self, values: tuple[str, ...]) -> dict[str, Any]:
        """The stored parameters from what an operator typed. Raises Usage."""

    def check(self, params: dict[str, Any], attempt: Attempt) -> str | None:
        """None when the attempt passes, otherwise what was compared, in words for the operator."""

    def describe(self, params: dict[str, Any]) -> str:
        """What passes, in a few words for the operator."""


class Limit(NamedTuple):
    """
    So many uses, in each `unit`: any `sliding_seconds` on end, or else one of the calendar (UTC), or ever where it is empty.
    """

    amount: int
    unit: str
    sliding_seconds: int = 0


class Due(NamedTuple):
    """A limit to be counted: where it stands, and its kind."""

    layer: str
    subject: str
    kind: str
    limit: Limit

    @property
    def policy(self) -> str:
        """As a refusal names it."""
        return f"{self.layer}.{self.kind}"

    @property
    def key(self) -> str:
        """What is counted together. The amount is not in it: whoever raises a limit keeps what was used."""
        return f"{self.layer}:{self.subject}:{self.kind}:{self.limit.unit}"


class Ask(NamedTuple):
    """A person is to be asked, and to answer within `seconds`."""

    policy: str
    seconds: int


class Look(NamedTuple):
    """The body is to be looked at, once it is here whole: `policy` as a refusal names it, and its parameters."""

    policy: str
    params: dict[str, Any]


class BodyKind(PolicyKind, Protocol):
    """A kind of policy that looks at the body. Its `check` judges the head alone."""

    def examine(self, params: dict[str, Any], body: Any) -> str | None:
        """None when a body passes, as it was read, otherwise what was compared, in words for the operator."""


class LimitKind(PolicyKind, Protocol):
    """A kind of policy that counts. Its `check` passes whatever can be counted."""

    def limits(self, params: dict[str, Any]) -> tuple[Limit, ...]:
        """What is to be counted, each unit once."""


def spread(limits: Iterable[Limit]) -> tuple[Limit, ...]:
    """Raises ValueError unless there are limits, each for another unit: two of one unit would be counted together."""
    found = tuple(limits)
    if not found or len({limit.unit for limit in found}) != len(found):
        raise ValueError
    return found


def listed(params: dict[str, Any], name: str) -> list[str]:
    """
    The one member that parameters hold, a list of texts.

    Raises ValueError for anything else: text would pass for the list of its characters, and a second member may be a
    restriction that a newer version wrote.
    """
    values = params[name]
    if len(params) > 1 or not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(name)
    return values
