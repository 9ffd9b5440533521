"""WebSocket upstreams over TLS: a real one that demands the credential, and one that says exactly what a test wants said."""

import base64
import contextlib
import hashlib
import socket
import ssl
import threading
import time

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
MB = 1 << 20


def _context(authority, *hosts):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*hosts).configure_cert(context)
    context.set_alpn_protocols(["http/1.1"])
    return context


class Sockets:
    """
    The `websockets` server. Without `Authorization: Bearer <token>` it answers 401.

    /echo sends back what comes, /key shows the credential in every way, /pour/N sends a message of N MB, /drink counts what
    comes, /silence waits. `closed` are the paths and close codes of what has ended, `heads` the headers that came.
    """

    hosts = ("ws.stripe.test",)

    def __init__(self, authority, *, token):
        self.token = token
        self.closed, self.heads = [], []
        self.server = serve(
            self._talk, "127.0.0.1", 0, ssl=_context(authority, *self.hosts), process_request=self._demand,
            subprotocols=["chat"], select_subprotocol=lambda _, offered: offered[0] if offered else None,
            max_size=None, ping_interval=None,
        )  # fmt: skip
        self.ports = {443: self.server.socket.getsockname()[1]}
        self._thread = threading.Thread(target=self.server.serve_forever, name="sockets")

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self._thread.join(10)

    def _demand(self, connection, request):
        self.heads.append(request.headers)
        good = request.headers.get_all("Authorization") == [f"Bearer {self.token}"] or request.path.startswith("/open")
        return None if good else connection.respond(401, f"not with {request.headers.get('Authorization')}\n")

    def _talk(self, connection):
        path = connection.request.path
        try:
            if path.startswith("/pour/"):
                connection.send(bytes(MB) for _ in range(int(path.removeprefix("/pour/"))))
            elif path == "/drink":
                size = sum(map(len, connection.recv_streaming()))
                connection.send(str(size))
            elif path == "/key":
                self._tell(connection)
            for message in connection:
                if path.endswith("/echo"):
                    connection.send(message)
        except ConnectionClosed:
            pass
        self.closed.append((path, connection.protocol.close_code))

    def _tell(self, connection):
        token = self.token
        connection.send(token)
        connection.send([token[:9], "", token[9:], "."])
        connection.send(token.encode())
        connection.send(base64.b64encode(b"user:" + token.encode()).decode())
        connection.ping(token)
        connection.recv()
        connection.close(1000, f"it was {token}")

    def wait(self, path, *, timeout=5):
        """The close code of a connection to `path` that has ended."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            for one, code in self.closed:
                if one == path:
                    return code
            time.sleep(0.01)
        raise AssertionError(f"{path} is still open")


class Hostile:
    """Answers a handshake with `head` (a good one if empty), then sends `frames`; `received` is what came after that."""

    hosts = ("bad.stripe.test",)

    def __init__(self, authority):
        self.head, self.frames, self.received = b"", b"", bytearray()
        self._context = _context(authority, *self.hosts)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.ports = {443: self._listener.getsockname()[1]}
        self.ended = threading.Event()

    def __enter__(self):
        threading.Thread(target=self._serve, name="hostile").start()
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def play(self, frames=b"", *, head=b""):
        self.head, self.frames, self.received = head, frames, bytearray()
        self.ended.clear()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._talk, args=self._listener.accept()[:1]).start()

    def _talk(self, connection):
        with contextlib.suppress(OSError), self._context.wrap_socket(connection, server_side=True) as wire:
            wire.settimeout(10)
            asked = b""
            while b"\r\n\r\n" not in asked:
                asked += wire.recv(1 << 16) or (_ for _ in ()).throw(OSError())
            key = asked.lower().partition(b"sec-websocket-key: ")[2].split(b"\r\n")[0]
            at = asked.lower().find(b"sec-websocket-key: ") + 19
            accept = base64.b64encode(hashlib.sha1(asked[at : at + len(key)] + GUID).digest())
            good = b"HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n"
            wire.sendall((self.head or good % accept) + self.frames)
            while data := wire.recv(1 << 16):
                self.received += data
        self.ended.set()
