"""
What two servers could read in two ways is read here in none: the upstream sees exactly the requests that were judged.

`{tag}` is the header that asks for the grant, `{hidden}` a whole tagged request that must never be seen as one.
"""

import re
import time

import pytest

from tests.e2e.stage import VALUES

HOST = "api.stripe.test"
BEARER = f"Bearer {VALUES['bearer']['token']}"
HIDDEN = f"GET /echo/hidden HTTP/1.1\r\nHost: {HOST}\r\nX-Alter-Grant: 0123456789abcdef\r\n\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n"


def post(headers, body="", *, line="POST /echo HTTP/1.1"):
    return f"{line}\r\nHost: {HOST}\r\n{{tag}}{headers}\r\n{body}"


def get(headers="", *, line="GET /echo HTTP/1.1"):
    return post(headers, line=line)


ACCEPTED = {
    "sized": (post("Content-Length: 5\r\n", "hello"), b"hello"),
    "blanks around the length": (post("Content-Length: \t 5 \t\r\n", "hello"), b"hello"),
    "lower case": (post("content-length:5\r\n", "hello"), b"hello"),
    "chunked": (post(CHUNKED, "5\r\nhello\r\n0\r\n\r\n"), b"hello"),
    "chunked in capitals": (post("TRANSFER-ENCODING: Chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"), b"hello"),
    "a chunk extension": (post(CHUNKED, '5;a="b c"\r\nhello\r\n0;x=y\r\n\r\n'), b"hello"),
    "leading zeros of a chunk": (post(CHUNKED, "000005\r\nhello\r\n000\r\n\r\n"), b"hello"),
    "hexadecimal in both cases": (post(CHUNKED, "a\r\n0123456789\r\nB\r\n0123456789a\r\n0\r\n\r\n"), None),
    "chunks that hold a request": (post(CHUNKED, f"{len(HIDDEN):x}\r\n{HIDDEN}\r\n0\r\n\r\n"), HIDDEN.encode()),
    "a body that is a request": (post(f"Content-Length: {len(HIDDEN)}\r\n", HIDDEN), HIDDEN.encode()),
    "a trailer that looks like framing": (post(CHUNKED, "5\r\nhello\r\n0\r\nContent-Length: 99\r\n\r\n"), b"hello"),
}

REFUSED_HEADS = {
    "length and chunked": post("Content-Length: 5\r\n" + CHUNKED, "0\r\n\r\n{hidden}"),
    "chunked and length": post(CHUNKED + "Content-Length: 5\r\n", "0\r\n\r\n{hidden}"),
    "two lengths": post("Content-Length: 5\r\nContent-Length: 6\r\n", "hello{hidden}"),
    "two equal lengths": post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"),
    "a list of lengths": post("Content-Length: 5, 5\r\n", "hello"),
    "a negative length": post("Content-Length: -5\r\n", "hello"),
    "a length with a sign": post("Content-Length: +5\r\n", "hello"),
    "a hexadecimal length": post("Content-Length: 0x5\r\n", "hello"),
    "a length with a blank": post("Content-Length: 1 0\r\n", "hello"),
    "an empty length": post("Content-Length:\r\n", "{hidden}"),
    "a length with an underscore": post("Content-Length: 1_0\r\n", "0123456789"),
    "a length beyond 64 bits": post("Content-Length: 18446744073709551621\r\n", "hello{hidden}"),
    "a length in other digits": post("Content-Length: \xb2\r\n", "hello"),
    "a fraction": post("Content-Length: 5.0\r\n", "hello"),
    "xchunked": post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n{hidden}"),
    "chunked twice": post("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n{hidden}"),
    "chunked and identity": post("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n{hidden}"),
    "identity": post("Transfer-Encoding: identity\r\nContent-Length: 5\r\n", "hello"),
    "gzip, chunked": post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n{hidden}"),
    "two encodings": post(CHUNKED + "Transfer-Encoding: identity\r\n", "0\r\n\r\n{hidden}"),
    "two chunked": post(CHUNKED + CHUNKED, "0\r\n\r\n{hidden}"),
    "a vertical tab": post("Transfer-Encoding: \x0bchunked\r\n", "0\r\n\r\n{hidden}"),
    "chunked in quotes": post('Transfer-Encoding: "chunked"\r\n', "0\r\n\r\n{hidden}"),
    "an empty encoding": post("Transfer-Encoding:\r\nContent-Length: 5\r\n", "hello"),
    "chunked in HTTP/1.0": post(CHUNKED, "0\r\n\r\n{hidden}", line="POST /echo HTTP/1.0"),
    "a blank before the colon": post("Content-Length : 5\r\n", "hello"),
    "a tab before the colon": get("X-Other\t: a\r\n"),
    "a tag with a blank before the colon": get().replace("{tag}", "X-Alter-Grant : {id}\r\n"),
    "a folded length": post("X-Other: a\r\n Content-Length: 5\r\n", "hello"),
    "a folded tag": get().replace("{tag}", "X-Other: a\r\n X-Alter-Grant: {id}\r\n"),
    "a tag folded away": get().replace("{tag}", "X-Alter-Grant:\r\n {id}\r\n"),
    "a fold in front of all": f"GET /echo HTTP/1.1\r\n Host: {HOST}\r\n{{tag}}\r\n",
    "a bare CR in a value": get("X-Other: a\rX-Alter-Grant: {id}\r\n"),
    "a bare CR in a name": get("X-Other\r: a\r\n"),
    "NUL in a value": get("X-Other: a\0b\r\n"),
    "NUL in a name": get("X-Ot\0her: a\r\n"),
    "a blank in a name": get("X Other: a\r\n"),
    "an empty name": get(": a\r\n"),
    "no colon": get("X-Other\r\n"),
    "a name in UTF-8": get("X-\xc3\xa9: a\r\n"),
    "no Host": "GET /echo HTTP/1.1\r\n{tag}\r\n",
    "three words after the method": get(line="GET /echo /x HTTP/1.1"),
    "two blanks": get(line="GET  /echo HTTP/1.1"),
    "a tab in the request line": get(line="GET\t/echo HTTP/1.1"),
    "no version": get(line="GET /echo"),
    "version 2": get(line="GET /echo HTTP/2.0"),
    "version 1.2": get(line="GET /echo HTTP/1.2"),
    "version in lower case": get(line="GET /echo http/1.1"),
    "version 1.1.1": get(line="GET /echo HTTP/1.1.1"),
    "an odd method": get(line="G(T /echo HTTP/1.1"),
    "an empty method": get(line=" /echo HTTP/1.1"),
    "the preface of HTTP/2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{hidden}",
    "the preface with a tag": f"PRI * HTTP/1.1\r\nHost: {HOST}\r\n{{tag}}\r\nSM\r\n\r\n",
    "a head over 64 KiB": get("X-Filler: " + "x" * 66_000 + "\r\n"),
    "a target over 64 KiB": get(line="GET /echo?" + "x" * 66_000 + " HTTP/1.1"),
    "a head without end": get("X-Filler: " + "x" * 70_000)[:-4],
}
"""Refused before a byte is sent upstream."""

REFUSED_BODIES = {
    "a negative chunk": "-1\r\nhello\r\n0\r\n\r\n{hidden}",
    "a chunk with a sign": "+5\r\nhello\r\n0\r\n\r\n{hidden}",
    "a chunk with 0x": "0x5\r\nhello\r\n0\r\n\r\n{hidden}",
    "a blank before the size": " 5\r\nhello\r\n0\r\n\r\n{hidden}",
    "an empty size": "\r\nhello\r\n0\r\n\r\n{hidden}",
    "no size": "zz\r\nhello\r\n0\r\n\r\n{hidden}",
    "a size beyond 64 bits": "10000000000000005\r\nhello\r\n0\r\n\r\n{hidden}",
    "a size with an underscore": "0_5\r\nhello\r\n0\r\n\r\n{hidden}",
    "no line break after a chunk": "5\r\nhello0\r\n\r\n{hidden}",
    "a chunk longer than it says": "5\r\nhello!\r\n0\r\n\r\n{hidden}",
    "a bare LF after the size": "5\nhello\r\n0\r\n\r\n{hidden}",
    "a bare LF after the chunk": "5\r\nhello\n0\r\n\r\n{hidden}",
    "a bare CR after the size": "5\rhello\r\n0\r\n\r\n{hidden}",
    "a bare CR in an extension": "5;a\rb\r\nhello\r\n0\r\n\r\n{hidden}",
    "a bare LF in an extension": "5;a\nb\r\nhello\r\n0\r\n\r\n{hidden}",
    "NUL in an extension": "5;a\0b\r\nhello\r\n0\r\n\r\n{hidden}",
    "an extension without end": "5;" + "x" * 70_000,
    "trailers without end": "5\r\nhello\r\n0\r\n" + "X-Filler: 0123456789\r\n" * 4000,
    "a trailer that is none": "5\r\nhello\r\n0\r\nGET /echo/hidden HTTP/1.1\r\n\r\n{hidden}",
    "a bare LF at the end": "5\r\nhello\r\n0\r\n\n{hidden}",
}
"""Refused as soon as it shows; the upstream may have begun to receive the body and must never see its end."""


REWRITTEN = {
    "a vertical tab", "two blanks", "a tab in the request line",
    "a bare CR in an extension", "NUL in an extension", "a bare LF at the end",
}  # fmt: skip
"""mitmproxy reads these and writes them anew, without what was odd; the flat path refuses them."""


@pytest.fixture
def talk(stage):
    """`talk(raw)`: everything that comes back, and whether the proxy then hangs up."""

    def talk(raw, *, patience=0.15):
        grant = stage.grants["bearer"]
        text = raw.replace("{hidden}", HIDDEN).replace("{tag}", f"X-Alter-Grant: {grant}\r\n").replace("{id}", grant)
        with stage.wire() as wire:
            wire.tunnel(HOST).send(text.encode("latin-1"))
            back = wire.rest(within=patience)
        return [int(code) for code in re.findall(rb"HTTP/1\.1 (\d{3}) ", back)], back

    return talk


def check(upstream, *, judged):
    """Nobody upstream was asked for what was hidden, saw a tag or anything odd, or saw more than was judged."""
    for seen in upstream.seen():
        assert re.fullmatch(rb"(GET|POST) /\S* HTTP/1\.[01]\r\n([\w-]+: ?[!-~]*[ -~]*\r\n)*\r\n", seen.raw)
        assert seen.target != b"/echo/hidden"
        assert b"x-alter" not in seen.raw.lower()
        assert seen.values("authorization") in ([BEARER], [])
    assert len(upstream.seen()) <= judged


@pytest.mark.parametrize("case", ACCEPTED)
def test_is_accepted_once(talk, upstream, stage, case):
    raw, body = ACCEPTED[case]
    codes, back = talk(raw + get(line="GET /echo/next HTTP/1.1").replace("{tag}", ""))
    assert codes == [200, 200], back
    first, second = upstream.seen()
    assert (first.values("authorization"), second.values("authorization")) == ([BEARER], [])
    assert second.target == b"/echo/next"
    assert (first.complete, first.body) == (True, body or first.body)
    assert not first.trailers


@pytest.mark.parametrize("case", REFUSED_HEADS)
def test_is_refused_before_anything_is_sent(stage, talk, upstream, case):
    codes, back = talk(REFUSED_HEADS[case])
    if stage.engine == "stock" and case in REWRITTEN:
        return check(upstream, judged=codes.count(200))
    assert set(codes) <= {400, 403, 431}, back
    check(upstream, judged=0)
    assert upstream.untouched(after=0)
    return None


@pytest.mark.parametrize("case", REFUSED_BODIES)
def test_a_body_that_breaks_the_rules_never_arrives_whole(stage, talk, upstream, case):
    codes, back = talk(post(CHUNKED, REFUSED_BODIES[case]))
    if stage.engine == "stock" and case in REWRITTEN:
        return check(upstream, judged=codes.count(200))
    assert set(codes) <= {400, 502}, back
    assert len(codes) <= 1, "what follows a broken body is not read as a request"
    check(upstream, judged=1)
    assert not [seen for seen in upstream.seen() if seen.complete]
    return None


@pytest.mark.parametrize("case", REFUSED_BODIES)
def test_nor_when_it_comes_after_a_good_piece(stage, upstream, case):
    grant = stage.grants["bearer"]
    with stage.wire() as wire:
        wire.tunnel(HOST).send(post(CHUNKED, "3\r\nabc\r\n").replace("{tag}", f"X-Alter-Grant: {grant}\r\n"))
        upstream.wait()
        wire.send(REFUSED_BODIES[case].replace("{hidden}", HIDDEN).replace("{tag}", f"X-Alter-Grant: {grant}\r\n"))
        back = wire.rest(within=0.15)
    codes = [int(code) for code in re.findall(rb"HTTP/1\.1 (\d{3}) ", back)]
    if stage.engine == "stock" and case in REWRITTEN:
        return check(upstream, judged=codes.count(200))
    assert set(codes) <= {400, 502}, back
    assert len(codes) <= 1
    check(upstream, judged=1)
    assert not [seen for seen in upstream.seen() if seen.complete]
    return None


def test_line_ends_without_cr(talk, upstream):
    """mitmproxy takes them for line ends and writes them anew; the flat path waits for an end that never comes."""
    codes, _ = talk(get().replace("{tag}", "X-Alter-Grant: {id}\r\n").replace("\r\n", "\n"))
    assert len(upstream.seen()) == codes.count(200)
    check(upstream, judged=1)


def test_a_bare_lf_hides_no_header(talk, upstream):
    """Whoever takes the LF for a line end judges the header; whoever does not refuses it."""
    talk(get("X-Other: a\nConnection: close\r\n"))
    talk(get("X-Other: a\nX-Alter-Grant: {id}\r\n"))
    check(upstream, judged=1)


def test_empty_lines_before_a_request(talk, upstream):
    codes, _ = talk("\r\n" + get())
    assert len(upstream.seen()) == codes.count(200)
    check(upstream, judged=1)


def test_a_second_request_in_the_same_write_has_no_credential_of_the_first(talk, upstream):
    second = f"GET /echo/2 HTTP/1.1\r\nHost: {HOST}\r\n\r\n"
    codes, _ = talk(post("Content-Length: 5\r\n", "hello") + second)
    assert codes == [200, 200]
    assert [seen.values("authorization") for seen in upstream.seen()] == [[BEARER], []]


def test_requests_behind_a_refused_one_are_judged_alone(talk, upstream):
    refused = post("Content-Length: 5\r\n", "hello").replace("{tag}", "X-Alter-Grant: 0123456789abcdef\r\n")
    codes, _ = talk(refused + get(line="GET /echo/2 HTTP/1.1"))
    assert codes == [403, 200]
    assert [seen.target for seen in upstream.seen()] == [b"/echo/2"]


def test_a_body_cut_short_is_not_made_whole(stage, upstream):
    with stage.wire() as wire:
        wire.tunnel(HOST)
        wire.send(
            post("Content-Length: 10\r\n", "hello").replace("{tag}", f"X-Alter-Grant: {stage.grants['bearer']}\r\n")
        )
        upstream.wait()
    assert not upstream.last.complete
    time.sleep(0.1)
    assert not upstream.last.complete


@pytest.mark.parametrize("count", [150, 5000])
def test_many_headers(talk, upstream, count):
    codes, _ = talk(get("".join(f"X-{n}: {n}\r\n" for n in range(count))))
    assert codes == ([200] if count == 150 else [400]) or (count == 5000 and codes == [431])
    assert len(upstream.seen()) == codes.count(200)
    check(upstream, judged=1)
