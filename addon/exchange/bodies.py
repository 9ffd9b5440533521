"""
Bodies of HTTP/1.1 messages (RFC 9112 6 and 7): decoded as they arrive, framed anew as they leave.

Chunk extensions and trailers are dropped: nobody downstream of us may read a header we have not judged.
"""

import re
from typing import Protocol

from addon.exchange.heads import Malformed
from addon.redaction import Passage

LAST = b"0\r\n\r\n"

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")
_FIELD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\x00\r\n]*")
_LINE_LIMIT = 4096
_TRAILERS_LIMIT = 16_384


class Body(Protocol):
    """A body being received."""

    done: bool
    """Whether the last byte of the message has been fed."""

    def feed(self, buffer: bytearray) -> bytes:
        """Take from the front of `buffer` what belongs to this body; the payload in it. Raises Malformed."""

    def end(self) -> None:
        """The connection has ended. Raises Malformed unless that ends the body."""


class Sized:
    """A body of a stated number of bytes."""

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = length == 0

    def feed(self, buffer: bytearray) -> bytes:
        """See Body."""
        count = min(self._left, len(buffer))
        payload = bytes(buffer[:count])
        del buffer[:count]
        self._left -= count
        self.done = self._left == 0
        return payload

    def end(self) -> None:
        """See Body."""
        if not self.done:
            raise Malformed


class Unbounded:
    """A body that ends with the connection."""

    def __init__(self) -> None:
        self.done = False

    def feed(self, buffer: bytearray) -> bytes:
        """See Body."""
        payload = bytes(buffer)
        buffer.clear()
        return payload

    def end(self) -> None:
        """See Body."""
        self.done = True


class Chunked:
    """A body in chunks."""

    def __init__(self) -> None:
        self.done = False
        self._left = 0
        self._after_data = False
        self._trailers: int | None = None

    def feed(self, buffer: bytearray) -> bytes:
        """See Body."""
        parts = []
        while not self.done:
            if self._left:
                count = min(self._left, len(buffer))
                if not count:
                    break
                parts.append(bytes(buffer[:count]))
                del buffer[:count]
                self._left -= count
                self._after_data = self._left == 0
                continue
            line = self._line(buffer)
            if line is None:
                break
            self._read(line)
        return b"".join(parts)

    def end(self) -> None:
        """See Body."""
        if not self.done:
            raise Malformed

    def _read(self, line: bytes) -> None:
        if self._trailers is not None:
            self._trailers += len(line)
            if line and (not _FIELD.fullmatch(line) or self._trailers > _TRAILERS_LIMIT):
                raise Malformed
            self.done = not line
            return
        if self._after_data:
            if line:
                raise Malformed
            self._after_data = False
            return
        match = _SIZE.fullmatch(line)
        if match is None:
            raise Malformed
        self._left = int(match[1], 16)
        if self._left == 0:
            self._trailers = 0

    def _line(self, buffer: bytearray) -> bytes | None:
        """A line without its CR LF, or None when it has not all arrived. Raises Malformed for a bare CR or LF."""
        end = buffer.find(b"\n", 0, _LINE_LIMIT)
        if end < 0:
            if len(buffer) >= _LINE_LIMIT:
                raise Malformed
            return None
        line = bytes(buffer[: end + 1])
        if line[-2:] != b"\r\n" or b"\r" in line[:-2]:
            raise Malformed
        del buffer[: end + 1]
        return line[:-2]


class Searched:
    """A body in which a secret is looked for on its way."""

    def __init__(self, body: Body, passage: Passage) -> None:
        self._body = body
        self._passage = passage
        self.done = False

    def feed(self, buffer: bytearray) -> bytes:
        """See Body. Raises Refusal as well."""
        payload = self._body.feed(buffer)
        self.done = self._body.done
        return self._passage.finish(payload) if self.done else self._passage.feed(payload)

    def end(self) -> None:
        """See Body."""
        self._body.end()


def expect(length: int | None) -> Body:
    """The body a head announces (see heads.ResponseHead.length)."""
    if length is None:
        return Chunked()
    return Sized(length) if length >= 0 else Unbounded()


def encode_chunk(payload: bytes) -> bytes:
    """One chunk; nothing for nothing, since an empty chunk would end the body."""
    return b"%x\r\n%s\r\n" % (len(payload), payload) if payload else b""


def encode(payload: bytes, body: Body, *, chunked: bool) -> bytes:
    """What `body` has just given, as it goes out: as it is, or in a chunk, with the last chunk after its end."""
    if not chunked:
        return payload
    return encode_chunk(payload) + (LAST if body.done else b"")
