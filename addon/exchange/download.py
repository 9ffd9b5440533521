"""A response: its head when it comes, then its body piece by piece, cleaned and searched for the secret on its way."""

from addon import responses
from addon.errors import Refusal
from addon.exchange import bodies, heads
from addon.exchange.bodies import Body
from addon.exchange.heads import Malformed, RequestHead, ResponseHead
from addon.exchange.progress import Broken, Progress
from addon.exchange.streams import Stream
from addon.model import Headers
from addon.redaction import Passage, Screen, Screened


class Download:
    """The response from `source` to the request `head` of `client`. `begun` once the client has seen any of it."""

    def __init__(self, client: Stream, source: Stream, head: RequestHead, progress: Progress) -> None:
        self.begun = False
        self._client = client
        self._source = source
        self._head = head
        self._progress = progress

    async def relay(self, response: ResponseHead, screen: Screen | None, *, keep: bool) -> bool:
        """
        Send all of it on; whether the client's connection can stay, if the request allows to `keep` it.

        Raises Refusal for a response that may not be shown (nothing is `begun` then), and Broken for one that ends
        halfway, its client cut off.
        """
        head = self._head
        bodiless = head.method == "HEAD" or response.status in {204, 304}
        try:
            body = bodies.expect(response.length)
            shown, passage, resized = _show(response, screen, bodiless=bodiless)
            if passage is not None:
                body = bodies.Searched(body, passage)
            length = shown.length
            if length in {-1, None}:
                length = None if head.minor == 1 else -1
            keep = keep and length != -1
            # A body that has to be decoded is tried before its head goes out: there is no taking back after that.
            first = await self._first(body, patient=resized)
            self.begun = True
            if bodiless:
                self._write_bodiless(shown, close=not keep)
            else:
                await self._relay_body(shown, body, first, length=length, close=not keep)
        except Refusal as refusal:
            if not self.begun:
                raise
            self._client.abort()
            raise Broken(refusal.code) from None
        except (Malformed, ConnectionError) as error:
            self._client.abort()
            raise Broken("client_gone" if isinstance(error, ConnectionError) else "upstream_unreachable") from error
        return keep

    def _write_bodiless(self, response: ResponseHead, *, close: bool) -> None:
        out = heads.write_response(response, response.headers, length=-1, close=close)
        self._client.write(_with_lengths(out, response.headers))

    async def _relay_body(
        self, response: ResponseHead, body: Body, first: bytes, *, length: int | None, close: bool
    ) -> None:
        """Piece by piece as they come, and no faster than the client takes them."""
        client, chunked = self._client, length is None
        out = heads.write_response(response, response.headers, length=length, close=close)
        client.write(out + bodies.encode(first, body, chunked=chunked))
        while not body.done:
            if client.congested:
                await client.drain()
            client.write(bodies.encode(await self._next(body), body, chunked=chunked))

    async def _first(self, body: Body, *, patient: bool) -> bytes:
        """What is there of the body; if `patient`, something at least."""
        payload = body.feed(self._source.buffer)
        while patient and not payload and not body.done:
            payload = await self._next(body)
        return payload

    async def _next(self, body: Body) -> bytes:
        source = self._source
        if not await self._progress.more(source):
            if not source.ended:
                raise Malformed
            body.end()
        return body.feed(source.buffer)


def _show(
    response: ResponseHead, screen: Screen | None, *, bodiless: bool
) -> tuple[ResponseHead, Passage | None, bool]:
    """The response's head as the client gets it, what its body goes through, and whether its length changes there."""
    shown = Screened(response.reason, responses.clean(response.headers))
    if screen is not None:
        shown = screen.open(shown.reason, shown.headers, bodiless=bodiless)
    length = None if shown.resized else response.length
    head = ResponseHead(response.status, shown.reason, response.minor, shown.headers, length, response.persistent)
    return head, shown.body, shown.resized


def _with_lengths(out: bytes, headers: Headers) -> bytes:
    """A response without a body keeps the length it would have had (RFC 9110 8.6)."""
    lengths = {value for name, value in headers if name.lower() == b"content-length"}
    return out[:-2] + b"".join(b"Content-Length: %s\r\n" % value for value in lengths) + out[-2:]
