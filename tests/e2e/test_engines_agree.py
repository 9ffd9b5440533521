"""
One gate, two engines: some hundred exchanges go through both, and both upstream and client see the same.

What may differ is named in `REQUEST` and `RESPONSE`; everything else, the order of headers included, must not.
"""

import contextlib
import json
import random

import pytest

from tests.e2e.product import routes
from tests.e2e.stage import HOSTS, KINDS, Stage

ENGINES = ("auto", "stock")
EXCHANGES = 400

REQUEST = {"content-length", "transfer-encoding", "connection", "keep-alive", "te"}
"""Framing is written anew by the flat path, at the end; it drops hop-by-hop headers that mitmproxy passes on."""

RESPONSE = {"content-length", "transfer-encoding", "connection", "keep-alive", "x-alter-request-id"}
"""The same for responses; and each refusal has an id of its own."""


@pytest.fixture(scope="module")
def pair(seed, tmp_path_factory, _upstream, _evil, authority_file):
    """The same vault behind both engines."""
    options = ["--upstream-ca", authority_file, *routes(_upstream, _evil)]
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(Stage.open(seed, tmp_path_factory.mktemp(engine) / "home", *options, engine=engine))
            for engine in ENGINES
        ]


class Generator:
    """Exchanges by chance; the same seed gives the same."""

    def __init__(self, seed):
        self.dice = random.Random(seed)

    def exchange(self):
        """Where to, the head's lines, the body as it is sent, and what the upstream replies."""
        dice = self.dice
        kind = dice.choice(KINDS)
        host = dice.choices([HOSTS[kind], "evil.test", dice.choice(list(HOSTS.values()))], [20, 1, 1])[0]
        headers, body = self._body(chunks=kind != "sigv4")
        lines = [f"Host: {host}", *self._tags(kind), *self._headers(), *headers]
        dice.shuffle(lines)
        return host, self._line(), lines, body, self._reply()

    def _line(self):
        dice = self.dice
        method = dice.choices(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "get", "PURGE"],
                              [8, 8, 4, 4, 4, 4, 2, 1, 1, 1])[0]  # fmt: skip
        query = dice.choice(["", "", "?", "?a=1&b=2", "?a=%20+&a=%2B", "?key=mine&x", "?&&=", "?q=a/b?c"])
        tail = dice.choice(["", "", "/x", "/%7Ea/b%2Fc", "//x", "/a/../b", "/a;b=c", "/a%20b+c"])
        return f"{method} /script/reply{tail}{query} HTTP/1.1"

    def _tags(self, kind):
        dice, grant = self.dice, f"X-Alter-Grant: {{{kind}}}"
        usual = [[grant]] * 12 + [[]] * 3
        odd = [
            [grant, grant],
            ["X-Alter-Grant: short"],
            ["X_Alter_Grant: 0123456789abcdef"],
            [f"X-Alter-Grant: {'0' * 36}"],
            [grant, "X-Alter-Context: nonsense"],
            [grant, "X-Alter-Reason: because", 'X-Alter-Context: {"a": "b"}'],
            [grant, "X-Alter-Key: nonsense"],
            [grant, "X-HTTP-Method-Override: DELETE"],
            [f"Authorization: Bearer alter_grant_{{{kind}}}"],
        ]
        return dice.choice(usual + odd)

    def _headers(self):
        known = [
            "Accept: */*", "Accept-Encoding: gzip, br", "X-Dup: one", "x-dup: two", "X-DUP:three", "X-Empty:", "Cookie: a=b",
            "User-Agent: odd/1.0 (x; y)", "X-Blank:   a  b   ", "Authorization: Bearer mine", "DD-API-KEY: mine",
            "X-Version: mine", "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "Content-Type: text/plain",
            'If-None-Match: "x"', "Range: bytes=0-1", "X-Forwarded-For: 1.2.3.4", "Via: 1.1 other", "Forwarded: for=x",
            "Connection: keep-alive", "Proxy-Connection: keep-alive", "X-Long: " + "x" * 5000, "X-Latin: \xe9\xff",
            "Date: Tue, 24 Nov 2026 00:00:00 GMT", "Max-Forwards: 3", "TE: trailers", "Priority: u=1",
        ]  # fmt: skip
        return self.dice.sample(known, self.dice.randrange(7))

    def _body(self, *, chunks):
        dice = self.dice
        body = dice.randbytes(dice.choice([0, 0, 1, 5, 100, 5000, 70_000]))
        how = dice.choice(["none", "sized", "sized", "chunked"] if chunks else ["none", "sized", "sized"])
        if how == "none":
            return [], b""
        if how == "sized":
            return [f"Content-Length: {len(body)}"], body
        sent, at = b"", 0
        while at < len(body):
            size = dice.randrange(1, 9000)
            piece = body[at : at + size]
            sent += b"%x%b\r\n%b\r\n" % (len(piece), dice.choice([b"", b"", b";x=y"]), piece)
            at += size
        return ["Transfer-Encoding: chunked"], sent + b"0\r\n" + dice.choice([b"", b"", b"X-Trailer: 1\r\n"]) + b"\r\n"

    def _reply(self):
        dice = self.dice
        status = dice.choice([200, 200, 200, 201, 301, 400, 401, 404, 418, 429, 500, 503])
        lines = dice.sample([b"Content-Type: text/plain", b"Set-Cookie: a=1", b"Set-Cookie: b=2", b"X-Dup: one", b"x-dup: two",
                             b"X-Empty:", b'ETag: "x"', b"Server: upstream", b"X-Alter-Error: fault", b"X-Alter-Grant: x",
                             b"Via: 1.1 up", b"Location: https://elsewhere.test/", b'WWW-Authenticate: Basic realm="x"',
                             b"Cache-Control: no-store", b"X-Latin: \xe9"], dice.randrange(6))  # fmt: skip
        body = dice.randbytes(dice.choice([0, 1, 50, 3000, 40_000])).hex().encode()
        interim = dice.choice([b"", b"", b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"])
        if dice.random() < 0.4:
            lines.append(b"Transfer-Encoding: chunked")
            half = len(body) // 2
            pieces = [piece for piece in (body[:half], body[half:]) if piece]
            sent = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        else:
            lines.append(b"Content-Length: %d" % len(body))
            sent = body
        dice.shuffle(lines)
        return (
            interim,
            b"HTTP/1.1 %d Odd Reason\r\n" % status + b"".join(line + b"\r\n" for line in lines) + b"\r\n",
            sent,
        )


def without(pairs, names):
    """Pairs in order, without those that may differ."""
    return [(name, value) for name, value in pairs if name.lower() not in names]


def outcome(stage, upstreams, exchange):
    """What the upstreams received and the client got, in a form that can be compared."""
    host, line, lines, body, (interim, head, reply) = exchange
    for upstream in upstreams:
        upstream.reset()
        upstream.scripts["reply"] = interim + head + (b"" if line.startswith("HEAD ") else reply)
    request = "\r\n".join([line, *lines, "", ""])
    for kind, grant in stage.grants.items():
        request = request.replace(f"{{{kind}}}", grant)
    with stage.wire() as wire:
        answer = wire.tunnel(host).ask(request.encode("latin-1") + body, line.split(" ")[0])
    received = []
    for seen in [seen for upstream in upstreams for seen in upstream.seen()]:
        pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in seen.headers]
        signature = {"authorization", "x-amz-date"} if host == HOSTS["sigv4"] else set()
        received.append((seen.method, seen.target, without(pairs, REQUEST | signature), seen.body, seen.complete))
    content = answer.body
    if answer.code:
        content = {name: value for name, value in json.loads(content or "{}").items() if name != "request_id"}
    return received, answer.status, without(answer.headers, RESPONSE), content, answer.whole


@pytest.mark.parametrize("part", range(4))
def test_both_engines_do_the_same(pair, upstream, evil, part):
    generator = Generator(part)
    differences = []
    statuses = set()
    for number in range(EXCHANGES // 4):
        exchange = generator.exchange()
        one, other = (outcome(stage, (upstream, evil), exchange) for stage in pair)
        statuses.add(one[1])
        if one != other:
            differences.append((number, exchange[1], exchange[2], one, other))
    assert not differences, differences[0]
    assert {200, 403} <= statuses
