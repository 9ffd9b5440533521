"""A body in which a secret is looked for, over the framing it came with."""

import pytest

from addon.exchange.bodies import Chunked, Searched, Sized, Unbounded
from addon.exchange.heads import Malformed
from addon.redaction import Needles, Redactor

SECRET = b"sk_live_51H8xJ2e"
STARS = b"*" * len(SECRET)


def searched(body):
    return Searched(body, Redactor(Needles([SECRET.decode()])))


def test_the_last_piece_lets_everything_go():
    body = searched(Sized(6))
    assert (body.feed(bytearray(b"<sk_")), body.done) == (b"<", False)
    assert (body.feed(bytearray(b"li, next")), body.done) == (b"sk_li", True)


def test_a_secret_over_several_chunks_is_one():
    body = searched(Chunked())
    assert body.feed(bytearray(b"5\r\n<sk_l\r\n")) == b"<"
    assert body.feed(bytearray(b"d\r\nive_51H8xJ2e>\r\n")) == STARS + b">"
    assert not body.done
    assert (body.feed(bytearray(b"0\r\n\r\n")), body.done) == (b"", True)


def test_the_end_of_the_connection_lets_go_what_waits():
    body = searched(Unbounded())
    assert body.feed(bytearray(b"ends with s")) == b"ends with "
    body.end()
    assert (body.feed(bytearray()), body.done) == (b"s", True)


def test_a_body_that_ends_too_early_is_none():
    body = searched(Sized(6))
    body.feed(bytearray(b"sk_"))
    with pytest.raises(Malformed):
        body.end()


def test_an_empty_body_is_done_at_once():
    body = searched(Sized(0))
    assert (body.feed(bytearray(b"HTTP/1.1")), body.done) == (b"", True)
