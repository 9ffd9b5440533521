"""
Connections whose sockets always close (P2), in time (P14), with less between a socket and its layer.

mitmproxy looks `ProxyConnectionHandler` up as a module global for each connection, so a subclass in its place (see
`dispatch`) handles them all.
"""

import asyncio
import collections
import contextlib
import logging
import traceback
from abc import abstractmethod
from collections.abc import Callable, Coroutine, Generator
from pathlib import Path
from typing import Any

from mitmproxy.connection import Connection, ConnectionState
from mitmproxy.proxy import commands, events, mode_servers, server
from mitmproxy.proxy.layer import Layer
from mitmproxy.proxy.layers.http import HttpLayer, HttpStream
from mitmproxy.proxy.layers.http._http1 import Http1Server
from mitmproxy.proxy.layers.modes import HttpProxy
from mitmproxy.utils import asyncio_utils

from addon import patience
from addon.hardening import target
from addon.hardening.patience import Patience, hurry

_BEGINS = frozenset({"requestheaders", "websocket_start", "tcp_start"})
_ENDS = frozenset({"response", "error", "websocket_end", "tcp_end", "tcp_error"})
"""The hooks that bracket an exchange."""

logger = logging.getLogger(__name__)


class DirectHandler(mode_servers.ProxyConnectionHandler):
    """One client connection and its upstream connections. Promises that every socket is closed when it ends."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)  # type: ignore[no-untyped-call]
        self._events: collections.deque[events.Event] = collections.deque()
        self._busy = False
        self._dropped = False
        self._in_tunnel = False
        self.timeout_watchdog: Patience = Patience(self.on_timeout)  # type: ignore[assignment]

    @abstractmethod
    def start_hook(self, hook: commands.StartHook) -> Coroutine[Any, Any, None] | None:
        """Call the addons up to the first that must be waited for. Returns what is left to be awaited, if anything."""

    async def handle_client(self) -> None:
        """
        P2: no socket outlives its connection.

        In plain mitmproxy a connection that is cancelled while it waits for the lock of `server_event` never reaches
        the line that closes its socket: kill() or 413 in mid-body leave the client hanging and leak a descriptor.
        """
        try:
            await super().handle_client()
        finally:
            self._close_sockets()

    async def open_connection(self, command: commands.OpenConnection) -> None:
        """P14: an upstream has a limit. Plain mitmproxy waits for a silent one until the client is given up."""
        opening = asyncio.current_task()
        if opening is None:
            raise RuntimeError
        hurrying = self._spawn(hurry(command.connection, opening.cancel), name="connect timeout", keep_ref=True)
        try:
            await super().open_connection(command)
        finally:
            hurrying.cancel()

    async def handle_connection(self, connection: Connection) -> None:
        """P14: who does not take the rest of what was sent is cut off in the end. Plain mitmproxy leaks the socket."""
        writer = self.transports[connection].writer
        try:
            await super().handle_connection(connection)
        finally:
            _close(writer)

    async def server_event(self, event: events.Event) -> None:
        """
        Feed the layers, one event after the other.

        Plain mitmproxy takes a lock for each event, and for each hook starts a task that takes the lock again (5 % of
        all CPU, and the cause of P2). Nothing here waits, so a queue is enough.
        """
        self._events.append(event)
        if self._busy:
            return
        self._busy = True
        try:
            while self._events:
                self._handle(self._events.popleft())
        finally:
            self._busy = False

    async def handle_hook(self, hook: commands.StartHook) -> None:
        """Where mitmproxy itself waits for a hook: when it connects and disconnects."""
        if (rest := self.start_hook(hook)) is not None:
            await rest

    def drop(self) -> None:
        """Close every socket now. What the layers still want to send goes nowhere."""
        self._dropped = True
        for connection, io in self.transports.items():
            connection.state = ConnectionState.CLOSED
            if io.handler:
                io.handler.cancel("dropped")
        self._close_sockets()

    def _close_sockets(self) -> None:
        for io in self.transports.values():
            if io.writer:
                _close(io.writer)

    def _handle(self, event: events.Event) -> None:
        self.timeout_watchdog.register_activity()
        try:
            for command in self.layer.handle_event(event):
                if isinstance(command, commands.SendData):
                    io = self.transports.get(command.connection)
                    if io and io.writer and not io.writer.is_closing():
                        io.writer.write(command.data)
                elif isinstance(command, commands.StartHook):
                    self._run(command)
                else:
                    self._execute(command)
        except Exception as error:  # noqa: BLE001  whatever a layer raises would leave both ends hanging
            logger.error("connection dropped: %s", describe(error))  # noqa: TRY400  a traceback may quote a secret
            self.drop()

    def _run(self, hook: commands.StartHook) -> None:
        if hook.name in _BEGINS:
            self.timeout_watchdog.begin()
        elif hook.name in _ENDS:
            self.timeout_watchdog.end()
        rest = self.start_hook(hook)
        if rest is not None:
            self._spawn(self._finish(hook, rest), name=f"handle_hook({hook.name})", keep_ref=True)
        elif hook.blocking:
            self._events.append(events.HookCompleted(hook))

    async def _finish(self, hook: commands.StartHook, rest: Coroutine[Any, Any, None]) -> None:
        await rest
        if hook.blocking:
            await self.server_event(events.HookCompleted(hook))

    def _execute(self, command: commands.Command) -> None:
        if isinstance(command, commands.OpenConnection):
            if not self._dropped:
                handler = self._spawn(self.open_connection(command), name="server connection handler", keep_ref=False)
                self.transports[command.connection] = server.ConnectionIO(handler=handler)
        elif isinstance(command, commands.RequestWakeup):
            self.wakeup_timer.add(self._spawn(self.wakeup(command), name="wakeup timer", keep_ref=False))
        elif isinstance(command, commands.CloseConnection):
            if command.connection in self.transports:
                half = isinstance(command, commands.CloseTcpConnection) and command.half_close
                self.close_connection(command.connection, half and not self._in_tunnel)  # as the layers left out do
        elif isinstance(command, commands.Log):
            self.log(command.message.partition(" ClientHello: ")[0], command.level)  # the rest quotes the client
        elif isinstance(command, _EnterTunnel):
            self.layer, self._in_tunnel = command.inside, True
        elif not isinstance(command, commands.ConnectionCommand) or command.connection in self.transports:
            raise TypeError(type(command).__name__)

    def _spawn(self, work: Coroutine[Any, Any, None], *, name: str, keep_ref: bool) -> asyncio.Task[None]:
        return asyncio_utils.create_task(work, name=name, keep_ref=keep_ref, client=self.client.peername)


def enter_tunnels() -> None:
    """
    Speed: once CONNECT is answered, the sockets feed the layers inside the tunnel directly.

    Plain mitmproxy keeps passing each event and each command through the HTTP layers that answered CONNECT, which only
    repack them: 5 to 8 % of all CPU. Only the plain case is cut short: HTTP/1 to the proxy, without TLS around it.
    """

    def make(original: Callable[[HttpStream], Any]) -> Callable[[HttpStream], Any]:
        def handle_connect_finish(stream: HttpStream) -> Generator[commands.Command, Any, None]:
            yield from original(stream)
            above = stream.context.layers[: stream.context.layers.index(stream)]
            if len(above) == 2 and isinstance(above[0], HttpProxy) and isinstance(above[1], HttpLayer):
                outer = above[1].connections[stream.context.client]
                if stream.child_layer and isinstance(outer, Http1Server) and outer.state == outer.passthrough:
                    yield _EnterTunnel(stream.child_layer)

        return handle_connect_finish

    target.replace(HttpStream, "handle_connect_finish", make=make)


def _close(writer: Any) -> None:
    with contextlib.suppress(OSError):
        writer.close()
    if writer.transport.get_write_buffer_size():
        asyncio.get_running_loop().call_later(patience.GOODBYE, writer.transport.abort)


class _EnterTunnel(commands.Command):
    def __init__(self, inside: Layer) -> None:
        self.inside = inside


def describe(error: BaseException) -> str:
    """The kind of `error` and where it was raised: its text may hold what nobody may read."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return type(error).__name__ + where
