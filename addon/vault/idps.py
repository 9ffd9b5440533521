"""
Identity providers at rest.

A name belongs to its issuer for ever: grants name users by it, and nobody else's users may come to stand for them. A
shared secret is sealed like the value of a secret, with the issuer in place of the binding.
"""

import uuid
from dataclasses import dataclass

from sqlite_utils import Database

from addon.callers import idp as records
from addon.callers.idp import Idp, Registration
from addon.callers.jwt import keys as jwks
from addon.errors import Conflict, Fault, NotFound, Usage
from addon.vault import log
from addon.vault.database import Connection, query, write
from addon.vault.keyring import Keyring
from addon.vault.seal import Place, Sealed, Wrap, open_sealed, seal
from addon.vault.secrets import recipients


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What may be told about a provider: everything but a shared secret."""

    idp: Idp
    created_at: float
    updated_at: float


class Idps:
    """The identity providers of one vault."""

    def __init__(self, database: Database, vault_id: str, keyring: Keyring | None) -> None:
        self._database = database
        self._vault_id = vault_id
        self._keyring = keyring

    def add(self, idp: Idp, *, now: float, keys: bytes | None = None) -> Stored:
        """
        Register a provider. `keys` is its key set or shared secret, where its source is `file` or `shared`.

        A removed provider may come back under its own issuer. Raises Conflict where name or issuer is taken, Usage for
        a record or keys that cannot work.
        """
        idp.check()
        raw = _checked(idp, keys)
        with write(self._database) as connection:
            earlier = connection.execute("SELECT id, issuer, removed_at FROM idps WHERE name = ?", (idp.name,)).fetchone()  # fmt: skip
            if earlier and (earlier[2] is None or earlier[1] != idp.issuer):
                raise Conflict(
                    f"the name {idp.name} stands for the issuer {earlier[1]}",
                    hint="choose another name; to change an identity provider: `vaultctl idp change`",
                )
            if connection.execute("SELECT 1 FROM idps WHERE issuer = ? AND removed_at IS NULL", (idp.issuer,)).fetchone():  # fmt: skip
                raise Conflict(
                    f"the issuer {idp.issuer} is registered already",
                    hint="one more audience for it: `vaultctl idp change NAME --audience A --audience B`",
                )
            if earlier is None:
                connection.execute(
                    "INSERT INTO idps (id, name, issuer, rules, revision, created_at, updated_at) VALUES (?, ?, ?, '', 0, ?, ?)",
                    (str(uuid.uuid4()), idp.name, idp.issuer, now, now),
                )
            self._put(connection, idp, raw, now=now)
            log.append(connection, at=now, action="idp.add", subject=idp.name, issuer=idp.issuer, rules=idp.dump())
        return self.get(idp.name)

    def change(self, idp: Idp, *, now: float, keys: bytes | None = None) -> Stored:
        """Put other rules, and keys where given, in place for a provider; its issuer stays. Effective at once."""
        current = self.get(idp.name).idp
        idp.check()
        if idp.issuer != current.issuer:
            raise Usage("the issuer of a provider never changes", hint="register the other one under another name")
        raw = None if keys is None and idp.source == current.source else _checked(idp, keys)
        if raw is None and idp.source == "file" and idp.algorithms != current.algorithms:
            _checked(idp, self._database.conn.execute("SELECT keys FROM idps WHERE name = ?", (idp.name,)).fetchone()[0])  # fmt: skip
        with write(self._database) as connection:
            self._put(connection, idp, raw, now=now)
            log.append(connection, at=now, action="idp.change", subject=idp.name, rules=idp.dump(), keys=raw is not None)  # fmt: skip
        return self.get(idp.name)

    def remove(self, name: str, *, now: float) -> None:
        """Its tokens stop counting with the next request, and so do grants and delegations of its users."""
        stored = self.get(name)
        with write(self._database) as connection:
            connection.execute(
                "UPDATE idps SET removed_at = ?, keys = NULL, revision = revision + 1 WHERE name = ?", (now, name)
            )
            connection.execute("DELETE FROM idp_wraps WHERE idp_id = (SELECT id FROM idps WHERE name = ?)", (name,))
            log.append(connection, at=now, action="idp.remove", subject=name, issuer=stored.idp.issuer)

    def get(self, name: str) -> Stored:
        """Raises NotFound."""
        rows = query(self._database, _SELECT + " WHERE name = :name AND removed_at IS NULL", {"name": name})
        if not rows:
            raise NotFound(f"no identity provider named {name}", hint="`vaultctl idp list` lists them")
        return _stored(rows[0])

    def all(self) -> list[Stored]:
        """Those in force, by name."""
        return [_stored(row) for row in query(self._database, _SELECT + " WHERE removed_at IS NULL ORDER BY name", {})]

    # ── for each request ─────────────────────────────────────────────────────────────────────────────────────────

    def find(self, issuer: str) -> Registration | None:
        """The provider in force with this issuer. Raises Fault."""
        rows = query(self._database, _LIVE + " AND issuer = :issuer", {"issuer": issuer})
        return _registration(rows[0]) if rows else None

    def list(self) -> list[Registration]:
        """All providers in force. Raises Fault."""
        return [_registration(row) for row in query(self._database, _LIVE, {})]

    def take(self, keyring: Keyring) -> None:
        """Open with these keys from now on."""
        self._keyring = keyring

    def keys(self, registration: Registration) -> bytes:
        """The stored key set, or the shared secret, opened. Raises Fault."""
        rows = query(
            self._database,
            "SELECT i.keys, w.kid, w.suite, w.wrapped FROM idps i LEFT JOIN idp_wraps w ON w.idp_id = i.id"
            " WHERE i.id = :id AND i.revision = :revision AND i.keys IS NOT NULL",
            {"id": registration.id, "revision": registration.revision},
        )
        if not rows:
            raise Fault("vault_unavailable", "the keys of a provider are not there")
        raw: bytes = rows[0][0]
        if registration.idp.source != "shared":
            return raw
        if self._keyring is None:
            raise Fault("vault_unavailable", "no private key")
        wraps = tuple(Wrap(kid, suite, wrapped) for _, kid, suite, wrapped in rows if kid)
        place = self._place(registration.id, registration.idp)
        return open_sealed(Sealed(raw, wraps), place=place, keyring=self._keyring)

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _put(self, connection: Connection, idp: Idp, raw: bytes | None, *, now: float) -> None:
        (idp_id,) = connection.execute("SELECT id FROM idps WHERE name = ?", (idp.name,)).fetchone()
        connection.execute(
            "UPDATE idps SET rules = ?, revision = revision + 1, updated_at = ?, removed_at = NULL WHERE id = ?",
            (idp.dump(), now, idp_id),
        )
        if raw is None and idp.source in {"file", "shared"}:
            return
        connection.execute("DELETE FROM idp_wraps WHERE idp_id = ?", (idp_id,))
        if idp.source == "shared" and raw is not None:
            sealed = seal(raw, place=self._place(idp_id, idp), recipients=recipients(connection))
            connection.executemany(
                "INSERT INTO idp_wraps (idp_id, kid, suite, wrapped) VALUES (?, ?, ?, ?)",
                [(idp_id, wrap.kid, wrap.suite, wrap.wrapped) for wrap in sealed.wraps],
            )
            raw = sealed.payload
        connection.execute("UPDATE idps SET keys = ? WHERE id = ?", (raw, idp_id))

    def _place(self, idp_id: str, idp: Idp) -> Place:
        return Place(vault_id=self._vault_id, secret_id=idp_id, version=1, kind="idp", binding=idp.issuer.encode())


_SELECT = "SELECT name, issuer, rules, created_at, updated_at FROM idps"
_LIVE = "SELECT id, revision, name, issuer, rules FROM idps WHERE removed_at IS NULL"


def _stored(row: tuple[object, ...]) -> Stored:
    name, issuer, rules, created_at, updated_at = row
    return Stored(
        idp=records.load(str(name), str(issuer), str(rules)),
        created_at=created_at,  # type: ignore[arg-type]
        updated_at=updated_at,  # type: ignore[arg-type]
    )


def _registration(row: tuple[object, ...]) -> Registration:
    idp_id, revision, name, issuer, rules = row
    return Registration(str(idp_id), int(str(revision)), records.load(str(name), str(issuer), str(rules)))


def _checked(idp: Idp, keys: bytes | None) -> bytes | None:
    """The keys to store. Raises Usage for none where some are needed, some where none are, and unusable ones."""
    if idp.source not in {"file", "shared"}:
        if keys is not None:
            raise Usage("keys are given, but are to be fetched", hint="give either a file or an address of keys")
        return None
    if keys is None:
        raise Usage("no keys are given", hint="give --jwks-file, or --shared-secret-file")
    try:
        if idp.source == "shared":
            jwks.shared(keys)
        elif jwks.holds_private(keys):
            raise Usage("the key set holds a private key", hint="give the public keys only, and replace that key: it has been lying about")  # fmt: skip
        else:
            jwks.parse_set(keys, algorithms=idp.algorithms)
    except jwks.Unusable as problem:
        raise Usage(str(problem), hint="give public keys for " + ", ".join(idp.algorithms) if idp.source == "file" else "make one with: openssl rand -base64 48") from None  # fmt: skip
    return keys
