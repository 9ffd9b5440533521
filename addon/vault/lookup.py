"""
What one request needs to know, read now, in one statement and so in one snapshot.

A committed revoke, rotate or policy change holds for the very next request: what was read is remembered only while
SQLite says that nothing at all has been committed since. An unknown grant, an unknown key and a grant of somebody else
cost the same work.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from sqlite_utils import Database

from addon.errors import Fault
from addon.model import User
from addon.policies.policy import Layer
from addon.vault.database import Unanswered, identity, query
from addon.vault.seal import Sealed, Wrap


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyState:
    """A stored key and the caller it stands for. Times are seconds since the epoch, UTC."""

    key_id: str
    type: str
    expires_at: float | None
    revoked_at: float | None
    grants: tuple[str, ...]
    caller_type: str
    caller_name: str
    caller_state: str
    cidrs: tuple[str, ...]
    policies: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DelegationState:
    """
    A stored delegation. `idp_live`: its user's provider is still registered.

    `proven_at` is when the user's newest token proved the group that the grant names, or None if it did not.
    """

    id: str
    agent: str
    user: User
    expires_at: float
    revoked_at: float | None
    idp_live: bool
    proven_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantState:
    """
    A stored grant with the current version of its secret, still sealed.

    `policies` are those of every layer but the caller's. `delegation` is set where the tag named a delegation of the grant. `proof_seconds` is how long a proven membership
    of a group carries one.
    """

    id: str
    principal: str
    expires_at: float | None
    revoked_at: float | None
    policies: tuple[Layer, ...]
    secret_id: str
    secret_name: str
    secret_state: str
    kind: str
    version: int
    binding: bytes
    sealed: Sealed
    delegable: bool = False
    proof_seconds: float = 0.0
    delegation: DelegationState | None = None

    @property
    def tag(self) -> str:
        """The id a request names: that of the delegation, if it is used through one."""
        return self.delegation.id if self.delegation else self.id


@dataclass(frozen=True, slots=True)
class Lookup:
    """What was found for a key digest and a tag; None for what was not."""

    key: KeyState | None
    grant: GrantState | None


_REMEMBERED = 512
"""Answers kept; a caller that asks for more grants than that makes only itself slower."""

_LOOKUP = """
SELECT k.id, k.type, k.expires_at, k.revoked_at, k.grants, c.type, c.name, c.state, c.cidrs,
       g.id, g.principal, g.expires_at, g.revoked_at, g.policies,
       s.id, s.name, s.state, s.kind, v.version, v.binding, v.payload, w.kid, w.suite, w.wrapped,
       g.delegable, g.proof_seconds, d.id, a.name, d.idp, d.subject, d.expires_at, d.revoked_at, i.id, p.member, p.proven_at,
       c.policies, m.value, s.policies, d.policies
FROM (SELECT :digest AS digest, :tag AS tag) AS q
LEFT JOIN meta m ON m.name = 'policies'
LEFT JOIN keys k ON k.digest = q.digest
LEFT JOIN callers c ON c.id = k.caller_id
LEFT JOIN delegations d ON d.id = q.tag
LEFT JOIN callers a ON a.id = d.agent_id
LEFT JOIN idps i ON i.name = d.idp AND i.removed_at IS NULL
LEFT JOIN grants g ON g.id = coalesce(d.grant_id, q.tag)
LEFT JOIN group_proofs p ON p.idp = d.idp AND p.subject = d.subject AND g.principal = 'group:' || p.idp || '/' || p.name
LEFT JOIN secrets s ON s.id = g.secret_id
LEFT JOIN versions v ON v.secret_id = s.id AND v.version = s.current
LEFT JOIN wraps w ON w.secret_id = v.secret_id AND w.version = v.version
"""

_BOUND = """
SELECT max(d.private) FROM destinations d
JOIN secrets s ON s.id = d.secret_id AND s.current = d.version AND s.state = 'active'
WHERE d.port = :port AND d.pattern IN (:host, :wildcard)
"""

_BOUND_HOST = """
SELECT count(*) FROM destinations d
JOIN secrets s ON s.id = d.secret_id AND s.current = d.version AND s.state = 'active'
WHERE d.pattern IN (:host, :wildcard)
"""


class Lookups:
    """What is stored about keys and grants, read from one database."""

    def __init__(self, database: Database, path: Path) -> None:
        self._database = database
        self._path = path
        self._file = identity(path)
        self._known: dict[tuple[bytes, str], Lookup] = {}
        self.as_of: tuple[int, int] = (-1, -1)
        """Which state of the vault the last answer was of: another value, another state."""

    def find(self, *, digest: bytes, tag: str) -> Lookup:
        """
        What is stored now. Raises Fault `vault_unavailable` when the vault cannot answer.

        SQLite changes `data_version` when another connection commits, and `total_changes` when this one does.
        """
        if (
            identity(self._path) != self._file
        ):  # what is committed from now on would be to a file that nobody here reads
            raise Unanswered("vault_unavailable", "another file is in the place of the vault")
        connection = self._database.conn
        if connection.in_transaction:  # what is read now may be taken back
            return read(self._database, digest=digest, tag=tag)
        as_of = query(self._database, "PRAGMA data_version", ())[0][0], connection.total_changes
        if as_of != self.as_of or len(self._known) >= _REMEMBERED:
            # Taken before the reading: what is committed in between is read again, rather than kept too long.
            self._known, self.as_of = {}, as_of
        found = self._known.get((digest, tag))
        if found is None:
            found = self._known[digest, tag] = read(self._database, digest=digest, tag=tag)
        return found


def read(database: Database, *, digest: bytes, tag: str) -> Lookup:
    """Raises Fault `vault_unavailable` when the vault cannot answer."""
    rows = query(database, _LOOKUP, {"digest": digest, "tag": tag})
    row = rows[0]
    return Lookup(_key(row[:9], row[35]) if row[0] else None, _grant(row[9:], rows) if row[9] and row[18] else None)


def versions_for(database: Database, host: str, port: int) -> list[tuple[str, int]]:
    """Every stored version that is bound to a destination: the id of its secret, and its number. Raises Fault."""
    wildcard = "*." + host.partition(".")[2]
    rows = query(
        database,
        "SELECT DISTINCT secret_id, version FROM destinations WHERE port = :port AND pattern IN (:host, :wildcard)",
        {"host": host, "wildcard": wildcard, "port": port},
    )
    return [(str(secret_id), int(number)) for secret_id, number in rows]


def version(database: Database, secret_id: str, number: int) -> tuple[str, str, bytes, Sealed]:
    """Name, kind, binding and sealed values of one stored version. Raises Fault when it is gone, or the vault cannot answer."""
    rows = query(
        database,
        "SELECT s.name, s.kind, v.binding, v.payload, w.kid, w.suite, w.wrapped"
        " FROM versions v JOIN secrets s ON s.id = v.secret_id JOIN wraps w ON w.secret_id = v.secret_id AND w.version = v.version"
        " WHERE v.secret_id = :id AND v.version = :version",
        {"id": secret_id, "version": number},
    )
    if not rows:
        raise Fault("vault_unavailable", "a version is gone")
    name, kind, binding, payload = rows[0][:4]
    return name, kind, binding, Sealed(payload, tuple(Wrap(*row[4:]) for row in rows))


def bound(database: Database, host: str, port: int) -> bool | None:
    """None when no active secret is bound to the destination, else whether one of them allows private addresses."""
    wildcard = "*." + host.partition(".")[2]
    private = query(database, _BOUND, {"host": host, "wildcard": wildcard, "port": port})[0][0]
    return None if private is None else bool(private)


def bound_host(database: Database, host: str) -> bool:
    """Whether an active secret is bound to a host, on any port."""
    return bool(query(database, _BOUND_HOST, {"host": host, "wildcard": "*." + host.partition(".")[2]})[0][0])


def _key(row: tuple[object, ...], policies: object) -> KeyState:
    key_id, kind, expires_at, revoked_at, grants, caller_type, caller_name, caller_state, cidrs = row
    return KeyState(
        key_id=str(key_id),
        type=str(kind),
        expires_at=expires_at,  # type: ignore[arg-type]
        revoked_at=revoked_at,  # type: ignore[arg-type]
        grants=() if grants == "[]" else _texts(grants),
        caller_type=str(caller_type),
        caller_name=str(caller_name),
        caller_state=str(caller_state),
        cidrs=() if cidrs == "[]" else _texts(cidrs),
        policies=str(policies),
    )


def _texts(stored: object) -> tuple[str, ...]:
    """A stored list that is not empty. Raises Fault for anything else: an empty one means no restriction."""
    try:
        texts = json.loads(str(stored))
    except (ValueError, RecursionError):
        texts = None
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise Fault("vault_unavailable", "a stored list cannot be read")
    return tuple(texts)


def _grant(row: tuple[object, ...], rows: list[tuple[object, ...]]) -> GrantState:
    grant_id, principal, expires_at, revoked_at, policies, secret_id, name, state, kind, version, binding, payload = row[:12]  # fmt: skip
    wraps = tuple(Wrap(r[21], r[22], r[23]) for r in rows if r[21])  # type: ignore[arg-type]
    delegation = _delegation(row[17:26]) if row[17] else None
    layers = [
        Layer("vault", "", str(row[27])),
        Layer("secret", str(secret_id), str(row[28])),
        Layer("grant", str(grant_id), str(policies)),
    ]
    if delegation:
        layers.append(Layer("delegation", delegation.id, str(row[29])))
    return GrantState(
        id=str(grant_id),
        principal=str(principal),
        expires_at=expires_at,  # type: ignore[arg-type]
        revoked_at=revoked_at,  # type: ignore[arg-type]
        policies=tuple(layers),
        secret_id=str(secret_id),
        secret_name=str(name),
        secret_state=str(state),
        kind=str(kind),
        version=version,  # type: ignore[arg-type]
        binding=binding,  # type: ignore[arg-type]
        sealed=Sealed(payload, wraps),  # type: ignore[arg-type]
        delegable=row[15] == 1,
        proof_seconds=row[16],  # type: ignore[arg-type]
        delegation=delegation,
    )


def _delegation(row: tuple[object, ...]) -> DelegationState:
    delegation_id, agent, idp, subject, expires_at, revoked_at, live, member, proven_at = row
    return DelegationState(
        id=str(delegation_id),
        agent=str(agent),
        user=User(idp=str(idp), subject=str(subject)),
        expires_at=expires_at,  # type: ignore[arg-type]
        revoked_at=revoked_at,  # type: ignore[arg-type]
        idp_live=live is not None,
        proven_at=proven_at if member == 1 else None,  # type: ignore[arg-type]
    )
