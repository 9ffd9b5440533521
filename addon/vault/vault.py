"""
The vault of one installation: `vault.db`, and for the proxy the private key that opens it.

`vaultctl` connects without a keyring: it can store, grant and revoke, and has no way to read a value. Only the proxy
passes a keyring, and `open` is the only line of the product that sees plaintext.
"""

import json
import uuid
from collections.abc import Iterable
from pathlib import Path

from sqlite_utils import Database

from addon import binding as bindings
from addon import credentials, files
from addon.errors import Conflict, Fault, Locked
from addon.model import Head, Values
from addon.vault import database, log, lookup
from addon.vault.approvals import Approvals
from addon.vault.approvers import Approvers
from addon.vault.callers import Callers
from addon.vault.consents import Consents
from addon.vault.delegations import Delegations
from addon.vault.grants import Grants
from addon.vault.idps import Idps
from addon.vault.keyring import Keyring
from addon.vault.known import Known
from addon.vault.layers import Layers
from addon.vault.lookup import GrantState, Lookup, Lookups
from addon.vault.proofs import Proofs
from addon.vault.recipients import Recipients
from addon.vault.seal import Place, Sealed, open_sealed, seal
from addon.vault.secrets import Secrets

DATABASE = "vault.db"
KEY = "proxy.key"


class Vault:
    """Secrets, callers and grants at rest."""

    def __init__(self, home: Path, data: Database, keyring: Keyring | None) -> None:
        self.home = home
        self.database = data
        self._keyring = keyring
        rows = database.query(data, "SELECT value FROM meta WHERE name = 'vault_id'", {})
        if not rows:
            raise Locked(
                f"the vault at {home} has no identity", hint="restore a backup; the file is not a complete vault"
            )
        self.id = str(rows[0][0])
        self._lookups = Lookups(data, home / DATABASE)
        self.secrets = Secrets(data, self.id)
        self.callers = Callers(data)
        self.recipients = Recipients(data, self.id, home / KEY)
        self.idps = Idps(data, self.id, keyring)
        self.grants = Grants(data, secrets=self.secrets, callers=self.callers, idps=self.idps)
        self.layers = Layers(data)
        self.delegations = Delegations(data, callers=self.callers)
        self.consents = Consents(data, delegations=self.delegations)
        self.proofs = Proofs(data, home / DATABASE)
        self.approvals = Approvals(data, home / DATABASE)
        self.approvers = Approvers(data, callers=self.callers)
        self._known = Known(data, reveal=self._reveal)
        self._known_as_of: object = None

    @classmethod
    def create(cls, home: Path, *, now: float, suite: int = 1) -> "Vault":
        """A new vault and its key pair. Raises Conflict, leaving everything as it was, if there is one already."""
        if (home / DATABASE).exists() or (home / KEY).exists():
            raise Conflict(f"a vault exists already at {home}", hint="use another --home, or move the old one away")
        files.make_folder(home)
        keyring = Keyring.generate(suite)
        data = database.create(home / DATABASE)
        try:
            with database.write(data) as connection:
                connection.execute("INSERT INTO meta (name, value) VALUES ('vault_id', ?)", (str(uuid.uuid4()),))
                for recipient in keyring.recipients:
                    connection.execute(
                        "INSERT INTO recipients (kid, suite, public, created_at) VALUES (?, ?, ?, ?)",
                        (recipient.kid, recipient.suite, recipient.public, now),
                    )
                log.append(connection, at=now, action="vault.init", subject=str(home))
            files.create(home / KEY, keyring.dump())
        except BaseException:
            data.close()
            database.discard(home / DATABASE)
            raise
        return cls(home, data, None)

    @classmethod
    def connect(cls, home: Path, *, keyring: Keyring | None = None, writable: bool = True) -> "Vault":
        """The vault at `home`. Raises Locked when it is missing, unsafe, damaged, or of another format."""
        return cls(home, database.connect(home / DATABASE, writable=writable), keyring)

    @staticmethod
    def upgrade(home: Path) -> tuple[str, ...]:
        """Bring a vault of an older format up to date. Returns the names of the steps it took. Raises Locked."""
        return database.upgrade(home / DATABASE)

    @classmethod
    def restore(cls, home: Path, copy: bytes, *, now: float) -> "Vault":
        """A vault from the bytes of a backup. Raises Conflict if there is one, Corrupt or Locked; then nothing is left."""
        files.make_folder(home)
        database.restore(home / DATABASE, copy)
        vault = cls.connect(home)
        with database.write(vault.database) as connection:
            log.append(connection, at=now, action="vault.restore", subject=str(home))
        return vault

    def back_up(self, path: Path) -> None:
        """One consistent copy as a new file; the key that opens it is not in it. Raises Conflict."""
        database.copy(self.database, path)

    def first_bad_change(self) -> int | None:
        """The number of the first entry of the admin log that is not as it was written, or None. Raises Fault."""
        return log.first_bad(self.database)

    def destroy_expired(self, *, now: float) -> int:
        """
        Destroy the versions whose grace is over, over a connection of its own if there are any; how many there were.

        Raises Fault or Locked when the vault cannot be read or written.
        """
        if not self.secrets.expired(now=now):
            return 0
        data = database.connect(self.home / DATABASE, writable=True)
        try:
            # The event loop waits with us, and there is another try soon.
            data.conn.execute("PRAGMA busy_timeout = 250")
            return Secrets(data, self.id).destroy_expired(now=now)
        finally:
            database.close(data)

    def lookup(self, *, digest: bytes, tag: str) -> Lookup:
        """What is stored about a key and a grant id, now. Raises Fault."""
        return self._lookups.find(digest=digest, tag=tag)

    def bound(self, host: str, port: int) -> bool | None:
        """None if no active secret is bound there, else whether one of them allows private addresses. Raises Fault."""
        return lookup.bound(self.database, host, port)

    @property
    def recognises(self) -> bool:
        """Whether `recognise` can tell: only with a private key."""
        return self._keyring is not None

    def bound_host(self, host: str) -> bool:
        """Whether an active secret is bound to a host, on any port. Raises Fault."""
        return lookup.bound_host(self.database, host)

    def recognise(self, head: Head) -> str | None:
        """
        The name of a secret with a value that a request holds, or None; without a private key, always None. Raises Fault.

        As of the last `lookup`.
        """
        if self._keyring is None:
            return None
        if self._known_as_of != self._lookups.as_of:
            self._known.refresh()
            self._known_as_of = self._lookups.as_of  # last, so that what failed is tried again
        return self._known.find(head)

    def texts_for(self, host: str, port: int) -> tuple[str, ...]:
        """
        What nobody should see of any stored version of any secret that is bound to a destination.

        Raises Fault if one cannot be opened: it may have been, before.
        """
        versions = lookup.versions_for(self.database, host, port)
        return tuple(text for secret_id, version in versions for text in self._reveal(secret_id, version)[1])

    def _reveal(self, secret_id: str, version: int) -> tuple[str, Iterable[str]]:
        """The name of a secret, and the texts of one stored version of it that nobody should see. Raises Fault."""
        name, kind, binding, sealed = lookup.version(self.database, secret_id, version)
        place = Place(vault_id=self.id, secret_id=secret_id, version=version, kind=kind, binding=binding)
        return name, credentials.kind(kind).hidden(self._open(sealed, place=place), binding=bindings.load(binding))

    def open(self, grant: GrantState) -> Values:
        """The fields of the secret behind a grant. Raises Fault unless everything about the row is as it was sealed."""
        place = Place(
            vault_id=self.id,
            secret_id=grant.secret_id,
            version=grant.version,
            kind=grant.kind,
            binding=grant.binding,
        )
        return self._open(grant.sealed, place=place)

    def _open(self, sealed: Sealed, *, place: Place) -> Values:
        if self._keyring is None:
            raise Fault("vault_unavailable", "no private key")
        try:
            fields = json.loads(open_sealed(sealed, place=place, keyring=self._keyring))
        except (ValueError, RecursionError):
            fields = None
        # Outside of the handler: the error of a parser carries what it could not parse.
        if not isinstance(fields, dict) or not all(isinstance(value, str) for value in fields.values()):
            raise Fault("vault_unavailable", "a sealed value is not what this software seals")
        return Values(fields)

    def take(self, keyring: Keyring) -> None:
        """Open with these keys from now on. Raises Locked, keeping those there are, unless `self_test` passes with them."""
        before, self._keyring = self._keyring, keyring
        try:
            self.self_test()
        except BaseException:
            self._keyring = before
            raise
        self.idps.take(keyring)
        self._known_as_of = None

    def self_test(self) -> None:
        """
        Prove, before a socket is opened, that this key opens what is sealed to this vault. Raises Locked.

        Compares the keyring with the recipients that new secrets are sealed to, and opens a probe sealed to them.
        """
        if self._keyring is None:
            raise Locked("no private key was given", hint="the proxy needs the key that `vaultctl init` made")
        rows = database.query(self.database, "SELECT kid FROM recipients WHERE retired_at IS NULL", {})
        if not rows or any(self._keyring.key(kid) is None for (kid,) in rows):
            raise Locked(
                "the proxy key does not belong to this vault",
                hint="put the proxy.key that `vaultctl init` made beside vault.db",
            )
        place = Place(vault_id=self.id, secret_id="probe", version=0, kind="probe", binding=b"")
        probe = seal(b"probe", place=place, recipients=self._keyring.recipients)
        if open_sealed(probe, place=place, keyring=self._keyring) != b"probe":
            raise Locked("the proxy key does not work", hint="restore proxy.key from where it is kept safe")

    def close(self) -> None:
        """Close the file."""
        self.proofs.close()
        self.approvals.close()
        database.close(self.database)
