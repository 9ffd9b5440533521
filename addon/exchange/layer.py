"""
The seam to mitmproxy: an addon whose `next_layer` hook takes CONNECT tunnels over.

A tunnel is carried here if its CONNECT is admitted and its client offers HTTP/1.1, or no protocol, in TLS. Everything else
(a refused CONNECT, plain HTTP in a tunnel, HTTP/2-only clients such as gRPC, TLS that nobody is to read) goes to
mitmproxy's own layers, which see the CONNECT as if we had not been there.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mitmproxy import ctx
from mitmproxy.connection import Connection
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import HttpLayer, HTTPMode

from addon import callers, hosts, patience
from addon.exchange import hello
from addon.exchange.heads import LIMIT, RequestHead, parse_request
from addon.exchange.leaves import Leaves
from addon.exchange.pool import Pool
from addon.exchange.streams import Stream
from addon.exchange.tunnel import Opening, Tunnel
from addon.gate import Gate
from addon.model import Request

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"

Commands = layer.CommandGenerator[None]


class FlatEngine:
    """
    The addon; it goes before mitmproxy's NextLayer. Large bodies that must be held lie in `folder`.

    Clients begin with CONNECT, or when they are `redirected` here, with TLS.
    """

    def __init__(self, *, gate: Gate, pool: Pool, leaves: Leaves, folder: Path, redirected: bool = False) -> None:
        self._folder = folder
        self._begins, self._layer = (b"\x16", RedirectedLayer) if redirected else (b"CONNECT ", ConnectLayer)
        self.gate = gate
        self.pool = pool
        self.leaves = leaves
        self._tunnels: set[Tunnel] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def running(self) -> None:
        """Start the watch over tunnels that take too long."""
        self._watch()

    def next_layer(self, choice: layer.NextLayer) -> None:
        """Take a client that begins as those do that we carry."""
        if choice.layer is None and len(choice.context.layers) == 1 and choice.data_client().startswith(self._begins):
            choice.layer = self._layer(choice.context, self)

    def carry(self, client: Stream, opening: Opening, *, on_end: Callable[[], None]) -> None:
        """Serve a tunnel in a task of its own."""
        tunnel = Tunnel(client, opening, gate=self.gate, pool=self.pool, folder=self._folder)
        client.on_lost.append(tunnel.hang_up)
        task = asyncio.get_running_loop().create_task(tunnel.serve())
        self._tunnels.add(tunnel)
        self._tasks.add(task)

        def end(done: asyncio.Task[None]) -> None:
            self._tunnels.discard(tunnel)
            self._tasks.discard(done)
            on_end()

        task.add_done_callback(end)

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(patience.TICK, self._watch)
        now = loop.time()
        for tunnel in list(self._tunnels):
            if tunnel.progress.overdue < now:
                tunnel.expire()
        self.pool.sweep()


class ConnectLayer(layer.Layer):
    """Reads the CONNECT and the ClientHello, then hands the connection to a Tunnel or to mitmproxy's layers."""

    def __init__(self, context: Context, engine: FlatEngine) -> None:
        super().__init__(context)
        self._engine = engine
        self._received = b""
        self._connect = b""
        self._opening: Opening | None = None
        self._stock: layer.Layer | None = None
        self._swallow = False
        self._taken = False
        self._patience: commands.RequestWakeup | None = None

    def _handle_event(self, event: events.Event) -> Commands:
        if isinstance(event, events.Wakeup) and event.command is self._patience:
            if not self._taken and self._stock is None:
                yield commands.CloseConnection(self.context.client)
        elif self._stock is not None:
            yield from self._to_stock(event)
        elif isinstance(event, events.Start):
            self._patience = commands.RequestWakeup(patience.OPENING)
            yield self._patience
        elif isinstance(event, events.DataReceived):
            self._received += event.data
            if self._opening is None:
                yield from self._read_connect()
            else:
                yield from self._read_hello()
        elif isinstance(event, events.ConnectionClosed):
            yield commands.CloseConnection(self.context.client)

    def _read_connect(self) -> Commands:
        end = self._received.find(b"\r\n\r\n")
        if end < 0 and len(self._received) <= LIMIT:
            return
        try:
            opening = self._admit(parse_request(self._received[: end + 4])) if end >= 0 else None
        except Exception:  # noqa: BLE001  the stock layers ask again, and answer as they must
            opening = None
        if opening is None:
            yield from self._leave(b"")
            return
        self._opening = opening
        self._connect, self._received = self._received[: end + 4], self._received[end + 4 :]
        yield commands.SendData(self.context.client, ESTABLISHED)
        if self._received:
            yield from self._read_hello()

    def _admit(self, head: RequestHead) -> Opening | None:
        """The opening of a tunnel we may carry; None leaves it to the stock layers, refusals included."""
        name, port = hosts.split_authority(head.target)
        if head.method != "CONNECT" or head.length != 0 or port is None:
            return None
        client = self.context.client
        request = Request(
            id=secrets.token_hex(16),
            scheme="https",
            host=hosts.normalize(name),
            port=port,
            method="CONNECT",
            target=b"",
            headers=head.headers,
            authorities=(),
            sni=None,
            client_ip=str(client.peername[0]),
            connection=client.id,
        )
        if self._engine.gate.judge_tunnel(request) is not None:
            return None
        keys = request.values(b"proxy-authorization")
        key = callers.parse_basic(keys[0]) if keys else None
        return Opening(request.host, port, None, request.client_ip, key, client.id)

    def _read_hello(self) -> Commands:
        try:
            found = hello.peek(self._received)
        except hello.NotTls:
            yield from self._leave(self._connect)
            return
        if found is None:
            return
        if self._opening is None or not self._carries(self._opening, found):
            yield from self._leave(self._connect)
            return
        self._take_over(found.sni)

    def _carries(self, opening: Opening, found: hello.Hello) -> bool:
        """Whether the client can speak HTTP/1.1, and not past us."""
        if found.alpn and b"http/1.1" not in found.alpn:
            return False
        return not self._engine.gate.interception.passes(opening.host, opening.port, sni=found.sni)

    def _take_over(self, sni: str | None) -> None:
        """From here on the client's bytes go to our stream; mitmproxy sees the connection end when we are done."""
        if self._opening is None:
            raise RuntimeError
        handler = _handler_of(self.context.client)
        io = handler.transports[self.context.client]
        transport, theirs = io.writer.transport, io.writer.transport.get_protocol()
        patience = contextlib.ExitStack()
        patience.enter_context(handler.timeout_watchdog.disarm())
        stream = Stream(
            self._engine.leaves.context(self._opening.host),
            server_side=True,
        )
        stream.on_lost.append(lambda: theirs.connection_lost(None))
        self._taken = True
        transport.set_protocol(stream)
        stream.connection_made(transport)
        if not transport.is_reading():
            transport.resume_reading()
        rest = bytes(io.reader._buffer)  # noqa: SLF001  arrived, and not yet handed to the layers
        io.reader._buffer.clear()  # noqa: SLF001
        stream.data_received(self._received + rest)
        opening = Opening(
            self._opening.host,
            self._opening.port,
            sni,
            self._opening.client_ip,
            self._opening.key,
            self._opening.number,
        )
        self._engine.carry(stream, opening, on_end=patience.close)

    def _leave(self, already_answered: bytes) -> Commands:
        """Let mitmproxy's layers have the tunnel from its first byte; its answer to a CONNECT we answered is dropped."""
        self._swallow = bool(already_answered)
        self._stock = self._make_stock()
        yield from self._to_stock(events.Start())
        for data in (already_answered, self._received):
            if data:
                yield from self._to_stock(events.DataReceived(self.context.client, data))

    def _make_stock(self) -> layer.Layer:
        return HttpLayer(self.context, HTTPMode.regular)

    def _to_stock(self, event: events.Event) -> Commands:
        if self._stock is None:
            raise RuntimeError
        for command in self._stock.handle_event(event):
            if self._swallow and isinstance(command, commands.SendData):
                self._swallow = False
                if not command.data.startswith(b"HTTP/1.1 2"):
                    yield commands.CloseConnection(self.context.client)
                continue
            yield command


class RedirectedLayer(ConnectLayer):
    """
    Reads the ClientHello of a connection that was redirected here: the name it asks for is what a CONNECT would say.

    The address that the app took for that name is not used. It proves nothing, and each name is resolved here.
    """

    def _read_connect(self) -> Commands:
        try:
            found = hello.peek(self._received)
            if found is None:
                return
            client, server = self.context.client, self.context.server
            host, port = hosts.normalize(found.sni or ""), server.address[1] if server.address else 0
        except (hello.NotTls, hosts.NotAName):
            yield from self._leave(b"")
            return
        self._opening = Opening(host, port, found.sni, str(client.peername[0]), None, client.id)
        yield from self._read_hello()

    def _make_stock(self) -> layer.Layer:
        return layer.NextLayer(self.context)


def _handler_of(client: Connection) -> Any:
    return ctx.master.addons.get("proxyserver").connections[client.id]
