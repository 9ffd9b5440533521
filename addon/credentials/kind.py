"""What a kind of credential must be able to do."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

from addon.binding import Binding
from addon.model import Head, Outgoing, Values


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a secret. Only a field that is not `secret` may be given literally on a command line."""

    name: str
    prompt: str
    secret: bool = True
    required: bool = True


class Target(NamedTuple):
    """Where the head will be sent, and when: what a signature needs to know. `now` is seconds since the epoch."""

    host: str
    port: int
    now: float

    @property
    def authority(self) -> str:
        """What `Host` and `:authority` say: no default port (RFC 9110 4.2.3)."""
        return self.host if self.port == 443 else f"{self.host}:{self.port}"


class Plan(Protocol):
    """What the head of one request decides, before any value is known. Holds nothing secret."""

    @property
    def needs_body(self) -> bool:
        """Whether the whole body must be held before `apply`: for its SHA-256, or so that its length can be stated."""

    def apply(self, values: Values, *, target: Target, body_sha256: str | None) -> Outgoing:
        """
        What to send: the caller's own credentials of the same purpose removed, ours written.

        `body_sha256` is hex, and given exactly when `needs_body`. Raises Refusal; a stored value that cannot be written
        safely raises Fault.
        """


class Kind(Protocol):
    """A credential kind. `tag` is stored with each secret and never changes its meaning."""

    tag: ClassVar[str]

    sent: ClassVar[bool]
    """Whether the upstream is sent the secret itself, and so can send it back."""

    def fields(self, binding: Binding) -> tuple[Field, ...]:
        """The fields of a secret under this binding, in the order to ask for them."""

    def check_binding(self, binding: Binding) -> Binding:
        """The binding completed with the kind's defaults. Raises Usage for one this kind cannot serve."""

    def check_values(self, binding: Binding, values: dict[str, str]) -> None:
        """Raises Usage, naming the field and the reason, for values that cannot be used. Never shows a value."""

    def hidden(self, values: Values, *, binding: Binding) -> tuple[str, ...]:
        """The texts that no response may show."""

    def plan(self, head: Head, *, binding: Binding, host: str) -> Plan:
        """What to do with a request to `host`, a normalised name. Raises Refusal for shapes it cannot serve."""
