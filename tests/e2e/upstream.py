"""
A real upstream for tests: HTTP/1.1 and HTTP/2 over TLS (by ALPN), and HTTP/1.1 in the clear on a second port.

It runs in a thread of its own, speaks for several hosts with one certificate, and remembers everything at the moment it
arrives: a head is recorded before its body, and the bytes of a head that never ended are counted. So half a request that
leaked is seen as well as a whole one.
"""

import asyncio
import ssl
import threading
import time
from collections import Counter

from tests.e2e.behaviours import Cut
from tests.e2e.http1 import H1
from tests.e2e.http2 import H2
from tests.e2e.received import KEEP


class Upstream:
    """See the module. `hosts` are the names of its certificate, which `authority` (a trustme CA) signs."""

    def __init__(self, hosts, *, authority):
        self.hosts = tuple(hosts)
        self.errors = []
        self.scripts = {}
        self._received = []
        self._octets = Counter()
        self._connections = Counter()
        self._lock = threading.Lock()
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.set_alpn_protocols(["h2", "http/1.1"])
        authority.issue_cert(*hosts).configure_cert(self._context)
        self._context.sni_callback = lambda connection, name, _: setattr(connection, "sni", name)

    def __enter__(self):
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)), name="upstream")
        self._thread.start()
        assert ready.wait(10)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _serve(self, ready):
        self._loop, self._stop, self._tasks = asyncio.get_running_loop(), asyncio.Event(), set()

        def connection():
            return asyncio.StreamReaderProtocol(Reader(limit=KEEP), self._accept)

        secure = await self._loop.create_server(connection, "127.0.0.1", 0, ssl=self._context)
        plain = await self._loop.create_server(connection, "127.0.0.1", 0)
        self.port, self.plain_port = (server.sockets[0].getsockname()[1] for server in (secure, plain))
        self.ports = {443: self.port, 80: self.plain_port}
        ready.set()
        await self._stop.wait()
        secure.close()
        plain.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        connection = writer.get_extra_info("ssl_object")
        sni = getattr(connection, "sni", None)
        with self._lock:
            self._connections[sni] += 1
        kind = H2 if connection and connection.selected_alpn_protocol() == "h2" else H1
        try:
            await kind(self, sni, reader, writer).run()
            writer.close()
            await asyncio.wait_for(writer.wait_closed(), 5)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError, Cut):
            pass
        except Exception as error:  # noqa: BLE001  a test must be able to see it
            self.errors.append(error)
        finally:
            self._tasks.discard(asyncio.current_task())
            writer.transport.abort()

    # what arrived

    @property
    def last(self):
        """The newest request."""
        return self.seen()[-1]

    def seen(self, host=None):
        """The requests so far; with `host`, those that name it or came over a connection made to it."""
        with self._lock:
            return [one for one in self._received if host in {None, one.host, one.sni}]

    def octets(self, host=None):
        """How many bytes of requests arrived, whole or not; with `host`, over connections made to it."""
        with self._lock:
            return self._octets[host] if host else self._octets.total()

    def connections(self, host=None):
        """How many connections were opened."""
        with self._lock:
            return self._connections[host] if host else self._connections.total()

    def untouched(self, host=None, *, after=0.02):
        """Whether nothing at all of a request has arrived, `after` seconds from now."""
        time.sleep(after)
        return not self.seen(host) and not self.octets(host)

    def wait(self, count=1, *, host=None, complete=False, timeout=5):
        """The requests, once there are at least `count` of them (with their bodies, if `complete`)."""
        deadline = time.monotonic() + timeout
        while True:
            seen = [one for one in self.seen(host) if one.complete or not complete]
            if len(seen) >= count:
                return seen
            assert time.monotonic() < deadline, f"{len(seen)} of {count} requests after {timeout} s"
            time.sleep(0.005)

    def reset(self):
        """Forget everything."""
        with self._lock:
            self._received.clear()
            self._octets.clear()
            self._connections.clear()
            self.errors.clear()

    # what the connections report

    def record(self, received):
        with self._lock:
            self._received.append(received)

    def count(self, sni, size):
        with self._lock:
            self._octets[sni] += size


class Reader(asyncio.StreamReader):
    """A connection that breaks has ended, but what came before is still to be read."""

    def set_exception(self, exc):
        self.feed_eof()
