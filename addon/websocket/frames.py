"""
Frames of a WebSocket (RFC 6455 5), read as they come and strictly, and written.

Only their heads are read: a frame may be as long as it likes, and is never held. wsproto, which mitmproxy brings along,
takes frames apart for good (unmasked, text as `str`), so nothing read with it can go on untouched.
"""

import os
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
CONTROL_LIMIT: Final = 125

_FINAL, _RESERVED, _OPCODE = 0x80, 0x70, 0x0F
_MASKED, _LENGTH = 0x80, 0x7F
_SIZES = {126: (2, ">H", 126), 127: (8, ">Q", 1 << 16)}
"""Of a longer length: its bytes, how they are read, and the least it may be, since the shortest way to write it is a must."""


class Violation(ValueError):
    """What came is no frame that may come here."""


class Piece(NamedTuple):
    """
    The next part of a frame, as on the wire: `payload` may be masked.

    `head` is that of the frame, with its first piece alone; `last` says that the frame ends here, and `final` that it is
    the last one of its message. `opcode` is 0 in all but the first piece of a message. A control frame is one piece.
    """

    opcode: int
    head: bytes
    payload: bytes
    final: bool
    last: bool


class Frames:
    """
    The frames that one side sends: a client's are `masked`, a server's are not.

    `reserved` bits are for extensions. A frame of up to `whole` bytes comes in one piece, a longer one as it arrives.
    `closed` after a close frame; whatever follows that is dropped.
    """

    def __init__(self, *, masked: bool, reserved: bool = False, whole: int = CONTROL_LIMIT) -> None:
        self.closed = False
        self._masked = masked
        self._reserved = reserved
        self._whole = max(whole, CONTROL_LIMIT)
        self._buffer = bytearray()
        self._fragmented = False
        self._head = b""
        self._fresh = False
        self._length = self._left = 0

    def feed(self, data: bytes) -> Iterator[Piece]:
        """The pieces that are complete with `data`. Raises Violation, after which there are none any more."""
        self._buffer += data
        while not self.closed and self._ready():
            yield self._take()
        if self.closed:
            self._buffer.clear()

    def _ready(self) -> bool:
        if not self._head and not self._begin():
            return False
        if len(self._buffer) >= self._left:
            return True
        return self._length > self._whole and bool(self._buffer)

    def _begin(self) -> bool:
        """Read the head of a frame, if all of it is here."""
        buffer = self._buffer
        if len(buffer) < 2:
            return False
        length = buffer[1] & _LENGTH
        self._check(buffer[0], masked=bool(buffer[1] & _MASKED), short=length)
        size, form, least = _SIZES.get(length, (0, "", 0))
        end = 2 + size + (4 if self._masked else 0)
        if len(buffer) < end:
            return False
        if size:
            (length,) = struct.unpack_from(form, buffer, 2)
            if not least <= length < 1 << 63:
                raise Violation
        if buffer[0] & _OPCODE < CLOSE:
            self._fragmented = not buffer[0] & _FINAL
        self._head, self._fresh = bytes(buffer[:end]), True
        self._length = self._left = length
        del buffer[:end]
        return True

    def _check(self, first: int, *, masked: bool, short: int) -> None:
        opcode, final, reserved = first & _OPCODE, first & _FINAL, first & _RESERVED
        if opcode >= CLOSE:
            good = opcode <= PONG and final and not reserved and short <= CONTROL_LIMIT
            good = good and not (opcode == CLOSE and short == 1)
        else:
            good = opcode <= BINARY and (opcode == CONTINUATION) == self._fragmented
            good = good and (self._reserved or not reserved)
        if not good or masked != self._masked:
            raise Violation

    def _take(self) -> Piece:
        head, buffer = self._head, self._buffer
        payload = bytes(buffer[: self._left])
        del buffer[: self._left]
        self._left -= len(payload)
        opcode, last = head[0] & _OPCODE, not self._left
        piece = Piece(
            opcode if self._fresh else CONTINUATION, head if self._fresh else b"", payload, bool(head[0] & _FINAL), last
        )
        self._fresh = False
        if last:
            self._head = b""
            self.closed = opcode == CLOSE
        return piece


def write(opcode: int, payload: bytes, *, final: bool = True, masked: bool = False) -> bytes:
    """A frame. With `masked` as a client sends it, under a fresh mask."""
    length, mask = len(payload), os.urandom(4) if masked else b""
    first, flag = opcode | (_FINAL if final else 0), _MASKED if masked else 0
    if length <= CONTROL_LIMIT:
        head = bytes((first, flag | length))
    elif length < 1 << 16:
        head = struct.pack(">BBH", first, flag | 126, length)
    else:
        head = struct.pack(">BBQ", first, flag | 127, length)
    return head + mask + (bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload)) if masked else payload)


def close(code: int, reason: str = "", *, masked: bool = False) -> bytes:
    """A close frame with a status code (RFC 6455 7.4) and an ASCII reason of at most 123 characters."""
    return write(CLOSE, code.to_bytes(2) + reason.encode("ascii"), masked=masked)
