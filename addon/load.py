"""
What each caller has open in this worker: who takes too much is refused before others have too little.

A connection is a stranger's until a key is proved on it, or a request from it is permitted. When an address has too many
strangers, or the worker too many connections, the stranger that has waited longest gives way. Who proves itself at once
gets in, however many others only hold connections open.
"""

from collections import Counter, OrderedDict

CONNECTIONS, REQUESTS = 512, 256
"""What one caller may have at any one time."""
STRANGERS, TOTAL = 1024, 16_384
"""Connections of one address on which nothing is proved yet, and connections of all."""


class Load:
    """Connections are known by ids; a caller is a name, and for requests without a key the address they come from."""

    def __init__(
        self,
        *,
        connections: int = CONNECTIONS,
        requests: int = REQUESTS,
        strangers: int = STRANGERS,
        total: int = TOTAL,
    ) -> None:
        self._most_connections = connections
        self._most_requests = requests
        self._most_strangers = strangers
        self._most = total
        self._owners: dict[str, str] = {}
        self._strangers: dict[str, str] = {}
        self._waiting: dict[str, OrderedDict[str, None]] = {}
        self._connections: Counter[str] = Counter()
        self._requests: Counter[str] = Counter()

    def arrive(self, connection: str, *, address: str) -> str | None:
        """Count a new connection. Gives the one that has to give way, which is no longer counted; it may be this one."""
        waiting = self._waiting.setdefault(address, OrderedDict())
        waiting[connection] = None
        self._strangers[connection] = address
        if len(self._strangers) + len(self._owners) > self._most:
            waiting = max(self._waiting.values(), key=len)
        elif len(waiting) <= self._most_strangers:
            return None
        longest = next(iter(waiting))
        self._forget(longest)
        return longest

    def claim(self, connection: str, caller: str) -> bool:
        """Whether `caller` may have this connection too. The first to claim it has it; one not counted is not judged."""
        if connection not in self._strangers:
            return True
        if self._connections[caller] >= self._most_connections:
            return False
        self._forget(connection)
        self._owners[connection] = caller
        self._connections[caller] += 1
        return True

    def depart(self, connection: str) -> None:
        """The connection is over. A second call does nothing."""
        owner = self._owners.pop(connection, None)
        if owner is not None:
            _less(self._connections, owner)
        elif connection in self._strangers:
            self._forget(connection)

    def begin(self, caller: str) -> bool:
        """Whether another request of `caller` may go on now; if so, it is counted until `end`."""
        if self._requests[caller] >= self._most_requests:
            return False
        self._requests[caller] += 1
        return True

    def end(self, caller: str) -> None:
        """A request that was begun is over."""
        _less(self._requests, caller)

    def _forget(self, stranger: str) -> None:
        address = self._strangers.pop(stranger)
        del self._waiting[address][stranger]
        if not self._waiting[address]:
            del self._waiting[address]


def _less(counts: Counter[str], name: str) -> None:
    counts[name] -= 1
    if counts[name] <= 0:
        del counts[name]
