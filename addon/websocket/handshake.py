"""
The opening handshake (RFC 6455 4), strictly.

A request that asks for a WebSocket in any other way than the RFC's is refused, and so is an answer that grants something
else than what was asked for: whoever answers has read the key of this very request, and no extension that nobody offered
changes the frames.
"""

import base64
import binascii
import hashlib
from dataclasses import dataclass

from addon.errors import Refusal
from addon.model import Head, Headers, Request
from addon.tag import headers_named

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_BODY = (b"transfer-encoding", b"trailer", b"expect")


@dataclass(frozen=True, slots=True)
class Offer:
    """What a handshake leaves open for the upstream to choose, and the one `Sec-WebSocket-Accept` that proves an answer."""

    accept: bytes
    extensions: frozenset[bytes]
    protocols: frozenset[bytes]

    def check(self, headers: Headers) -> bool:
        """Whether the upstream chose extensions, which alter frames. Raises Refusal `websocket_invalid`."""
        chosen = frozenset(_names(headers, b"sec-websocket-extensions"))
        protocols = headers_named(headers, b"sec-websocket-protocol")
        good = (
            asks(headers)
            and b"upgrade" in _items(headers, b"connection")
            and headers_named(headers, b"sec-websocket-accept") == [self.accept]
            and chosen <= self.extensions
            and (not protocols or (len(protocols) == 1 and protocols[0] in self.protocols))
        )
        if not good:
            raise Refusal("websocket_invalid")
        return bool(chosen)


def asks(headers: Headers) -> bool:
    """Whether headers ask for, or grant, a WebSocket and no other protocol."""
    # Asked of every request, so that its length spares most names the rest.
    return [v.lower() for name, v in headers if len(name) == 7 and name.lower() == b"upgrade"] == [b"websocket"]


def check(request: Request) -> None:
    """Raises Refusal `websocket_malformed` unless the request is a handshake to the letter."""
    if request.version != "HTTP/1.1":
        raise Refusal("websocket_malformed")
    read(request.head)


def read(head: Head) -> Offer:
    """The offer in a handshake. Raises Refusal `websocket_malformed` for what is none."""
    headers = head.headers
    keys = headers_named(headers, b"sec-websocket-key")
    good = (
        head.method == "GET"
        and asks(headers)
        and b"upgrade" in _items(headers, b"connection")
        and headers_named(headers, b"sec-websocket-version") == [b"13"]
        and len(keys) == 1
        and _is_key(keys[0])
        and not any(headers_named(headers, name) for name in _BODY)
        and set(headers_named(headers, b"content-length")) <= {b"0"}
    )
    if not good:
        raise Refusal("websocket_malformed")
    return Offer(
        accept=base64.b64encode(hashlib.sha1(keys[0] + _GUID, usedforsecurity=False).digest()),
        extensions=frozenset(_names(headers, b"sec-websocket-extensions")),
        protocols=frozenset(part.strip() for v in headers_named(headers, b"sec-websocket-protocol") for part in v.split(b",")),
    )  # fmt: skip


def _is_key(value: bytes) -> bool:
    """16 bytes in Base64, written in the one way there is."""
    try:
        key = base64.b64decode(value, validate=True)
    except binascii.Error:
        return False
    return len(key) == 16 and base64.b64encode(key) == value


def _items(headers: Headers, name: bytes) -> list[bytes]:
    return [item.strip().lower() for value in headers_named(headers, name) for item in value.split(b",")]


def _names(headers: Headers, name: bytes) -> list[bytes]:
    """The names in a list of extensions, without their parameters."""
    return [item.partition(b";")[0].strip() for item in _items(headers, name)]
