"""Requests of our own, to services that the proxy itself needs: by the rules and CAs of every other upstream."""

import asyncio
import functools

from addon.exchange import bodies, heads
from addon.exchange.heads import Malformed
from addon.exchange.pool import Pool, Unreachable
from addon.exchange.streams import Stream
from addon.model import Head
from addon.resolver import Resolver

SECONDS = 15.0
"""How long an answer may take, once connected."""
LIMIT = 1 << 16
"""The longest answer, in bytes."""


class Errands:
    """Runs errands, each on a connection of its own."""

    def __init__(self, *, resolver: Resolver, ca_file: str) -> None:
        self._resolver = resolver
        self._ca_file = ca_file

    @functools.cached_property
    def _pool(self) -> Pool:
        return Pool(resolver=self._resolver, ca_file=self._ca_file)

    async def post(self, host: str, head: Head, body: bytes) -> tuple[int, bytes]:
        """Status and body of the answer. Raises OSError where there is none, ValueError for one that is not HTTP."""
        try:
            upstream = await self._pool.acquire((host, 443, "", ""), repeatable=False, fresh=True)
        except Unreachable as problem:
            raise ConnectionError(problem.code) from None
        try:
            async with asyncio.timeout(SECONDS):
                upstream.stream.write(
                    heads.write_request(head.method, head.target, head.headers, length=len(body)) + body
                )
                return await _answer(upstream.stream, method=head.method)
        finally:
            upstream.stream.abort()


async def _answer(stream: Stream, *, method: str) -> tuple[int, bytes]:
    while (end := stream.buffer.find(b"\r\n\r\n")) < 0:
        if len(stream.buffer) > LIMIT or not await stream.more():
            raise Malformed
    response = heads.parse_response(bytes(stream.buffer[: end + 4]), method=method)
    del stream.buffer[: end + 4]
    body, received = bodies.expect(response.length), bytearray()
    while True:
        received += body.feed(stream.buffer)
        if body.done or len(received) > LIMIT:
            break
        if not await stream.more():
            body.end()
    if len(received) > LIMIT:
        raise Malformed
    return response.status, bytes(received)
