"""
Resolve and pin: the event loop's own resolver, with every answer judged before a connection can use it.

asyncio connects to the addresses its `getaddrinfo` returns and asks nobody else, so there is no gap between check and
use. It skips `getaddrinfo` for literal addresses; the shell judges those (`Egress.server_connect`).

With a next proxy, `create_connection` is ours as well: whoever connects on this loop goes through that proxy.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

from addon import hosts, network, next_proxy
from addon.errors import Fault
from addon.network import AddressForbidden, Redirect, Rules
from addon.next_proxy import NextProxy
from addon.vault import Vault

_LIMIT = 32
_SECONDS = 5.0

_tagged: ContextVar[bool] = ContextVar("tagged", default=True)
"""Whether the connection being made is for a request under a grant; mitmproxy's own layers cannot tell."""


class Resolver:
    """
    Judges the destinations of one worker. `own` is where the proxy itself listens; it never connects there.

    Connections go through `via`, if there is one, but for redirected destinations; `trust` is how it is verified.
    """

    def __init__(
        self,
        *,
        vault: Vault,
        rules: Rules,
        redirects: tuple[Redirect, ...],
        own: tuple[str, int],
        via: NextProxy | None = None,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        self._vault = vault
        self._rules = rules
        self._redirects = {(r.host, r.port): (r.address, r.to_port) for r in redirects}
        self._own = own
        self._via = via
        self._trust = trust
        self._resolve: Any = None
        self._connect: Any = None

    def install(self, loop: asyncio.AbstractEventLoop) -> None:
        """Put this resolver in front of the loop's."""
        self._resolve = loop.getaddrinfo
        loop.getaddrinfo = self.getaddrinfo  # type: ignore[method-assign]
        if self._via is not None:
            self._connect = loop.create_connection
            loop.create_connection = self.create_connection  # type: ignore[method-assign,assignment]

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
        return not self.is_own(address, port) and self._rules.allow(address, bound_private=bound_private)

    def is_own(self, address: str, port: int) -> bool:
        """Whether the proxy itself listens there."""
        return port == self._own[1] and (network.is_loopback(address) or address == self._own[0])

    async def allows_untagged(self, host: str, port: int) -> bool:
        """Whether every address of a name may be reached by traffic without a grant. Raises OSError if it has none."""
        if self.redirected(host, port):
            return True
        if self._via is not None:
            return False  # asked only of names that a secret is bound to as private ones
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

    async def create_connection(
        self, make: Callable[[], asyncio.BaseProtocol], host: Any = None, port: Any = None, **options: Any
    ) -> tuple[Any, Any]:
        """The loop's `create_connection`, through the next proxy. Raises OSError, AddressForbidden for where it may not go."""
        name = hosts.fold(str(host))
        if self._via is None or self.redirected(name, port):
            straight: tuple[Any, Any] = await self._connect(make, host, port, **options)
            return straight
        self._judge(name, port)
        async with asyncio.timeout(next_proxy.SECONDS):
            return await self._tunnel(self._via, make, name, port)

    def _judge(self, name: str, port: int) -> None:
        """Raises OSError unless the next proxy may be asked for a name or an address; libc's notations are neither."""
        if hosts.is_address(name):
            if not self.allows(name, port):
                raise AddressForbidden
            return
        try:
            hosts.normalize(name)
            private = _tagged.get() and bool(self._vault.bound(name, port))
        except hosts.NotAName:
            raise AddressForbidden from None
        except Fault as fault:
            raise OSError(f"alter:{fault.code}") from fault
        if network.is_local_name(name) and not private:
            raise AddressForbidden

    async def _tunnel(
        self, via: NextProxy, make: Callable[[], asyncio.BaseProtocol], name: str, port: int
    ) -> tuple[Any, Any]:
        """The operator chose the proxy, so where it lives is not judged."""
        problem: OSError = ConnectionRefusedError()
        secured = {"ssl": self._trust, "server_hostname": via.host} if self._trust else {}
        head = via.connect_head(name, port)

        def begin() -> next_proxy.Handshake:
            return next_proxy.Handshake(head, make=make)

        for answer in await self._look_up(via.host, via.port, type=socket.SOCK_STREAM):
            address = str(answer[4][0])
            if self.is_own(address, via.port):
                continue
            try:
                transport, handshake = await self._connect(begin, address, via.port, **secured)
            except OSError as error:
                problem = error
                continue
            try:
                return transport, await handshake.opened
            except BaseException:
                transport.abort()
                raise
        raise problem

    async def _look_up(self, host: Any, port: Any, **options: Any) -> list[Any]:
        """The first 32 answers, within 5 seconds. Raises OSError alone: who connects expects nothing else and would hang."""
        try:
            answers: list[Any] = await asyncio.wait_for(self._resolve(host, port, **options), _SECONDS)
        except UnicodeError as error:  # an empty label, or one that is too long
            raise OSError("not a name that can be looked up") from error
        return answers[:_LIMIT]
