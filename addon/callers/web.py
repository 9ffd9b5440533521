"""
The one thing we ever fetch: the public keys of identity providers.

Only over https, with a verified certificate; no redirect is followed, no compressed answer taken; at most 256 KiB within
10 seconds, however slowly they drip. Where a provider's keys lie was chosen by an operator, never by a token.
"""

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import certifi

from addon.callers.idp import Idp, check_url
from addon.callers.jwt import wire
from addon.callers.jwt.keys import LIMIT
from addon.errors import Usage

SECONDS = 10.0
"""The longest a fetch may take once it is connected; connecting may take as long again for each address."""


class Unfetched(Exception):
    """No key set came. The message is for operators."""


class Web:
    """Fetches. `ca` is a bundle of CAs besides or instead of the public ones; `redirects` as of --connect-to."""

    def __init__(
        self, *, ca: str = "", redirects: dict[tuple[str, int], tuple[str, int]] | None = None, seconds: float = SECONDS
    ) -> None:
        self._context = ssl.create_default_context(cafile=ca or certifi.where())
        self._redirects = redirects or {}
        self._seconds = seconds

    def key_set(self, idp: Idp) -> bytes:
        """The key set document of a provider whose source is `discovery` or `url`. Raises Unfetched."""
        if idp.source == "url":
            return self.get(idp.jwks_url)
        document = self.get(idp.issuer.rstrip("/") + "/.well-known/openid-configuration")
        try:
            found = wire.parse(document, check="discovery")
            jwks_url = found.get("jwks_uri")
            if found.get("issuer") != idp.issuer:
                raise Unfetched("its discovery document names another issuer")
            check_url(str(jwks_url), what="an address of keys")
        except (wire.Invalid, Usage):
            raise Unfetched("its discovery document names no https address of keys") from None
        return self.get(str(jwks_url))

    def get(self, url: str) -> bytes:
        """The body of a plain 200. Raises Unfetched."""
        deadline = time.monotonic() + self._seconds
        try:
            with self._connected(url) as connection:
                status, body = self._exchange(connection, url)
        except (OSError, ssl.SSLError, http.client.HTTPException, ValueError) as error:
            slow = isinstance(error, TimeoutError) or time.monotonic() >= deadline
            raise Unfetched(f"{url}: {'too slow' if slow else _reason(error)}") from None
        if time.monotonic() >= deadline:
            raise Unfetched(f"{url}: too slow")
        if status != 200:
            raise Unfetched(f"{url}: status {status}{', and no redirect is followed' if 300 <= status < 400 else ''}")
        if len(body) > LIMIT:
            raise Unfetched(f"{url}: more than {LIMIT} bytes")
        return body

    @contextlib.contextmanager
    def _connected(self, url: str) -> Iterator[ssl.SSLSocket]:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 443
        with (
            socket.create_connection(self._redirects.get((host, port), (host, port)), timeout=self._seconds) as plain,
            self._context.wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False) as connection,
        ):
            # A timeout of the socket starts anew with every byte; this one does not.
            alarm = threading.Timer(self._seconds, _cut, (connection,))
            alarm.daemon = True
            alarm.start()
            try:
                connection.do_handshake()
                yield connection
            finally:
                alarm.cancel()

    def _exchange(self, connection: ssl.SSLSocket, url: str) -> tuple[int, bytes]:
        parts = urlsplit(url)
        lines = (
            f"GET {parts.path or '/'} HTTP/1.1",
            f"Host: {parts.netloc}",
            "Accept: application/json",
            "Accept-Encoding: identity",
            "User-Agent: alter-egress",
            "Connection: close",
            "",
            "",
        )
        connection.sendall("\r\n".join(lines).encode("ascii"))
        with contextlib.closing(http.client.HTTPResponse(connection, method="GET")) as response:
            response.begin()
            if response.getheader("Content-Encoding", "identity") != "identity":
                raise ValueError("a compressed answer")
            body = response.read(LIMIT + 1)
            if response.length and len(body) <= LIMIT:
                raise ValueError("an answer cut short")
            return response.status, body


def _cut(connection: ssl.SSLSocket) -> None:
    """End a connection another thread waits on. Not SSLSocket.shutdown, which takes the TLS state from under it."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate does not verify ({error.verify_message})"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text or type(error).__name__
