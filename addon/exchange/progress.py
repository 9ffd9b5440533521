"""Whether an exchange still moves: how long a tunnel may wait for somebody, and what ends an exchange halfway."""

import time

from addon import patience
from addon.exchange.streams import Stream


class Broken(Exception):
    """The exchange cannot go on: `code` for the record, or empty."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Progress:
    """When a tunnel is `overdue` (monotonic seconds). Whoever watches tunnels ends those."""

    __slots__ = ("overdue",)

    def __init__(self) -> None:
        self.await_head()

    def await_head(self) -> None:
        """It is for the client to begin."""
        self.overdue = time.monotonic() + patience.HEAD

    def moved(self) -> None:
        """Something went on."""
        self.overdue = time.monotonic() + patience.ANSWER

    async def more(self, stream: Stream) -> bool:
        """`Stream.more`, with the time that it may take."""
        self.moved()
        return await stream.more()
