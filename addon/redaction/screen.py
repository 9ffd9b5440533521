"""One exchange's response on its way to the caller."""

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from addon.model import Head, Headers
from addon.redaction.decoding import Decoder
from addon.redaction.needles import Needles
from addon.redaction.redactor import Redactor

_CODED = frozenset({b"accept-encoding", b"sec-websocket-extensions"})
_PARTIAL = frozenset({b"range", b"if-range"})
_COOKIES = frozenset({b"set-cookie", b"set-cookie2"})
_OF_THE_CODED = frozenset(
    {b"content-encoding", b"content-length", b"content-md5", b"content-digest", b"repr-digest", b"digest"}
)


def ask_plainly(head: Head, *, whole: bool) -> Head:
    """
    The head of a request for an uncompressed response; `whole`: not for a part, which could end amid a secret.

    Extensions of WebSockets go: the one that is used compresses every message.
    """
    gone = _CODED | _PARTIAL if whole else _CODED
    headers = [pair for pair in head.headers if pair[0].lower() not in gone]
    return Head(head.method, head.target, (*headers, (b"Accept-Encoding", b"identity")))


class Passage(Protocol):
    """What a body goes through. Both raise Refusal for one that is not compressed as its head says."""

    def feed(self, data: bytes) -> bytes:
        """What can go on now."""

    def finish(self, data: bytes = b"") -> bytes:
        """The body has ended with `data`: the rest of it."""


class Screened(NamedTuple):
    """
    What the caller gets. `body` is what the body goes through; None: it stays as it is.

    `resized`: the length of the body is not known any more, and no header states it.
    """

    reason: bytes
    headers: Headers
    body: Passage | None = None
    resized: bool = False


class Screen:
    """
    Stands before the responses to one request that carried `texts`, so it lives no longer than its exchange.

    `decodes`: a compressed body is decoded to be searched; otherwise it passes as it is.
    """

    __slots__ = ("_bodies", "_cookies", "_count", "_decodes", "_needles")

    def __init__(self, texts: Iterable[str] = (), *, cookies: bool = False, decodes: bool = True) -> None:
        self._needles = Needles(texts)
        self._cookies = cookies
        self._decodes = decodes
        self._count = 0
        self._bodies: list[Redactor] = []

    @property
    def count(self) -> int:
        """In how many places a secret has been made unreadable."""
        return self._count + sum(body.count for body in self._bodies)

    def knows(self, head: Head) -> bool:
        """Whether a request's target or headers hold one of the texts."""
        whole = b"\n".join([head.target, *(part for pair in head.headers for part in pair)])
        return self._needles.among(whole) and bool(self._needles.find(whole))

    def open(self, reason: bytes, headers: Headers, *, bodiless: bool) -> Screened:
        """
        The response with this status text and these headers; `bodiless` ones have no body, whatever they say.

        Raises Refusal(`response_undecodable`), and so does its body, for a compression that cannot be undone.
        """
        headers = self._keep(headers)
        if not self._needles:
            return Screened(reason, headers)
        codings = () if bodiless else _codings(headers)
        decoder = None
        if codings and self._decodes:
            decoder = Decoder(b",".join(codings))
            headers = tuple([pair for pair in headers if pair[0].lower() not in _OF_THE_CODED])
        (_, reason), *pairs = self.redact(((b"", reason), *headers))
        if bodiless or (codings and decoder is None):
            return Screened(reason, tuple(pairs))
        redactor = self.redactor()
        if decoder is None or redactor is None:
            return Screened(reason, tuple(pairs), redactor)
        return Screened(reason, tuple(pairs), _Decoded(decoder, redactor), resized=True)

    def redactor(self) -> Redactor | None:
        """What one more stream goes through, whose stars are counted as well; None: there is nothing to look for."""
        if not self._needles:
            return None
        self._bodies.append(Redactor(self._needles))
        return self._bodies[-1]

    def redact(self, headers: Headers) -> Headers:
        """Headers or trailers without a secret in any name or value."""
        if not self._needles.among(b"\n".join([part for pair in headers for part in pair])):
            return headers
        return tuple((self._star(name), self._star(value)) for name, value in headers)

    def _star(self, text: bytes) -> bytes:
        redactor = Redactor(self._needles)
        text = redactor.finish(text)
        self._count += redactor.count
        return text

    def _keep(self, headers: Headers) -> Headers:
        """Without sessions that a credential opened, and without ways around the proxy (RFC 7838)."""
        gone = {b"alt-svc"} if self._cookies else _COOKIES | {b"alt-svc"}
        return tuple([pair for pair in headers if pair[0].lower() not in gone])


class _Decoded:
    def __init__(self, decoder: Decoder, redactor: Redactor) -> None:
        self._decoder = decoder
        self._redactor = redactor

    def feed(self, data: bytes) -> bytes:
        return self._redactor.feed(self._decoder.feed(data))

    def finish(self, data: bytes = b"") -> bytes:
        data = self._decoder.feed(data)
        self._decoder.finish()
        return self._redactor.finish(data)


def _codings(headers: Headers) -> tuple[bytes, ...]:
    """How a body is coded. A coding of the transfer (RFC 9112 7) hides it as well, but for `chunked`."""
    codings = []
    for name, value in headers:
        lower = name.lower()
        if lower == b"content-encoding":
            codings += [part.strip().lower() for part in value.split(b",")]
        elif lower == b"transfer-encoding" and value.strip().lower() != b"chunked":
            codings.append(lower)
    return tuple([coding for coding in codings if coding not in (b"", b"identity")])
