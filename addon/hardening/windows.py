"""HTTP/2 flow control (P11)."""

from collections import defaultdict
from collections.abc import Callable, Generator
from typing import Any, Final

import h2.connection
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layers.http import HttpLayer, HttpStream
from mitmproxy.proxy.layers.http._http2 import Http2Client, Http2Connection, Http2Server
from mitmproxy.proxy.layers.http._http_h2 import BufferedH2Connection

from addon.hardening import target

Commands = Generator[commands.Command, Any, None]
Handler = Callable[[Any, Any], Commands]

STREAM: Final = 2 << 20
CONNECTION: Final = 16 << 20
"""Bytes that a peer may send before any of them has gone on."""


class _Pay(events.Event):
    """Tell the peer that what it sent on these streams has gone on."""

    def __init__(self, streams: list[int]) -> None:
        self.streams = streams


def pass_on_credit() -> None:
    """
    P11: who sends by HTTP/2 is held to the pace of whom it is sent to, each stream by itself.

    Plain mitmproxy lets every peer send 2 GiB ahead and keeps what the other side does not take: an upload to a slow
    upstream is collected in memory, and so is a download for a client that does not read.
    """
    target.replace(BufferedH2Connection, "__init__", make=_make_init)
    target.replace(BufferedH2Connection, "initiate_connection", make=_make_initiate)
    target.replace(BufferedH2Connection, "acknowledge_received_data", make=_make_acknowledge)
    target.replace(Http2Connection, "_handle_event", make=_make_pay)
    target.replace(HttpLayer, "_handle_event", make=_make_settle)


def _make_init(original: Callable[..., None]) -> Callable[..., None]:
    def init(wire: Any, config: Any) -> None:
        original(wire, config)
        wire.local_settings.initial_window_size = STREAM
        wire.local_settings.acknowledge()  # or it would be sent, but not be in force
        wire.owed = defaultdict(int)

    return init


def _make_initiate(_original: Callable[..., None]) -> Callable[..., None]:
    def initiate_connection(wire: Any) -> None:
        h2.connection.H2Connection.initiate_connection(wire)
        wire.increment_flow_control_window(CONNECTION - wire.inbound_flow_control_window)

    return initiate_connection


def _make_acknowledge(_original: Callable[..., None]) -> Callable[..., None]:
    def acknowledge_received_data(wire: Any, size: int, stream_id: int) -> None:
        wire.owed[stream_id] += size

    return acknowledge_received_data


def _make_pay(original: Handler) -> Handler:
    def handle(connection: Http2Connection, event: Any) -> Commands:
        if not isinstance(event, _Pay):
            yield from original(connection, event)
            return
        wire: Any = connection.h2_conn
        for stream_id in event.streams:
            size = wire.owed.pop(stream_id)
            if size:
                h2.connection.H2Connection.acknowledge_received_data(wire, size, stream_id)
        data = wire.data_to_send()
        if data:
            yield commands.SendData(connection.conn, data)

    return handle


def _make_settle(original: Handler) -> Handler:
    def handle(layer: HttpLayer, event: Any) -> Commands:
        """Whatever has happened, data may have gone on by it."""
        yield from original(layer, event)
        for handler in tuple(layer.connections.values()):
            connection = _end(handler)
            wire: Any = getattr(connection, "h2_conn", None)
            if wire is None or not wire.owed:
                continue
            if not connection.conn.connected:
                wire.owed.clear()
            elif paid := [stream_id for stream_id in wire.owed if not _waits(layer, connection, stream_id)]:
                yield from layer.event_to_child(handler, _Pay(paid))

    return handle


def _end(handler: Any) -> Any:
    """The connection at the end of its stack of layers."""
    return handler if isinstance(handler, Http2Server) else handler.context.layers[-1]


def _waits(layer: HttpLayer, connection: Any, stream_id: int) -> bool:
    """Whether what came on a stream of `connection` has not all gone on."""
    outwards = isinstance(connection, Http2Server)
    number = stream_id if outwards else connection.their_stream_id.get(stream_id, 0)
    stream: HttpStream | None = layer.streams.get(number)
    if stream is None:
        return False
    if stream._paused:  # noqa: SLF001  a hook is under way, or its upstream is being connected
        return True
    handler = layer.connections.get(stream.context.server if outwards else layer.context.client)
    onward = _end(handler) if handler else None
    if isinstance(onward, Http2Client):
        if number in onward.stream_queue:
            return True
        number = onward.our_stream_id.get(number, 0)
    return isinstance(onward, Http2Connection) and bool(onward.h2_conn.stream_buffers.get(number))
