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

    def state(self, now: float) -> str:
        """`active`, `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"


class Grants:
    """The grants of one vault."""

    def __init__(self, database: Database, *, secrets: Secrets, callers: Callers) -> None:
        self._database = database
        self._secrets = secrets
        self._callers = callers

    def issue(
        self,
        secret: str,
        *,
        principal: str,
        now: float,
        expires_at: float | None = None,
        label: str = "",
        rules: Policies = (),
    ) -> Grant:
        """A new grant. Raises NotFound for a secret, app or agent that does not exist, Usage for a past expiry."""
        target = self._secrets.get(secret)
        stored = principals.parse(principal)
        named = principals.named_caller(stored)
        if named:
            self._callers.get(*named)
        if expires_at is not None and expires_at <= now:
            raise Usage("the grant would expire at once", hint="give a time in the future, such as --expires 30d")
        grant_id = str(uuid.uuid4())
        with write(self._database) as connection:
            connection.execute(
                "INSERT INTO grants (id, secret_id, principal, label, policies, created_at, expires_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (grant_id, target.id, stored, label, policies.dump(rules), now, expires_at),
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
        chosen = [self.get(grant_id) for grant_id in ids]
        if not ids:
            chosen = self.list(secret=secret, principal=principal)
        live = [grant.id for grant in chosen if grant.revoked_at is None]
        with write(self._database) as connection:
            for grant_id in live:
                connection.execute(
                    "UPDATE grants SET revoked_at = ?, revoked_reason = ? WHERE id = ?", (now, reason, grant_id)
                )
                log.append(connection, at=now, action="grant.revoke", subject=grant_id, reason=reason)
        return live

    def get(self, grant_id: str) -> Grant:
        """Raises NotFound."""
        found = [grant for grant in self.list() if grant.id == grant_id]
        if not found:
            raise NotFound(f"no grant {grant_id}", hint="`vaultctl grant list` lists them")
        return found[0]

    def list(
        self, *, secret: str | None = None, principal: str | None = None, state: str | None = None, now: float = 0.0
    ) -> list[Grant]:
        """Grants, oldest first. `state` is `active`, `expired` or `revoked`, judged at `now`."""
        if secret is not None:
            self._secrets.get(secret)
        rows = query(
            self._database,
            "SELECT g.id, s.name, g.principal, g.label, g.policies, g.created_at, g.expires_at, g.revoked_at,"
            " g.revoked_reason FROM grants g JOIN secrets s ON s.id = g.secret_id"
            " WHERE (:secret IS NULL OR s.name = :secret) AND (:principal IS NULL OR g.principal = :principal)"
            " ORDER BY g.created_at, g.id",
            {"secret": secret, "principal": principal},
        )
        found = [
            Grant(
                id=i, secret=s, principal=p, label=label, policies=policies.load(rules), created_at=c, expires_at=e,
                revoked_at=r, revoked_reason=why,
            )
            for i, s, p, label, rules, c, e, r, why in rows
        ]  # fmt: skip
        return [grant for grant in found if state is None or grant.state(now) == state]
