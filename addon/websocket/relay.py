"""Both sides of a WebSocket, without their sockets: what one sent goes in, what the other gets comes out."""

from typing import Final, Protocol

from addon import responses
from addon.errors import Refusal
from addon.model import Headers
from addon.redaction import Redactor, Screen
from addon.websocket import frames
from addon.websocket.frames import Frames, Violation
from addon.websocket.handshake import Offer

GOING_AWAY, PROTOCOL_ERROR, POLICY_VIOLATION, INTERNAL_ERROR = 1001, 1002, 1008, 1011
"""RFC 6455 7.4.1."""

WHOLE: Final = 1 << 16
"""Frames up to this many bytes are searched, and go on, in one piece; of a longer one, each piece becomes a fragment."""


class Relay:
    """
    Neither side waits for the other to end a frame or a message, and none is held whole.

    A client's frames go on as they are. So do an upstream's unless they are searched: then every secret in them becomes
    stars, also where fragments of one message split it; the end of a message waits for nothing.
    `violation` is the code of a side that sent what is no frame (`websocket_malformed` for the client, `websocket_invalid`
    for the upstream); nothing more comes out after that, nor after `close`.
    """

    def __init__(self, screen: Screen | None = None, *, extended: bool = False) -> None:
        self.violation = ""
        self._closing = False
        self._client = _Untouched(Frames(masked=True, reserved=extended))
        messages = None if screen is None else screen.redactor()
        controls = None if screen is None else screen.redactor()
        self._upstream: _Side = _Untouched(Frames(masked=False, reserved=extended))
        if messages is not None and controls is not None:
            self._upstream = _Searched(Frames(masked=False, whole=WHOLE), messages, controls)

    @property
    def client_closed(self) -> bool:
        """Whether the client has sent a close frame."""
        return self._client.frames.closed

    @property
    def upstream_closed(self) -> bool:
        """Whether the upstream has sent one."""
        return self._upstream.frames.closed

    @property
    def over(self) -> bool:
        """Whether both have."""
        return self.client_closed and self.upstream_closed

    def from_client(self, data: bytes) -> bytes:
        """What the upstream gets."""
        return self._pass(self._client, data, "websocket_malformed")

    def from_upstream(self, data: bytes) -> bytes:
        """What the client gets."""
        return self._pass(self._upstream, data, "websocket_invalid")

    def close(self, code: int, reason: str = "") -> tuple[bytes, bytes]:
        """
        Close frames for the client and for the upstream, who is not told the reason.

        Nothing for a side that has got one already, or is amid a frame, where it could not be told from payload.
        """
        self._closing = True
        to_client = frames.close(code, reason) if self._upstream.between else b""
        to_upstream = frames.close(code, masked=True) if self._client.between else b""
        return to_client, to_upstream

    def _pass(self, side: "_Side", data: bytes, code: str) -> bytes:
        if self.violation:
            return b""
        out = bytearray()
        try:
            side.feed(data, out)
        except Violation:
            self.violation = code
        return b"" if self._closing else bytes(out)


class _Side(Protocol):
    frames: Frames

    @property
    def between(self) -> bool:
        """Whether what came out ends with a frame, and no close frame was among it."""

    def feed(self, data: bytes, out: bytearray) -> None:
        """Add to `out` what goes on. Raises Violation."""


class _Untouched:
    def __init__(self, read: Frames) -> None:
        self.frames = read
        self._between = True

    @property
    def between(self) -> bool:
        return self._between and not self.frames.closed

    def feed(self, data: bytes, out: bytearray) -> None:
        for piece in self.frames.feed(data):
            out += piece.head
            out += piece.payload
            self._between = piece.last


class _Searched:
    """Control frames are searched each on its own, since they come between the fragments of a message."""

    def __init__(self, read: Frames, messages: Redactor, controls: Redactor) -> None:
        self.frames = read
        self._messages = messages
        self._controls = controls
        self._opcode = frames.CONTINUATION

    @property
    def between(self) -> bool:
        return not self.frames.closed

    def feed(self, data: bytes, out: bytearray) -> None:
        for piece in self.frames.feed(data):
            if piece.opcode >= frames.CLOSE:
                out += frames.write(piece.opcode, self._controls.finish(piece.payload))
                continue
            self._opcode = piece.opcode or self._opcode
            ended = piece.final and piece.last
            text = self._messages.finish(piece.payload) if ended else self._messages.feed(piece.payload)
            if text or ended:
                out += frames.write(self._opcode, text, final=ended)
                self._opcode = frames.CONTINUATION


def grant(offer: Offer | None, headers: Headers, screen: Screen | None) -> tuple[Headers, Relay]:
    """
    The headers of a 101 as the client gets them, and the relay for what follows; `offer` is what was asked for, if anything.

    Raises Refusal `websocket_invalid`.
    """
    if offer is None:
        raise Refusal("websocket_invalid")
    relay = Relay(screen, extended=offer.check(headers))
    headers = responses.clean(headers)
    return headers if screen is None else screen.open(b"", headers, bodiless=True).headers, relay
