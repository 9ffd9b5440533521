"""
The key pairs of the proxy, as the vault knows them: public halves that every value is sealed to, until they are retired.

    rotate   a new key is added to the key file, then every data key is wrapped to it as well
    retire   the wraps of an old key are deleted, then the key is taken out of the key file

In between both keys open everything, so a proxy may be told of the new one at any time. A value is never opened: its
data key is unwrapped and wrapped again (`seal.rewrap`), by whoever holds the private key. Run again after a crash,
either ends as if there had been none.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from sqlite_utils import Database

from addon import files
from addon.errors import Conflict, Corrupt, Fault, Locked, NotFound
from addon.vault import log
from addon.vault.database import Connection, query, write
from addon.vault.keyring import Keyring, PrivateKey, Recipient
from addon.vault.seal import Place, Sealed, Wrap, rewrap


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key pair. `sealed` values open with it, `alone` of them with no other key. Times are seconds, UTC."""

    kid: str
    suite: int
    created_at: float
    retired_at: float | None
    sealed: int
    alone: int


class Recipients:
    """The key pairs of one vault; `path` is the key file, which only its owner can use."""

    def __init__(self, database: Database, vault_id: str, path: Path) -> None:
        self._database = database
        self._vault_id = vault_id
        self._path = path

    def list(self) -> list[Key]:
        """All there ever were, oldest first. Raises Fault."""
        rows = query(self._database, _LIST, {})
        return [
            Key(kid=kid, suite=suite, created_at=created_at, retired_at=retired_at, sealed=sealed, alone=alone)
            for kid, suite, created_at, retired_at, sealed, alone in rows
        ]

    def rotate(self, *, now: float) -> str:
        """
        Seal everything there is, and what comes, to a new key as well; its kid.

        Only to keys of the key file: what somebody wrote into the vault is wrapped to nobody else. Raises Locked unless
        the key file is the caller's own; Corrupt, with nothing changed in the vault, for a value that does not open and
        for a key that is not in the key file.
        """
        keyring = self._load()
        known = {key.kid: key for key in self.list()}
        new = [each for each in keyring.recipients if each.kid not in known]
        if not new:
            key = PrivateKey.generate(keyring.recipients[-1].suite)
            keyring = keyring.with_key(key)
            files.replace(self._path, keyring.dump())
            new = [key.recipient]
        with write(self._database) as connection:
            for each in new:
                connection.execute(
                    "INSERT INTO recipients (kid, suite, public, created_at) VALUES (?, ?, ?, ?)",
                    (each.kid, each.suite, each.public, now),
                )
            count = self._rewrap(connection, keyring, self._active(connection, keyring))
            log.append(connection, at=now, action="key.rotate", subject=new[-1].kid, rewrapped=count)
        return new[-1].kid

    def retire(self, kid: str, *, now: float) -> None:
        """
        Delete the wraps of a key and take it out of the key file.

        Raises NotFound; Conflict for the only key, and while a value opens with no other; Locked as `rotate`.
        """
        keyring = self._load()
        with write(self._database) as connection:
            found = {key.kid: key for key in self.list()}
            if kid not in found:
                raise NotFound(f"no key {kid}", hint="`vaultctl key list` lists them")
            if found[kid].retired_at is None:
                rest = [each for each in self._active(connection, keyring) if each.kid != kid]
                if not rest:
                    raise Conflict("it is the only key", hint="make a new one with `vaultctl key rotate` first")
                if found[kid].alone:
                    raise Conflict(
                        f"{found[kid].alone} values open with this key alone", hint="run `vaultctl key rotate` first"
                    )
                connection.execute("DELETE FROM wraps WHERE kid = ?", (kid,))
                connection.execute("DELETE FROM idp_wraps WHERE kid = ?", (kid,))
                connection.execute("UPDATE recipients SET retired_at = ? WHERE kid = ?", (now, kid))
                log.append(connection, at=now, action="key.retire", subject=kid)
        if keyring.key(kid):
            files.replace(self._path, keyring.without(kid).dump())

    def _load(self) -> Keyring:
        keyring = Keyring.load(self._path)
        # Replacing it makes it the property of whoever runs this, and the proxy could not read it again.
        if self._path.lstat().st_uid != os.getuid():
            raise Locked("the key file belongs to another user", hint="run this as the user that owns proxy.key")
        return keyring

    def _active(self, connection: Connection, keyring: Keyring) -> tuple[Recipient, ...]:
        kids = [kid for (kid,) in connection.execute("SELECT kid FROM recipients WHERE retired_at IS NULL")]
        here = {each.kid: each for each in keyring.recipients}
        if not all(kid in here for kid in kids):
            raise Corrupt(
                "the vault seals to a key that is not in the key file",
                hint="`vaultctl key list` lists its keys; put the proxy.key that belongs to it beside vault.db",
            )
        return tuple(here[kid] for kid in kids)

    def _rewrap(self, connection: Connection, keyring: Keyring, recipients: tuple[Recipient, ...]) -> int:
        sealed_values = (*self._versions(connection), *self._idps(connection))
        for what, place, sealed in sealed_values:
            try:
                wraps = rewrap(sealed, place=place, keyring=keyring, recipients=recipients).wraps
            except Fault:
                raise Corrupt(f"{what} does not open with the key here", hint="delete it, or store it anew") from None
            item: tuple[str | int, ...]
            if place.kind == _IDP:
                statement, item = _PUT_IDP_WRAP, (place.secret_id,)
            else:
                statement, item = _PUT_WRAP, (place.secret_id, place.version)
            connection.executemany(statement, [(*item, wrap.kid, wrap.suite, wrap.wrapped) for wrap in wraps])
        return len(sealed_values)

    def _versions(self, connection: Connection) -> Iterator[tuple[str, Place, Sealed]]:
        rows = connection.execute(_VERSIONS).fetchall()
        for (secret_id, version), group in groupby(rows, key=itemgetter(0, 1)):
            wraps = list(group)
            name, kind, binding, payload = wraps[0][2:6]
            place = Place(vault_id=self._vault_id, secret_id=secret_id, version=version, kind=kind, binding=binding)
            yield f"version {version} of {name}", place, Sealed(payload, _wraps(row[6:] for row in wraps))

    def _idps(self, connection: Connection) -> Iterator[tuple[str, Place, Sealed]]:
        rows = connection.execute(_IDPS).fetchall()
        for idp_id, group in groupby(rows, key=itemgetter(0)):
            wraps = list(group)
            name, issuer, payload = wraps[0][1:4]
            place = Place(vault_id=self._vault_id, secret_id=idp_id, version=1, kind=_IDP, binding=issuer.encode())
            yield f"the shared secret of {name}", place, Sealed(payload, _wraps(row[4:] for row in wraps))


def _wraps(rows: Iterator[tuple[str, int, bytes]]) -> tuple[Wrap, ...]:
    return tuple(Wrap(*row) for row in rows if row[0])


_IDP = "idp"

_PUT_WRAP = "INSERT OR REPLACE INTO wraps (secret_id, version, kid, suite, wrapped) VALUES (?, ?, ?, ?, ?)"
_PUT_IDP_WRAP = "INSERT OR REPLACE INTO idp_wraps (idp_id, kid, suite, wrapped) VALUES (?, ?, ?, ?)"

_VERSIONS = """
SELECT s.id, v.version, s.name, s.kind, v.binding, v.payload, w.kid, w.suite, w.wrapped
FROM secrets s JOIN versions v ON v.secret_id = s.id
LEFT JOIN wraps w ON w.secret_id = v.secret_id AND w.version = v.version
ORDER BY s.id, v.version
"""

_IDPS = """
SELECT i.id, i.name, i.issuer, i.keys, w.kid, w.suite, w.wrapped
FROM idps i JOIN idp_wraps w ON w.idp_id = i.id
ORDER BY i.id
"""

_LIST = """
WITH all_wraps (item, kid) AS (
    SELECT secret_id || '/' || version, kid FROM wraps UNION ALL SELECT idp_id, kid FROM idp_wraps
)
SELECT r.kid, r.suite, r.created_at, r.retired_at,
       (SELECT count(*) FROM all_wraps a WHERE a.kid = r.kid),
       (SELECT count(*) FROM all_wraps a WHERE a.kid = r.kid AND NOT EXISTS (
            SELECT 1 FROM all_wraps b JOIN recipients o ON o.kid = b.kid AND o.retired_at IS NULL
            WHERE b.item = a.item AND b.kid <> r.kid))
FROM recipients r ORDER BY r.created_at, r.rowid
"""
