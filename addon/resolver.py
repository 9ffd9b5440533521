"""
Resolve and pin: the event loop's own resolver, with every answer judged before a connection can use it.

asyncio connects to the addresses its `getaddrinfo` returns and asks nobody else, so there is no gap between check and
use. It skips `getaddrinfo` for literal addresses; the shell judges those (`Egress.server_connect`).
"""

import asyncio
import socket
from typing import Any

from addon import hosts
from addon.network import AddressForbidden, Redirect, Rules
from addon.vault import Vault

_LIMIT = 32
_SECONDS = 5.0


class Resolver:
    """Judges the destinations of one worker. `own` is where the proxy itself listens; it never connects there."""

    def __init__(self, *, vault: Vault, rules: Rules, redirects: tuple[Redirect, ...], own: tuple[str, int]) -> None:
        self._vault = vault
        self._rules = rules
        self._redirects = {(r.host, r.port): (r.address, r.to_port) for r in redirects}
        self._own_port = own[1]
        self._resolve: Any = None

    def install(self, loop: asyncio.AbstractEventLoop) -> None:
        """Put this resolver in front of the loop's."""
        self._resolve = loop.getaddrinfo
        loop.getaddrinfo = self.getaddrinfo  # type: ignore[method-assign]

    def redirected(self, host: str, port: int) -> bool:
        """Whether the operator sends this destination elsewhere with --connect-to."""
        return (host, port) in self._redirects

    def allows(self, address: str, port: int, *, bound_private: bool = False) -> bool:
        """Whether to connect to an address."""
        if port == self._own_port and not self._rules.allow(address):
            return False
        return self._rules.allow(address, bound_private=bound_private)

    async def allows_untagged(self, host: str, port: int) -> bool:
        """Whether every address of a name may be reached by traffic without a grant."""
        if self.redirected(host, port):
            return True
        answers = await self._resolve(host, port, type=socket.SOCK_STREAM)
        return all(self.allows(str(answer[4][0]), port) for answer in answers)

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> list[Any]:
        """The loop's `getaddrinfo`: raises OSError unless all answers (the first 32) are allowed."""
        name = hosts.fold(host if isinstance(host, str) else str(host))
        pinned = self._redirects.get((name, port))
        if pinned is not None:
            family = socket.AF_INET6 if ":" in pinned[0] else socket.AF_INET
            return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", pinned)]
        answers = await asyncio.wait_for(self._resolve(host, port, **options), _SECONDS)
        bound_private = bool(self._vault.bound(name, port))
        allowed = answers[:_LIMIT]
        if not all(self.allows(str(answer[4][0]), port, bound_private=bound_private) for answer in allowed):
            raise AddressForbidden
        # Addresses of one family first: a broken second family must not stall a connection (no Happy Eyeballs here).
        return sorted(allowed, key=lambda answer: answer[0] != socket.AF_INET)
