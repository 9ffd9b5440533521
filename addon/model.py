"""
The values the kernel works on. All are frozen; parsing happens once, at the edge. Those made for every request are
tuples, which cost a third of what a frozen dataclass does.

Law of this file: headers are ordered pairs of bytes with duplicates kept (RFC 9110 5.3), times are seconds since the
epoch in UTC, and a value that holds secret material never shows it (`Values`).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, NoReturn, Protocol

Headers = tuple[tuple[bytes, bytes], ...]


class Head(NamedTuple):
    """A request head as it will be written: method, target (path and query, origin-form), headers."""

    method: str
    target: bytes
    headers: Headers

    @property
    def path(self) -> bytes:
        """The target up to the first `?`."""
        return self.target.partition(b"?")[0]


class Rewriter(Protocol):
    """
    Changes a body on its way, to one of the same length.

    Both may give back nothing while more is needed, and raise Refusal for a body that is not what its head says.
    """

    def feed(self, data: bytes) -> bytes:
        """What can go out now."""

    def finish(self) -> bytes:
        """The body has ended: the rest of it. May be called again."""


class Outgoing(NamedTuple):
    """What is sent: a head, and its body as it comes, or as `rewriter` makes it."""

    head: Head
    rewriter: Rewriter | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """A well-formed key, reduced to what may be kept: its type and digest."""

    type: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class Proof:
    """A presented key, and the caller's name where one came with it."""

    key: Key
    name: str | None


class Request(NamedTuple):
    """
    One request as it arrived.

    `host` and `port` are where its bytes would go (the CONNECT authority, or the absolute form of a plain request);
    `host` is normalised (`hosts.normalize`). `authorities` are all the names the request itself claims, as sent: each
    `Host` header, `:authority`, the authority of an absolute form. `tunnel_key` is the key proved on CONNECT. `version` is
    as HTTP/1.1 writes it.
    `Host` header, `:authority`, the authority of an absolute form. `tunnel_key` is the key proved on CONNECT.
    `connection` is the id of the connection it came on, in this process.
    """

    id: str
    scheme: str
    host: str
    port: int
    method: str
    target: bytes
    headers: Headers
    authorities: tuple[bytes, ...]
    sni: str | None
    client_ip: str
    tunnel_key: Proof | None = None
    absolute_scheme: str | None = None
    version: str = "HTTP/1.1"
    connection: str = ""

    @property
    def head(self) -> Head:
        """The part that is rewritten and sent."""
        return Head(self.method, self.target, self.headers)

    @property
    def path(self) -> bytes:
        """The target up to the first `?`."""
        return self.target.partition(b"?")[0]

    def values(self, name: bytes) -> list[bytes]:
        """Every value of header `name` (lower-case), in order."""
        return [v for k, v in self.headers if k.lower() == name]


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """
    The end user a request proved, by a verified token.

    `idp` is our name of the provider and `subject` the user's id there; only both together name anybody. `groups` are
    those this very token lists. `token_id` is its `jti`, or empty. Times are seconds since the epoch, UTC.
    """

    idp: str
    subject: str
    groups: frozenset[str] = frozenset()
    issuer: str = ""
    token_id: str = ""
    issued_at: int = 0
    expires_at: int = 0

    def __str__(self) -> str:
        return f"user:{self.idp}/{self.subject}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """
    Who this request proved to be.

    `type` is `app` or `agent`; `name` is unique within it. `grants` is non-empty only for a `run` session: the grants
    it may use without a tag, and the only ones it may use at all. `user` is who sits before it, if a token proved that.
    `policies` are those of the caller, as stored.
    """

    type: str
    name: str
    key_id: str
    session: bool = False
    grants: tuple[str, ...] = ()
    user: User | None = None
    policies: str = "[]"

    def __str__(self) -> str:
        return f"{self.type}:{self.name}"


class Values(Mapping[str, str]):
    """
    The opened fields of a secret. Looks like a mapping, prints as stars, cannot be pickled or compared.

    Exists only between `Vault.open` and the end of `Plan.apply`.
    """

    __slots__ = ("_fields",)

    def __init__(self, fields: Mapping[str, str]) -> None:
        self._fields = dict(fields)

    def __getitem__(self, name: str) -> str:
        return self._fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        return "Values(***)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return "Values(***)"

    def __reduce__(self) -> NoReturn:
        msg = "opened values are never serialised"
        raise TypeError(msg)

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return self is other


class Record(NamedTuple):
    """
    One audit entry: names and ids, never values, queries, bodies or tokens.

    `phase` is `intent` (before anything leaves) or `outcome` (after); both carry the request's `id`. `decision` is
    `authorized`, `refused`, `untagged`, `passed` (a tunnel that was not read) or `fault`. `at` is seconds since the epoch (UTC); `duration_ms` runs from the
    intent to the end of the response, which showed the secret in `redactions` places.
    """

    id: str
    at: float
    phase: str
    decision: str = ""
    code: str = ""
    caller: str = ""
    user: str = ""
    principal: str = ""
    grant_id: str = ""
    delegation_id: str = ""
    secret: str = ""
    version: int | None = None
    host: str = ""
    port: int = 0
    method: str = ""
    path: str = ""
    client_ip: str = ""
    status: int | None = None
    duration_ms: float | None = None
    redactions: int | None = None
    policy: str = ""
    approval_id: str = ""
    approved_by: str = ""
    reason: str = ""
    context: Mapping[str, str] = MappingProxyType({})
    trace_id: str = ""


Clock = Callable[[], float]
