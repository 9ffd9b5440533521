"""
A binding says where and how a secret may be used. It is sealed with the value.

The stored bytes are JSON; what the seal authenticates is the hash of exactly those bytes, so nothing is ever
re-serialised to check it. `load` is strict: an unknown member, flag or type refuses, since an old reader must not
ignore a restriction that a newer writer meant.

    scheme      always "https"
    hosts       [[pattern, port], …]         never empty
    methods     ["GET", …]                   never empty
    paths       ["/v1/", …]                  prefixes of the path as sent; never empty
    placements  [["header"|"query", name, format], …]
    constants   [[name, value], …]           header added unless the caller sent one
    service, region                          sigv4 scope: a name, several in a list, or null: taken from the host
    role        {"arn": …, "external_id": …, "seconds": …}, sigv4; absent where there is none
    flags       ["private", …]               see FLAGS
"""

import functools
import hashlib
import json
from dataclasses import asdict, dataclass

from addon import hosts as names
from addon.errors import Fault

FLAGS = frozenset({"private", "allow-credential-minting", "no-redact", "cookies", "websocket"})
"""
`private`: the host may resolve to a private address.
`no-redact`: responses are not searched for the secret.
`cookies`: responses may set cookies.
`websocket`: requests may ask for a WebSocket.
`allow-credential-minting`: operations whose response hands usable credentials to the caller are not refused.
"""

SAFE_METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")
"""The methods of a binding that names none. TRACE and CONNECT can never be bound."""

REGISTERED_METHODS = frozenset(SAFE_METHODS) | {"PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK", "REPORT", "SEARCH", "QUERY", "LIST", "PURGE"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a value goes: `where` is `header` or `query`; `format` holds `{field}` markers."""

    where: str
    name: str
    format: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """An AWS role that is assumed with the stored key, in sessions of so many seconds."""

    arn: str
    external_id: str | None = None
    seconds: int = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """See the module. Equality is by content; `digest` is of the bytes that are stored."""

    hosts: tuple[tuple[str, int], ...]
    methods: tuple[str, ...] = SAFE_METHODS
    paths: tuple[str, ...] = ("/",)
    placements: tuple[Placement, ...] = ()
    constants: tuple[tuple[str, str], ...] = ()
    services: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    role: Role | None = None
    flags: frozenset[str] = frozenset()
    scheme: str = "https"

    def covers(self, host: str, port: int) -> bool:
        """Whether a normalised host and port are bound."""
        return any(port == p and names.matches(pattern, host) for pattern, p in self.hosts)

    def dump(self) -> bytes:
        """The bytes to store and seal."""
        document: dict[str, object] = {
            "scheme": self.scheme,
            "hosts": [[h, p] for h, p in self.hosts],
            "methods": list(self.methods),
            "paths": list(self.paths),
            "placements": [[p.where, p.name, p.format] for p in self.placements],
            "constants": [[n, v] for n, v in self.constants],
            "service": _dump_names(self.services),
            "region": _dump_names(self.regions),
            "flags": sorted(self.flags),
        }
        if self.role:
            document["role"] = asdict(self.role)
        return json.dumps(document, separators=(",", ":")).encode()


def digest(stored: bytes) -> bytes:
    """SHA-256 of the stored bytes; this is what the sealed context carries."""
    return hashlib.sha256(stored).digest()


@functools.lru_cache(maxsize=1024)
def load(stored: bytes) -> Binding:
    """
    The binding in stored bytes. A pure function of its argument, so its memory can never be stale.

    Raises Fault for anything but the members above, each of them once and of its type.
    """
    try:
        raw = json.loads(stored, object_pairs_hook=_no_duplicates)
        binding = Binding(
            scheme=_one_of(raw.pop("scheme"), {"https"}),
            hosts=tuple((_text(h), _port(p)) for h, p in _lists(raw.pop("hosts"))),
            methods=tuple(_text(m) for m in _list(raw.pop("methods"))),
            paths=tuple(_text(p) for p in _list(raw.pop("paths"))),
            placements=tuple(
                Placement(_one_of(w, {"header", "query"}), _text(n), _text(f))
                for w, n, f in _lists(raw.pop("placements"))
            ),
            constants=tuple((_text(n), _text(v)) for n, v in _lists(raw.pop("constants"))),
            services=_load_names(raw.pop("service")),
            regions=_load_names(raw.pop("region")),
            role=_load_role(raw.pop("role")) if "role" in raw else None,
            flags=frozenset(_one_of(f, FLAGS) for f in _list(raw.pop("flags"))),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Fault("vault_unavailable", "a stored binding cannot be read") from error
    if raw or not (binding.hosts and binding.methods and binding.paths):
        raise Fault("vault_unavailable", "a stored binding cannot be read")
    return binding


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def _list(value: object) -> list[object]:
    # A string and an object can be iterated, too, and would pass for lists of their characters and names.
    if not isinstance(value, list):
        raise ValueError  # noqa: TRY004  one kind of error for all that cannot be read
    return value


def _lists(value: object) -> list[list[object]]:
    return [_list(item) for item in _list(value)]


def _text(value: object) -> str:
    if not isinstance(value, str) or not value or not value.isascii():
        raise ValueError
    return value


def _optional(value: object) -> str | None:
    return None if value is None else _text(value)


def _dump_names(names: tuple[str, ...]) -> str | list[str] | None:
    return (names[0] if len(names) == 1 else list(names)) if names else None


def _load_names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        return () if value is None else (_text(value),)
    if len(value) < 2:  # there is one way to write each
        raise ValueError
    return tuple(_text(name) for name in value)


def _load_role(value: object) -> Role:
    if not isinstance(value, dict) or value.keys() != {"arn", "external_id", "seconds"}:
        raise ValueError
    seconds = value["seconds"]
    if not isinstance(seconds, int) or isinstance(seconds, bool) or seconds < 1:
        raise ValueError
    return Role(arn=_text(value["arn"]), external_id=_optional(value["external_id"]), seconds=seconds)


def _port(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 65536:
        raise ValueError
    return value


def _one_of(value: object, allowed: frozenset[str] | set[str]) -> str:
    if value not in allowed:
        raise ValueError
    return str(value)
