"""
Is a request really for the host its tunnel leads to, and is the secret bound to it?

The destination is the authority of the CONNECT (or of the absolute form): where the bytes go. Host, `:authority`, SNI and
an absolute form must all agree with it, because servers behind one address choose the tenant by any of them.
"""

import re

from addon import hosts
from addon.binding import Binding
from addon.errors import Refusal
from addon.model import Request
from addon.policies.paths import covers
from addon.websocket import handshake

_FORBIDDEN = frozenset(
    {
        b"x-http-method-override", b"x-http-method", b"x-method-override",  # stand in for the method,
        b"x-original-url", b"x-rewrite-url",  # and these for the path
        b"upgrade", b"trailer",
    }
)  # fmt: skip
_CONNECTION_OPTIONS = frozenset({b"close", b"keep-alive"})


def check_hygiene(request: Request, *, websocket: bool = False) -> None:
    """
    Raises Refusal `header_forbidden` for headers that could change, after our check, what the upstream acts on.

    `websocket`: a WebSocket may be asked for. Otherwise that is `websocket_not_bound`; and `websocket_malformed` if it is
    not asked for as it must be.
    """
    forbidden, allowed = _FORBIDDEN, _CONNECTION_OPTIONS
    if handshake.asks(request.headers):
        if not websocket:
            raise Refusal("websocket_not_bound")
        handshake.check(request)
        forbidden, allowed = forbidden - {b"upgrade"}, frozenset({b"upgrade", b"keep-alive"})
    for name, value in request.headers:
        lower = name.lower().replace(b"_", b"-")
        if lower in forbidden:
            raise Refusal("header_forbidden")
        if lower == b"connection":
            options = {option.strip().lower() for option in value.split(b",")}
            if options - allowed - {b""}:
                raise Refusal("header_forbidden")
        if lower == b"te" and value.strip().lower() != b"trailers":
            raise Refusal("header_forbidden")


def check_shape(request: Request) -> None:
    """Raises Refusal `header_forbidden` for what is no request of HTTP/1.1: the HTTP/2 preface, or a missing Host."""
    if request.method == "PRI" or not request.authorities:
        raise Refusal("header_forbidden")


def check_destination(request: Request, binding: Binding) -> None:
    """
    Raises Refusal: `cleartext_upstream`, `authority_mismatch`, `destination_not_bound`, `method_not_bound` or
    `path_not_bound`.
    """
    if request.scheme != "https" or request.absolute_scheme not in {None, "https"}:
        raise Refusal("cleartext_upstream")
    check_authorities(request)
    if not binding.covers(request.host, request.port):
        raise Refusal("destination_not_bound")
    if request.method not in binding.methods:
        raise Refusal("method_not_bound")
    if not re.fullmatch(rb"/[\x21-\x7e\x80-\xff]*", request.target) or not covers(binding.paths, request.path):
        raise Refusal("path_not_bound")


def check_authorities(request: Request) -> None:
    """Raises Refusal `authority_mismatch` unless every name in the request is the destination's."""
    if not request.authorities or len(request.values(b"host")) > 1:
        raise Refusal("authority_mismatch")
    for authority in request.authorities:
        try:
            name, port = hosts.split_authority(authority)
            same = hosts.normalize(name) == request.host and port in {None, request.port}
        except hosts.NotAName:
            same = False
        if not same:
            raise Refusal("authority_mismatch")
    if request.sni is not None:
        try:
            same = hosts.normalize(request.sni) == request.host
        except hosts.NotAName:
            same = False
        if not same:
            raise Refusal("authority_mismatch")
