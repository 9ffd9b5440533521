"""Is a request really for the host its tunnel leads to, and could anything in it mean another one?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addon.binding import Binding
from addon.destination import check_authorities, check_destination, check_hygiene
from addon.errors import Refusal
from addon.model import Request

BOUND = Binding(
    hosts=(("api.test", 443), ("api.test", 8443), ("*.wild.test", 443)), methods=("GET", "POST"), paths=("/v1",)
)


def request(**changes):
    host = changes.get("host", "api.test")
    fields = {
        "id": "r", "scheme": "https", "host": host, "port": 443, "method": "GET", "target": b"/v1/things?a=b",
        "headers": (), "authorities": (host.encode(),), "sni": host, "client_ip": "127.0.0.1",
    }  # fmt: skip
    return Request(**(fields | changes))


def code(check, *args):
    try:
        check(*args)
    except Refusal as refused:
        return refused.code
    return None


def verdict(**changes):
    return code(check_destination, request(**changes), BOUND)


ACCEPTED = {
    "plainly for the bound host": {},
    "another bound port": {"port": 8443, "authorities": (b"api.test:8443",)},
    "one label under a wildcard": {"host": "a.wild.test"},
    "the port said again": {"authorities": (b"api.test:443",)},
    "another case, and the root dot": {"authorities": (b"API.test.",), "sni": "Api.Test"},
    "no SNI": {"sni": None},
    "Host and :authority that agree": {"authorities": (b"api.test", b"api.test:443")},
    "an absolute form that agrees": {"absolute_scheme": "https", "authorities": (b"api.test", b"api.test")},
    "the prefix itself": {"target": b"/v1"},
    "anything in the query": {"target": b"/v1/?../..;//%2f%00"},
    "another bound method": {"method": "POST"},
}


@pytest.mark.parametrize("changes", ACCEPTED.values(), ids=ACCEPTED)
def test_a_request_for_the_bound_host_is_accepted(changes):
    assert verdict(**changes) is None


REFUSED = {
    "plain http": ({"scheme": "http", "port": 80}, "cleartext_upstream"),
    "plain http on the bound port": ({"scheme": "http"}, "cleartext_upstream"),
    "no scheme": ({"scheme": ""}, "cleartext_upstream"),
    "an absolute form with http": ({"absolute_scheme": "http"}, "cleartext_upstream"),
    "another host": ({"host": "evil.test"}, "destination_not_bound"),
    "a host that ends like it": ({"host": "evilapi.test"}, "destination_not_bound"),
    "a host that begins like it": ({"host": "api.test.evil.test"}, "destination_not_bound"),
    "two labels under a wildcard": ({"host": "a.b.wild.test"}, "destination_not_bound"),
    "no label under a wildcard": ({"host": "wild.test"}, "destination_not_bound"),
    "another port": ({"port": 444}, "destination_not_bound"),
    "the wildcard on the other's port": ({"host": "a.wild.test", "port": 8443}, "destination_not_bound"),
    "fronting: Host is ours, the tunnel is not": (
        {"host": "evil.test", "authorities": (b"api.test",)},
        "authority_mismatch",
    ),
    "reverse fronting": ({"authorities": (b"evil.test",)}, "authority_mismatch"),
    "an address as the tunnel": (
        {"host": "127.0.0.1", "authorities": (b"api.test",), "sni": "api.test"},
        "authority_mismatch",
    ),
    "an address everywhere": ({"host": "127.0.0.1", "sni": None}, "authority_mismatch"),
    "SNI of another": ({"sni": "evil.test"}, "authority_mismatch"),
    "an empty SNI": ({"sni": ""}, "authority_mismatch"),
    "an SNI with a line break": ({"sni": "api.test\n"}, "authority_mismatch"),
    "no Host": ({"authorities": ()}, "authority_mismatch"),
    "an empty Host": ({"authorities": (b"",)}, "authority_mismatch"),
    "another port in Host": ({"authorities": (b"api.test:8443",)}, "authority_mismatch"),
    "an empty port in Host": ({"authorities": (b"api.test:",)}, "authority_mismatch"),
    "two hosts in Host": ({"authorities": (b"api.test, evil.test",)}, "authority_mismatch"),
    "Host twice": (
        {"authorities": (b"api.test", b"api.test"), "headers": ((b"Host", b"api.test"), (b"host", b"api.test"))},
        "authority_mismatch",
    ),
    "userinfo in Host": ({"authorities": (b"user@api.test",)}, "authority_mismatch"),
    "brackets in Host": ({"authorities": (b"[api.test]",)}, "authority_mismatch"),
    "a fragment in Host": ({"authorities": (b"api.test#@evil.test",)}, "authority_mismatch"),
    "a path in Host": ({"authorities": (b"api.test/",)}, "authority_mismatch"),
    "a blank in Host": ({"authorities": (b" api.test",)}, "authority_mismatch"),
    "a homoglyph in Host": ({"authorities": ("\u0430pi.test".encode(),)}, "authority_mismatch"),
    "an absolute form to another": ({"authorities": (b"api.test", b"evil.test")}, "authority_mismatch"),
    "a method that is not bound": ({"method": "DELETE"}, "method_not_bound"),
    "TRACE": ({"method": "TRACE"}, "method_not_bound"),
    "a method in lower case": ({"method": "get"}, "method_not_bound"),
    "no method": ({"method": ""}, "method_not_bound"),
    "another path": ({"target": b"/v2"}, "path_not_bound"),
    "a path that begins like it": ({"target": b"/v10"}, "path_not_bound"),
    "a path that climbs out": ({"target": b"/v1/../v2"}, "path_not_bound"),
    "an asterisk": ({"target": b"*"}, "path_not_bound"),
    "nothing": ({"target": b""}, "path_not_bound"),
    "an absolute form as target": ({"target": b"https://api.test/v1"}, "path_not_bound"),
    "a blank in the target": ({"target": b"/v1 HTTP/1.1"}, "path_not_bound"),
    "a line break in the target": ({"target": b"/v1\r\n"}, "path_not_bound"),
    "a line break in the query": ({"target": b"/v1?\n"}, "path_not_bound"),
    "NUL in the query": ({"target": b"/v1?\0"}, "path_not_bound"),
}


@pytest.mark.parametrize(("changes", "expected"), REFUSED.values(), ids=REFUSED)
def test_any_other_request_is_refused(changes, expected):
    assert verdict(**changes) == expected


@pytest.mark.parametrize("changes", [{}, {"scheme": "http", "port": 80}, {"host": "evil.test"}])
def test_names_are_checked_alike_where_nothing_is_bound(changes):
    assert code(check_authorities, request(**changes)) is None
    assert code(check_authorities, request(**changes, authorities=(b"other.test",))) == "authority_mismatch"


FORBIDDEN = [
    (b"X-HTTP-Method-Override", b"TRACE"),
    (b"x-http-method", b"DELETE"),
    (b"X-Method-Override", b"DELETE"),
    (b"X_HTTP_Method_Override", b"DELETE"),
    (b"X-Original-URL", b"/admin"),
    (b"X_Rewrite_URL", b"/admin"),
    (b"Upgrade", b"h2c"),
    (b"Upgrade", b"websocket, h2c"),
    (b"upgrade", b""),
    (b"Trailer", b"X-Alter-Grant"),
    (b"TE", b"gzip"),
    (b"TE", b"trailers, deflate"),
    (b"Connection", b"Authorization"),
    (b"Connection", b"close, X-Alter-Grant"),
    (b"Connection", b"keep-alive, Upgrade"),
    (b"connection", b"upgrade"),
]
HARMLESS = [
    (b"TE", b" Trailers "),
    (b"Connection", b"close"),
    (b"Connection", b"Keep-Alive, CLOSE"),
    (b"Connection", b""),
    (b"Max-Forwards", b"0"),
    (b"Expect", b"100-continue"),
    (b"X-Forwarded-For", b"1.2.3.4"),
]


@pytest.mark.parametrize("header", FORBIDDEN, ids=repr)
def test_headers_that_change_what_the_upstream_acts_on_are_forbidden(header):
    assert code(check_hygiene, request(headers=((b"Host", b"api.test"), header))) == "header_forbidden"


HANDSHAKE = (
    (b"Host", b"api.test"), (b"Upgrade", b"websocket"), (b"Connection", b"keep-alive, Upgrade"),
    (b"Sec-WebSocket-Version", b"13"), (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="),
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "websocket", "expected"),
    [
        ({}, True, None),
        ({}, False, "websocket_not_bound"),
        ({"headers": (*HANDSHAKE, (b"Connection", b"Authorization"))}, True, "header_forbidden"),
        ({"headers": (*HANDSHAKE, (b"Connection", b"close"))}, True, "header_forbidden"),
        ({"headers": (*HANDSHAKE, (b"X-HTTP-Method", b"PUT"))}, True, "header_forbidden"),
        ({"headers": (*HANDSHAKE, (b"Upgrade", b"h2c"))}, True, "header_forbidden"),
        ({"headers": HANDSHAKE[:4]}, True, "websocket_malformed"),
        ({"version": "HTTP/1.0"}, True, "websocket_malformed"),
        ({"version": "HTTP/2.0"}, True, "websocket_malformed"),
    ],
)
def test_a_websocket_is_asked_for_only_where_that_is_bound_and_only_to_the_letter(changes, websocket, expected):
    asked = request(**({"method": "GET", "headers": HANDSHAKE} | changes))
    assert code(lambda: check_hygiene(asked, websocket=websocket)) == expected


@pytest.mark.parametrize("header", HARMLESS, ids=repr)
def test_ordinary_headers_are_not(header):
    assert code(check_hygiene, request(headers=(header,))) is None


NAME = st.sampled_from(["api.test", "evil.test", "a.wild.test", "wild.test", "127.0.0.1"])
AUTHORITY = st.builds(
    lambda name, end: name.encode() + end, NAME, st.sampled_from([b"", b":443", b":8443", b".", b":", b"#"])
)


@given(
    host=NAME,
    port=st.sampled_from([443, 8443, 80]),
    scheme=st.sampled_from(["https", "http"]),
    authorities=st.lists(AUTHORITY, max_size=3).map(tuple),
    sni=st.none() | NAME,
    method=st.sampled_from(["GET", "POST", "TRACE"]),
    target=st.sampled_from([b"/v1", b"/v1/a", b"/v2", b"/v1/../v2"]),
)
def test_a_yes_means_that_every_name_is_the_bound_host(host, port, scheme, authorities, sni, method, target):
    answer = verdict(
        host=host, port=port, scheme=scheme, authorities=authorities, sni=sni, method=method, target=target
    )
    if answer is None:
        assert scheme == "https"
        assert (host, port) in {("api.test", 443), ("api.test", 8443), ("a.wild.test", 443)}
        assert sni in {None, host}
        assert authorities
        assert {a.decode().removesuffix(f":{port}").removesuffix(".") for a in authorities} == {host}
        assert method != "TRACE"
        assert target in {b"/v1", b"/v1/a"}
