"""
Consents that are asked for: a user may let an agent use a grant, and has not answered yet.

Whoever shows the ticket answers for the user: 256 random bits, of which the vault keeps the SHA-256. It ends with the
first answer, ten minutes after it was made, with the user's token, and with the key of the app that asked. A row is
deleted in the transaction that acts on it, so of two answers, in whichever processes, one finds nothing.
"""

import hashlib
import json
import re
import secrets
import uuid
from dataclasses import dataclass

from sqlite_utils import Database

from addon.errors import NotFound
from addon.model import User
from addon.vault import log
from addon.vault.database import Connection, query, write
from addon.vault.delegations import Delegation, Delegations

LONGEST_SECONDS = 600.0

_TICKET = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Consent:
    """What the app `app` asked `user` for. `return_to` is a URL, or empty; `ttl` is in seconds."""

    id: str
    app: str
    grant_id: str
    agent: str
    user: User
    ttl: float
    return_to: str
    expires_at: float


class Consents:
    """The consents of one vault that are not answered yet."""

    def __init__(self, database: Database, *, delegations: Delegations) -> None:
        self._database = database
        self._delegations = delegations

    def ask(
        self, grant_id: str, *, agent: str, user: User, key_id: str, now: float, ttl: float, return_to: str = ""
    ) -> tuple[str, float]:
        """
        The ticket, and when it ends, for what the holder of a key asks a user whose token was verified just now.

        Raises what `Delegations.create` raises, if that could not be made now.
        """
        ticket, consent_id = secrets.token_urlsafe(32), str(uuid.uuid4())
        with write(self._database) as connection:
            proposal = self._delegations.propose(grant_id, agent=agent, user=user, now=now, ttl=ttl)
            groups = [name for name in user.groups if f"group:{user.idp}/{name}" == proposal.grant.principal]
            expires_at = min(now + LONGEST_SECONDS, float(user.expires_at))
            connection.execute("DELETE FROM consents WHERE expires_at <= ?", (now,))
            connection.execute(
                "INSERT INTO consents (digest, id, key_id, grant_id, agent_id, idp, subject, groups, issuer, token_id,"
                " token_at, token_expires_at, ttl_seconds, return_to, expires_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    _digest(ticket), consent_id, key_id, grant_id, proposal.agent_id, user.idp, user.subject,
                    json.dumps(groups), user.issuer, user.token_id, user.issued_at, user.expires_at, ttl, return_to,
                    expires_at,
                ),
            )  # fmt: skip
            self._note(connection, "request", self._read(ticket, now=now), now=now)
        return ticket, expires_at

    def find(self, ticket: str, *, now: float) -> Consent:
        """Raises NotFound for a ticket that was never made, was answered, or has ended. Reads only."""
        return self._read(ticket, now=now)

    def approve(self, ticket: str, *, now: float) -> Delegation:
        """Make the delegation, judged anew, and end the ticket. Raises NotFound, and Conflict, which leaves the ticket."""
        with write(self._database) as connection:
            consent = self._end(connection, ticket, now=now)
            delegation_id = self._delegations.add(
                connection, consent.grant_id, agent=consent.agent, user=consent.user, now=now, ttl=consent.ttl
            )
            self._note(connection, "approve", consent, now=now, delegation=delegation_id)
        return self._delegations.get(delegation_id)

    def decline(self, ticket: str, *, now: float) -> None:
        """End the ticket. Raises NotFound."""
        with write(self._database) as connection:
            consent = self._end(connection, ticket, now=now)
            self._note(connection, "decline", consent, now=now)

    def _end(self, connection: Connection, ticket: str, *, now: float) -> Consent:
        consent = self._read(ticket, now=now)
        connection.execute("DELETE FROM consents WHERE digest = ?", (_digest(ticket),))
        return consent

    def _note(self, connection: Connection, what: str, consent: Consent, *, now: float, **detail: str) -> None:
        user = consent.user
        log.append(
            connection, at=now, action=f"consent.{what}", subject=consent.id, app=consent.app, grant=consent.grant_id,
            agent=consent.agent, user=str(user), issuer=user.issuer, token_id=user.token_id, token_at=user.issued_at, **detail,
        )  # fmt: skip

    def _read(self, ticket: str, *, now: float) -> Consent:
        rows = query(self._database, _SELECT, {"digest": _digest(ticket), "now": now})
        if not rows or not _TICKET.fullmatch(ticket):
            raise NotFound("no such ticket", hint="the app can ask for another one")
        (consent_id, app, grant_id, agent, idp, subject, groups, issuer, token_id, token_at, token_ends, ttl, back, ends) = rows[0]  # fmt: skip
        user = User(
            idp=idp, subject=subject, groups=frozenset(json.loads(groups)), issuer=issuer, token_id=token_id,
            issued_at=int(token_at), expires_at=int(token_ends),
        )  # fmt: skip
        return Consent(
            id=consent_id, app=app, grant_id=grant_id, agent=agent, user=user, ttl=ttl, return_to=back, expires_at=ends
        )


def _digest(ticket: str) -> bytes:
    return hashlib.sha256(ticket.encode()).digest()


_SELECT = """
SELECT x.id, c.name, x.grant_id, a.name, x.idp, x.subject, x.groups, x.issuer, x.token_id, x.token_at,
       x.token_expires_at, x.ttl_seconds, x.return_to, x.expires_at
FROM consents x
JOIN keys k ON k.id = x.key_id AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > :now)
JOIN callers c ON c.id = k.caller_id AND c.state = 'active'
JOIN callers a ON a.id = x.agent_id
JOIN idps i ON i.name = x.idp AND i.issuer = x.issuer AND i.removed_at IS NULL
WHERE x.digest = :digest AND x.expires_at > :now
"""
