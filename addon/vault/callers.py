"""Apps and agents, and their keys. A key is shown once; the vault keeps its digest."""

import json
import secrets
import uuid
from dataclasses import dataclass

from sqlite_utils import Database

from addon.callers import key as keys
from addon.callers.key import KeyType
from addon.errors import Conflict, NotFound, Usage
from addon.policies.cidr import parse_networks
from addon.principals.principal import parse_name
from addon.vault import log
from addon.vault.database import Connection, query, write


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """An app or an agent. `type` is `app` or `agent`; `keys` counts those that work now."""

    id: str
    type: str
    name: str
    state: str
    cidrs: tuple[str, ...]
    created_at: float
    keys: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredKey:
    """What may be told about a key."""

    id: str
    type: str
    grants: tuple[str, ...]
    created_at: float
    expires_at: float | None
    revoked_at: float | None


class Callers:
    """The callers of one vault."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, caller_type: str, name: str, *, cidrs: tuple[str, ...], now: float) -> tuple[str, str]:
        """A new caller with its first key: (key id, key). Raises Conflict if the name was ever used."""
        parse_name(name, what=f"an {caller_type}")
        networks = parse_networks(cidrs)
        with write(self._database) as connection:
            if connection.execute("SELECT 1 FROM callers WHERE type = ? AND name = ?", (caller_type, name)).fetchone():
                raise Conflict(
                    f"there is an {caller_type} named {name} already",
                    hint=f"another key for it: `vaultctl {caller_type} key create {name}`",
                )
            caller_id = str(uuid.uuid4())
            connection.execute(
                "INSERT INTO callers (id, type, name, state, cidrs, created_at) VALUES (?, ?, ?, 'active', ?, ?)",
                (caller_id, caller_type, name, json.dumps(networks), now),
            )
            log.append(connection, at=now, action=f"{caller_type}.create", subject=name, cidrs=networks)
            return self._mint(
                connection,
                caller_id,
                subject=name,
                key_type=keys.CALLER_TYPES[caller_type],
                now=now,
            )

    def mint_key(
        self,
        caller_type: str,
        name: str,
        *,
        now: float,
        expires_at: float | None = None,
        session: bool = False,
        grants: tuple[str, ...] = (),
    ) -> tuple[str, str]:
        """Another key for a caller: (key id, key). A `session` key is limited to `grants` where any are given."""
        member = self.get(caller_type, name)
        if expires_at is not None and not expires_at > now:  # nor is a NaN, which SQLite would store as no end at all
            raise Usage("the key would expire at once", hint="give a time in the future, such as --expires 90d")
        key_type: KeyType = "run" if session else keys.CALLER_TYPES[caller_type]
        with write(self._database) as connection:
            return self._mint(
                connection, member.id, subject=name, key_type=key_type, now=now, expires_at=expires_at, grants=grants
            )

    def revoke_key(self, caller_type: str, key_id: str, *, now: float) -> None:
        """Effective for the very next request. Raises NotFound."""
        with write(self._database) as connection:
            row = connection.execute(
                "SELECT c.name FROM keys k JOIN callers c ON c.id = k.caller_id WHERE k.id = ? AND c.type = ?",
                (key_id, caller_type),
            ).fetchone()
            if not row:
                raise NotFound(
                    f"no key {key_id} of an {caller_type}", hint=f"`vaultctl {caller_type} key list NAME` lists them"
                )
            connection.execute("UPDATE keys SET revoked_at = coalesce(revoked_at, ?) WHERE id = ?", (now, key_id))
            log.append(connection, at=now, action=f"{caller_type}.key.revoke", subject=row[0], key_id=key_id)

    def set_state(self, caller_type: str, name: str, state: str, *, now: float) -> None:
        """`active` or `disabled`: all keys of a disabled caller stop working, for the very next request."""
        member = self.get(caller_type, name)
        with write(self._database) as connection:
            connection.execute("UPDATE callers SET state = ? WHERE id = ?", (state, member.id))
            action = "enable" if state == "active" else "disable"
            log.append(connection, at=now, action=f"{caller_type}.{action}", subject=name)

    def get(self, caller_type: str, name: str) -> Member:
        """Raises NotFound."""
        for member in self.list(caller_type):
            if member.name == name:
                return member
        raise NotFound(f"no {caller_type} named {name}", hint=f"make it first: `vaultctl {caller_type} create {name}`")

    def list(self, caller_type: str, *, now: float = 0.0) -> list[Member]:
        """All callers of a type, by name."""
        rows = query(
            self._database,
            "SELECT c.id, c.type, c.name, c.state, c.cidrs, c.created_at, count(k.id) FROM callers c"
            " LEFT JOIN keys k ON k.caller_id = c.id AND k.type <> 'run' AND k.revoked_at IS NULL"
            " AND (k.expires_at IS NULL OR k.expires_at > :now)"
            " WHERE c.type = :type GROUP BY c.id ORDER BY c.name",
            {"type": caller_type, "now": now},
        )
        return [
            Member(id=i, type=t, name=n, state=s, cidrs=tuple(json.loads(c)), created_at=at, keys=k)
            for i, t, n, s, c, at, k in rows
        ]

    def keys(self, caller_type: str, name: str) -> tuple[StoredKey, ...]:
        """The keys of a caller, oldest first, sessions included."""
        member = self.get(caller_type, name)
        rows = query(
            self._database,
            "SELECT id, type, grants, created_at, expires_at, revoked_at FROM keys WHERE caller_id = :id ORDER BY created_at",
            {"id": member.id},
        )
        return tuple(
            StoredKey(id=i, type=t, grants=tuple(json.loads(g)), created_at=c, expires_at=e, revoked_at=r)
            for i, t, g, c, e, r in rows
        )

    def _mint(
        self,
        connection: Connection,
        caller_id: str,
        *,
        subject: str,
        key_type: KeyType,
        now: float,
        expires_at: float | None = None,
        grants: tuple[str, ...] = (),
    ) -> tuple[str, str]:
        text, key = keys.mint(key_type)
        key_id = "key_" + secrets.token_hex(6)
        connection.execute(
            "INSERT INTO keys (id, caller_id, type, digest, grants, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (key_id, caller_id, key_type, key.digest, json.dumps(list(grants)), now, expires_at),
        )
        log.append(connection, at=now, action="key.create", subject=subject, key_id=key_id, type=key_type)
        return key_id, text
