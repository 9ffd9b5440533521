"""A proxy such as companies have: it takes CONNECT, asks for credentials, resolves names its own way, and remembers."""

import asyncio
import base64
import contextlib
import ssl
import threading


class NextProxy:
    """
    A context manager. `leads` maps (host, port) to a port of this machine.

    `password` is what it asks of `user`; `answer` replaces its answer to every CONNECT.
    """

    def __init__(self, leads, *, password=None, identity=None, answer=None):
        self.leads, self.password, self.answer = leads, password, answer
        self.heads = []
        self._context = None
        if identity:
            self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            identity.configure_cert(self._context)

    def __enter__(self):
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)), name="next-proxy")
        self._thread.start()
        assert ready.wait(10)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    @property
    def lines(self):
        """The request line of each CONNECT."""
        return [head.split("\r\n")[0] for head in self.heads]

    async def _serve(self, ready):
        self._loop, self._stop, self._tasks = asyncio.get_running_loop(), asyncio.Event(), set()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._context)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._stop.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._open(reader, writer)
        finally:
            self._tasks.discard(asyncio.current_task())
            writer.transport.abort()

    async def _open(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        method, authority, _ = head.split("\r\n")[0].split(" ")
        host, _, port = authority.rpartition(":")
        target = self.leads.get((host, int(port)))
        proof = base64.b64encode(f"user:{self.password}".encode()).decode()
        if self.password and f"\r\nProxy-Authorization: Basic {proof}\r\n" not in head:
            answer = b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n"
        elif method != "CONNECT" or target is None:
            answer = b"HTTP/1.1 502 Bad Gateway\r\n\r\n"
        else:
            answer = b"HTTP/1.1 200 Connection established\r\nVia: 1.1 next\r\n\r\n"
        writer.write(self.answer or answer)
        await writer.drain()
        if not answer.startswith(b"HTTP/1.1 200"):
            return
        there, back = await asyncio.open_connection("127.0.0.1", target)
        try:
            await asyncio.gather(_pump(reader, back), _pump(there, writer))
        finally:
            back.transport.abort()


async def _pump(reader, writer):
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError, NotImplementedError):
        writer.transport.write_eof()
