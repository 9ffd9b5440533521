"""Heads of HTTP/1.1: what is accepted, and that everything two servers could read in two ways is not."""

import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from addon.exchange import heads
from addon.exchange.heads import Malformed

GOOD = b"GET /a?b=1 HTTP/1.1\r\nHost: api.test\r\nX-Empty:\r\nX-Padded: \t v \t\r\n\r\n"


def request(*lines):
    return b"\r\n".join((b"POST / HTTP/1.1", b"Host: api.test", *lines)) + b"\r\n\r\n"


def response(*lines, status=b"200 OK"):
    return b"\r\n".join((b"HTTP/1.1 " + status, *lines)) + b"\r\n\r\n"


def test_a_head_is_read_in_order_with_only_the_padding_gone():
    head = heads.parse_request(GOOD)
    assert (head.method, head.target, head.minor, head.length, head.persistent) == ("GET", b"/a?b=1", 1, 0, True)
    assert head.headers == ((b"Host", b"api.test"), (b"X-Empty", b""), (b"X-Padded", b"v"))


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/1.1\nHost: a\n\n\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/1.2\r\nHost: a\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"GET / http/1.1\r\nHost: a\r\n\r\n",
        b" GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"G\x00T / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /a\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\tfolded\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\n: empty\r\n\r\n",
        b"GET / HTTP/1.1\r\nX\xe9: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: a\x00b\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 201 + b"\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\n",
    ],
)
def test_a_head_that_is_not_plain_is_refused(raw):
    with pytest.raises(Malformed):
        heads.parse_request(raw)


@pytest.mark.parametrize(
    "lines",
    [
        (b"Content-Length: 3", b"Transfer-Encoding: chunked"),
        (b"Content-Length: 3", b"Content-Length: 3"),
        (b"Content-Length: 3", b"Content-Length: 4"),
        (b"Content-Length: 3, 3",),
        (b"Content-Length: +3",),
        (b"Content-Length: -3",),
        (b"Content-Length: 0x3",),
        (b"Content-Length: 3 ", b"content-length:4"),
        (b"Content-Length:",),
        (b"Content-Length: 9999999999999999999",),
        (b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
        (b"Transfer-Encoding: gzip, chunked",),
        (b"Transfer-Encoding: chunked, identity",),
        (b"Transfer-Encoding: identity",),
        (b"Transfer-Encoding: xchunked",),
        (b"Transfer-Encoding: \x0bchunked",),
        (b"Transfer-Encoding:",),
    ],
)
def test_a_request_body_has_one_framing_or_none(lines):
    with pytest.raises(Malformed):
        heads.parse_request(request(*lines))


def test_http_1_0_has_no_chunks():
    with pytest.raises(Malformed):
        heads.parse_request(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n")


@pytest.mark.parametrize(
    ("lines", "length"),
    [((), 0), ((b"Content-Length: 12",), 12), ((b"Transfer-Encoding: Chunked",), None), ((b"Content-Length: 007",), 7)],
)
def test_the_length_of_a_request_body(lines, length):
    assert heads.parse_request(request(*lines)).length == length


@pytest.mark.parametrize(
    ("method", "status", "lines", "length"),
    [
        ("GET", b"200 OK", (b"Content-Length: 5",), 5),
        ("GET", b"200 OK", (b"Content-Length: 5", b"Content-Length: 5"), 5),
        ("GET", b"200 OK", (b"Transfer-Encoding: chunked",), None),
        ("GET", b"200 OK", (), -1),
        ("GET", b"200", (), -1),
        ("HEAD", b"200 OK", (b"Content-Length: 5",), 0),
        ("GET", b"204 No Content", (b"Content-Length: 5",), 0),
        ("GET", b"304 Not Modified", (b"Transfer-Encoding: chunked",), 0),
        ("GET", b"100 Continue", (), 0),
    ],
)
def test_the_length_of_a_response_body(method, status, lines, length):
    assert heads.parse_response(response(*lines, status=status), method=method).length == length


@pytest.mark.parametrize(
    "raw",
    [
        response(b"Content-Length: 5", b"Content-Length: 6"),
        response(b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        response(b"Transfer-Encoding: gzip"),
        response(b"X: a\r\n folded"),
        response(status=b"099 Low"),
        response(status=b"20 Short"),
        response(status=b"2000 Long"),
        b"HTTP/1.1 200 OK\nX: a\n\n\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"<html>\r\n\r\n",
    ],
)
def test_a_response_that_could_be_split_is_refused(raw):
    with pytest.raises(Malformed):
        heads.parse_response(raw, method="GET")


@pytest.mark.parametrize(
    ("raw", "persistent"),
    [
        (request(b"Connection: close"), False),
        (request(b"Connection: keep-alive, Close"), False),
        (request(b"Connection: keep-alive"), True),
        (b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", False),
    ],
)
def test_when_a_connection_stays(raw, persistent):
    assert heads.parse_request(raw).persistent is persistent


def test_hop_by_hop_headers_end_here_and_so_do_those_that_connection_names():
    fields = (
        (b"Connection", b"close, X-Hop"), (b"X-Hop", b"1"), (b"Keep-Alive", b"5"), (b"TE", b"trailers"),
        (b"Trailer", b"X"), (b"Upgrade", b"h2c"), (b"Transfer-Encoding", b"chunked"), (b"Content-Length", b"4"),
        (b"X-End", b"2"), (b"Host", b"api.test"),
    )  # fmt: skip
    out = heads.write_request("POST", b"/x", fields, length=4)
    assert out == b"POST /x HTTP/1.1\r\nX-End: 2\r\nHost: api.test\r\nContent-Length: 4\r\n\r\n"


def test_a_response_is_framed_by_us():
    head = heads.parse_response(response(b"Transfer-Encoding: chunked", b"X: 1"), method="GET")
    assert heads.write_response(head, head.headers, length=None, close=True) == (
        b"HTTP/1.1 200 OK\r\nX: 1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    )


PIECES = st.sampled_from(
    [b"GET", b" ", b"/", b"HTTP/1.1", b"\r\n", b"\n", b"\r", b":", b"Host", b"a", b"Content-Length", b"1", b",", b"\t",
     b"Transfer-Encoding", b"chunked", b"\0", b"\x80", b"X", b";", b"http://e/", b"*", b"Connection", b"close"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=24).map(b"".join))
@example(b"")
@example(GOOD[:-4])
def test_whatever_is_accepted_llhttp_reads_alike(stem):
    raw = stem + b"\r\n\r\n"
    try:
        head = heads.parse_request(raw)
    except Malformed:
        return
    theirs = []

    class Reader:
        def on_url(self, url):
            theirs.append(url)

        def on_header(self, name, value):
            theirs.append((name, value))

    parser = httptools.HttpRequestParser(Reader())
    if head.target.startswith(b"/"):
        parser.feed_data(raw)
        assert parser.get_method() == head.method.encode()
        assert b"".join(part for part in theirs if isinstance(part, bytes)) == head.target
        pairs = [part for part in theirs if isinstance(part, tuple)]
        assert [(name, value.rstrip(b" \t")) for name, value in pairs] == list(head.headers)
