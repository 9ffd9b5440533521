"""Requests of our own: one TLS exchange, and nothing that is not plainly an answer."""

import asyncio
import contextlib
import ssl

import pytest
import trustme

from addon.exchange.errands import LIMIT, Errands
from addon.model import Head
from addon.network import AddressForbidden

HOST = "sts.test"
HEAD = Head("POST", b"/", ((b"Host", HOST.encode()), (b"Content-Type", b"text/plain")))


class Resolver:
    """Leads every name to one port of this machine, or nowhere."""

    def __init__(self, port=0):
        self.port, self.judged = port, []

    @contextlib.contextmanager
    def judging(self, *, tagged):
        self.judged.append(tagged)
        loop = asyncio.get_running_loop()
        loop.getaddrinfo = self.getaddrinfo
        try:
            yield
        finally:
            del loop.getaddrinfo

    async def getaddrinfo(self, host, port, **_):
        if not self.port:
            raise AddressForbidden
        return [(2, 1, 6, "", ("127.0.0.1", self.port))]


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def serve(authority):
    """`async with serve(answer) as (resolver, received):` a server that gives one answer and closes."""

    @contextlib.asynccontextmanager
    async def serve(answer, *, name=HOST):
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert(name).configure_cert(context)
        received = []

        async def talk(reader, writer):
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                head = await reader.readuntil(b"\r\n\r\n")
                received.append(head + await reader.readexactly(4))
                writer.write(answer)
                await writer.drain()
            writer.close()

        async with await asyncio.start_server(talk, "127.0.0.1", 0, ssl=context) as server:
            yield Resolver(server.sockets[0].getsockname()[1]), received

    return serve


@pytest.fixture
def ca_file(authority, tmp_path):
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return str(tmp_path / "ca.pem")


@pytest.mark.parametrize(
    "framed",
    [
        b"Content-Length: 5\r\n\r\nhello",
        b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        b"\r\nhello",
    ],
)
async def test_the_answer_is_read_whole(serve, ca_file, framed):
    async with serve(b"HTTP/1.1 403 Forbidden\r\n" + framed) as (resolver, received):
        assert await Errands(resolver=resolver, ca_file=ca_file).post(HOST, HEAD, b"body") == (403, b"hello")
    assert received == [
        b"POST / HTTP/1.1\r\nHost: sts.test\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nbody"
    ]
    assert resolver.judged == [False], "as of a request without a grant: no private address"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n" + b"x" * 99999,
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (LIMIT + 1),
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * (2 * LIMIT),
    ],
    ids=lambda answer: str(answer[:50]),
)
async def test_what_is_no_whole_answer_of_a_sensible_size_is_none(serve, ca_file, answer):
    async with serve(answer) as (resolver, _):
        with pytest.raises((OSError, ValueError)):
            await Errands(resolver=resolver, ca_file=ca_file).post(HOST, HEAD, b"body")


async def test_a_server_that_is_not_the_host_gets_nothing(serve, ca_file):
    async with serve(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", name="other.test") as (resolver, received):
        with pytest.raises(OSError, match="upstream_unverified"):
            await Errands(resolver=resolver, ca_file=ca_file).post(HOST, HEAD, b"body")
    assert received == []


async def test_an_address_that_is_not_allowed_is_not_connected_to(ca_file):
    with pytest.raises(OSError, match="address_forbidden"):
        await Errands(resolver=Resolver(), ca_file=ca_file).post(HOST, HEAD, b"body")
