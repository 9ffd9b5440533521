"""Hooks that fail closed, and nothing that leaves without a verdict (P8)."""

import asyncio
import dataclasses
import functools
import inspect
import logging
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from typing import Any

from mitmproxy.addonmanager import AddonManager
from mitmproxy.flow import Flow
from mitmproxy.hooks import UpdateHook
from mitmproxy.http import HTTPFlow
from mitmproxy.proxy import commands, mode_servers, server_hooks
from mitmproxy.proxy.layers.http import HttpStream
from mitmproxy.proxy.layers.http._events import ErrorCode, ResponseProtocolError
from mitmproxy.proxy.layers.http._hooks import (
    HttpConnectHook,
    HttpRequestHeadersHook,
    HttpRequestHook,
    HttpResponseHeadersHook,
    HttpResponseHook,
)

from addon.hardening import target
from addon.hardening.connection import DirectHandler, describe
from addon.hardening.local import (
    HOLD,
    INJECTED,
    LEAVING,
    PROVE,
    RELEASE,
    VERDICT,
    connection_refused,
    hasten,
    local_response,
    may_leave,
    refuse,
    request_id,
)
from addon.hardening.replies import reply
from addon.hardening.unjudged import AlterUnjudgedHook
from addon.refusals import answer

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


def _field(hook: Any) -> str:
    (field,) = dataclasses.fields(hook)
    return field.name


_argument: Callable[[Any], str] = functools.cache(_field)
"""The name of the one field of a hook class. `hook.args()` collects the fields anew each time: 3 % of all CPU."""

_tables: weakref.WeakKeyDictionary[AddonManager, dict[str, tuple[Method, ...]]] = weakref.WeakKeyDictionary()


class FailClosedHandler(DirectHandler):
    """
    One client connection and its upstream connections.

    Promises: an exception of any kind in any hook refuses what the hook was asked about; a request that has no verdict
    after its `requestheaders` hook is answered 503; a connection that is not HTTP is dropped unless `tcp_start` (or
    `udp_start`, `dns_request`) left the verdict `pass`.

    Plain mitmproxy logs an exception and goes on, and forwards what no addon stopped. It also walks through all addons
    for each hook, instead of using a table.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._methods = _tables.setdefault(self.master.addons, {})

    def start_hook(self, hook: commands.StartHook) -> Coroutine[Any, Any, None] | None:
        data = getattr(hook, _argument(type(hook)))
        try:
            methods = self._methods.get(hook.name)
            calls = iter(self._look_up(hook, data) if methods is None else methods)
            for method in calls:
                result = method(data)
                if result is not None and inspect.isawaitable(result):
                    return self._continue(hook, data, result, calls)
            if isinstance(data, Flow) and data.intercepted:
                return self._continue(hook, data, data.wait_for_resume(), calls)
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
            found += [functools.partial(_update, method) for method in methods(UpdateHook([data]))]
        self._methods[hook.name] = tuple(found)
        return self._methods[hook.name]

    def _fail(self, hook: commands.StartHook, data: Any, error: BaseException) -> None:
        logger.error("refused, because hook %s failed: %s", hook.name, describe(error))
        if isinstance(hook, HttpRequestHeadersHook | HttpRequestHook):
            self._refuse(data)
        elif isinstance(hook, HttpConnectHook):
            refuse(data, "fault")
        elif isinstance(hook, HttpResponseHeadersHook | HttpResponseHook) and data.killable:
            data.kill()
        elif isinstance(hook, AlterUnjudgedHook):
            data.fail("fault")
        elif isinstance(hook, server_hooks.ServerConnectHook):
            data.server.error = connection_refused("fault")
        elif isinstance(hook, server_hooks.ClientConnectedHook):
            data.error = "refused"
        elif hook.name not in AFTERWARDS:
            self.drop()
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
        elif isinstance(hook, HttpRequestHook):
            if not (data.response or may_leave(data)):
                logger.error("refused, because the verdict did not last")
                self._refuse(data)
        elif hook.name in RAW and not may_leave(data):
            logger.error("dropped, because no addon decided on what is not HTTP")
            self.drop()

    def _refuse(self, flow: HTTPFlow) -> None:
        flow.metadata.pop(VERDICT, None)
        if flow.metadata.get(LEAVING):
            self.drop()  # its body is under way; without an end the upstream cannot act on it
        else:
            refuse(flow, "fault")


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
                connected = yield from original(stream)
                return bool(connected) and (yield from _release(stream))
            failure = ResponseProtocolError(stream.stream_id, connection_refused("fault"), ErrorCode.CONNECT_FAILED)
            yield from stream.handle_protocol_error(failure)
            return False

        return make_server_connection

    target.replace(HttpStream, "make_server_connection", make=make)


def _release(stream: HttpStream) -> Generator[commands.Command, Any, bool]:
    """The upstream is connected: whether the request may go there, now that it is as it will be sent."""
    flow = stream.flow
    if flow.metadata.get(VERDICT) != PROVE:
        return True
    flow.metadata[VERDICT] = None
    try:
        refusal = flow.metadata.pop(RELEASE)()
    except Exception as error:  # noqa: BLE001  whatever it is, the request does not leave
        logger.error("refused, because it could not be released: %s", describe(error))  # noqa: TRY400  as above
        refusal = answer("fault", request_id(flow))
    if refusal is None and flow.metadata[VERDICT] == INJECTED:
        return True
    flow.metadata.pop(LEAVING)
    local_response(flow, refusal or answer("fault", request_id(flow)))
    if flow.response:
        yield from reply(stream, flow.response)
    return False


def installed() -> bool:
    """Whether this process was patched."""
    return mode_servers.ProxyConnectionHandler is FailClosedHandler


def _update(method: Method, flow: Flow) -> Any:
    return method([flow])
