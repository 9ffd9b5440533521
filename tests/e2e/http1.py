"""The test upstream over HTTP/1.1 (RFC 9112), written out so that nothing between the wire and the record tidies up."""

import asyncio
import contextlib

from tests.e2e.behaviours import Cut, behave
from tests.e2e.received import Received


class H1:
    """An HTTP/1.1 connection, and the exchange that is going on over it."""

    closing = ((b"connection", b"close"),)

    def __init__(self, upstream, sni, reader, writer):
        self.upstream, self.sni, self.reader, self.writer = upstream, sni, reader, writer

    async def run(self):
        while True:
            raw = await self._read(self.reader.readuntil(b"\r\n\r\n"))
            line, *lines = raw[:-4].split(b"\r\n")
            method, target, _ = line.split(b" ", 2)
            headers = [(name, value.strip(b" \t")) for name, _, value in (line.partition(b":") for line in lines)]
            self.received = Received("HTTP/1.1", self.sni, method.decode(), target, headers, raw=raw)
            self.upstream.record(self.received)
            self._chunked = None
            await behave(self)
            await self.drain()
            if "close" in self.received.values("connection"):
                return

    async def _read(self, reading):
        try:
            data = await reading
        except asyncio.IncompleteReadError as error:
            self.upstream.count(self.sni, len(error.partial))
            raise
        self.upstream.count(self.sni, len(data))
        return data

    async def drain(self):
        """Read the rest of the body."""
        seen = self.received
        if seen.complete:
            return
        if "100-continue" in seen.values("expect"):
            await self.inform(100, [])
        if (seen.header("transfer-encoding") or "").lower() == "chunked":
            while size := int((await self._read(self.reader.readuntil(b"\r\n"))).partition(b";")[0], 16):
                await self._take(size)
                await self._read(self.reader.readexactly(2))
            while (line := await self._read(self.reader.readuntil(b"\r\n"))) != b"\r\n":
                name, _, value = line.partition(b":")
                seen.trailers.append((name, value.strip()))
        else:
            await self._take(int(seen.header("content-length") or 0))
        seen.complete = True

    async def _take(self, left):
        while left:
            piece = await self._read(self.reader.read(min(left, 1 << 16)))
            if not piece:
                raise asyncio.IncompleteReadError(b"", left)
            self.received.add(piece)
            left -= len(piece)

    async def inform(self, status, headers):
        await self._head(status, headers)

    async def start(self, status, headers):
        lengths = {name for name, _ in headers}
        self._silent = self.received.method == "HEAD" or status in {204, 304}
        self._chunked = not self._silent and b"content-length" not in lengths
        await self._head(status, [*headers, (b"transfer-encoding", b"chunked")] if self._chunked else headers)

    async def _head(self, status, headers):
        lines = [b"HTTP/1.1 %d Scripted" % status, *(name + b": " + value for name, value in headers)]
        self.writer.write(b"\r\n".join([*lines, b"", b""]))
        await self.writer.drain()

    async def write(self, data):
        if data and not self._silent:
            self.writer.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)
            await self.writer.drain()
            await asyncio.sleep(0)  # or the loop never hears that a TLS connection is lost

    async def end(self, trailers=()):
        if self._chunked:
            self.writer.write(b"0\r\n" + b"".join(name + b": " + value + b"\r\n" for name, value in trailers) + b"\r\n")
            await self.writer.drain()

    async def cut(self):
        # What was written before must still arrive.
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()
        raise Cut
