"""
Delegations: a user lets one agent use one grant of the user's, for a time.

The user's own verified token is the consent. Kept of it are issuer, subject, token id and times, never the token. A
delegation gives nothing by itself: `addon.delegation` judges the whole chain again on each request.
"""

import uuid
from dataclasses import dataclass

from sqlite_utils import Database

from addon import principals
from addon.errors import Conflict, NotFound, Usage
from addon.model import User
from addon.vault import log, lookup, proofs
from addon.vault.callers import Callers
from addon.vault.database import Connection, query, write
from addon.vault.lookup import GrantState

LONGEST_SECONDS = 90 * 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Delegation:
    """What may be told about a delegation. `token_id` and `token_at` are `jti` and `iat` of the consent."""

    id: str
    grant_id: str
    secret: str
    agent: str
    user: str
    token_id: str
    token_at: float
    created_at: float
    expires_at: float
    revoked_at: float | None
    revoked_by: str
    revoked_reason: str

    def state(self, now: float) -> str:
        """`active`, `expired` or `revoked`. Whether the source still holds is judged on use."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at <= now else "active"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A delegation of `grant` that could be made now, and when it would end."""

    grant: GrantState
    agent_id: str
    expires_at: float


class Delegations:
    """The delegations of one vault."""

    def __init__(self, database: Database, *, callers: Callers) -> None:
        self._database = database
        self._callers = callers

    def create(self, grant_id: str, *, agent: str, user: User, now: float, ttl: float) -> Delegation:
        """
        Let an agent use a grant of `user`, whose token was verified just now, for `ttl` seconds.

        It ends earlier with the grant, with the grant's own limit, and after 90 days at most. Raises NotFound for an
        agent that does not exist, or a grant that is not one of this user's, Conflict where it cannot be delegated.
        """
        with write(self._database) as connection:
            delegation_id = self.add(connection, grant_id, agent=agent, user=user, now=now, ttl=ttl)
        return self.get(delegation_id)

    def add(self, connection: Connection, grant_id: str, *, agent: str, user: User, now: float, ttl: float) -> str:
        """`create` inside of the caller's write transaction. Returns the id."""
        made = self.propose(grant_id, agent=agent, user=user, now=now, ttl=ttl)
        delegation_id = str(uuid.uuid4())
        group = _group(made.grant)
        if group and not proofs.put(connection, user, group):
            raise _unproven()
        connection.execute(
            "INSERT INTO delegations (id, grant_id, agent_id, idp, subject, token_id, token_at, created_at, expires_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (delegation_id, grant_id, made.agent_id, user.idp, user.subject, user.token_id, user.issued_at, now, made.expires_at),
        )  # fmt: skip
        log.append(
            connection, at=now, action="delegation.create", subject=delegation_id, grant=grant_id, agent=agent,
            user=str(user), issuer=user.issuer, token_id=user.token_id, token_at=user.issued_at,
        )  # fmt: skip
        return delegation_id

    def propose(self, grant_id: str, *, agent: str, user: User, now: float, ttl: float) -> Proposal:
        """What `create` would make now; nothing is made. Raises what `create` raises."""
        if ttl <= 0:
            raise Usage("the delegation would expire at once", hint="give a duration such as --ttl 1h")
        member = self._callers.get("agent", agent)
        if member.state != "active":
            raise Conflict(f"the agent {agent} is disabled", hint=f"`vaultctl agent enable {agent}` turns it on again")
        grant = self._delegable(grant_id, user=user, now=now)
        if _group(grant) and user.issued_at + grant.proof_seconds <= now:
            raise _unproven()
        limits = query(self._database, "SELECT delegation_seconds FROM grants WHERE id = :id", {"id": grant_id})
        ends = [now + ttl, now + LONGEST_SECONDS]
        ends += [grant.expires_at] if grant.expires_at is not None else []
        ends += [now + limit for (limit,) in limits if limit is not None]
        return Proposal(grant=grant, agent_id=member.id, expires_at=min(ends))

    def revoke(self, delegation_id: str, *, by: str, now: float, reason: str = "") -> Delegation:
        """End a delegation with the next request. `by` is a user, an agent or an operator. Raises NotFound."""
        current = self.get(delegation_id)
        if current.revoked_at is None:
            with write(self._database) as connection:
                connection.execute(
                    "UPDATE delegations SET revoked_at = ?, revoked_by = ?, revoked_reason = ? WHERE id = ? AND revoked_at IS NULL",
                    (now, by, reason, delegation_id),
                )
                log.append(connection, at=now, action="delegation.revoke", subject=delegation_id, by=by, reason=reason)
        return self.get(delegation_id)

    def get(self, delegation_id: str) -> Delegation:
        """Raises NotFound."""
        found = self._select("d.id = :id", {"id": delegation_id})
        if not found:
            raise NotFound(f"no delegation {delegation_id}", hint="`vaultctl delegation list` lists them")
        return found[0]

    def _select(self, condition: str, values: dict[str, object]) -> list[Delegation]:
        rows = query(self._database, f"{_SELECT} WHERE {condition} ORDER BY d.created_at, d.id", values)
        return [
            Delegation(
                id=i, grant_id=g, secret=s, agent=a, user=f"user:{idp}/{subject}", token_id=token, token_at=at,
                created_at=c, expires_at=e, revoked_at=r, revoked_by=by, revoked_reason=why,
            )
            for i, g, s, a, idp, subject, token, at, c, e, r, by, why in rows
        ]  # fmt: skip

    def list(
        self, *, agent: str | None = None, user: str | None = None, grant_id: str | None = None
    ) -> list[Delegation]:
        """Delegations, oldest first; of one agent, of one `user:IDP/SUBJECT`, of one grant."""
        return self._select(
            "(:agent IS NULL OR a.name = :agent) AND (:grant IS NULL OR d.grant_id = :grant)"
            " AND (:user IS NULL OR 'user:' || d.idp || '/' || d.subject = :user)",
            {"agent": agent, "user": user, "grant": grant_id},
        )

    def _delegable(self, grant_id: str, *, user: User, now: float) -> GrantState:
        grant = lookup.read(self._database, digest=b"", tag=grant_id).grant
        if grant is None or grant.delegation or not principals.includes(grant.principal, user):
            raise NotFound(
                f"no grant {grant_id} of {user}",
                hint="the grant must name the user, or a group that the token lists; `vaultctl grant show` tells whom it names",
            )
        if not grant.delegable:
            raise Conflict("this grant cannot be delegated", hint="issue one with `vaultctl grant issue … --delegable`")
        ended = grant.revoked_at is not None or (grant.expires_at is not None and grant.expires_at <= now)
        if ended or grant.secret_state != "active":
            raise Conflict("this grant does not work now, so it cannot be delegated", hint=f"`vaultctl grant show {grant_id}` says why")  # fmt: skip
        return grant


def _group(grant: GrantState) -> str:
    """The group that a grant names, or nothing."""
    return grant.principal.partition("/")[2] if grant.principal.startswith("group:") else ""


def _unproven() -> Conflict:
    return Conflict("the token does not prove the group any more", hint="get a fresh token of the user")


_SELECT = (
    "SELECT d.id, d.grant_id, s.name, a.name, d.idp, d.subject, d.token_id, d.token_at, d.created_at, d.expires_at,"
    " d.revoked_at, d.revoked_by, d.revoked_reason FROM delegations d JOIN callers a ON a.id = d.agent_id"
    " JOIN grants g ON g.id = d.grant_id JOIN secrets s ON s.id = g.secret_id"
)
