"""A request's body: received whole where it must be known first, otherwise sent on as it comes."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from addon.errors import Refusal
from addon.exchange import bodies
from addon.exchange.heads import Malformed, RequestHead
from addon.exchange.progress import Broken, Progress
from addon.exchange.spool import IN_MEMORY, Spool
from addon.exchange.streams import Stream
from addon.gate import Denial
from addon.model import Rewriter

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_LINGER = 2.0


class Upload:
    """
    The body of one request of `client`.

    `refused` is the code of a body that turned out not to be what its head said, after some of it had gone out. To be
    ended with `end`, whatever happened.
    """

    def __init__(self, client: Stream, head: RequestHead, progress: Progress) -> None:
        self.body = bodies.expect(head.length)
        self.refused = ""
        self._client = client
        self._head = head
        self._progress = progress
        self._held: Spool | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def done(self) -> bool:
        """Whether all of it has been received."""
        return self.body.done

    def approve_continue(self) -> None:
        """RFC 9110 10.1.1: the request is permitted, so the client need not wait for the upstream to say so."""
        head = self._head
        if head.minor == 1 and head.length != 0 and not self._client.buffer:
            expects = [value for name, value in head.headers if name.lower() == b"expect"]
            if expects and expects[0].lower() == b"100-continue":
                self._client.write(_CONTINUE)

    async def hold(self, folder: Path, *, room: Callable[[int], Denial | None]) -> Spool | Denial:
        """
        Receive it whole, a large one into a file in `folder`, whether or not its length was stated.

        `room` is asked about every size before it is reached. Raises Broken, Malformed, OSError.
        """
        denial = room(self._head.length or 0)
        if denial is not None:
            return denial
        self.approve_continue()
        held = self._held = Spool(folder)
        while True:
            payload = self.body.feed(self._client.buffer)
            denial = room(held.size + len(payload))
            if denial is not None:
                return denial
            held.write(payload)
            if self.done:
                return held
            if not await self._progress.more(self._client):
                raise Broken("client_gone")

    def send_held(self, stream: Stream, message: bytes, held: Spool) -> None:
        """Send head and body; a large one follows in a task, beside the response."""
        pieces = held.pieces()
        stream.write(message + next(pieces, b""))
        if held.size > IN_MEMORY:
            self._task = asyncio.create_task(self._pour(stream, pieces))

    def send(self, stream: Stream, message: bytes, rewriter: Rewriter | None, *, chunked: bool) -> None:
        """Send head and body; what has not arrived yet follows in a task, beside the response. Raises Malformed."""
        payload = self._take(stream, rewriter)
        stream.write(message + bodies.encode(payload, self.body, chunked=chunked))
        if not self.done:
            self._task = asyncio.create_task(self._pass_on(stream, rewriter, chunked=chunked))

    async def end(self) -> bool:
        """
        The exchange is over: whether all of the request went out.

        Raises Malformed if the rest of the body was no body, and so what follows no request.
        """
        task, self._task = self._task, None
        if task is None:
            self._forget()
            return self.done
        try:
            if self.done and not task.done():
                await asyncio.wait({task}, timeout=_LINGER)
            cut = task.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await task
        finally:
            self._forget()
        return self.done and not cut

    def _forget(self) -> None:
        if self._held is not None:
            self._held.close()
            self._held = None

    async def _pour(self, stream: Stream, pieces: Iterator[bytes]) -> None:
        for piece in pieces:
            self._progress.moved()
            stream.write(piece)
            await (stream.drain() if stream.congested else asyncio.sleep(0))

    async def _pass_on(self, stream: Stream, rewriter: Rewriter | None, *, chunked: bool) -> None:
        while not self.done and not self.refused:
            if not await self._progress.more(self._client):
                stream.abort()
                return
            payload = self._take(stream, rewriter)
            stream.write(bodies.encode(payload, self.body, chunked=chunked))
            if stream.congested:
                await stream.drain()

    def _take(self, stream: Stream, rewriter: Rewriter | None) -> bytes:
        """What of the body can be sent on now. A body that is not what it was said to be breaks off upstream."""
        try:
            payload = self.body.feed(self._client.buffer)
            if rewriter is None:
                return payload
            return rewriter.feed(payload) + (rewriter.finish() if self.done else b"")
        except Malformed:
            stream.abort()
            raise
        except Refusal as refusal:
            self.refused = refusal.code
            stream.abort()
            return b""
