"""Framing of bodies: every way to cut the bytes gives the same payload, and nothing beyond the message is taken."""

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from addon.exchange import bodies
from addon.exchange.bodies import Chunked, Sized, Unbounded
from addon.exchange.heads import Malformed

NEXT = b"GET /next HTTP/1.1\r\n\r\n"


def feed(body, data, cuts=()):
    """The payload of `data` fed in pieces, and what was left alone."""
    buffer, out, at = bytearray(), b"", 0
    for cut in (*sorted(cuts), len(data)):
        buffer += data[at:cut]
        at = max(at, cut)
        if not body.done:
            out += body.feed(buffer)
    return out, bytes(buffer)


def test_a_sized_body_takes_exactly_its_bytes():
    assert feed(Sized(5), b"hello" + NEXT) == (b"hello", NEXT)
    assert Sized(0).done


def test_a_sized_body_cut_short_is_malformed():
    body = Sized(5)
    feed(body, b"hel")
    with pytest.raises(Malformed):
        body.end()


def test_an_unbounded_body_ends_with_the_connection():
    body = Unbounded()
    assert feed(body, b"anything") == (b"anything", b"")
    assert not body.done
    body.end()
    assert body.done


CHUNKS = st.lists(st.binary(min_size=1, max_size=40), max_size=6)


@given(CHUNKS, st.sets(st.integers(0, 300), max_size=12), st.booleans())
def test_chunks_are_decoded_however_they_arrive(chunks, cuts, trailers):
    data = b"".join(bodies.encode_chunk(chunk) for chunk in chunks) + b"0\r\n"
    data += (b"X-Alter-Grant: smuggled\r\nX: y\r\n" if trailers else b"") + b"\r\n" + NEXT
    body = Chunked()
    payload, rest = feed(body, data, {cut for cut in cuts if cut < len(data)})
    assert body.done
    assert payload == b"".join(chunks)
    assert rest == NEXT


@given(CHUNKS)
def test_h11_reads_our_chunks_as_we_meant_them(chunks):
    reader = h11.Connection(h11.SERVER)
    reader.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    reader.next_event()
    reader.receive_data(b"".join(bodies.encode_chunk(chunk) for chunk in chunks) + bodies.LAST)
    payload = b""
    while not isinstance(event := reader.next_event(), h11.EndOfMessage):
        payload += bytes(event.data)
    assert payload == b"".join(chunks)


@pytest.mark.parametrize(
    "data",
    [
        b"5\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhelloX\r\n0\r\n\r\n",
        b"5\r\nhell\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n",
        b"\r\n5\r\nhello\r\n0\r\n\r\n",
        b"ffffffffffffffff\r\n",
        b"5;a\x00b\r\nhello\r\n0\r\n\r\n",
        b"5;" + b"a" * 5000 + b"\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0\r\nbad trailer\r\n\r\n",
        b"5\r\nhello\r\n0\r\nX: a\r\n folded\r\n\r\n",
        b"0\r\n" + b"X: " + b"a" * 4000 + b"\r\n" + b"Y: b\r\n" * 5000 + b"\r\n",
        b"g\r\n",
    ],
)
def test_chunks_that_two_servers_could_read_differently_are_malformed(data):
    with pytest.raises(Malformed):
        feed(Chunked(), data)


def test_chunk_extensions_are_dropped():
    assert feed(Chunked(), b'5;name="v"\r\nhello\r\n0;last\r\n\r\n') == (b"hello", b"")


def test_an_empty_piece_never_ends_a_body():
    assert bodies.encode_chunk(b"") == b""


@given(st.binary(max_size=200), st.sets(st.integers(0, 200), max_size=6))
def test_garbage_is_malformed_or_waits_for_more(data, cuts):
    body = Chunked()
    try:
        payload, _ = feed(body, data, cuts)
    except Malformed:
        return
    assert len(payload) <= len(data)
