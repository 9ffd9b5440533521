"""Whether an exchange still moves: how long a tunnel may wait for somebody, and what ends an exchange halfway."""

import time

from addon.exchange.streams import Stream

HEAD_SECONDS = 75.0
"""How long a client may take for a head, idle time between requests included."""
ANSWER_SECONDS = 600.0
"""How long an upstream may take for a head, and either side between two pieces of a body."""


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
        self.overdue = time.monotonic() + HEAD_SECONDS

    def moved(self) -> None:
        """Something went on."""
        self.overdue = time.monotonic() + ANSWER_SECONDS

    async def more(self, stream: Stream) -> bool:
        """`Stream.more`, with the time that it may take."""
        self.moved()
        return await stream.more()
