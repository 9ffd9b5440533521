"""Apps and agents that the operator lets decide about approvals. Nobody is one by itself."""

from typing import NamedTuple

from sqlite_utils import Database

from addon.errors import NotFound
from addon.vault import log
from addon.vault.callers import Callers
from addon.vault.database import query, write


class Approver(NamedTuple):
    """`type` is `app` or `agent`; `state` is the caller's own."""

    type: str
    name: str
    state: str
    added_at: float


class Approvers:
    """The approvers of one vault."""

    def __init__(self, database: Database, *, callers: Callers) -> None:
        self._database = database
        self._callers = callers

    def add(self, caller_type: str, name: str, *, now: float) -> None:
        """From the next request on. One that is an approver already stays one. Raises NotFound."""
        member = self._callers.get(caller_type, name)
        with write(self._database) as connection:
            connection.execute("INSERT OR IGNORE INTO approvers (caller_id, added_at) VALUES (?, ?)", (member.id, now))
            log.append(connection, at=now, action="approver.add", subject=f"{caller_type}:{name}")

    def remove(self, caller_type: str, name: str, *, now: float) -> None:
        """From the next request on; what it has decided stays decided. Raises NotFound."""
        member = self._callers.get(caller_type, name)
        with write(self._database) as connection:
            if not connection.execute("DELETE FROM approvers WHERE caller_id = ?", (member.id,)).rowcount:
                raise NotFound(
                    f"{caller_type}:{name} is no approver", hint="`vaultctl approval approver list` shows who is"
                )
            log.append(connection, at=now, action="approver.remove", subject=f"{caller_type}:{name}")

    def list(self) -> list[Approver]:
        """All of them, by type and name. Raises Fault."""
        return [Approver(*row) for row in query(self._database, _SELECT, {})]

    def includes(self, caller_type: str, name: str) -> bool:
        """Whether a caller is one now. Raises Fault."""
        return any((each.type, each.name) == (caller_type, name) for each in self.list())


_SELECT = (
    "SELECT c.type, c.name, c.state, a.added_at FROM approvers a JOIN callers c ON c.id = a.caller_id"
    " ORDER BY c.type DESC, c.name"
)
