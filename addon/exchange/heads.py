"""
Heads of HTTP/1.1 messages, strictly (RFC 9112).

A head is refused, never repaired: bare CR or LF, NUL, a space before the colon, a folded line, an empty or odd name, two
framings at once. What two servers could read in two ways is read here in none.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from addon.model import Headers

LIMIT = 65_536
"""The longest head, in bytes."""
COUNT = 200
"""The most header lines."""

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e\x80-\xff]{1,16384}) HTTP/1\.([01])")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?")
_LINE = re.compile(_TOKEN + rb":[^\x00\r\n]*")
_BLOCK = re.compile(rb"(?:" + _LINE.pattern + rb"\r\n)*+")
_LENGTH = re.compile(rb"[0-9]{1,18}")

_HOP = frozenset(
    {
        b"connection", b"proxy-connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade",
        b"content-length",
    }
)  # fmt: skip
"""What belongs to one connection (RFC 9110 7.6.1), and the framing, which is written anew."""
_NOT_PASSED_ON = _HOP | {b"expect"}

_Index = dict[bytes, list[bytes]]


class Malformed(ValueError):
    """A head or a body that is not HTTP/1.1 as we accept it. `code` is what a request is refused with."""

    code = "header_forbidden"


class TooLarge(Malformed):
    """A head that is too long, or has too many lines."""

    code = "header_too_large"


class RequestHead(NamedTuple):
    """`length` is the number of body bytes, or None for a chunked body."""

    method: str
    target: bytes
    minor: int
    headers: Headers
    length: int | None
    persistent: bool


class ResponseHead(NamedTuple):
    """`length` as above; `-1` when the body ends with the connection."""

    status: int
    reason: bytes
    minor: int
    headers: Headers
    length: int | None
    persistent: bool


def parse_request(raw: bytes) -> RequestHead:
    """The head in `raw`, which ends with the empty line. Raises Malformed."""
    first, headers = _split(raw)
    match = _REQUEST_LINE.fullmatch(first)
    if match is None:
        raise Malformed
    minor = match[3][0] - 48
    index = _index(headers)
    length = _request_length(index, minor)
    return RequestHead(match[1].decode("ascii"), match[2], minor, headers, length, _persistent(index, minor))


def check_request(method: bytes, target: bytes, *, version: bytes, headers: Headers) -> None:
    """Raises Malformed where `parse_request` would, for a head that somebody else has parsed."""
    match = _REQUEST_LINE.fullmatch(b"%s %s %s" % (method, target, version))
    if match is None:
        raise Malformed
    if len(headers) > COUNT:
        raise TooLarge
    if not all(_LINE.fullmatch(b"%s: %s" % pair) for pair in headers):
        raise Malformed
    _request_length(_index(headers), match[3][0] - 48)


def parse_response(raw: bytes, *, method: str) -> ResponseHead:
    """The head of the response to a request with `method`. Raises Malformed."""
    first, headers = _split(raw)
    match = _STATUS_LINE.fullmatch(first)
    if match is None:
        raise Malformed
    minor, status = match[1][0] - 48, int(match[2])
    index = _index(headers)
    length = _response_length(index, status=status, method=method)
    persistent = length != -1 and _persistent(index, minor)
    return ResponseHead(status, match[3] or b"", minor, headers, length, persistent)


def write_request(method: str, target: bytes, headers: Headers, *, length: int | None) -> bytes:
    """A request head to send upstream: hop-by-hop headers and `Expect`, which has been answered, gone; framing ours."""
    framing = () if length == 0 and method not in {"POST", "PUT", "PATCH"} else _framing(length)
    kept = _end_to_end(headers, gone=_NOT_PASSED_ON)
    return _join(b"%s %s HTTP/1.1" % (method.encode("ascii"), target), kept, framing)


def write_response(head: ResponseHead, headers: Headers, *, length: int | None, close: bool) -> bytes:
    """A response head for the client. `length` None frames with chunks, -1 with the end of the connection."""
    framing = _framing(length)
    if close:
        framing = (*framing, (b"Connection", b"close"))
    kept = _end_to_end(headers, gone=_HOP)
    return _join(b"HTTP/1.1 %d %s" % (head.status, head.reason), kept, framing)


def write_upgrade(first: bytes, headers: Headers) -> bytes:
    """A head that asks for, or grants, another protocol: `Connection` and `Upgrade` stay."""
    return _join(first, headers, ())


def _split(raw: bytes) -> tuple[bytes, Headers]:
    """The first line, for the caller to check, and the headers."""
    first, _, block = raw[:-2].partition(b"\r\n")
    if len(raw) > LIMIT or not _BLOCK.fullmatch(block):
        raise Malformed
    lines = block.split(b"\r\n")[:-1]
    if len(lines) > COUNT:
        raise TooLarge
    parts = [line.partition(b":") for line in lines]
    return first, tuple([(name, value.strip(b" \t")) for name, _, value in parts])


def _index(headers: Headers) -> _Index:
    """The values of every header, by its lower-case name."""
    index: _Index = {}
    for name, value in headers:
        index.setdefault(name.lower(), []).append(value)
    return index


def _request_length(index: _Index, minor: int) -> int | None:
    """RFC 9112 6.3, without the lenient branches."""
    lengths, codings = index.get(b"content-length"), index.get(b"transfer-encoding")
    if codings:
        if lengths or minor == 0 or len(codings) > 1 or codings[0].lower() != b"chunked":
            raise Malformed
        return None
    if not lengths:
        return 0
    if len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0]):
        raise Malformed
    return int(lengths[0])


def _response_length(index: _Index, *, status: int, method: str) -> int | None:
    lengths, codings = index.get(b"content-length", []), index.get(b"transfer-encoding")
    if codings and (lengths or len(codings) > 1 or codings[0].lower() != b"chunked"):
        raise Malformed
    if len(set(lengths)) > 1 or (lengths and not _LENGTH.fullmatch(lengths[0])):
        raise Malformed
    if method == "HEAD" or status in {204, 304} or status < 200:
        return 0
    if codings:
        return None
    return int(lengths[0]) if lengths else -1


def _persistent(index: _Index, minor: int) -> bool:
    """RFC 9112 9.3; an HTTP/1.0 connection is never kept."""
    return minor == 1 and b"close" not in _options(index.get(b"connection", ()))


def _options(values: Iterable[bytes]) -> set[bytes]:
    """What `Connection` headers list."""
    return {part.strip().lower() for value in values for part in value.split(b",")}


def _end_to_end(headers: Headers, *, gone: frozenset[bytes]) -> Headers:
    """Without the headers in `gone`, and without those that `Connection` lists (RFC 9110 7.6.1)."""
    names = [name.lower() for name, _ in headers]
    if b"connection" in names:
        listed = _options(value for (_, value), name in zip(headers, names, strict=True) if name == b"connection")
        gone = gone | (listed - {b"close", b"keep-alive"})
    return tuple([pair for pair, name in zip(headers, names, strict=True) if name not in gone])


def _framing(length: int | None) -> Headers:
    if length is None:
        return ((b"Transfer-Encoding", b"chunked"),)
    return () if length < 0 else ((b"Content-Length", b"%d" % length),)


def _join(first: bytes, headers: Headers, framing: Headers) -> bytes:
    return b"\r\n".join([first, *[b"%s: %s" % pair for pair in (*headers, *framing)], b"\r\n"])
