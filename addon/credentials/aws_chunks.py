"""
Signed chunks of an upload, signed again as they pass.

    chunk    SIZE;chunk-signature=HEX\r\n DATA \r\n           SIZE in hex; the last chunk has size 0 and no data
    trailer  NAME:VALUE\r\n … x-amz-trailer-signature:HEX\r\n  after the header line of the last chunk, then \r\n

Every signature covers the one before it, the first the seed (the signature of the head), so all are replaced. They stand
before the data they cover: one chunk is held, never more, and what goes out is as long as what came in.

https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html and sigv4-streaming-trailers.html
"""

import hmac
import re
from hashlib import sha256
from typing import Final

from addon.errors import Refusal
from addon.model import Head

LARGEST: Final = 16 * 1024 * 1024
"""Bytes of data in one chunk. SDKs send 64 to 128 KiB."""

CHUNKED: Final = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
CHUNKED_TRAILER: Final = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
SIGNED: Final = frozenset({CHUNKED, CHUNKED_TRAILER})
"""What stands for a body whose chunks carry signatures."""

_LONGEST_LINE = 4096
_LONGEST_TRAILER = 16384
_HEADER = re.compile(rb"([0-9a-fA-F]{1,8});chunk-signature=[0-9a-f]{64}")
_TRAILER_SIGNATURE = re.compile(rb"(x-amz-trailer-signature:\s*)[0-9a-f]{64}", re.IGNORECASE)
_EMPTY = sha256().hexdigest()
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=[^/]+/(([^/]+)/([^/]+)/([^/]+)/aws4_request), .*Signature=(\w{64})"
)


class ChunkSigner:
    """
    Takes a body in pieces of any size and gives it back with new signatures.

    What comes back may be empty while a chunk is incomplete. Raises Refusal `signing_unsupported` for a body that is not
    framed as its head says; bytes given back before are then already on their way.
    """

    def __init__(self, *, key: bytes, timestamp: str, scope: str, seed: str, trailer: bool) -> None:
        """`key` is the derived signing key; `scope` is `DATE/REGION/SERVICE/aws4_request`."""
        self._key = key
        self._place = f"{timestamp}\n{scope}"
        self._previous = seed
        self._trailer = trailer
        self._held = bytearray()
        self._stage = "chunk"

    def feed(self, data: bytes) -> bytes:
        """What can go out now."""
        self._held += data
        ready = bytearray()
        while piece := self._next():
            ready += piece
        if self._stage == "end" and self._held:
            raise Refusal("signing_unsupported")
        return bytes(ready)

    def finish(self) -> bytes:
        """The end of the body: nothing is left to give back, and nothing to sign with is kept."""
        self._key = b""
        if self._stage != "end":
            raise Refusal("signing_unsupported")
        return b""

    def _next(self) -> bytes:
        if self._stage == "chunk":
            return self._chunk()
        return self._trailers() if self._stage == "trailer" else b""

    def _chunk(self) -> bytes:
        line = self._until(b"\r\n", most=_LONGEST_LINE)
        if line is None:
            return b""
        matched = _HEADER.fullmatch(self._held, 0, line)
        size = int(matched[1], 16) if matched else LARGEST + 1
        if matched is None or size > LARGEST:
            raise Refusal("signing_unsupported")
        start, end = line + 2, line + 2 + size
        bare = self._trailer and size == 0  # the trailer follows at once, without a CRLF of the chunk's own
        if len(self._held) < end + (0 if bare else 2):
            return b""
        if not bare and self._held[end : end + 2] != b"\r\n":
            raise Refusal("signing_unsupported")
        digest = sha256(memoryview(self._held)[start:end]).hexdigest()
        self._sign(f"AWS4-HMAC-SHA256-PAYLOAD\n{self._place}\n{self._previous}\n{_EMPTY}\n{digest}")
        piece = self._take(end + (0 if bare else 2))
        piece[line - 64 : line] = self._previous.encode()
        if size == 0:
            self._stage = "trailer" if self._trailer else "end"
        return bytes(piece)

    def _trailers(self) -> bytes:
        end = self._until(b"\r\n\r\n", most=_LONGEST_TRAILER)
        if end is None:
            return b""
        *lines, last = self._take(end + 4)[:-4].split(b"\r\n")
        signature = _TRAILER_SIGNATURE.fullmatch(last)
        if signature is None or not all(b":" in line for line in lines):
            raise Refusal("signing_unsupported")
        pairs = [bytes(line).partition(b":") for line in lines]
        digest = sha256(b"".join(b"%b:%b\n" % (n.strip().lower(), v.strip()) for n, _, v in pairs)).hexdigest()
        self._sign(f"AWS4-HMAC-SHA256-TRAILER\n{self._place}\n{self._previous}\n{digest}")
        self._stage = "end"
        return b"\r\n".join([*lines, signature[1] + self._previous.encode()]) + b"\r\n\r\n"

    def _until(self, mark: bytes, *, most: int) -> int | None:
        place = self._held.find(mark, 0, most)
        if place < 0 and len(self._held) >= most:
            raise Refusal("signing_unsupported")
        return None if place < 0 else place

    def _take(self, count: int) -> bytearray:
        taken = self._held[:count]
        del self._held[:count]
        return taken

    def _sign(self, string_to_sign: str) -> None:
        self._previous = hmac.new(self._key, string_to_sign.encode(), sha256).hexdigest()


def signer(head: Head, *, secret_access_key: str) -> ChunkSigner | None:
    """The signer for the body of a head that kind `sigv4` has signed; None where no chunk carries a signature."""
    fields = {name.lower(): value.decode("latin-1") for name, value in head.headers}
    payload = fields.get(b"x-amz-content-sha256", "")
    if payload not in SIGNED:
        return None
    stated = _AUTHORIZATION.fullmatch(fields.get(b"authorization", ""))
    if stated is None:
        raise Refusal("signing_unsupported")
    scope, date, region, service, seed = stated.groups()
    key = f"AWS4{secret_access_key}".encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return ChunkSigner(
        key=key, timestamp=fields[b"x-amz-date"], scope=scope, seed=seed, trailer=payload == CHUNKED_TRAILER
    )
