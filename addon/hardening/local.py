"""
Answers put on a flow, and what travels in `flow.metadata` between the shell and the patches.

    alter.id        request id of the audit record; one is made up where the shell gave none
    alter.verdict   set by the shell in `requestheaders`; without one nothing leaves:
                        pass        goes out as it is
                        injected    goes out, the credential is in it
                        prove       goes out once its upstream is connected, as `alter.release` then makes it
                        hold        the body is held back; the `request` hook must turn it into one of the others
    alter.refusal   set by the patches before the `error` hook: the code of the answer the client is about to get; and
                    before `websocket_end`, the code of what broke the WebSocket off
    alter.broken    set by the patches before the `error` hook: the code for the record of what could not be answered any more
    alter.release   set by the shell with the verdict `prove`: called with the upstream connected; gives back None, having
                    written the request and the verdict `injected`, or the answer to refuse the request with
    alter.scheme    set by the patches: the scheme the request claimed, or ""
    alter.leaving   set by the patches: the upstream connection of this request was asked for
    alter.room      set by the shell with the verdict `hold`: called with the bytes held so far, gives back None or the
                    answer (`addon.refusals.Answer`) to refuse the request with
    alter.relay     set by the shell with a 101: the `addon.websocket.relay.Relay` that its frames go through
    alter.end       set by the patches before `websocket_start`: called with a status for the close frames and a code, which
                    will be `alter.refusal`, it closes the WebSocket
"""

import re
import secrets
import time
from http import HTTPStatus

from mitmproxy import ctx, http
from mitmproxy.flow import Flow

from addon.refusals import CODES, Answer, answer

REQUEST_ID = "alter.id"
VERDICT = "alter.verdict"
REFUSAL = "alter.refusal"
BROKEN = "alter.broken"
RELEASE = "alter.release"
SCHEME = "alter.scheme"
LEAVING = "alter.leaving"
ROOM = "alter.room"
RELAY = "alter.relay"
END = "alter.end"

PASS = "pass"
INJECTED = "injected"
PROVE = "prove"
HOLD = "hold"

_CONNECTION_REFUSED = "alter:"
_REFUSED = re.compile(rf"(?:Connection killed: |\[Errno -?\d+\] )?{_CONNECTION_REFUSED}([a-z_]+)")


def local_response(flow: http.HTTPFlow, reply: Answer) -> None:
    """
    Make `reply` the response of `flow`, to be sent as soon as the present hook is over and without reading the body.

    For `requestheaders`, `request` and `http_connect`. An HTTP/1 client that waits for `100 Continue` is told that the
    connection closes, because it may or may not send the body (RFC 9110 10.1.1).
    """
    flow.response = to_response(reply, flow.request)
    hasten(flow)


def hasten(flow: http.HTTPFlow) -> None:
    """Have the response of `flow` sent without reading the request body first."""
    flow.request.stream = True
    awaits_continue = flow.request.headers.pop("expect", None) is not None
    if awaits_continue and flow.response and not (flow.request.is_http2 or flow.request.is_http3):
        flow.response.headers["Connection"] = "close"


def refuse(flow: http.HTTPFlow, code: str) -> None:
    """Answer `flow` with the refusal `code`."""
    local_response(flow, answer(code, request_id(flow)))


def request_id(flow: http.HTTPFlow) -> str:
    """The id the shell gave this request, else a fresh one that stays with the flow."""
    return str(flow.metadata.setdefault(REQUEST_ID, secrets.token_hex(16)))


def may_leave(flow: Flow) -> bool:
    """Whether the shell has decided that this flow goes out: as it is now, or as it will be released."""
    return flow.metadata.get(VERDICT) in (PASS, PROVE, INJECTED)


def to_response(reply: Answer, request: http.Request | None) -> http.Response:
    """`reply` as a response to `request`: with its length, and without its body where the method is HEAD."""
    now = time.time()
    return http.Response(
        http_version=b"HTTP/1.1",
        status_code=reply.status,
        reason=HTTPStatus(reply.status).phrase.encode(),
        headers=http.Headers((*reply.headers, (b"Content-Length", b"%d" % len(reply.body)))),
        content=b"" if request and request.method == "HEAD" else reply.body,
        trailers=None,
        timestamp_start=now,
        timestamp_end=now,
    )


def hang_up(connection: str) -> None:
    """Close the client connection with this id, and whatever belongs to it."""
    handler = ctx.master.addons.get("proxyserver").connections.get(connection)
    if handler is not None:
        handler.drop()


def pass_on(connection: str) -> None:
    """Let the client connection with this id last as long as something moves: it is one exchange, which nobody reads."""
    ctx.master.addons.get("proxyserver").connections[connection].timeout_watchdog.begin()


def connection_refused(code: str) -> str:
    """
    The error text that makes an upstream connection fail with the refusal `code`.

    For `server_connect` (`data.server.error = connection_refused("address_forbidden")`), and as the text of an OSError
    raised by the event loop's `getaddrinfo`.
    """
    return _CONNECTION_REFUSED + code


def upstream_code(error: str) -> str:
    """The refusal code for the error text of a connection that could not be made."""
    refused = _REFUSED.fullmatch(error)
    if refused and refused[1] in CODES:
        return refused[1]
    return "upstream_unverified" if error.startswith("Certificate verify failed") else "upstream_unreachable"
