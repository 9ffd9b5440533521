"""The test upstream over HTTP/2; the `h2` library refuses malformed requests, which are then in `Upstream.errors`."""

import asyncio
import contextlib

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from tests.e2e.behaviours import Cut, behave
from tests.e2e.received import Received


class H2:
    """An HTTP/2 connection; each of its streams is an `H2Stream` in a task of its own."""

    def __init__(self, upstream, sni, reader, writer):
        self.upstream, self.sni, self.reader, self.writer = upstream, sni, reader, writer
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
        self.streams = {}
        self.window = asyncio.Condition()

    async def run(self):
        self.h2.initiate_connection()
        await self.flush()
        try:
            while data := await self.reader.read(1 << 16):
                try:
                    events = self.h2.receive_data(data)
                finally:
                    await self.flush()
                for event in events:
                    await self._handle(event)
                await self.flush()
        finally:
            for stream in self.streams.values():
                stream.task.cancel()
            await asyncio.gather(*(stream.task for stream in self.streams.values()), return_exceptions=True)

    async def _handle(self, event):
        match event:
            case h2.events.RequestReceived():
                self.streams[event.stream_id] = H2Stream(self, event)
            case h2.events.DataReceived():
                self.upstream.count(self.sni, len(event.data))
                self.streams[event.stream_id].pieces.put_nowait((event.data, event.flow_controlled_length))
            case h2.events.TrailersReceived():
                self.streams[event.stream_id].received.trailers.extend(map(tuple, event.headers))
            case h2.events.StreamEnded():
                self.streams[event.stream_id].pieces.put_nowait((None, 0))
            case h2.events.StreamReset():
                self.streams[event.stream_id].task.cancel()
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                async with self.window:
                    self.window.notify_all()

    async def flush(self):
        self.writer.write(self.h2.data_to_send())
        await self.writer.drain()


class H2Stream:
    """One exchange over HTTP/2."""

    closing = ()

    def __init__(self, connection, event):
        self.connection, self.id, self.pieces = connection, event.stream_id, asyncio.Queue()
        self.upstream = connection.upstream
        headers = [(bytes(name), bytes(value)) for name, value in event.headers]
        pseudo = dict(headers)
        connection.upstream.count(connection.sni, sum(len(name) + len(value) for name, value in headers))
        self.received = Received(
            "HTTP/2", connection.sni, pseudo[b":method"].decode(), pseudo.get(b":path", b""), headers
        )
        connection.upstream.record(self.received)
        self.task = asyncio.create_task(self._run())

    async def _run(self):
        try:
            await behave(self)
        except (OSError, Cut, h2.exceptions.StreamClosedError):
            pass
        except Exception as error:  # noqa: BLE001  a test must be able to see it
            self.connection.upstream.errors.append(error)

    async def drain(self):
        """Read the rest of the body."""
        while not self.received.complete:
            piece, credit = await self.pieces.get()
            if piece is None:
                self.received.complete = True
                return
            self.received.add(piece)
            if credit:
                self.connection.h2.acknowledge_received_data(credit, self.id)
                await self.connection.flush()

    async def inform(self, status, headers):
        await self._head(status, headers)

    async def start(self, status, headers):
        self._silent = self.received.method == "HEAD" or status in {204, 304}
        await self._head(status, headers)

    async def _head(self, status, headers):
        self.connection.h2.send_headers(self.id, [(b":status", b"%d" % status), *headers])
        await self.connection.flush()

    async def write(self, data):
        engine = self.connection.h2
        while data and not self._silent:
            async with self.connection.window:
                await self.connection.window.wait_for(lambda: engine.local_flow_control_window(self.id) > 0)
            size = min(engine.local_flow_control_window(self.id), engine.max_outbound_frame_size)
            engine.send_data(self.id, data[:size])
            await self.connection.flush()
            data = data[size:]

    async def end(self, trailers=()):
        if trailers:
            self.connection.h2.send_headers(self.id, trailers, end_stream=True)
        else:
            self.connection.h2.end_stream(self.id)
        await self.connection.flush()

    async def cut(self):
        with contextlib.suppress(h2.exceptions.StreamClosedError):
            self.connection.h2.reset_stream(self.id)
        await self.connection.flush()
        raise Cut
