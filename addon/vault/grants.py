"""Grants: one secret, one principal, policies, a lifetime, and an id that survives every rotation."""

import uuid
from dataclasses import dataclass

from sqlite_utils import Database

from addon import policies, principals
from addon.errors import NotFound, Usage
from addon.policies import Policies
from addon.vault import log
from addon.vault.callers import Callers
from addon.vault.database import query, write
from addon.vault.idps import Idps
from addon.vault.secrets import Secrets


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What may be told about a grant. Times are seconds since the epoch, UTC."""

    id: str
    secret: str
    principal: str
    label: str
    policies: Policies
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    revoked_reason: str
    delegable: bool = False
    delegation_seconds: float | None = None
    proof_seconds: float = 86_400.0

    def state(self, now: float) -> str:
        """`active`, `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"


class Grants:
    """The grants of one vault."""

    def __init__(self, database: Database, *, secrets: Secrets, callers: Callers, idps: Idps) -> None:
        self._database = database
        self._secrets = secrets
        self._callers = callers
        self._idps = idps

    def issue(
        self,
        secret: str,
        *,
        principal: str,
        now: float,
        expires_at: float | None = None,
        label: str = "",
        rules: Policies = (),
        delegable: bool = False,
        delegation_seconds: float | None = None,
        proof_seconds: float = 86_400.0,
    ) -> Grant:
        """
        A new grant. `delegable` lets its users delegate it to agents, for `delegation_seconds` at most each, and those
        of a group as long as a token not older than `proof_seconds` proves the group.

        Raises NotFound for a secret, app, agent or identity provider that does not exist, Usage for a past expiry.
        """
        stored = principals.parse(principal)
        named = principals.named_caller(stored)
        if named:
            self._callers.get(*named)
        idp = principals.named_idp(stored)
        if idp:
            self._idps.get(idp)
        if delegable and not idp:
            raise Usage("only the access of people can be delegated", hint="leave --delegable out, or issue the grant to a user or a group")  # fmt: skip
        if expires_at is not None and not expires_at > now:  # nor is a NaN, which SQLite would store as no end at all
            raise Usage("the grant would expire at once", hint="give a time in the future, such as --expires 30d")
        grant_id = str(uuid.uuid4())
        with write(self._database) as connection:
            secret_id = self._secrets.find(secret)
            connection.execute(
                "INSERT INTO grants (id, secret_id, principal, label, policies, created_at, expires_at, delegable,"
                " delegation_seconds, proof_seconds) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    grant_id,
                    secret_id,
                    stored,
                    label,
                    policies.dump(rules),
                    now,
                    expires_at,
                    int(delegable),
                    delegation_seconds,
                    proof_seconds,
                ),
            )
            log.append(connection, at=now, action="grant.issue", subject=grant_id, secret=secret, principal=stored)
        return self.get(grant_id)

    def revoke(
        self,
        *,
        now: float,
        ids: tuple[str, ...] = (),
        secret: str | None = None,
        principal: str | None = None,
        reason: str = "",
    ) -> list[str]:
        """
        Revoke grants by id, or all live ones of a secret or of a principal. Returns the ids that were live.

        Effective for the very next request. Raises NotFound, changing nothing, if an id does not exist.
        """
        if not ids and secret is None and principal is None:
            raise Usage("nothing is named to be revoked", hint="name the ids of grants, a secret or a principal")
        with write(self._database) as connection:
            live = self._live(ids, secret=secret, principal=principal)
            for grant_id in live:
                connection.execute(
                    "UPDATE grants SET revoked_at = ?, revoked_reason = ? WHERE id = ?", (now, reason, grant_id)
                )
                log.append(connection, at=now, action="grant.revoke", subject=grant_id, reason=reason)
        return list(live)

    def get(self, grant_id: str) -> Grant:
        """Raises NotFound."""
        found = self._select(grant_id=grant_id)
        if not found:
            raise _missing(grant_id)
        return found[0]

    def list(
        self, *, secret: str | None = None, principal: str | None = None, state: str | None = None, now: float = 0.0
    ) -> list[Grant]:
        """Grants, oldest first. `state` is `active`, `expired` or `revoked`, judged at `now`."""
        if secret is not None:
            self._secrets.find(secret)
        found = self._select(secret=secret, principal=principal)
        return [grant for grant in found if state is None or grant.state(now) == state]

    def _select(
        self, *, grant_id: str | None = None, secret: str | None = None, principal: str | None = None
    ) -> tuple[Grant, ...]:
        rows = query(
            self._database,
            "SELECT g.id, s.name, g.principal, g.label, g.policies, g.created_at, g.expires_at, g.revoked_at,"
            " g.revoked_reason, g.delegable, g.delegation_seconds, g.proof_seconds FROM grants g JOIN secrets s ON s.id = g.secret_id"
            " WHERE (:id IS NULL OR g.id = :id) AND (:secret IS NULL OR s.name = :secret)"
            " AND (:principal IS NULL OR g.principal = :principal) ORDER BY g.created_at, g.id",
            {"id": grant_id, "secret": secret, "principal": principal},
        )
        return tuple(
            Grant(
                id=i, secret=s, principal=p, label=label, policies=policies.load(rules), created_at=c, expires_at=e,
                revoked_at=r, revoked_reason=why, delegable=d == 1, delegation_seconds=most, proof_seconds=proof,
            )
            for i, s, p, label, rules, c, e, r, why, d, most, proof in rows
        )  # fmt: skip

    def _live(self, ids: tuple[str, ...], *, secret: str | None, principal: str | None) -> tuple[str, ...]:
        """The ids of those named that are not revoked. Policies are not read: a grant must end even if they cannot be."""
        if not ids:
            if secret is not None:
                self._secrets.find(secret)
            rows = query(
                self._database,
                "SELECT g.id FROM grants g JOIN secrets s ON s.id = g.secret_id WHERE g.revoked_at IS NULL"
                " AND (:secret IS NULL OR s.name = :secret) AND (:principal IS NULL OR g.principal = :principal)"
                " ORDER BY g.created_at, g.id",
                {"secret": secret, "principal": principal},
            )
            return tuple(str(grant_id) for (grant_id,) in rows)
        live: tuple[str, ...] = ()
        for grant_id in dict.fromkeys(ids):
            rows = query(self._database, "SELECT revoked_at FROM grants WHERE id = :id", {"id": grant_id})
            if not rows:
                raise _missing(grant_id)
            live += (grant_id,) if rows[0][0] is None else ()
        return live


def _missing(grant_id: str) -> NotFound:
    return NotFound(f"no grant {grant_id}", hint="`vaultctl grant list` lists them")
