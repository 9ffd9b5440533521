"""One exchange: the request that goes out, and the response that comes back."""

import gzip

import pytest

from addon.errors import Refusal
from addon.model import Head
from addon.redaction import Screen, ask_plainly

TOKEN = "sk_live_51H8xJ2eZvKYlo2C0aBc"
SECRET = TOKEN.encode()
STARS = b"*" * len(SECRET)


def head(*headers, target=b"/v1/x?a=b"):
    return Head("GET", target, headers)


def test_a_response_is_asked_for_whole_and_uncompressed():
    asked = ask_plainly(
        head((b"Host", b"a.test"), (b"Accept-Encoding", b"gzip"), (b"RANGE", b"bytes=0-1"), (b"if-range", b"x")),
        whole=True,
    )
    assert asked == head((b"Host", b"a.test"), (b"Accept-Encoding", b"identity"))


def test_a_part_may_be_asked_for_where_that_gives_nothing_away():
    asked = ask_plainly(
        head((b"Range", b"bytes=0-1"), (b"accept-encoding", b"br"), (b"accept-encoding", b"x")), whole=False
    )
    assert asked == head((b"Range", b"bytes=0-1"), (b"Accept-Encoding", b"identity"))


def test_everything_of_a_response_is_searched_and_counted():
    screen = Screen([TOKEN])
    headers = ((b"X-" + SECRET, b"1"), (b"Link", b"<https://a.test/" + SECRET + b">"), (b"Via", b"x"))
    shown = screen.open(b"No " + SECRET, headers, bodiless=False)
    assert shown.reason == b"No " + STARS
    assert shown.headers == ((b"X-" + STARS, b"1"), (b"Link", b"<https://a.test/" + STARS + b">"), (b"Via", b"x"))
    assert shown.body.feed(b"[" + SECRET[:5]) == b"["
    assert shown.body.finish(SECRET[5:] + b"]") == STARS + b"]"
    assert screen.redact(((b"X-Trailer", SECRET),)) == ((b"X-Trailer", STARS),)
    assert screen.count == 5


def test_a_response_without_the_secret_is_not_even_copied():
    headers = ((b"Via", b"x"), (b"ETag", b'"1"'))
    screen = Screen([TOKEN])
    shown = screen.open(b"OK", headers, bodiless=False)
    assert (shown.reason, shown.headers, shown.resized, screen.count) == (b"OK", headers, False, 0)


@pytest.mark.parametrize("texts", [(), ("short",)])
def test_where_there_is_nothing_to_look_for_only_cookies_and_alternatives_go(texts):
    headers = ((b"Content-Encoding", b"gzip"), (b"Set-Cookie", b"a=1"), (b"Alt-Svc", b"h3"))
    shown = Screen(texts).open(b"OK", headers, bodiless=False)
    assert (shown.headers, shown.body) == (((b"Content-Encoding", b"gzip"),), None)


@pytest.mark.parametrize(
    ("cookies", "kept"), [(False, ()), (True, ((b"SET-COOKIE", b"a=1"), (b"Set-Cookie2", b"b=2")))]
)
def test_cookies_pass_only_where_they_may_and_alternatives_never(cookies, kept):
    headers = ((b"SET-COOKIE", b"a=1"), (b"alt-svc", b'h3=":443"'), (b"Set-Cookie2", b"b=2"))
    assert Screen([TOKEN], cookies=cookies).open(b"", headers, bodiless=True).headers == kept


def test_a_compressed_body_loses_what_was_said_of_its_bytes():
    said = [b"Content-Encoding", b"Content-Length", b"Content-MD5", b"Content-Digest", b"Digest", b"Repr-Digest"]
    headers = tuple((name, b"gzip" if name == b"Content-Encoding" else b"1") for name in said)
    shown = Screen([TOKEN]).open(b"OK", (*headers, (b"ETag", b"1")), bodiless=False)
    assert (shown.headers, shown.resized) == (((b"ETag", b"1"),), True)
    assert shown.body.finish(gzip.compress(SECRET)) == STARS


@pytest.mark.parametrize("value", [b"identity", b"", b" Identity , "])
def test_what_is_called_identity_is_not_compressed(value):
    shown = Screen([TOKEN]).open(b"OK", ((b"Content-Encoding", value),), bodiless=False)
    assert not shown.resized
    assert shown.body.finish(SECRET) == STARS


@pytest.mark.parametrize(
    "headers",
    [
        ((b"Content-Encoding", b"gzip, br"),),
        ((b"Content-Encoding", b"gzip"), (b"content-encoding", b"gzip")),
        ((b"Content-Encoding", b"exi"),),
        ((b"Transfer-Encoding", b"gzip, chunked"),),
        ((b"Transfer-Encoding", b"chunked"), (b"Content-Encoding", b"gzip"), (b"Transfer-Encoding", b"deflate")),
    ],
)
def test_what_cannot_be_searched_is_refused(headers):
    with pytest.raises(Refusal, match="response_undecodable"):
        Screen([TOKEN]).open(b"OK", headers, bodiless=False)


def test_a_response_without_a_body_may_say_what_it_likes():
    headers = ((b"Content-Encoding", b"gzip, br"), (b"Content-Length", b"9"))
    shown = Screen([TOKEN]).open(b"OK", headers, bodiless=True)
    assert (shown.headers, shown.body, shown.resized) == (headers, None, False)


def test_a_compressed_body_passes_where_the_secret_is_never_sent():
    headers = ((b"Content-Encoding", b"aws-chunked, gzip"),)
    shown = Screen([TOKEN], decodes=False).open(SECRET, headers, bodiless=False)
    assert (shown.reason, shown.headers, shown.body) == (STARS, headers, None)


@pytest.mark.parametrize(
    "request_head",
    [
        head((b"Cookie", b"a=" + SECRET)),
        head((SECRET, b"1")),
        head(target=b"/v1/" + SECRET),
        head(target=b"/v1/?k=" + SECRET.hex().encode()),
        head((b"Authorization", b"Basic c2tfbGl2ZV81MUg4eEoyZVp2S1lsbzJDMGFCYzo=")),
    ],
)
def test_a_request_that_holds_the_secret_is_known(request_head):
    assert Screen([TOKEN]).knows(request_head)


def test_other_requests_are_not_known():
    assert not Screen([TOKEN]).knows(head((b"Cookie", SECRET[:-1]), (b"X", SECRET[-1:])))
    assert not Screen([]).knows(head((b"Cookie", b"a=1")))


@pytest.mark.parametrize("end", [1, 20, -1])
def test_a_compressed_body_that_is_cut_short_is_refused_at_its_end(end):
    shown = Screen([TOKEN]).open(b"OK", ((b"Content-Encoding", b"gzip"),), bodiless=False)
    with pytest.raises(Refusal, match="response_undecodable"):
        shown.body.finish(gzip.compress(SECRET)[:end])
