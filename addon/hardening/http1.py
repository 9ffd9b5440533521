"""HTTP/1 on the wire: trailers (P3), interim responses (P4), framing (P5) and the size of a head (P6)."""

import re
from collections.abc import Callable, Generator
from typing import Any

import h11
from h11._readers import ChunkedReader
from h11._receivebuffer import ReceiveBuffer
from mitmproxy.net.http import http1
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layers.http import _http1
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    RequestHeaders,
    RequestTrailers,
    ResponseProtocolError,
    ResponseTrailers,
)
from mitmproxy.proxy.layers.http._http1 import Http1Client, Http1Server

from addon.hardening import target
from addon.hardening.local import to_response
from addon.hardening.unjudged import AlterUnjudgedHook, Unjudged

Commands = Generator[commands.Command, Any, None]
Handler = Callable[[Any, Any], Commands]

MAX_HEAD = 64 * 1024
"""Bytes of a head, of a chunk's size line, or of trailers."""

_HEAD_END = re.compile(rb"\n\r?\n")
_UNREADABLE = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
"""Stands for the answer to a head that cannot be read, until there is one."""
_INTERIM = re.compile(rb"HTTP/\d\.\d\s+1(?!01)\d\d\b")


def drop_trailers() -> None:
    """
    P3: HTTP/1 trailers of requests and responses are read and dropped (RFC 9110 6.5.1 allows it).

    Plain mitmproxy raises NotImplementedError, after which the client hangs (mitmproxy issue 2474). It also collects a
    chunk's size line or trailers without end.
    """

    def make(original: Callable[[int | None], Any]) -> Callable[[int | None], Any]:
        def make_body_reader(expected_size: int | None) -> Any:
            return _ChunkedReader() if expected_size is None else original(expected_size)

        return make_body_reader

    target.replace(_http1, "make_body_reader", make=make)


class _ChunkedReader(ChunkedReader):
    def __call__(self, buf: ReceiveBuffer) -> h11.Data | h11.EndOfMessage | None:
        event = super().__call__(buf)
        if event is None and len(buf) > MAX_HEAD:
            raise h11.RemoteProtocolError("a line without end")
        return h11.EndOfMessage() if isinstance(event, h11.EndOfMessage) else event


def skip_interim_responses() -> None:
    """
    P4: responses 1xx other than 101 are skipped, and the head of a response is limited like that of a request (P6).

    Plain mitmproxy takes `103 Early Hints` for the final response; the real one is lost and the client hangs
    (mitmproxy issue 2229). It does swallow them in HTTP/2.
    """

    def make(original: Handler) -> Handler:
        def read_headers(client: Http1Client, event: events.ConnectionEvent) -> Commands:
            if isinstance(event, events.DataReceived) and client.request:
                while _INTERIM.match(bytes(client.buf)):
                    if not client.buf.maybe_extract_lines():
                        break
                if _endless(client.buf):
                    return _unreadable(client)
                if not client.buf:
                    return _nothing()
            return original(client, event)

        return read_headers

    target.replace(Http1Client, "read_headers", make=make)


def _unreadable(client: Http1Client) -> Commands:
    yield commands.CloseConnection(client.conn)
    message = "response head too large"
    yield ReceiveHttp(ResponseProtocolError(client.stream_id or 0, message, ErrorCode.GENERIC_SERVER_ERROR))


def frame_requests() -> None:
    """
    P5: a request body without framing gets it: Content-Length where the body is here, else chunked. No trailers.

    A request that came by HTTP/2 or 3 needs no Content-Length. Plain mitmproxy sends its body to an HTTP/1 upstream
    bare, which there is the next request: request smuggling past every policy. Trailers crash it.
    """

    def make(original: Handler) -> Handler:
        def send(client: Http1Client, event: Any) -> Commands:
            if isinstance(event, RequestTrailers):
                return _nothing()
            if isinstance(event, RequestHeaders) and not event.end_stream:
                request = event.request
                if "content-length" not in request.headers and "transfer-encoding" not in request.headers:
                    event.request = request = request.copy()  # the flow keeps what the client sent
                    if request.raw_content is None:
                        request.headers["Transfer-Encoding"] = "chunked"
                    else:
                        request.headers["Content-Length"] = str(len(request.raw_content))
            return original(client, event)

        return send

    target.replace(Http1Client, "send", make=make)


def drop_response_trailers() -> None:
    """P5: trailers of an HTTP/2 upstream (gRPC) are dropped for an HTTP/1 client. Plain mitmproxy crashes."""

    def make(original: Handler) -> Handler:
        def send(server: Http1Server, event: Any) -> Commands:
            return _nothing() if isinstance(event, ResponseTrailers) else original(server, event)

        return send

    target.replace(Http1Server, "send", make=make)


def limit_heads() -> None:
    """
    P6: a request head that has not ended after 64 KiB is answered with 431, and the connection closed.

    Plain mitmproxy collects it without end ("FIXME: protect against header size DoS").

    P7: what cannot be read is refused without an echo, and on record. Plain mitmproxy quotes the offending line.
    """

    def make(original: Handler) -> Handler:
        def read_headers(server: Http1Server, event: events.ConnectionEvent) -> Commands:
            if isinstance(event, events.DataReceived) and _endless(server.buf):
                return _refuse(server, "header_too_large")
            return _understand(server, original(server, event))

        return read_headers

    target.replace(_http1, "make_error_response", make=lambda _original: lambda _status, _message="": _UNREADABLE)
    target.replace(Http1Server, "read_headers", make=make)


def _understand(server: Http1Server, reading: Commands) -> Commands:
    for command in reading:
        if isinstance(command, commands.SendData) and command.data == _UNREADABLE:
            yield from _refuse(server, "header_forbidden")
            return
        yield command


def _refuse(server: Http1Server, code: str) -> Commands:
    server.state = server.done
    refusal = Unjudged(server.context.client, server.context.server.address or ("", 0), code)
    yield AlterUnjudgedHook(refusal)
    response = to_response(refusal.answer, None)
    response.headers["Connection"] = "close"
    yield commands.SendData(server.conn, http1.assemble_response(response))
    yield commands.CloseConnection(server.conn)


def _endless(buf: ReceiveBuffer) -> bool:
    return len(buf) > MAX_HEAD and not _HEAD_END.search(bytes(buf), 0, MAX_HEAD)


def _nothing() -> Commands:
    yield from ()
