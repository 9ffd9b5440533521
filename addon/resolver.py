"""
Resolve and pin: the event loop's own resolver, with every answer judged before a connection can use it.

asyncio connects to the addresses its `getaddrinfo` returns and asks nobody else, so there is no gap between check and
use. It skips `getaddrinfo` for literal addresses; the shell judges those (`Egress.server_connect`).
"""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from addon import hosts, network
from addon.errors import Fault
from addon.network import AddressForbidden, Redirect, Rules
from addon.vault import Vault

_LIMIT = 32
_SECONDS = 5.0

_tagged: ContextVar[bool] = ContextVar("tagged", default=True)
"""Whether the connection being made is for a request under a grant; mitmproxy's own layers cannot tell."""


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

    @contextlib.contextmanager
    def judging(self, *, tagged: bool) -> Iterator[None]:
        """Within it, look-ups are for a request under a grant, or for one without: only the former may go private."""
        token = _tagged.set(tagged)
        try:
            yield
        finally:
            _tagged.reset(token)

    def redirected(self, host: str, port: int) -> bool:
        """Whether the operator sends this destination elsewhere with --connect-to."""
        return (host, port) in self._redirects

    def allows(self, address: str, port: int, *, bound_private: bool = False) -> bool:
        """Whether to connect to an address."""
        if port == self._own_port and network.is_loopback(address):
            return False
        return self._rules.allow(address, bound_private=bound_private)

    async def allows_untagged(self, host: str, port: int) -> bool:
        """Whether every address of a name may be reached by traffic without a grant. Raises OSError if it has none."""
        if self.redirected(host, port):
            return True
        answers = await self._look_up(host, port, type=socket.SOCK_STREAM)
        return all(self.allows(str(answer[4][0]), port) for answer in answers)

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> list[Any]:
        """The loop's `getaddrinfo`: raises OSError unless all answers are allowed."""
        name = hosts.fold(host if isinstance(host, str) else str(host))
        pinned = self._redirects.get((name, port))
        if pinned is not None:
            family = socket.AF_INET6 if ":" in pinned[0] else socket.AF_INET
            return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", pinned)]
        answers = await self._look_up(host, port, **options)
        try:
            bound_private = _tagged.get() and bool(self._vault.bound(name, port))
        except Fault as fault:
            raise OSError(f"alter:{fault.code}") from fault
        if not all(self.allows(str(answer[4][0]), port, bound_private=bound_private) for answer in answers):
            raise AddressForbidden
        # Addresses of one family first: a broken second family must not stall a connection (no Happy Eyeballs here).
        return sorted(answers, key=lambda answer: answer[0] != socket.AF_INET)

    async def _look_up(self, host: Any, port: Any, **options: Any) -> list[Any]:
        """The first 32 answers, within 5 seconds. Raises OSError alone: who connects expects nothing else and would hang."""
        try:
            answers: list[Any] = await asyncio.wait_for(self._resolve(host, port, **options), _SECONDS)
        except UnicodeError as error:  # an empty label, or one that is too long
            raise OSError("not a name that can be looked up") from error
        return answers[:_LIMIT]
