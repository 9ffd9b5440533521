"""An open WebSocket of the flat engine: frames from one stream to the other, and its end."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from addon.exchange.progress import Progress
from addon.exchange.streams import Stream
from addon.websocket.relay import PROTOCOL_ERROR, Relay

LINGER = 0.4
"""Seconds that a side has to answer a close frame of ours, and again to take what is still under way to it."""


class WebSocket:
    """Frames go on as they come, and no faster than the other side takes them."""

    def __init__(self, client: Stream, upstream: Stream, relay: Relay, progress: Progress) -> None:
        self._client = client
        self._upstream = upstream
        self._relay = relay
        self._progress = progress
        self._ended: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()

    def end(self, status: int, code: str) -> None:
        """Close it with close frames of this status. `run` gives back the code."""
        if not self._ended.done():
            self._ended.set_result((status, code))

    async def run(self) -> str:
        """Until either side ends, or is no WebSocket any more: what broke it off, or nothing."""
        there = asyncio.create_task(self._pump(self._client, self._upstream, self._relay.from_client))
        back = asyncio.create_task(self._pump(self._upstream, self._client, self._relay.from_upstream))
        events: set[asyncio.Future[Any]] = {there, back, self._ended}
        try:
            await asyncio.wait(events, return_when=asyncio.FIRST_COMPLETED)
        finally:
            there.cancel()
            back.cancel()
            await asyncio.wait({there, back})
        if self._relay.violation:
            self.end(PROTOCOL_ERROR, self._relay.violation)
        code = ""
        if self._ended.done():
            status, code = self._ended.result()
            await self._say_goodbye(status, code)
        self._upstream.close()
        return code

    async def _pump(self, source: Stream, sink: Stream, take: Callable[[bytes], bytes]) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                data = bytes(source.buffer)
                source.buffer.clear()
                sink.write(take(data))
                if self._relay.violation or self._relay.over:
                    return
                if sink.congested:
                    await sink.drain()
                if not await self._progress.more(source):
                    return

    async def _say_goodbye(self, status: int, code: str) -> None:
        """Whoever answers a close frame will have read it; whoever does not, or takes nothing any more, is cut off."""
        to_client, to_upstream = self._relay.close(status, code)
        self._client.write(to_client)
        self._upstream.write(to_upstream)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER):
                await self._drop(self._client, self._relay.from_client, lambda: self._relay.client_closed)
                await self._drop(self._upstream, self._relay.from_upstream, lambda: self._relay.upstream_closed)
        for stream in (self._client, self._upstream):
            stream.close()
            asyncio.get_running_loop().call_later(LINGER, stream.abort)

    async def _drop(self, stream: Stream, take: Callable[[bytes], bytes], closed: Callable[[], bool]) -> None:
        """What still comes is dropped, up to a close frame."""
        while True:
            take(bytes(stream.buffer))
            stream.buffer.clear()
            if closed() or self._relay.violation or not await stream.more():
                return
