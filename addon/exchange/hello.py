"""The parts of a TLS ClientHello (RFC 8446 4.1.2) that tell whether a tunnel can be carried here."""

from dataclasses import dataclass

_LIMIT = 16_384


@dataclass(frozen=True, slots=True)
class Hello:
    """`sni` is the name asked for, or None; `alpn` the protocols offered, empty when none are."""

    sni: str | None
    alpn: tuple[bytes, ...]


class NotTls(ValueError):
    """Not a ClientHello, or not one that can be read."""


def peek(data: bytes) -> Hello | None:
    """What the first bytes of a TLS client offer; None when more are needed. Raises NotTls."""
    message = b""
    rest = data
    while True:
        if rest[:1] not in {b"", b"\x16"} or (len(rest) >= 3 and rest[1:2] != b"\x03") or len(message) > _LIMIT:
            raise NotTls
        length = int.from_bytes(rest[3:5])
        if len(rest) < 5 or len(rest) < 5 + length:
            return None
        message += rest[5 : 5 + length]
        rest = rest[5 + length :]
        if message[:1] != b"\x01":
            raise NotTls
        size = int.from_bytes(message[1:4])
        if len(message) >= 4 and len(message) >= 4 + size:
            return _read(message[4 : 4 + size])


def _read(hello: bytes) -> Hello:
    cursor = _Cursor(hello)
    cursor.take(2 + 32)
    cursor.block(1)
    cursor.block(2)
    cursor.block(1)
    sni: str | None = None
    alpn: tuple[bytes, ...] = ()
    if cursor.rest:
        extensions = _Cursor(cursor.block(2))
        while extensions.rest:
            kind, body = int.from_bytes(extensions.take(2)), extensions.block(2)
            if kind == 0:
                sni = _server_name(body)
            elif kind == 16:
                alpn = _protocols(body)
    return Hello(sni, alpn)


def _server_name(body: bytes) -> str | None:
    names = _Cursor(_Cursor(body).block(2))
    kind, name = names.take(1), names.block(2)
    if kind != b"\x00" or names.rest or not name.isascii():
        raise NotTls
    return name.decode("ascii")


def _protocols(body: bytes) -> tuple[bytes, ...]:
    names, found = _Cursor(_Cursor(body).block(2)), []
    while names.rest:
        found.append(names.block(1))
    return tuple(found)


class _Cursor:
    """Reads length-prefixed vectors. Raises NotTls past the end."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def rest(self) -> int:
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        if count > self.rest:
            raise NotTls
        self._at += count
        return self._data[self._at - count : self._at]

    def block(self, width: int) -> bytes:
        return self.take(int.from_bytes(self.take(width)))
