"""
Secrets and their versions, as an operator changes them. Write-only: nothing here can open a value.

Exactly one version is current. A rotation adds a version under the same binding and keeps every grant; a version that is
no longer current can be rolled back to until its grace ends, and is then destroyed: by a proxy within a minute, or by the
next command that may change the vault.
"""

import json
import uuid
from dataclasses import dataclass, replace

from sqlite_utils import Database

from addon import binding as bindings
from addon import credentials
from addon.binding import Binding
from addon.errors import Conflict, Corrupt, Fault, Locked, NotFound, Usage
from addon.principals.principal import parse_name
from addon.vault import log
from addon.vault.database import Connection, query, write
from addon.vault.keyring import Recipient
from addon.vault.seal import Place, seal


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One stored version. `destroys_at` is set when its grace is running out."""

    version: int
    created_at: float
    destroys_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """What may be told about a secret: everything but its value."""

    id: str
    name: str
    kind: str
    provider: str
    note: str
    state: str
    current: int
    created_at: float
    updated_at: float
    binding: Binding
    versions: tuple[Version, ...] = ()


class Secrets:
    """The secrets of one vault."""

    def __init__(self, database: Database, vault_id: str) -> None:
        self._database = database
        self._vault_id = vault_id

    def put(
        self,
        name: str,
        *,
        kind: str,
        binding: Binding,
        values: dict[str, str],
        now: float,
        provider: str = "",
        note: str = "",
    ) -> Secret:
        """Store a new secret. Raises Conflict if the name is taken, Usage for values or a binding that cannot work."""
        binding = self._checked(kind, binding, values)
        with write(self._database) as connection:
            self.check_new(name)
            secret_id = str(uuid.uuid4())
            connection.execute(
                "INSERT INTO secrets (id, name, kind, provider, note, state, current, created_at, updated_at)"
                " VALUES (?, ?, ?, ?, ?, 'active', 1, ?, ?)",
                (secret_id, name, kind, provider, note, now, now),
            )
            self._add_version(
                connection, secret_id=secret_id, version=1, kind=kind, binding=binding, values=values, now=now
            )
            log.append(connection, at=now, action="secret.set", subject=name, secret_id=secret_id, version=1, kind=kind)
        return self.get(name)

    def check_new(self, name: str) -> None:
        """Raises Usage for what cannot be a name, Conflict for one that is taken."""
        parse_name(name, what="a secret")
        if query(self._database, "SELECT 1 FROM secrets WHERE name = :name", {"name": name}):
            raise Conflict(
                f"there is a secret named {name} already",
                hint="a new value: `vaultctl secret rotate`; other hosts: `vaultctl secret bind`; or choose another name",
            )

    def rotate(self, name: str, *, values: dict[str, str], now: float, grace: float | None = None) -> Secret:
        """A new current version under the same binding. The old one is destroyed `grace` seconds later, if given."""
        return self._next(name, values=values, now=now, binding=None, grace=grace, action="secret.rotate")

    def bind(self, name: str, *, binding: Binding, values: dict[str, str], now: float) -> Secret:
        """A new current version under a new binding, for which the value is needed again."""
        return self._next(name, values=values, now=now, binding=binding, grace=None, action="secret.bind")

    def rollback(self, name: str, *, now: float, to: int | None = None) -> Secret:
        """Make an older version current again: the newest older one, or `to`."""
        with write(self._database) as connection:
            self._destroy_expired(connection, now)
            secret = self.get(name)
            older = [
                v.version for v in secret.versions if v.version != secret.current and (to is None or v.version == to)
            ]
            if to is None:
                older = [version for version in older if version < secret.current]
            if not older:
                raise NotFound(
                    f"{name} has no {'older version' if to is None else f'version {to}'} to go back to",
                    hint=f"`vaultctl secret show {name}` lists the versions that are left",
                )
            connection.execute(
                "UPDATE secrets SET current = ?, updated_at = ? WHERE id = ?", (max(older), now, secret.id)
            )
            connection.execute("UPDATE versions SET destroys_at = NULL WHERE secret_id = ? AND version = ?", (secret.id, max(older)))  # fmt: skip
            log.append(connection, at=now, action="secret.rollback", subject=name, version=max(older))
        return self.get(name)

    def set_state(self, name: str, state: str, *, now: float) -> Secret:
        """`active` or `disabled`: a disabled secret opens for nobody, and keeps its grants."""
        with write(self._database) as connection:
            secret_id = self.find(name)
            connection.execute("UPDATE secrets SET state = ?, updated_at = ? WHERE id = ?", (state, now, secret_id))
            action = "secret.enable" if state == "active" else "secret.disable"
            log.append(connection, at=now, action=action, subject=name)
        return self.get(name)

    def delete(self, name: str, *, now: float) -> None:
        """Destroy every version and every grant of a secret."""
        with write(self._database) as connection:
            secret_id = self.find(name)
            grants = connection.execute("SELECT count(*) FROM grants WHERE secret_id = ?", (secret_id,)).fetchone()[0]
            connection.execute("DELETE FROM secrets WHERE id = ?", (secret_id,))
            log.append(connection, at=now, action="secret.delete", subject=name, secret_id=secret_id, grants=grants)

    def expired(self, *, now: float) -> int:
        """How many versions are left whose grace is over. Raises Fault."""
        rows = query(
            self._database,
            "SELECT count(*) FROM versions v JOIN secrets s ON s.id = v.secret_id"
            " WHERE v.destroys_at <= :now AND v.version <> s.current",
            {"now": now},
        )
        return int(rows[0][0])

    def destroy_expired(self, *, now: float) -> int:
        """Destroy those, as every new version of any secret does; how many there were. Raises Locked."""
        with write(self._database) as connection:
            return self._destroy_expired(connection, now)

    def find(self, name: str) -> str:
        """The id of a secret, whatever else of it can be read. Raises NotFound."""
        rows = query(self._database, "SELECT id FROM secrets WHERE name = :name", {"name": name})
        if not rows:
            raise NotFound(f"no secret named {name}", hint="`vaultctl secret list` lists them")
        return str(rows[0][0])

    def get(self, name: str) -> Secret:
        """Raises NotFound."""
        secret_id = self.find(name)
        found = self._select(secret_id)
        if not found:
            raise Corrupt(f"the current version of {name} is missing", hint="restore a backup, or delete the secret")
        rows = query(
            self._database,
            "SELECT version, created_at, destroys_at FROM versions WHERE secret_id = :id ORDER BY version",
            {"id": secret_id},
        )
        versions = tuple(Version(version=v, created_at=c, destroys_at=d) for v, c, d in rows)
        return replace(found[0], versions=versions)

    def list(self) -> list[Secret]:
        """All secrets by name."""
        return list(self._select(None))

    def _select(self, secret_id: str | None) -> tuple[Secret, ...]:
        rows = query(
            self._database,
            "SELECT s.id, s.name, s.kind, s.provider, s.note, s.state, s.current, s.created_at, s.updated_at, v.binding"
            " FROM secrets s JOIN versions v ON v.secret_id = s.id AND v.version = s.current"
            " WHERE :id IS NULL OR s.id = :id ORDER BY s.name",
            {"id": secret_id},
        )
        names = ("id", "name", "kind", "provider", "note", "state", "current", "created_at", "updated_at")
        return tuple(Secret(**dict(zip(names, row, strict=False)), binding=bindings.load(row[9])) for row in rows)

    def kinds(self) -> frozenset[str]:
        """The kinds that any secret has."""
        return frozenset(kind for (kind,) in query(self._database, "SELECT DISTINCT kind FROM secrets", {}))

    def _next(
        self,
        name: str,
        *,
        values: dict[str, str],
        now: float,
        binding: Binding | None,
        grace: float | None,
        action: str,
    ) -> Secret:
        with write(self._database) as connection:
            self._destroy_expired(connection, now)
            secret = self.get(name)
            chosen = self._checked(secret.kind, binding or secret.binding, values)
            version = max(v.version for v in secret.versions) + 1
            self._add_version(
                connection,
                secret_id=secret.id,
                version=version,
                kind=secret.kind,
                binding=chosen,
                values=values,
                now=now,
            )
            if grace is not None:
                connection.execute(
                    "UPDATE versions SET destroys_at = ? WHERE secret_id = ? AND version < ? AND destroys_at IS NULL",
                    (now + grace, secret.id, version),
                )
            connection.execute("UPDATE secrets SET current = ?, updated_at = ? WHERE id = ?", (version, now, secret.id))
            self._destroy_expired(connection, now)
            log.append(connection, at=now, action=action, subject=name, version=version)
        return self.get(name)

    def _checked(self, kind: str, binding: Binding, values: dict[str, str]) -> Binding:
        if kind not in credentials.KINDS:
            raise Usage(f"no such kind: {kind}", hint="one of " + ", ".join(credentials.KINDS))
        chosen = credentials.kind(kind).check_binding(binding)
        credentials.kind(kind).check_values(chosen, values)
        try:
            readable = bindings.load(chosen.dump()) == chosen
        except Fault:
            readable = False
        if not readable:  # stored, it would keep every secret from being listed
            raise Usage("the binding is not complete", hint="it has at least one host, method and path, in plain ASCII")
        return chosen

    def _add_version(
        self,
        connection: Connection,
        *,
        secret_id: str,
        version: int,
        kind: str,
        binding: Binding,
        values: dict[str, str],
        now: float,
    ) -> None:
        stored = binding.dump()
        place = Place(vault_id=self._vault_id, secret_id=secret_id, version=version, kind=kind, binding=stored)
        sealed = seal(json.dumps(values).encode(), place=place, recipients=recipients(connection))
        connection.execute(
            "INSERT INTO versions (secret_id, version, binding, payload, created_at) VALUES (?, ?, ?, ?, ?)",
            (secret_id, version, stored, sealed.payload, now),
        )
        connection.executemany(
            "INSERT INTO wraps (secret_id, version, kid, suite, wrapped) VALUES (?, ?, ?, ?, ?)",
            [(secret_id, version, wrap.kid, wrap.suite, wrap.wrapped) for wrap in sealed.wraps],
        )
        private = int("private" in binding.flags)
        connection.executemany(
            "INSERT INTO destinations (secret_id, version, pattern, port, private) VALUES (?, ?, ?, ?, ?)",
            [(secret_id, version, pattern, port, private) for pattern, port in dict.fromkeys(binding.hosts)],
        )

    def _destroy_expired(self, connection: Connection, now: float) -> int:
        expired = connection.execute(
            "SELECT s.id, s.name, v.version FROM versions v JOIN secrets s ON s.id = v.secret_id"
            " WHERE v.destroys_at <= ? AND v.version <> s.current ORDER BY s.name, v.version",
            (now,),
        ).fetchall()
        for secret_id, name, version in expired:
            connection.execute("DELETE FROM versions WHERE secret_id = ? AND version = ?", (secret_id, version))
            log.append(connection, at=now, action="secret.expire", subject=name, version=version)
        return len(expired)


def recipients(connection: Connection) -> tuple[Recipient, ...]:
    """Whom a value is sealed to now. Raises Locked if there is nobody."""
    rows = connection.execute("SELECT suite, public FROM recipients WHERE retired_at IS NULL").fetchall()
    if not rows:
        raise Locked(
            "the vault knows no key to seal to", hint="restore a backup, or make a new vault with `vaultctl init`"
        )
    return tuple(Recipient(suite, public) for suite, public in rows)
