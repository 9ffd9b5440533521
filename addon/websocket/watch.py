"""Live WebSockets are judged again and again: what would be refused now is ended now."""

import asyncio
from collections.abc import Callable
from typing import Final

from addon.complaints import complain
from addon.errors import Fault, Refusal
from addon.websocket.relay import GOING_AWAY, INTERNAL_ERROR, POLICY_VIOLATION

SECONDS: Final = 0.5
"""Between two looks at all of them, so that a revocation holds within a second."""

End = Callable[[int, str], None]
"""Ends a WebSocket, with a status code for its close frames (RFC 6455 7.4) and the code of the refusal."""


class Watch:
    """The WebSockets of one worker, by the id of their request."""

    def __init__(self) -> None:
        self._live: dict[str, tuple[Callable[[], None], End]] = {}
        self._draining = False
        self._timer: asyncio.TimerHandle | None = None

    def add(self, number: str, judge: Callable[[], None], end: End) -> None:
        """Call `end`, once, when `judge` raises Refusal or whatever else, or when this worker stops."""
        self._live[number] = judge, end
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SECONDS, self._look)

    def forget(self, number: str) -> None:
        """It has ended."""
        self._live.pop(number, None)

    def drain(self) -> None:
        """End all, and from now on every new one."""
        self._draining = True
        self._look()

    def _look(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for number, (judge, end) in list(self._live.items()):
            found = (GOING_AWAY, "interrupted") if self._draining else _judge(judge)
            if found is not None:
                self.forget(number)
                end(*found)
        if self._live:
            self._timer = asyncio.get_running_loop().call_later(SECONDS, self._look)


def _judge(judge: Callable[[], None]) -> tuple[int, str] | None:
    try:
        judge()
    except Refusal as refusal:
        return POLICY_VIOLATION, refusal.code
    except Exception as error:  # noqa: BLE001  what cannot be decided ends
        complain("a WebSocket could not be judged", error)
        return INTERNAL_ERROR, error.code if isinstance(error, Fault) else "fault"
    return None
