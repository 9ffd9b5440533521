"""
Upstream connections: resolved and pinned, verified, and kept warm.

A connection is shared only by requests of the same caller under the same grant, and by those without a key only within
their tunnel, so nothing that an upstream ties to a connection can pass from one to another.
"""

import asyncio
import ssl
import time
from collections import deque
from dataclasses import dataclass

from addon import patience
from addon.exchange.streams import Stream
from addon.network import AddressForbidden
from addon.resolver import Resolver
from addon.trust import verifying_context

FRESH = 4.0
"""Seconds after which a request that must not be repeated gets a new connection: some servers close after 5."""
_PER_KEY = 256
_TOTAL = 1024
_SESSIONS = 1024

Key = tuple[str, int, str, str]


class Unreachable(Exception):
    """The upstream cannot be used. `code` is one of `refusals.CODES`."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(slots=True)
class Upstream:
    """A verified connection. `reused` tells that it has served before."""

    key: Key
    stream: Stream
    reused: bool = False
    idle_since: float = 0.0


class Pool:
    """The upstream connections of one worker."""

    def __init__(self, *, resolver: Resolver, ca_file: str) -> None:
        self._resolver = resolver
        self._context = verifying_context(ca_file)
        self._idle: dict[Key, deque[Upstream]] = {}
        self._sessions: dict[tuple[str, int], ssl.SSLSession] = {}
        self._count = 0

    async def acquire(self, key: Key, *, repeatable: bool, fresh: bool = False) -> Upstream:
        """A connection to the host and port of `key`, its certificate proved. Raises Unreachable."""
        idle = self._idle.get(key)
        oldest = time.monotonic() - (patience.KEPT if repeatable else FRESH)
        while idle and not fresh:
            upstream = idle.pop()
            self._count -= 1
            if upstream.stream.eof or upstream.stream.buffer or upstream.idle_since < oldest:
                upstream.stream.close()
                continue
            upstream.reused = True
            upstream.stream.received = False
            return upstream
        try:
            async with asyncio.timeout(patience.CONNECT):
                return await self._connect(key)
        except AddressForbidden:
            raise Unreachable("address_forbidden") from None
        except ssl.SSLCertVerificationError:
            raise Unreachable("upstream_unverified") from None
        except (OSError, ssl.SSLError, TimeoutError):
            raise Unreachable("upstream_unreachable") from None

    def release(self, upstream: Upstream) -> None:
        """Keep a connection whose last exchange is complete."""
        stream = upstream.stream
        host, port, _, _ = upstream.key
        if stream.eof or stream.closed or stream.buffer or self._count >= _TOTAL:
            stream.close()
            return
        if not upstream.reused and (session := stream.tls.session) is not None:
            # Copying a session costs more than an exchange, so once a connection, when its tickets have arrived.
            if len(self._sessions) >= _SESSIONS:
                self._sessions.clear()
            self._sessions[host, port] = session
        idle = self._idle.setdefault(upstream.key, deque())
        if len(idle) >= _PER_KEY:
            stream.close()
            return
        upstream.idle_since = time.monotonic()
        idle.append(upstream)
        self._count += 1

    def forget(self, caller: str) -> None:
        """Close what is kept for a caller that will not come back."""
        for key in [key for key in self._idle if key[2] == caller]:
            for upstream in self._idle.pop(key):
                upstream.stream.close()
                self._count -= 1

    def sweep(self) -> None:
        """Close what has been idle for too long, or was closed by its server."""
        oldest = time.monotonic() - patience.KEPT
        for key, idle in list(self._idle.items()):
            kept = deque(u for u in idle if u.idle_since >= oldest and not u.stream.eof)
            for upstream in idle:
                if upstream not in kept:
                    upstream.stream.close()
                    self._count -= 1
            if kept:
                self._idle[key] = kept
            else:
                del self._idle[key]

    async def _connect(self, key: Key) -> Upstream:
        host, port = key[0], key[1]
        session = self._sessions.get((host, port))
        stream = Stream(self._context, server_side=False, hostname=host, session=session)
        loop = asyncio.get_running_loop()
        try:
            with self._resolver.judging(tagged=bool(key[3])):
                await loop.create_connection(lambda: stream, host, port)
            await stream.handshake()
        except BaseException:
            stream.abort()
            raise
        return Upstream(key, stream)
