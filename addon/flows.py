"""mitmproxy's flow ↔ our values. Nothing is decided here."""

from mitmproxy import http

from addon import hosts
from addon.exchange import heads
from addon.hardening.local import SCHEME
from addon.model import Head, Proof, Request


def read(flow: http.HTTPFlow, *, request_id: str, tunnel_key: Proof | None) -> Request:
    """The request of a flow as the kernel sees it. Tolerates the malformed ones for which mitmproxy calls hooks too."""
    raw, client = flow.request.data, flow.client_conn
    headers = tuple(flow.request.headers.fields)
    authority = raw.authority
    connect = flow.request.method == "CONNECT"
    claimed = tuple(value for name, value in headers if name.lower() == b"host")
    if authority and not connect:
        claimed = (*claimed, authority)
    return Request(
        id=request_id,
        scheme="https" if connect else flow.request.scheme,
        host=hosts.fold(flow.request.host),
        port=flow.request.port,
        # As it will be written: mitmproxy's own property is in upper case.
        method=raw.method.decode("latin-1"),
        target=b"" if connect else raw.path,
        headers=headers,
        authorities=claimed,
        sni=client.sni if client.tls_established else None,
        client_ip=str(client.peername[0]) if client.peername else "",
        tunnel_key=tunnel_key,
        version=flow.request.http_version,
        connection=client.id,
        absolute_scheme=None if connect else flow.metadata.get(SCHEME, "").lower() or None,
    )


def fault(flow: http.HTTPFlow) -> str:
    """
    The code to refuse an HTTP/1.1 head with that is none to the letter, or "".

    mitmproxy takes versions that do not exist, lengths without a limit, and codings that others would not take for
    `chunked`, and sends them on.
    """
    request = flow.request
    if flow.client_conn.alpn == b"h2":
        return ""
    try:
        heads.check_request(
            request.data.method, request.data.path, version=request.data.http_version, headers=request.headers.fields
        )
    except heads.Malformed as problem:
        return problem.code
    return ""


def write(flow: http.HTTPFlow, head: Head, *, authority: str = "") -> None:
    """
    Put a head in place of the flow's own. The target goes out in origin-form (RFC 9112 3.2.1).

    `authority` takes the place of an `:authority` that was sent: one spelling, the one that may have been signed.
    """
    flow.request.headers = http.Headers(list(head.headers))
    flow.request.data.path = head.target
    if not (flow.request.is_http2 or flow.request.is_http3):
        flow.request.data.authority = b""
    elif authority and flow.request.data.authority:
        flow.request.data.authority = authority.encode("ascii")
