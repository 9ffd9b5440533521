"""What a ClientHello offers, read from real ones and from whatever a stranger sends."""

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addon.exchange.hello import Hello, NotTls, peek


def hello(*, alpn=(), name="api.example.test"):
    context = ssl.create_default_context()
    if alpn:
        context.set_alpn_protocols(list(alpn))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize("alpn", [(), ("http/1.1",), ("h2", "http/1.1"), ("h2",)])
def test_name_and_protocols_are_found(alpn):
    found = peek(hello(alpn=alpn))
    assert found == Hello("api.example.test", tuple(name.encode() for name in alpn))


def test_no_piece_of_it_is_enough_until_all_is_there():
    data = hello(alpn=("http/1.1",))
    assert all(peek(data[:size]) is None for size in range(len(data)))
    assert peek(data + b"more") == peek(data)


def test_a_hello_split_over_records_is_put_together():
    data = hello(alpn=("h2",))
    body = data[5:]
    split = b"".join(b"\x16\x03\x01" + len(part).to_bytes(2) + part for part in (body[:7], body[7:100], body[100:]))
    assert peek(split) == peek(data)


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n", b"SSH-2.0-x\r\n", b"\x16\x02\x00\x00\x01\x01", b"\x80\x2e\x01\x03\x01", b"\0"]
)
def test_what_is_not_tls_is_told_apart(data):
    with pytest.raises(NotTls):
        peek(data)


@given(st.data())
def test_a_damaged_hello_never_breaks_the_reader(data):
    raw = bytearray(hello(alpn=("http/1.1",)))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = peek(bytes(raw))
    except NotTls:
        return
    assert found is None or isinstance(found, Hello)
