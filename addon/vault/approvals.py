"""
Approvals: what a policy asks a person about, what the person said, and the one use that is made of a yes.

An approval is for one request: the same caller, user, grant, method, URL and body. A person may also let alike requests
through for a time: of the same caller, user, grant and method, below one path. The proxy asks and uses over a connection
of its own, as with group proofs; the answers are the operator's, or an approver's, and in the admin log.
"""

import hashlib
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sqlite_utils import Database

from addon.errors import Conflict, Fault, Locked, NotFound, Refusal
from addon.policies.paths import covers
from addon.vault import database, log
from addon.vault.database import query, write
from addon.vault.seal import pae

MOST_PENDING = 20
"""How many requests of one caller may wait for a person."""

_KEPT_SECONDS = 86_400.0
"""How long one that nobody answered can be seen."""

_BROKEN: tuple[type[Exception], ...] = (Locked, *database.ERRORS)


class Subject(NamedTuple):
    """What an approval is about. `tag` is the grant or delegation; `target`, with its query, is kept as a digest."""

    caller: str
    user: str
    tag: str
    method: str
    host: str
    port: int
    target: bytes
    body_sha256: str
    reason: str = ""

    @property
    def path(self) -> bytes:
        """Without the query."""
        return self.target.partition(b"?")[0]

    @property
    def digest(self) -> str:
        """Of everything that must be the same when it is used: everything but the reason."""
        texts = (self.caller, self.user, self.tag, self.method, self.host, str(self.port), self.body_sha256)
        return hashlib.sha256(pae(*(text.encode() for text in texts), self.target)).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """What may be told about an approval. `lasts_until` and `prefix` are set where it is for alike requests, too."""

    id: str
    grant_id: str
    tag: str
    secret: str
    caller: str
    user: str
    method: str
    host: str
    port: int
    path: str
    body_sha256: str
    reason: str
    digest: str
    created_at: float
    expires_at: float
    decision: str
    decided_at: float | None
    decided_by: str
    decided_reason: str
    lasts_until: float | None
    prefix: str
    used_at: float | None

    def document(self) -> dict[str, object]:
        """What a program is told of what waits: never a body, a query or a credential."""
        return {
            "approval_id": self.id,
            "grant_id": self.grant_id,
            "secret": self.secret,
            "caller": self.caller,
            "user": self.user or None,
            "method": self.method,
            "host": self.host,
            "port": self.port,
            "path": self.path,
            "body_sha256": self.body_sha256,
            "reason": self.reason,
            "created_at": self.created_at,
            "expires_at": self.expires_at,
        }

    def state(self, now: float) -> str:
        """`pending`, `approved`, `denied`, `used` or `expired`."""
        if self.decision == "denied":
            return "denied"
        if self.used_at is not None:
            return "used"
        return "expired" if self.expires_at <= now else self.decision or "pending"


class Approvals:
    """The approvals of one vault."""

    def __init__(self, data: Database, path: Path) -> None:
        self._database = data
        self._path = path
        self._writer: Database | None = None

    # ── the proxy ────────────────────────────────────────────────────────────────────────────────────────────────

    def ask(self, subject: Subject, *, grant_id: str, now: float, expires_at: float) -> Approval:
        """Put a request before the operator. Raises Refusal `rate_limited` when too many wait already, Fault."""
        approval_id = str(uuid.uuid4())
        try:
            with write(self._connected()) as connection:
                row = connection.execute(
                    "SELECT count(*) FROM approvals WHERE caller = ? AND decision = '' AND expires_at > ?",
                    (subject.caller, now),
                ).fetchone()
                if row[0] >= MOST_PENDING:
                    raise Refusal("rate_limited", retry_after=10)
                connection.execute(
                    "DELETE FROM approvals WHERE decision = '' AND expires_at <= ?", (now - _KEPT_SECONDS,)
                )
                connection.execute(
                    "INSERT INTO approvals (id, grant_id, tag, caller, user, method, host, port, path, body_sha256, reason,"
                    " digest, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        approval_id, grant_id, subject.tag, subject.caller, subject.user, subject.method, subject.host, subject.port,
                        subject.path.decode("latin-1"), subject.body_sha256, subject.reason, subject.digest, now, expires_at,
                    ),
                )  # fmt: skip
        except _BROKEN as error:
            raise Fault("vault_unavailable", "an approval cannot be asked for") from error
        return self.get(approval_id)

    def use(self, approval_id: str, subject: Subject, *, now: float) -> bool:
        """Whether an approval lets this very request through, now and never again. Raises Fault."""
        try:
            with write(self._connected()) as connection:
                return bool(
                    connection.execute(
                        "UPDATE approvals SET used_at = ? WHERE id = ? AND digest = ? AND decision = 'approved'"
                        " AND used_at IS NULL AND expires_at > ?",
                        (now, approval_id, subject.digest, now),
                    ).rowcount
                )
        except _BROKEN as error:
            raise Fault("vault_unavailable", "an approval cannot be used") from error

    def lasting(self, subject: Subject, *, now: float) -> Approval | None:
        """One that lets requests like this through for a time."""
        alike = self._select(
            "a.decision = 'approved' AND a.lasts_until > :now AND a.caller = :caller AND a.user = :user"
            " AND a.tag = :tag AND a.method = :method AND a.host = :host AND a.port = :port",
            {
                "now": now, "caller": subject.caller, "user": subject.user, "tag": subject.tag,
                "method": subject.method, "host": subject.host, "port": subject.port,
            },
        )  # fmt: skip
        return next((each for each in alike if covers((each.prefix,), subject.path)), None)

    # ── the operator ─────────────────────────────────────────────────────────────────────────────────────────────

    def decide(
        self,
        approval_id: str,
        decision: str,
        *,
        by: str,
        now: float,
        reason: str = "",
        lasts_until: float | None = None,
        prefix: str = "",
    ) -> Approval:
        """`approved` or `denied`. Raises NotFound, and Conflict where it was answered before, or waits no longer."""
        state = self.get(approval_id).state(now)
        with write(self._database) as connection:
            decided = connection.execute(
                "UPDATE approvals SET decision = ?, decided_at = ?, decided_by = ?, decided_reason = ?, lasts_until = ?,"
                " prefix = ? WHERE id = ? AND decision = '' AND expires_at > ?",
                (decision, now, by, reason, lasts_until, prefix, approval_id, now),
            ).rowcount
            if not decided:
                raise Conflict(f"the approval is {state}", hint="`vaultctl approval list` shows those that wait")
            log.append(
                connection, at=now, action=f"approval.{decision}", subject=approval_id, by=by, reason=reason,
                lasts_until=lasts_until, prefix=prefix,
            )  # fmt: skip
        return self.get(approval_id)

    def get(self, approval_id: str) -> Approval:
        """Raises NotFound."""
        found = self._select("a.id = :id", {"id": approval_id})
        if not found:
            raise NotFound(f"no approval {approval_id}", hint="`vaultctl approval list --state pending` shows those that wait")  # fmt: skip
        return found[0]

    def list(self, *, state: str | None = None, now: float = 0.0) -> list[Approval]:
        """All, oldest first; those of the past are not read to find the ones that wait."""
        condition = "a.decision = '' AND a.expires_at > :now" if state == "pending" else "1"
        return [each for each in self._select(condition, {"now": now}) if state is None or each.state(now) == state]

    def close(self) -> None:
        """Close the second connection."""
        if self._writer is not None:
            self._writer.close()

    def _select(self, condition: str, values: dict[str, object]) -> tuple[Approval, ...]:
        rows = query(self._database, f"{_SELECT} WHERE {condition} ORDER BY a.created_at, a.id", values)
        return tuple(
            Approval(
                id=i, grant_id=g, tag=t, secret=s, caller=c, user=u, method=m, host=h, port=p, path=path, body_sha256=body,
                reason=reason, digest=digest, created_at=created, expires_at=expires, decision=d, decided_at=at,
                decided_by=by, decided_reason=why, lasts_until=lasts, prefix=prefix, used_at=used,
            )
            for i, g, t, s, c, u, m, h, p, path, body, reason, digest, created, expires, d, at, by, why, lasts, prefix, used in rows
        )  # fmt: skip

    def _connected(self) -> Database:
        if self._writer is None:
            self._writer = database.connect(self._path, writable=True)
            # The event loop waits with us, so a writer who holds the vault longer than this gets the request refused.
            self._writer.conn.execute("PRAGMA busy_timeout = 250")
        return self._writer


_SELECT = (
    "SELECT a.id, a.grant_id, a.tag, s.name, a.caller, a.user, a.method, a.host, a.port, a.path, a.body_sha256, a.reason,"
    " a.digest, a.created_at, a.expires_at, a.decision, a.decided_at, a.decided_by, a.decided_reason, a.lasts_until,"
    " a.prefix, a.used_at FROM approvals a JOIN grants g ON g.id = a.grant_id"
    " JOIN secrets s ON s.id = g.secret_id"
)
