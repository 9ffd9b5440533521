"""
A client that says exactly the bytes a test wants said, over a CONNECT tunnel or without one, and reads what comes back.

    Wire      HTTP/1.1, or whatever else
    H2Wire    HTTP/2, with header lists that no client library would send

Certificates are not verified here: what is tested is what happens to a client that does not care.
"""

import base64
import contextlib
import functools
import json
import socket
import ssl
import time
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
import h2.exceptions


@dataclass
class Answer:
    """
    What came back. `status` 0: the connection ended before a head had; -1: nothing came in time.

    `headers` are pairs in order; `whole` tells whether the message ended where it said it would.
    """

    status: int
    headers: list = field(default_factory=list)
    body: bytes = b""
    whole: bool = True

    def header(self, name):
        """The only value of a header, or None. Fails when there are several."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(values) < 2, f"{name} came {len(values)} times"
        return values[0] if values else None

    @property
    def code(self):
        """The code of a refusal, or None for any other answer."""
        return self.header("x-alter-error")

    @property
    def json(self):
        return json.loads(self.body)


@functools.cache
def _context(alpn, version):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if version:
        context.minimum_version = context.maximum_version = version
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
    return context


def basic(name, key):
    """The value of Proxy-Authorization."""
    return "Basic " + base64.b64encode(f"{name}:{key}".encode()).decode()


class Wire:
    """A connection to the proxy; a context manager. `caller` is the name and the key to show on CONNECT."""

    def __init__(self, proxy, *, caller=None, timeout=5):
        self.caller = caller
        self.timeout = timeout
        self.socket = socket.create_connection(("127.0.0.1", proxy.port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def connect(self, authority, *, headers=""):
        """CONNECT; its answer."""
        proof = f"Proxy-Authorization: {basic(*self.caller)}\r\n" if self.caller else ""
        self.send(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{proof}{headers}\r\n")
        return self.answer("CONNECT")

    def encrypt(self, sni=None, *, alpn=("http/1.1",), version=None):
        """TLS from here on."""
        assert not self.buffer
        self.socket = _context(alpn, version).wrap_socket(self.socket, server_hostname=sni)

    def tunnel(self, host, port=443, *, sni=..., alpn=("http/1.1",)):
        """CONNECT and TLS; returns this wire."""
        answer = self.connect(f"{host}:{port}")
        assert answer.status == 200, (answer.status, answer.body)
        self.encrypt(host if sni is ... else sni, alpn=alpn)
        return self

    def send(self, data):
        """Write, whether or not anybody still listens."""
        with contextlib.suppress(OSError):
            self.socket.sendall(data.encode("latin-1") if isinstance(data, str) else data)

    def ask(self, data, method=None):
        """Write a request, read its answer."""
        self.send(data)
        text = data if isinstance(data, str) else data.decode("latin-1")
        return self.answer(method or text.split(" ", 1)[0])

    def answer(self, method="GET"):
        """The next final response."""
        try:
            while True:
                head = self._head(method)
                if head.status >= 200 or head.status == 101:
                    return self._with_body(head, method)
        except EOFError:
            return Answer(0, whole=False)
        except TimeoutError:
            return Answer(-1, whole=False)

    def interim(self):
        """The next response head, interim ones included."""
        try:
            return self._head("GET")
        except EOFError:
            return Answer(0, whole=False)
        except TimeoutError:
            return Answer(-1, whole=False)

    def closed(self, *, within=None):
        """Whether the proxy closes the connection, having sent nothing more."""
        if self.buffer:
            return False
        self.socket.settimeout(within or self.timeout)
        try:
            return self.socket.recv(1) == b""
        except TimeoutError:
            return False
        except OSError:
            return True

    def rest(self, *, within=0.3):
        """Everything that still comes in so many seconds."""
        data, self.buffer = self.buffer, b""
        deadline = time.monotonic() + within
        with contextlib.suppress(OSError):
            while (left := deadline - time.monotonic()) > 0:
                self.socket.settimeout(left)
                piece = self.socket.recv(1 << 16)
                if not piece:
                    break
                data += piece
        return data

    def read(self):
        """Some bytes, at least one. Raises EOFError, TimeoutError."""
        if self.buffer:
            data, self.buffer = self.buffer, b""
            return data
        self._more()
        return self.read()

    def _head(self, method):
        while b"\r\n\r\n" not in self.buffer:
            self._more()
        raw, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        line, *lines = raw.decode("latin-1").split("\r\n")
        pairs = [line.partition(":") for line in lines]
        assert line.startswith(("HTTP/1.1 ", "HTTP/1.0 ")), line
        return Answer(int(line.split(" ")[1]), [(name, value.strip(" \t")) for name, _, value in pairs])

    def _with_body(self, answer, method):
        if method == "HEAD" or answer.status in {101, 204, 304} or (method == "CONNECT" and answer.status == 200):
            return answer
        try:
            if answer.header("transfer-encoding") == "chunked":
                while size := int(self._line(), 16):
                    answer.body += self._take(size)
                    assert self._line() == b""
                assert self._line() == b"", "a trailer came through"
            elif answer.header("content-length") is not None:
                answer.body = self._take(int(answer.header("content-length")))
            else:
                with contextlib.suppress(EOFError):
                    while True:
                        self._more()
                answer.body, self.buffer = self.buffer, b""
        except (EOFError, TimeoutError):
            answer.body += self.buffer
            answer.whole = False
        return answer

    def _line(self):
        while b"\r\n" not in self.buffer:
            self._more()
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line

    def _take(self, size):
        while len(self.buffer) < size:
            self._more()
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    def _more(self):
        self.socket.settimeout(self.timeout)
        try:
            data = self.socket.recv(1 << 18)
        except TimeoutError:
            raise
        except OSError:
            data = b""
        if not data:
            raise EOFError
        self.buffer += data


class H2Wire(Wire):
    """The same over HTTP/2, in a tunnel."""

    def tunnel(self, host, port=443, *, sni=..., alpn=("h2",)):
        super().tunnel(host, port, sni=sni, alpn=alpn)
        self.authority = host if port == 443 else f"{host}:{port}"
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(
                client_side=True,
                header_encoding="latin-1",
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self.h2.initiate_connection()
        self.flush()
        return self

    def begin(self, method="GET", path="/", headers=(), *, body=None, end=True, trailers=(), pseudo=None):
        """Send a request, or with `end=False` its beginning. Returns the stream id."""
        stream = self.h2.get_next_available_stream_id()
        usual = {":method": method, ":scheme": "https", ":authority": self.authority, ":path": path}
        first = list((usual | (pseudo or {})).items())
        self.h2.send_headers(stream, [*first, *headers], end_stream=end and body is None and not trailers)
        if body is not None:
            self.h2.send_data(stream, body, end_stream=end and not trailers)
        if trailers:
            self.h2.send_headers(stream, trailers, end_stream=True)
        self.flush()
        return stream

    def ask(self, *arguments, **options):
        """Send a request, read its answer."""
        return self.result(self.begin(*arguments, **options))

    def flush(self):
        self.send(self.h2.data_to_send())

    def result(self, stream):
        """The response on `stream`; status 0 says that it was reset or the connection closed."""
        answer = Answer(-1, whole=False)
        try:
            while not answer.whole:
                for event in self.h2.receive_data(self.read()):
                    if getattr(event, "stream_id", None) not in {stream, 0}:
                        continue
                    match event:
                        case h2.events.ResponseReceived():
                            answer.headers = [pair for pair in event.headers if pair[0] != ":status"]
                            answer.status = int(dict(event.headers)[":status"])
                        case h2.events.DataReceived():
                            answer.body += event.data
                            self.h2.acknowledge_received_data(event.flow_controlled_length, stream)
                        case h2.events.StreamEnded():
                            answer.whole = True
                        case h2.events.StreamReset() | h2.events.ConnectionTerminated():
                            return Answer(0, whole=False) if answer.status < 0 else answer
                self.flush()
        except TimeoutError:
            pass
        except (EOFError, h2.exceptions.ProtocolError):
            return Answer(0, whole=False) if answer.status < 0 else answer
        return answer
