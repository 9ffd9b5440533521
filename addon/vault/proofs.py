"""
What the newest token of a user said about a group that somebody relies on.

A delegation of a group's grant lives as long as its user is known to be in the group, and only the user's tokens tell.
So the proxy notes what it sees in them, for those users and groups only. These rows say nothing about who may do what;
they are not part of what operators sign or back up as authority.
"""

from pathlib import Path

from sqlite_utils import Database

from addon.errors import Fault, Locked
from addon.model import User
from addon.vault import database
from addon.vault.database import Connection, query


class Proofs:
    """The group proofs of one vault. Writing has a connection of its own: requests are decided over a read-only one."""

    def __init__(self, data: Database, path: Path) -> None:
        self._database = data
        self._path = path
        self._writer: Database | None = None

    def note(self, user: User) -> bool:
        """
        Take over what a verified token says about its user's groups. Returns whether anything was new.

        Nearly always this reads one empty index range. Raises Fault: a lost membership that is not noted would live on.
        """
        rows = query(
            self._database,
            "SELECT name, member, proven_at FROM group_proofs WHERE idp = :idp AND subject = :subject",
            {"idp": user.idp, "subject": user.subject},
        )
        news = [
            name
            for name, member, proven_at in rows
            if user.issued_at > proven_at or (user.issued_at == proven_at and member and name not in user.groups)
        ]
        if not news:
            return False
        try:
            with database.write(self._connected()) as connection:
                for name in news:
                    put(connection, user, name)
        except Locked as error:
            raise Fault("vault_unavailable", "a group proof cannot be written") from error
        except database.ERRORS as error:
            raise Fault("vault_unavailable", type(error).__name__) from error
        return True

    def close(self) -> None:
        """Close the second connection."""
        if self._writer is not None:
            self._writer.close()

    def _connected(self) -> Database:
        if self._writer is None:
            self._writer = database.connect(self._path, writable=True)
            # The event loop waits with us, so a writer who holds the vault longer than this gets the request refused.
            self._writer.conn.execute("PRAGMA busy_timeout = 250")
        return self._writer


def put(connection: Connection, user: User, name: str) -> bool:
    """Note what a token says about one group, unless a newer one has spoken. Returns whether the user is in it now."""
    connection.execute(
        "INSERT INTO group_proofs (idp, subject, name, member, proven_at) VALUES (:idp, :subject, :name, :member, :at)"
        " ON CONFLICT (idp, subject, name) DO UPDATE SET member = :member, proven_at = :at"
        " WHERE :at > proven_at OR (:at = proven_at AND :member < member)",
        {"idp": user.idp, "subject": user.subject, "name": name, "member": int(name in user.groups), "at": float(user.issued_at)},
    )  # fmt: skip
    row = connection.execute(
        "SELECT member FROM group_proofs WHERE idp = ? AND subject = ? AND name = ?", (user.idp, user.subject, name)
    ).fetchone()
    return bool(row[0])
