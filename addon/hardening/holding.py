"""Request bodies that are held (P10)."""

from collections.abc import Callable, Generator
from typing import Any

from mitmproxy.proxy import commands
from mitmproxy.proxy.layers.http import HttpStream

from addon.hardening import target
from addon.hardening.local import ROOM, local_response

Commands = Generator[commands.Command, Any, bool]


def limit_held_bodies() -> None:
    """
    P10: a body that is held is counted as it comes, and refused once there is no room for more of it.

    Plain mitmproxy has one limit for all flows, and collects what has no stated length without end.
    """

    def make(original: Callable[[HttpStream, bool], Commands]) -> Callable[[HttpStream, bool], Commands]:
        def check_body_size(stream: HttpStream, request: bool) -> Commands:
            room = stream.flow.metadata.get(ROOM) if request else None
            answer = room(len(stream.request_body_buf)) if room else None
            if answer is None:
                return (yield from original(stream, request))
            stream.request_body_buf.clear()
            local_response(stream.flow, answer)
            yield from stream.start_request_stream()
            return True

        return check_body_size

    target.replace(HttpStream, "check_body_size", make=make)
