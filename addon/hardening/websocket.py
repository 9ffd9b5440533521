"""Frames of a WebSocket, passed on as they come (P15)."""

import asyncio
import functools
from collections.abc import Generator
from typing import Any, Final

from mitmproxy import ctx
from mitmproxy.http import HTTPFlow
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import websocket
from mitmproxy.proxy.layers.websocket import WebsocketEndHook, WebsocketStartHook

from addon.hardening import target
from addon.hardening.local import END, REFUSAL, RELAY
from addon.websocket.relay import PROTOCOL_ERROR, Relay

LINGER: Final = 0.4
"""Seconds that a side has to answer a close frame of ours."""

Commands = Generator[commands.Command, Any, None]

_tasks: set[asyncio.Task[None]] = set()


class _End(events.MessageInjected[tuple[int, str]]):
    """Somebody wants the WebSocket of a flow closed: status for the close frames, code of the refusal."""


class FrameLayer(layer.Layer):
    """What follows a 101. The shell leaves the relay in the metadata of the flow; without one, nothing passes."""

    def __init__(self, context: Context, flow: HTTPFlow) -> None:
        super().__init__(context)
        self._flow = flow
        self._relay: Relay | None = flow.metadata.get(RELAY)
        self._over = False

    def _handle_event(self, event: events.Event) -> Commands:
        relay = self._relay
        if self._over:
            return
        if relay is None:
            yield from self._finish()
        elif isinstance(event, events.Start):
            self._flow.metadata[END] = functools.partial(_end, self._flow)
            yield WebsocketStartHook(self._flow)
        elif isinstance(event, events.DataReceived):
            yield from self._pass(relay, event)
        elif isinstance(event, _End):
            yield from self._say_goodbye(relay, *event.message)
        elif isinstance(event, events.ConnectionClosed | events.Wakeup):
            yield from self._finish()

    def _pass(self, relay: Relay, event: events.DataReceived) -> Commands:
        from_client = event.connection == self.context.client
        sink = self.context.server if from_client else self.context.client
        data = (relay.from_client if from_client else relay.from_upstream)(event.data)
        if data:
            yield commands.SendData(sink, data)
        if relay.over:
            yield from self._finish()
        elif relay.violation and REFUSAL not in self._flow.metadata:
            yield from self._say_goodbye(relay, PROTOCOL_ERROR, relay.violation)

    def _say_goodbye(self, relay: Relay, status: int, code: str) -> Commands:
        self._flow.metadata[REFUSAL] = code
        for sink, data in zip((self.context.client, self.context.server), relay.close(status, code), strict=True):
            if data:
                yield commands.SendData(sink, data)
        yield commands.RequestWakeup(LINGER)

    def _finish(self) -> Commands:
        self._over = True
        for connection in (self.context.server, self.context.client):
            yield commands.CloseConnection(connection)
        yield WebsocketEndHook(self._flow)
        self._flow.live = False


def _end(flow: HTTPFlow, status: int, code: str) -> None:
    handler = ctx.master.addons.get("proxyserver").connections.get(flow.client_conn.id)
    if handler is not None:
        task = asyncio.get_running_loop().create_task(handler.server_event(_End(flow, (status, code))))
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)


def pass_frames() -> None:
    """
    P15: frames go on as they come, checked and searched by the relay that the shell provides.

    Plain mitmproxy collects every message until it is complete, or memory full, and keeps it until the connection ends.
    """
    target.replace(websocket, "WebsocketLayer", make=lambda _original: FrameLayer)
