"""What a message says of itself that mitmproxy takes on trust, or forgets (P12, P13)."""

from collections.abc import Callable, Generator
from typing import Any

from mitmproxy.proxy import commands
from mitmproxy.proxy.layers.http import HttpStream
from mitmproxy.proxy.layers.http._events import ErrorCode, ResponseProtocolError

from addon.hardening import target
from addon.hardening.local import SCHEME

Commands = Generator[commands.Command, Any, bool]
_LEAST_STATUS = 100


def check_claims() -> None:
    """
    P12: the scheme that a request in a tunnel claims is kept for the shell. Plain mitmproxy overwrites it.

    P13: a response with a status below 100 is none. Plain mitmproxy passes it on, and the client waits for another one.
    """

    def make(original: Callable[[HttpStream, bool], Commands]) -> Callable[[HttpStream, bool], Commands]:
        def check_invalid(stream: HttpStream, request: bool) -> Commands:
            if request:
                stream.flow.metadata[SCHEME] = stream.flow.request.scheme
            elif stream.flow.response and stream.flow.response.status_code < _LEAST_STATUS:
                stream.flow.response = None
                yield commands.CloseConnection(stream.flow.server_conn)
                failure = ResponseProtocolError(stream.stream_id, "no status", ErrorCode.RESPONSE_VALIDATION_FAILED)
                yield from stream.handle_protocol_error(failure)
                stream.client_state = stream.server_state = stream.state_errored
                return True
            return (yield from original(stream, request))

        return check_invalid

    target.replace(HttpStream, "check_invalid", make=make)
