"""
Hooks that fail closed (P8), on connections that always close (P2).

mitmproxy looks `ProxyConnectionHandler` up as a module global for each connection, so a subclass put in its place sees
every hook. It calls the addons itself: from a table of methods instead of a walk through all addons, in place instead
of in a task per hook, and without the net that logs an exception and goes on.
"""

import asyncio
import collections
import contextlib
import inspect
import logging
import traceback
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from mitmproxy.addonmanager import AddonManager
from mitmproxy.connection import ConnectionState
from mitmproxy.flow import Flow
from mitmproxy.hooks import UpdateHook
from mitmproxy.http import HTTPFlow
from mitmproxy.proxy import commands, events, mode_servers, server, server_hooks
from mitmproxy.proxy.layers.http import HttpStream
from mitmproxy.proxy.layers.http._events import ErrorCode, ResponseProtocolError
from mitmproxy.proxy.layers.http._hooks import (
    HttpConnectHook,
    HttpRequestHeadersHook,
    HttpRequestHook,
    HttpResponseHeadersHook,
    HttpResponseHook,
)
from mitmproxy.utils import asyncio_utils

from addon.hardening import target
from addon.hardening.local import HOLD, LEAVING, VERDICT, connection_refused, hasten, may_leave, refuse

logger = logging.getLogger(__name__)

Method = Callable[[Any], Any]

AFTERWARDS = frozenset(
    {
        "client_disconnected", "server_disconnected", "server_connect_error", "http_connect_error", "error",
        "tls_failed_client", "tls_failed_server", "tcp_end", "tcp_error", "udp_end", "udp_error", "websocket_end",
        "dns_error",
    }
)  # fmt: skip
"""Hooks that tell of what is over: when one fails, nothing is left to refuse."""

RAW = frozenset({"tcp_start", "udp_start", "dns_request"})
"""Hooks before bytes leave that mitmproxy does not take for HTTP: a guess that a stray line break can bring about."""

_tables: weakref.WeakKeyDictionary[AddonManager, dict[str, tuple[Method, ...]]] = weakref.WeakKeyDictionary()


class FailClosedHandler(mode_servers.ProxyConnectionHandler):
    """
    One client connection and its upstream connections.

    Promises: an exception of any kind in any hook refuses what the hook was asked about; a request that has no verdict
    after its `requestheaders` hook is answered 503; a connection that is not HTTP is dropped unless `tcp_start` (or
    `udp_start`, `dns_request`) left the verdict `pass`; every socket is closed when the connection ends.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)  # type: ignore[no-untyped-call]
        self._methods = _tables.setdefault(self.master.addons, {})
        self._events: collections.deque[events.Event] = collections.deque()
        self._busy = False
        self._dropped = False

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

    async def handle_hook(self, hook: commands.StartHook) -> None:
        """Where mitmproxy itself waits for a hook: when it connects and disconnects."""
        if (rest := self._start(hook)) is not None:
            await rest

    async def server_event(self, event: events.Event) -> None:
        """
        Feed the layers, one event after the other.

        Plain mitmproxy takes a lock for each event, and for each hook starts a task that takes the lock again. Nothing
        here waits, so a queue is enough: an event that arrives while one is handled is handled next.
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
            logger.error("connection dropped: %s", _describe(error))  # noqa: TRY400  a traceback may quote a secret
            self._drop()

    def _execute(self, command: commands.Command) -> None:
        if isinstance(command, commands.OpenConnection):
            if not self._dropped:
                handler = self._spawn(self.open_connection(command), name="server connection handler", keep_ref=False)
                self.transports[command.connection] = server.ConnectionIO(handler=handler)
        elif isinstance(command, commands.RequestWakeup):
            self.wakeup_timer.add(self._spawn(self.wakeup(command), name="wakeup timer", keep_ref=False))
        elif isinstance(command, commands.CloseConnection):
            if command.connection in self.transports:
                half_close = isinstance(command, commands.CloseTcpConnection) and command.half_close
                self.close_connection(command.connection, half_close)
        elif isinstance(command, commands.Log):
            self.log(command.message, command.level)
        elif not isinstance(command, commands.ConnectionCommand) or command.connection in self.transports:
            raise TypeError(type(command).__name__)

    def _spawn(self, work: Coroutine[Any, Any, None], *, name: str, keep_ref: bool) -> asyncio.Task[None]:
        return asyncio_utils.create_task(work, name=name, keep_ref=keep_ref, client=self.client.peername)

    def _run(self, hook: commands.StartHook) -> None:
        rest = self._start(hook)
        if rest is not None:
            self._spawn(self._finish(hook, rest), name=f"handle_hook({hook.name})", keep_ref=True)
        elif hook.blocking:
            self._events.append(events.HookCompleted(hook))

    async def _finish(self, hook: commands.StartHook, rest: Awaitable[None]) -> None:
        await rest
        if hook.blocking:
            await self.server_event(events.HookCompleted(hook))

    def _start(self, hook: commands.StartHook) -> Coroutine[Any, Any, None] | None:
        """Call the addons up to the first that must be waited for. Returns what is left to be awaited, if anything."""
        (data,) = hook.args()
        try:
            methods = self._methods.get(hook.name)
            calls = iter(self._look_up(hook, data) if methods is None else methods)
            for method in calls:
                result = method(data)
                if result is not None and inspect.isawaitable(result):
                    return self._continue(hook, data, result, calls)
            if isinstance(data, Flow) and data.intercepted:
                resumed = data.wait_for_resume()
                return self._continue(hook, data, resumed, calls)
        except BaseException as error:  # noqa: BLE001  AddonHalt, CancelledError and SystemExit forward, too
            self._fail(hook, data, error)
        self._settle(hook, data)
        return None

    async def _continue(
        self, hook: commands.StartHook, data: Any, awaited: Awaitable[Any], calls: Iterator[Method]
    ) -> None:
        with self.timeout_watchdog.disarm():
            try:
                await awaited
                for method in calls:
                    result = method(data)
                    if result is not None and inspect.isawaitable(result):
                        await result
                if isinstance(data, Flow):
                    await data.wait_for_resume()
            except BaseException as error:  # noqa: BLE001
                self._fail(hook, data, error)
        self._settle(hook, data)

    def _look_up(self, hook: commands.StartHook, data: Any) -> tuple[Method, ...]:
        manager = self.master.addons

        def methods(of: Any) -> list[Method]:
            return [method for root in manager.chain for _, method in manager._iter_hooks(root, of)]  # noqa: SLF001

        found = methods(hook)
        if isinstance(data, Flow):
            found += [partial(_update, method) for method in methods(UpdateHook([data]))]
        self._methods[hook.name] = tuple(found)
        return self._methods[hook.name]

    def _fail(self, hook: commands.StartHook, data: Any, error: BaseException) -> None:
        logger.error("refused, because hook %s failed: %s", hook.name, _describe(error))
        if isinstance(hook, HttpRequestHeadersHook | HttpRequestHook):
            self._refuse(data)
        elif isinstance(hook, HttpConnectHook):
            refuse(data, "fault")
        elif isinstance(hook, HttpResponseHeadersHook | HttpResponseHook) and data.killable:
            data.kill()
        elif isinstance(hook, server_hooks.ServerConnectHook):
            data.server.error = connection_refused("fault")
        elif isinstance(hook, server_hooks.ClientConnectedHook):
            data.error = "refused"
        elif hook.name not in AFTERWARDS:
            self._drop()
        task = asyncio.current_task()
        cancelled = isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0
        if cancelled or isinstance(error, SystemExit | KeyboardInterrupt):
            raise error

    def _settle(self, hook: commands.StartHook, data: Any) -> None:
        """Require a verdict; see `require_verdict` for the gate behind this one."""
        if isinstance(hook, HttpRequestHeadersHook):
            held = data.metadata.get(VERDICT) == HOLD and not data.request.stream
            if data.response:
                hasten(data)
            elif not (may_leave(data) or held or data.error):  # mitmproxy answers an invalid request itself
                logger.error("refused, because no addon decided")
                self._refuse(data)
        elif isinstance(hook, HttpRequestHook) and not (data.response or may_leave(data)):
            logger.error("refused, because the verdict did not last")
            self._refuse(data)
        elif hook.name in RAW and not may_leave(data):
            logger.error("dropped, because no addon decided on what is not HTTP")
            self._drop()

    def _refuse(self, flow: HTTPFlow) -> None:
        flow.metadata.pop(VERDICT, None)
        if flow.metadata.get(LEAVING):
            self._drop()  # its body is under way; without an end the upstream cannot act on it
        else:
            refuse(flow, "fault")

    def _drop(self) -> None:
        """Close every socket now. What the layers still want to send goes nowhere."""
        self._dropped = True
        for connection, io in self.transports.items():
            connection.state = ConnectionState.CLOSED
            if io.handler:
                io.handler.cancel("refused")
        self._close_sockets()

    def _close_sockets(self) -> None:
        for io in self.transports.values():
            if io.writer:
                with contextlib.suppress(OSError):
                    io.writer.close()


def fail_closed() -> None:
    """P8 and P2: connections are handled by FailClosedHandler. Its table follows addons that come and go."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def change(manager: AddonManager, *addons: Any) -> Any:
            try:
                return original(manager, *addons)
            finally:
                _tables.get(manager, {}).clear()

        return change

    for name in ("register", "remove", "clear"):
        target.replace(AddonManager, name, make=make)
    target.replace(mode_servers, "ProxyConnectionHandler", make=lambda _original: FailClosedHandler)


def require_verdict() -> None:
    """
    P8, the last gate: no upstream connection, so no byte, for a request without a verdict, whatever hooks were skipped.

    Plain mitmproxy forwards every request that no addon stopped. `stream_large_bodies`, for one, sends a request from
    the middle of its body on, with no hook in between.
    """

    def make(original: Callable[[HttpStream], Any]) -> Callable[[HttpStream], Any]:
        def make_server_connection(stream: HttpStream) -> Generator[commands.Command, Any, bool]:
            if may_leave(stream.flow):
                stream.flow.metadata[LEAVING] = True
                return bool((yield from original(stream)))
            failure = ResponseProtocolError(stream.stream_id, connection_refused("fault"), ErrorCode.CONNECT_FAILED)
            yield from stream.handle_protocol_error(failure)
            return False

        return make_server_connection

    target.replace(HttpStream, "make_server_connection", make=make)


def installed() -> bool:
    """Whether this process was patched."""
    return mode_servers.ProxyConnectionHandler is FailClosedHandler


def _update(method: Method, flow: Flow) -> Any:
    return method([flow])


def _describe(error: BaseException) -> str:
    """The kind of `error` and where it was raised: its text may hold what nobody may read."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return type(error).__name__ + where
