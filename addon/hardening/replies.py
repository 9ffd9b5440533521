"""What the proxy answers itself: at once (P1), and in its own words (P7)."""

from collections.abc import Callable, Generator
from typing import Any

from h2.errors import ErrorCodes
from mitmproxy import http
from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import commands, layer
from mitmproxy.proxy.layers.http import HttpLayer, HttpStream
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
)
from mitmproxy.proxy.layers.http._hooks import HttpResponseHeadersHook
from mitmproxy.proxy.layers.http._http1 import Http1Server
from mitmproxy.proxy.layers.http._http2 import Http2Server
from mitmproxy.proxy.layers.http._http3 import Http3Server

from addon.hardening import target
from addon.hardening.local import BROKEN, REFUSAL, REQUEST_ID, refuse, request_id, to_response, upstream_code
from addon.hardening.unjudged import AlterUnjudgedHook, Unjudged
from addon.refusals import answer

Commands = Generator[commands.Command, Any, None]
Handler = Callable[[Any, Any], Commands]
Server = Http1Server | Http2Server | Http3Server

_CLIENT_ERRORS = {ErrorCode.GENERIC_CLIENT_ERROR, ErrorCode.REQUEST_VALIDATION_FAILED, ErrorCode.DESTINATION_UNKNOWN}
_CLIENT_LEFT = {ErrorCode.CANCEL, ErrorCode.CLIENT_DISCONNECTED}


def reply_at_once() -> None:
    """
    P1: a response set in `requestheaders` is sent at once.

    Plain mitmproxy first reads the whole request body into memory, or raises NotImplementedError and lets the client
    hang if the request is streamed.
    """

    def make(original: Callable[[HttpStream], Commands]) -> Callable[[HttpStream], Commands]:
        def start_request_stream(stream: HttpStream) -> Commands:
            if stream.flow.response is None:
                yield from original(stream)
                return
            yield from reply(stream, stream.flow.response)

        return start_request_stream

    target.replace(HttpStream, "start_request_stream", make=make)


def reply(stream: HttpStream, response: http.Response) -> Commands:
    """Send a response of our own, whether or not all of the request is here."""
    # For send_response the request is over, so it ends the flow. What still arrives for a stream that ended is
    # dropped by the layer above; what arrived during the hooks waits in this one, and state_errored eats it.
    stream.client_state = stream.state_done
    yield HttpResponseHeadersHook(stream.flow)
    if (yield from stream.check_killed(emit_error_hook=True)):
        return
    yield from stream.send_response()
    stream.client_state = stream.state_errored
    closes = response.headers.get("connection", "").lower() == "close"
    if closes and not (stream.flow.request.is_http2 or stream.flow.request.is_http3):
        yield commands.CloseConnection(stream.context.client)


def answer_errors() -> None:
    """
    P7: an error is told to the client as problem+json, alike in HTTP/1, 2 and 3, and the connection goes on if it can.

    Plain mitmproxy sends an HTML page with the exception's text, the upstream's host and `Server: mitmproxy <version>`,
    and closes HTTP/1 connections even where only the upstream failed.
    """

    def make(original: Handler) -> Handler:
        def handle(server: Server, event: Any) -> Commands:
            if isinstance(event, ResponseProtocolError):
                return _answer(server, event, original)
            return original(server, event)

        return handle

    target.replace(Http1Server, "send", make=make)
    target.replace(Http2Server, "_handle_event", make=make)
    target.replace(Http3Server, "_handle_event", make=make)


def name_upstream_errors() -> None:
    """
    P7: the `error` hook finds code and id of the answer in `flow.metadata`: the record says what the client was told.

    And it finds who broke off what cannot be answered any more. Plain mitmproxy has a text for people.
    """

    def make(original: Callable[[HttpStream, Any], Commands]) -> Callable[[HttpStream, Any], Commands]:
        def handle_protocol_error(stream: HttpStream, event: Any) -> Commands:
            over = (stream.state_stream_response_body, stream.state_done, stream.state_errored)
            if (
                isinstance(event, ResponseProtocolError)
                and event.code.http_status_code()
                and stream.client_state != stream.state_errored
                and stream.server_state not in over
            ):
                stream.flow.metadata[REFUSAL] = _code(event)
                request_id(stream.flow)
            stream.flow.metadata.setdefault(BROKEN, _who_broke(stream, event))
            return original(stream, event)

        return handle_protocol_error

    target.replace(HttpStream, "handle_protocol_error", make=make)


def _who_broke(stream: HttpStream, event: Any) -> str:
    if isinstance(event, ResponseProtocolError):
        return "upstream_unreachable"
    left = event.code in _CLIENT_LEFT or not stream.context.client.state & ConnectionState.CAN_READ
    return "client_gone" if left else "interrupted"


def answer_failed_tunnels() -> None:
    """P7: with `connection_strategy=eager` CONNECT fails in our words. Plain mitmproxy names host and exception."""

    def make(_original: Callable[[HttpStream], Commands]) -> Callable[[HttpStream], Commands]:
        def handle_connect_regular(stream: HttpStream) -> Commands:
            if not stream.flow.response and stream.context.options.connection_strategy == "eager":
                error = yield commands.OpenConnection(stream.context.server)
                if error:
                    refuse(stream.flow, upstream_code(error))
            stream.child_layer = layer.NextLayer(stream.context)
            yield from stream.handle_connect_finish()

        return handle_connect_regular

    target.replace(HttpStream, "handle_connect_regular", make=make)


def _answer(server: Server, event: ResponseProtocolError, send: Handler) -> Commands:
    if isinstance(server, Http2Server) and _answered(server, event.stream_id):
        # An answer that came early stays one, though its upstream wants nothing more of the request (RFC 9113 8.1).
        yield from send(server, ResponseEndOfMessage(event.stream_id))
        if not server.h2_conn.stream_buffers.get(event.stream_id) and not server.is_closed(event.stream_id):
            server.h2_conn.reset_stream(event.stream_id, ErrorCodes.NO_ERROR)
            yield commands.SendData(server.conn, server.h2_conn.data_to_send())
        return
    if not event.code.http_status_code() or not _unanswered(server, event.stream_id):
        yield from send(server, event)
        return
    stream = _stream(server, event.stream_id)
    flow = stream.flow if stream else None
    if flow and REQUEST_ID in flow.metadata:
        told = answer(_code(event), request_id(flow))
    else:
        refusal = Unjudged(server.context.client, server.context.server.address or ("", 0), _code(event))
        yield AlterUnjudgedHook(refusal)
        if not _unanswered(server, event.stream_id):
            return
        told = refusal.answer
    response = to_response(told, flow.request if flow else None)
    # After a bad request the rest of the connection cannot be trusted to be what it seems.
    closing = isinstance(server, Http1Server) and event.code in _CLIENT_ERRORS
    if closing:
        response.headers["Connection"] = "close"
    yield from send(server, ResponseHeaders(event.stream_id, response, end_stream=not response.raw_content))
    if response.raw_content:
        yield from send(server, ResponseData(event.stream_id, response.raw_content))
    yield from send(server, ResponseEndOfMessage(event.stream_id))
    if closing:
        yield commands.CloseConnection(server.conn)


def _stream(server: Server, stream_id: int) -> HttpStream | None:
    streams = next(above for above in reversed(server.context.layers) if isinstance(above, HttpLayer)).streams
    return streams.get(stream_id)


def _answered(server: Server, stream_id: int) -> bool:
    """Whether the upstream's response is complete."""
    stream = _stream(server, stream_id)
    return stream is not None and stream.server_state == stream.state_done


def _unanswered(server: Server, stream_id: int) -> bool:
    """Whether a response can still be begun on this stream."""
    if isinstance(server, Http1Server):
        return server.response is None and bool(server.conn.state & ConnectionState.CAN_WRITE)
    if isinstance(server, Http2Server):
        stream = server.h2_conn.streams.get(stream_id)
        return bool(stream and server.is_open_for_us(stream_id) and not stream.state_machine.headers_sent)
    return not server.h3_conn.has_sent_headers(stream_id)


def _code(event: ResponseProtocolError) -> str:
    if event.code in _CLIENT_ERRORS:
        return "header_forbidden"
    if event.code is ErrorCode.REQUEST_TOO_LARGE:
        return "body_too_large"
    # Only here is the text our own or OpenSSL's; elsewhere it quotes the upstream.
    return upstream_code(event.message) if event.code is ErrorCode.CONNECT_FAILED else "upstream_unreachable"
