"""Connections that end when nobody moves (P14): the limits are those of the flat path."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator

from mitmproxy.connection import Server

from addon import patience


class Patience:
    """
    Stands in for mitmproxy's TimeoutWatchdog, which counts any byte as activity and waits for 900 seconds.

    While no exchange is under way it is for the client to begin one, and no trickle extends its time. `begin` and `end`
    bracket an exchange.
    """

    def __init__(self, give_up: Callable[[], Awaitable[None]]) -> None:
        self._give_up = give_up
        self._exchanges = 0
        self._held = 0
        self._overdue = time.monotonic() + patience.HEAD

    def begin(self) -> None:
        """A request is here."""
        self._exchanges += 1
        self.register_activity()

    def end(self) -> None:
        """Its response is over."""
        self._exchanges = max(0, self._exchanges - 1)
        if not self._exchanges:
            self._overdue = time.monotonic() + patience.HEAD

    def register_activity(self) -> None:
        """Something moved."""
        if self._exchanges:
            self._overdue = time.monotonic() + patience.ANSWER

    async def watch(self) -> None:
        """Until somebody took too long."""
        with contextlib.suppress(asyncio.CancelledError):
            while self._held or time.monotonic() < self._overdue:
                left = self._overdue - time.monotonic()
                await asyncio.sleep(max(patience.TICK, min(left, patience.HEAD / 5)))  # it may have become shorter
            await self._give_up()

    @contextlib.contextmanager
    def disarm(self) -> Iterator[None]:
        """It is ourselves who take our time."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            self._overdue = max(self._overdue, time.monotonic() + patience.HEAD)
            self.register_activity()


async def hurry(connection: Server, give_up: Callable[[], object]) -> None:
    """Give an upstream up that has not proved itself in time, from when it is its turn to be connected."""
    while connection.timestamp_start is None:  # noqa: ASYNC110  mitmproxy tells nobody
        await asyncio.sleep(patience.TICK)
    await asyncio.sleep(patience.CONNECT)
    if not (connection.timestamp_tls_setup if connection.tls else connection.timestamp_tcp_setup):
        give_up()
