"""What the test upstream answers: the first segment of the path names it, the rest and the query are its arguments."""

import asyncio
import json
from urllib.parse import parse_qsl

PATTERN = b"0123456789abcdef" * 4096


class Cut(Exception):
    """Raised by `cut`: the exchange is over, whatever was still to come."""


async def reply(exchange, status, content=b"", headers=()):
    """One response with a known length, after the whole body of the request was read."""
    await exchange.drain()
    await exchange.start(status, [*headers, (b"content-length", b"%d" % len(content))])
    await exchange.write(content)
    await exchange.end()


async def echo(exchange, rest, query):
    """Everything but the body, as JSON."""
    await exchange.drain()
    seen = exchange.received
    document = {
        "version": seen.version,
        "host": seen.host,
        "method": seen.method,
        "target": seen.target.decode("latin-1"),
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in seen.headers],
        "size": seen.size,
    }
    await reply(exchange, 200, json.dumps(document).encode(), [(b"content-type", b"application/json")])


async def status(exchange, rest, query):
    """/status/N"""
    code = int(rest[0])
    if code in {204, 304}:
        await exchange.drain()
        await exchange.start(code, [])
        await exchange.end()
    else:
        await reply(exchange, code, b"status %d\n" % code)


async def sse(exchange, rest, query):
    """Five events, 0.2 s apart."""
    await exchange.start(200, [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")])
    for number in range(5):
        if number:
            await asyncio.sleep(0.2)
        await exchange.write(b"data: event %d\n\n" % number)
    await exchange.end()


async def drip(exchange, rest, query):
    """/drip?n=5&s=0.1: n bytes, each after s seconds, with a known length."""
    count = int(query.get("n", "5"))
    await exchange.start(200, [(b"content-length", b"%d" % count)])
    for _ in range(count):
        await asyncio.sleep(float(query.get("s", "0.1")))
        await exchange.write(b".")
    await exchange.end()


async def download(exchange, rest, query):
    """/bytes/N, with a known length unless ?chunked."""
    left = int(rest[0])
    await exchange.start(200, [] if "chunked" in query else [(b"content-length", b"%d" % left)])
    while left:
        piece = PATTERN[:left]
        await exchange.write(piece)
        left -= len(piece)
    await exchange.end()


async def upload(exchange, rest, query):
    """Size and SHA-256 of the body."""
    await exchange.drain()
    seen = exchange.received
    await reply(exchange, 200, json.dumps({"size": seen.size, "sha256": seen.sha256}).encode())


async def redirect(exchange, rest, query):
    """/redirect?to=URL&status=302"""
    await reply(exchange, int(query.get("status", "302")), b"", [(b"location", query["to"].encode())])


async def slow(exchange, rest, query):
    """/slow?s=1: nothing for so many seconds, then 200."""
    await asyncio.sleep(float(query.get("s", "1")))
    await reply(exchange, 200, b"at last\n")


async def close(exchange, rest, query):
    """The request is read and never answered; the connection (or the stream) is torn down."""
    await exchange.drain()
    await exchange.cut()


async def cut(exchange, rest, query):
    """/cut/N: N bytes are announced, half of them come, then the connection (or the stream) is torn down."""
    size = int(rest[0])
    await exchange.start(200, [(b"content-length", b"%d" % size)])
    await exchange.write(b"x" * (size // 2))
    await exchange.cut()


async def headers(exchange, rest, query):
    """Repeated headers, whose number and order matter."""
    repeated = [(b"set-cookie", b"a=1"), (b"x-dup", b"one"), (b"set-cookie", b"b=2"), (b"x-dup", b"two")]
    await reply(exchange, 200, b"headers\n", repeated)


async def hints(exchange, rest, query):
    """103 Early Hints (RFC 8297), then 200."""
    await exchange.inform(103, [(b"link", b"</style.css>; rel=preload")])
    await reply(exchange, 200, b"hinted\n")


async def trailers(exchange, rest, query):
    """A response with a trailer section."""
    await exchange.drain()
    await exchange.start(200, [(b"trailer", b"x-checksum")])
    await exchange.write(b"trailed\n")
    await exchange.end([(b"x-checksum", b"abc")])


async def early(exchange, rest, query):
    """413 at once, the body unread; then, after /early?s=0 seconds, the connection (or the stream) torn down."""
    await exchange.start(413, [(b"content-length", b"0"), *exchange.closing])
    await exchange.end()
    await asyncio.sleep(float(query.get("s", "0")))
    await exchange.cut()


async def script(exchange, rest, query):
    """
    /script/NAME: what `Upstream.scripts` holds. A function plays the exchange; bytes are sent as they are (HTTP/1.1 only),
    and with ?close the connection ends.
    """
    await exchange.drain()
    scripted = exchange.upstream.scripts[rest[0]]
    if callable(scripted):
        await scripted(exchange)
        return
    exchange.writer.write(scripted)
    await exchange.writer.drain()
    if "close" in query:
        await exchange.cut()


async def leave(exchange, rest, query):
    """200 that promises to stay; then the connection (or the stream) is torn down."""
    await reply(exchange, 200, b"goodbye\n")
    await exchange.cut()


BEHAVIOURS = {
    "echo": echo,
    "status": status,
    "sse": sse,
    "drip": drip,
    "bytes": download,
    "upload": upload,
    "redirect": redirect,
    "slow": slow,
    "close": close,
    "cut": cut,
    "headers": headers,
    "hints": hints,
    "trailers": trailers,
    "early": early,
    "leave": leave,
    "script": script,
}


async def behave(exchange):
    """Answer one request."""
    target = exchange.received.target.decode("latin-1")
    path, _, query = target.partition("?")
    name, *rest = path.removeprefix("/").split("/")
    if name in BEHAVIOURS:
        await BEHAVIOURS[name](exchange, rest, dict(parse_qsl(query, keep_blank_values=True)))
    else:
        await reply(exchange, 404, json.dumps({"path": path}).encode())
