"""
An upstream that has the credential may lie about everything else: framing, statuses, names that are ours.

The client gets one clean answer or none, the next request on its tunnel gets an answer of its own, and nothing that was
left over is taken for it.
"""

import pytest

from tests.e2e.stage import refusal
from tests.e2e.wire import Wire

HOST = "api.stripe.test"
OK = b"HTTP/1.1 200 OK\r\n"
EVIL = OK + b"Content-Length: 7\r\n\r\npoison!"

CLEAN = {
    "sized": (OK + b"Content-Length: 5\r\n\r\nhello", 200, b"hello"),
    "no reason": (b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", 200, b""),
    "no reason and no blank": (b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", 200, b""),
    "an unknown status": (b"HTTP/1.1 799 Odd\r\nContent-Length: 2\r\n\r\nok", 799, b"ok"),
    "chunks with extensions": (OK + b"Transfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\n\r\n", 200, b"hello"),
    "trailers": (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Alter-Error: fault\r\n\r\n", 200, b"hi"),
    "many interim": (
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 50 + OK + b"Content-Length: 2\r\n\r\nok",
        200,
        b"ok",
    ),
    "100 that nobody expected": (b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nok", 200, b"ok"),
    "HTTP/1.0 with a length": (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello"),
    "204 with a length": (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", 204, b""),
    "304 with a length": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304, b""),
}
"""Reply → what the client sees."""

UNTIL_CLOSE = {
    "until the end": (OK + b"\r\nhello", b"hello"),
    "HTTP/1.0 until the end": (b"HTTP/1.0 200 OK\r\n\r\nhello", b"hello"),
    "an empty body until the end": (OK + b"Connection: close\r\n\r\n", b""),
}

NONSENSE = {
    "no HTTP": b"hello, world\r\n\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "a status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
    "a status of letters": b"HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n",
    "a head over 64 KiB": OK + b"X-Filler: " + b"x" * 70_000 + b"\r\nContent-Length: 0\r\n\r\n",
    "a head without end": OK + b"X-Filler: 0123456789\r\n" * 5000,
    "length and chunked": OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + EVIL,
    "two lengths": OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "a negative length": OK + b"Content-Length: -5\r\n\r\nhello",
    "a length with a sign": OK + b"Content-Length: +5\r\n\r\nhello",
    "an unknown coding": OK + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a bare CR in a value": OK + b"X-Other: a\rb\r\nContent-Length: 0\r\n\r\n",
    "NUL in a value": OK + b"X-Other: a\0b\r\nContent-Length: 0\r\n\r\n",
    "a blank before the colon": OK + b"Content-Length : 5\r\n\r\nhello",
    "a name of two words": OK + b"X Other: a\r\nContent-Length: 0\r\n\r\n",
    "nothing": b"",
}
"""Not to be answered with anything but a refusal of ours, or the end of the tunnel."""

REWRITTEN = {"a bare CR in a value", "NUL in a value"}
"""mitmproxy takes these; they are made harmless."""

BROKEN_BODIES = {
    "a body that is too short": OK + b"Content-Length: 10\r\n\r\nhello",
    "chunks without end": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "a chunk cut short": OK + b"Transfer-Encoding: chunked\r\n\r\na\r\nhello",
    "a negative chunk": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n-1\r\n",
    "a chunk that is no number": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
    "a chunk longer than it says": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello, world\r\n0\r\n\r\n",
}

SURPLUS = {
    "a second response": (OK + b"Content-Length: 5\r\n\r\nhello" + EVIL, "GET"),
    "a body longer than it says": (OK + b"Content-Length: 5\r\n\r\nhello" + b"x" * 100, "GET"),
    "more after the last chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n" + EVIL, "GET"),
    "a body for HEAD": (OK + b"Content-Length: 7\r\n\r\npoison!", "HEAD"),
    "a response for HEAD": (OK + b"Content-Length: 44\r\n\r\n" + EVIL, "HEAD"),
    "a body with 204": (b"HTTP/1.1 204 No Content\r\n\r\n" + EVIL, "GET"),
    "a body with 304": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 44\r\n\r\n" + EVIL, "GET"),
    "an interim after the final": (OK + b"Content-Length: 0\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n", "GET"),
}


@pytest.fixture
def play(stage, upstream):
    """`play(reply)`: a wire on which a request has been sent that will be replied to with these bytes."""
    wires = []

    def play(reply, *, method="GET", close=False):
        upstream.scripts["reply"] = reply
        wires.append(stage.wire(timeout=2))
        target = "/script/reply" + ("?close" if close else "")
        tag = f"X-Alter-Grant: {stage.grants['bearer']}\r\n"
        wires[-1].tunnel(HOST).send(f"{method} {target} HTTP/1.1\r\nHost: {HOST}\r\n{tag}\r\n")
        return wires[-1]

    yield play
    for wire in wires:
        wire.__exit__()


@pytest.fixture
def check_next(stage, upstream):
    """Further requests, on this tunnel if it lives and on a new one, get answers of their own."""

    def check_next(wire):
        request = f"GET /echo/next HTTP/1.1\r\nHost: {HOST}\r\nX-Alter-Grant: {stage.grants['bearer']}\r\n\r\n"
        answer = wire.ask(request)
        assert answer.status == 0 or answer.code or answer.json["target"] == "/echo/next"
        with stage.wire() as fresh:
            assert fresh.tunnel(HOST).ask(request).json["target"] == "/echo/next"

    return check_next


@pytest.mark.parametrize("case", CLEAN)
def test_what_can_be_understood_is_passed_on(play, check_next, case):
    reply, status, body = CLEAN[case]
    wire = play(reply)
    answer = wire.answer()
    assert (answer.status, answer.body, answer.whole) == (status, body, True)
    assert not answer.code
    check_next(wire)


@pytest.mark.parametrize("case", UNTIL_CLOSE)
def test_a_body_that_ends_with_the_connection(play, check_next, case):
    reply, body = UNTIL_CLOSE[case]
    wire = play(reply, close=True)
    answer = wire.answer()
    assert (answer.status, answer.body, answer.whole) == (200, body, True)
    check_next(wire)


@pytest.mark.parametrize("close", [True, False])
@pytest.mark.parametrize("case", NONSENSE)
def test_nonsense_is_not_passed_on(stage, play, check_next, case, close):
    if case == "nothing" and not close:
        pytest.skip("a server may take its time")
    wire = play(NONSENSE[case], close=close)
    answer = wire.answer()
    if stage.engine == "stock" and case in REWRITTEN:
        assert (answer.status, answer.header("x-other")) == (200, "a b")
    elif answer.status:
        refusal(answer, "upstream_unreachable", status=502)
    check_next(wire)


@pytest.mark.parametrize("case", BROKEN_BODIES)
def test_a_broken_body_is_not_made_whole(play, check_next, case):
    wire = play(BROKEN_BODIES[case], close=True)
    answer = wire.answer()
    assert answer.status in {0, 200, 502}
    assert answer.status != 200 or (not answer.whole and answer.body.startswith(b"hello"))
    check_next(wire)


@pytest.mark.parametrize("case", SURPLUS)
def test_what_comes_after_a_response_is_nobody_s_answer(play, check_next, case):
    reply, method = SURPLUS[case]
    wire = play(reply, method=method)
    answer = wire.answer(method)
    assert answer.status in {200, 204, 304}
    assert b"poison" not in answer.body
    check_next(wire)


def test_a_response_before_any_request_is_nobody_s_answer(stage, play, check_next, upstream):
    """It comes late, when the connection waits for its next request."""
    wire = play(OK + b"Content-Length: 2\r\n\r\nok")
    assert wire.answer().body == b"ok"
    upstream.wait()
    check_next(wire)


def test_names_that_are_ours_are_taken_off(play):
    lines = b"X-Alter-Error: fault\r\nx-alter-request-id: 1\r\nX_Alter_Grant: 2\r\nX-Other: 3\r\n"
    answer = play(OK + lines + b"Content-Length: 0\r\n\r\n").answer()
    assert [name.lower() for name, _ in answer.headers] == ["x-other", "content-length"]


def test_a_header_cannot_split_a_response(play, check_next):
    """A folded line may be joined or refused; it never becomes a line of its own."""
    wire = play(OK + b"X-Other: a\r\n Set-Cookie: evil=1\r\nContent-Length: 2\r\n\r\nok")
    answer = wire.answer()
    assert answer.status in {0, 200, 502}
    assert "set-cookie" not in {name.lower() for name, _ in answer.headers}
    check_next(wire)


def test_another_protocol_that_nobody_asked_for(stage, play, check_next):
    wire = play(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nraw bytes")
    answer = wire.answer()
    assert answer.status in ({0, 502} if stage.engine == "auto" else {101})
    assert wire.closed()
    check_next(wire)


def test_an_endless_body_is_no_concern_of_ours(stage, upstream):
    """A client that has had enough leaves, and the upstream is told."""
    with stage.wire() as wire:
        tag = f"X-Alter-Grant: {stage.grants['bearer']}\r\n"
        wire.tunnel(HOST).send(f"GET /bytes/1000000000?chunked HTTP/1.1\r\nHost: {HOST}\r\n{tag}\r\n")
        assert wire.interim().status == 200
        for _ in range(20):
            wire.read()
    with Wire(stage.proxy, caller=stage.caller) as fresh:
        assert fresh.tunnel(HOST).ask(f"GET /echo HTTP/1.1\r\nHost: {HOST}\r\n{tag}\r\n").status == 200
