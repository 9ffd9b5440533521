"""
The demo's upstream: several API hosts behind one loopback port, each taking exactly one credential.

It answers 200 only to a request that carries the expected credential and nothing of the proxy's own, and keeps what it
received, so that the demo can show it. Plain standard library; nothing here knows how the proxy writes a credential.

    with Upstream({"api.stripe.test": bearer("sk_…")}, identity=pem) as upstream:
        …                                             # requests to 127.0.0.1:upstream.port
        upstream.expect("api.stripe.test", bearer("sk_…2"))        # the provider rotated
        upstream.received[-1].status
"""

import base64
import json
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import socket
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote_plus

from addon.model import Headers
from vaultctl.sigv4_check import verify

MAX_BODY = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One request as it arrived. `host` is what its Host header names; `reason` is empty when it was accepted."""

    host: str
    method: str
    target: bytes = field(repr=False)
    headers: Headers = field(repr=False)
    body_size: int
    status: int
    reason: str

    def values(self, name: str) -> list[str]:
        """Every value of a header, in order."""
        return _values(self.headers, name)


@dataclass(frozen=True, slots=True, repr=False)
class Attempt:
    """What a check sees: a request with its credential, so it does not print."""

    method: str
    target: bytes
    headers: Headers
    body: bytes


Check = Callable[[Attempt], str | None]
"""None for the right credential, else a reason without secrets."""


def bearer(token: str) -> Check:
    """`Authorization: Bearer <token>`, once (RFC 6750)."""
    return headers({"Authorization": f"Bearer {token}"})


def basic(user: str, password: str) -> Check:
    """`Authorization: Basic`, once (RFC 7617)."""
    return headers({"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()})


def headers(expected: Mapping[str, str]) -> Check:
    """Each of these headers exactly once with exactly this value, and no other Authorization."""

    def check(attempt: Attempt) -> str | None:
        wanted: dict[str, list[str]] = {"authorization": []}
        wanted |= {name.lower(): [value] for name, value in expected.items()}
        wrong = [name for name, values in wanted.items() if _values(attempt.headers, name) != values]
        return f"wrong {', '.join(wrong)}" if wrong else None

    return check


def query(name: str, value: str) -> Check:
    """This parameter exactly once in the query, and no Authorization."""

    def check(attempt: Attempt) -> str | None:
        parts = [part.partition("=") for part in attempt.target.partition(b"?")[2].decode("latin-1").split("&")]
        if [unquote_plus(given) for key, _, given in parts if unquote_plus(key) == name] != [value]:
            return f"wrong parameter {name}"
        return headers({})(attempt)

    return check


def sigv4(keys: Mapping[str, str], *, region: str, service: str, clock: Callable[[], float] = time.time) -> Check:
    """A right AWS Signature Version 4 by one of `keys` (access key id → secret key)."""

    def check(attempt: Attempt) -> str | None:
        return verify(
            attempt.method,
            target=attempt.target,
            headers=attempt.headers,
            body=attempt.body,
            keys=keys,
            now=clock(),
            region=region,
            service=service,
        )

    return check


class Upstream:
    """
    A TLS HTTP/1.1 server on a free port of 127.0.0.1, one thread per connection.

    `expected` says which credential each host takes; `identity` is a PEM with a key and its chain that names them all.
    """

    def __init__(self, expected: Mapping[str, Check], *, identity: bytes) -> None:
        self._expected = dict(expected)
        self._received: list[Received] = []
        self._lock = threading.Lock()
        self._server = _Server(self, _context(identity))
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="upstream", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def expect(self, host: str, check: Check) -> None:
        """From now on `host` takes this credential and no other."""
        with self._lock:
            self._expected[host] = check

    @property
    def received(self) -> tuple[Received, ...]:
        """Every request so far, in the order of arrival; refused ones as well."""
        with self._lock:
            return tuple(self._received)

    def judge(self, host: str, sni: str | None, attempt: Attempt) -> tuple[int, str]:
        """Status and reason for one request, which is recorded."""
        with self._lock:
            check = self._expected.get(host)
        leaked = sorted({name for name, _ in attempt.headers if _is_control(name)})
        if check is None or sni != host:
            status, reason = 421, f"{host} is not served on this connection"
        elif leaked:
            status, reason = 418, "a control header left the proxy: " + b", ".join(leaked).decode("latin-1")
        else:
            reason = check(attempt) or ""
            status = 401 if reason else 200
        record = Received(
            host=host,
            method=attempt.method,
            target=attempt.target,
            headers=attempt.headers,
            body_size=len(attempt.body),
            status=status,
            reason=reason,
        )
        with self._lock:
            self._received.append(record)
        return status, reason


def _values(pairs: Headers, name: str) -> list[str]:
    return [value.decode("latin-1") for key, value in pairs if key.decode("latin-1").lower() == name.lower()]


def _is_control(name: bytes) -> bool:
    return name.lower().replace(b"_", b"-").startswith((b"x-alter-", b"proxy-"))


def _context(identity: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    # The ssl module reads certificates from files only.
    with tempfile.NamedTemporaryFile() as file:
        file.write(identity)
        file.flush()
        context.load_cert_chain(file.name)

    def remember(connection: Any, name: str | None, _: ssl.SSLContext) -> None:
        connection.sni = name

    context.sni_callback = remember
    return context


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, upstream: Upstream, context: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = upstream
        self.context = context

    def get_request(self) -> tuple[socket, Any]:
        connection, address = super().get_request()
        # The handshake happens at the first read, in the thread of the connection.
        return self.context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up, or does not trust us, is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = 30
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the name is the base class's
        """Nothing: what arrived is in `received`."""

    def answer(self) -> None:
        body = self._read()
        # `self.path` would have its leading slashes merged.
        target = self.requestline.split()[1].encode("latin-1")
        pairs = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in self.headers.items())
        host = ",".join(_values(pairs, "host")).removesuffix(":443")
        sni = getattr(self.connection, "sni", None)
        status, reason = self.server.upstream.judge(host, sni, Attempt(self.command, target, pairs, body))
        document = {"ok": True, "host": host} if status == 200 else {"ok": False, "error": reason}
        content = json.dumps(document).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def __getattr__(self, name: str) -> Callable[[], None]:
        """`do_<METHOD>`, for any method."""
        if name.startswith("do_"):
            return self.answer
        raise AttributeError(name)

    def _read(self) -> bytes:
        """The body (RFC 9112 6): by length, or in chunks. Raises ValueError for framing that is not plain."""
        lengths, codings = self.headers.get_all("Content-Length", []), self.headers.get_all("Transfer-Encoding", [])
        if not codings:
            return self._take(int(",".join(lengths) or "0"))
        if lengths or codings != ["chunked"]:
            raise ValueError("ambiguous framing")
        body = b""
        while size := int(self.rfile.readline(32), 16):
            body += self._take(size)
            self._take(2)
        while self.rfile.readline(1024).strip():
            pass
        return body

    def _take(self, size: int) -> bytes:
        data = self.rfile.read(size) if 0 <= size <= MAX_BODY else b""
        if len(data) != size:
            raise ValueError("cut short, or too large")
        return data
