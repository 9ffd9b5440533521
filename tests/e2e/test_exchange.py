"""Ordinary traffic stays ordinary: everything HTTP can do passes in both directions, whichever engine carries it."""

import hashlib
import itertools
import json
import time

import pytest

from tests.e2e.stage import VALUES, refusal

BEARER = f"Bearer {VALUES['bearer']['token']}"
HOST = "api.stripe.test"


@pytest.fixture
def tunnel(stage):
    """A tunnel to the host of the bearer secret."""
    with stage.wire() as wire:
        yield wire.tunnel(HOST)


@pytest.fixture
def head(stage):
    """`head(method, target, headers)`: a tagged request head."""

    def head(method="GET", target="/echo", headers="", *, host=HOST, kind="bearer"):
        tag = f"X-Alter-Grant: {stage.grants[kind]}\r\n" if kind else ""
        return f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{tag}{headers}\r\n"

    return head


BODIES = {
    "none": ("", "", b""),
    "empty": ("Content-Length: 0\r\n", "", b""),
    "sized": ("Content-Length: 5\r\n", "hello", b"hello"),
    "chunked": ("Transfer-Encoding: chunked\r\n", "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", b"hello"),
    "extended": ("Transfer-Encoding: chunked\r\n", "5;name=value\r\nhello\r\n0;last\r\n\r\n", b"hello"),
}


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"])
def test_every_method_with_and_without_a_body(tunnel, head, upstream, method, body):
    headers, sent, arrives = BODIES[body]
    answer = tunnel.ask(head(method, "/echo?x", headers) + sent)
    assert (answer.status, answer.header("content-type")) == (200, "application/json")
    if method != "HEAD":
        assert answer.json["size"] == len(arrives)
    seen = upstream.last
    assert (seen.method, seen.target, seen.body, seen.complete) == (method, b"/echo?x", arrives, True)
    assert seen.values("authorization") == [BEARER]
    assert tunnel.ask(head()).status == 200, "the next request on the tunnel is in step"


def test_responses_without_a_body_leave_the_tunnel_in_step(tunnel, head):
    assert tunnel.ask(head(target="/status/204")).status == 204
    assert tunnel.ask(head(target="/status/304")).status == 304
    sizes = [tunnel.ask(head("HEAD", "/bytes/12345")).header("content-length"), tunnel.ask(head(target="/status/200"))]
    assert (sizes[0], sizes[1].body) == ("12345", b"status 200\n")
    assert tunnel.ask(head("HEAD", "/bytes/5?chunked")).status == 200
    assert tunnel.ask(head(target="/bytes/5?chunked")).body == b"01234"


def test_a_hundred_requests_share_one_tunnel_and_one_upstream_connection(tunnel, head, upstream):
    for number in range(100):
        assert tunnel.ask(head(target=f"/echo/{number}")).json["target"] == f"/echo/{number}"
    assert len(upstream.seen()) == 100
    assert upstream.connections() <= 1


def test_pipelined_requests_are_answered_in_order_and_judged_alone(tunnel, head, upstream):
    tunnel.send(head(target="/echo/1") + head(target="/echo/2", kind=None) + head(target="/echo/3"))
    assert [tunnel.answer().json["target"] for _ in range(3)] == ["/echo/1", "/echo/2", "/echo/3"]
    assert [seen.values("authorization") for seen in upstream.seen()] == [[BEARER], [], [BEARER]]


def test_the_target_and_repeated_headers_arrive_as_they_were_sent(tunnel, head, upstream):
    target = "/echo/a%2fb/%E9/%7e/..;x/?q=%20+%2B&q=&=&&a[]=1&key=%zz"
    answer = tunnel.ask(head(target=target, headers="X-Dup: one\r\nAccept: */*\r\nx-dup: two\r\nX-DUP: \r\n"))
    assert answer.json["target"] == target
    assert [pair for pair in upstream.last.headers if pair[0].lower() == b"x-dup"] == [
        (b"X-Dup", b"one"),
        (b"x-dup", b"two"),
        (b"X-DUP", b""),
    ]


def test_repeated_headers_of_a_response_come_back_in_order(tunnel, head):
    pairs = [pair for pair in tunnel.ask(head(target="/headers")).headers if pair[0] in {"set-cookie", "x-dup"}]
    assert pairs == [("x-dup", "one"), ("x-dup", "two")]


def test_interim_responses_and_trailers_of_an_upstream_are_left_out(tunnel, head):
    assert tunnel.ask(head(target="/hints")).body == b"hinted\n"
    assert tunnel.ask(head(target="/trailers")).body == b"trailed\n"
    assert tunnel.ask(head()).status == 200


def test_trailers_of_a_request_are_left_out(tunnel, head, upstream):
    chunks = "3\r\nabc\r\n0\r\nX-Checksum: 1\r\nX-Alter-Grant: 0123456789abcdef\r\n\r\n"
    assert tunnel.ask(head("POST", "/echo", "Transfer-Encoding: chunked\r\n") + chunks).json["size"] == 3
    assert (upstream.last.body, upstream.last.trailers) == (b"abc", [])
    assert tunnel.ask(head()).status == 200


def test_100_continue_comes_before_the_body_is_sent(tunnel, head, upstream):
    tunnel.send(head("POST", "/upload", "Content-Length: 5\r\nExpect: 100-continue\r\n"))
    assert tunnel.interim().status == 100
    assert tunnel.ask("hello", "POST").json["size"] == 5
    assert tunnel.ask(head()).status == 200


def test_a_client_that_expects_100_continue_is_refused_without_it(tunnel, upstream):
    request = f"POST /upload HTTP/1.1\r\nHost: {HOST}\r\nX-Alter-Grant: {'0' * 36}\r\nContent-Length: 5\r\n"
    tunnel.send(request + "Expect: 100-continue\r\n\r\n")
    answer = tunnel.interim()
    assert (answer.status, answer.code, answer.header("connection")) == (403, "grant_unavailable", "close")
    assert upstream.untouched()


def test_a_refusal_does_not_wait_for_the_body_and_the_tunnel_goes_on(tunnel, head, upstream):
    request = f"POST /upload HTTP/1.1\r\nHost: {HOST}\r\nX-Alter-Grant: {'0' * 36}\r\nContent-Length: 5\r\n\r\n"
    refusal(tunnel.ask(request), "grant_unavailable", status=403)
    tunnel.send("hello")
    assert upstream.untouched()
    assert tunnel.ask(head()).status == 200


@pytest.mark.parametrize("framing", ["sized", "chunked"])
def test_an_early_response_reaches_a_client_that_is_still_sending(tunnel, head, framing):
    length = "Content-Length: 3000000\r\n" if framing == "sized" else "Transfer-Encoding: chunked\r\n"
    tunnel.send(head("POST", "/early?s=0.5", length))
    for _ in range(20):
        piece = b"x" * 100_000
        tunnel.send(b"%x\r\n%b\r\n" % (len(piece), piece) if framing == "chunked" else piece)
    answer = tunnel.answer("POST")
    assert (answer.status, answer.header("connection")) == (413, "close")
    assert tunnel.closed()


def test_an_upload_is_forwarded_while_it_is_sent(tunnel, head, upstream):
    tunnel.send(head("POST", "/upload", "Content-Length: 30\r\n") + "0123456789")
    seen = upstream.wait()[0]
    for size in (10, 20):
        deadline = time.monotonic() + 3
        while seen.size < size and time.monotonic() < deadline:
            time.sleep(0.005)
        assert (seen.size, seen.complete) == (size, False)
        tunnel.send("0123456789")
    assert tunnel.answer("POST").json["size"] == 30


def test_a_download_is_forwarded_while_it_comes(tunnel, head):
    tunnel.send(head(target="/drip?n=4&s=0.15"))
    assert tunnel.interim().status == 200
    times = []
    for _ in range(4):
        tunnel.read()
        times.append(time.monotonic())
    assert all(later - earlier > 0.05 for earlier, later in itertools.pairwise(times))


def test_large_bodies_in_odd_pieces_arrive_whole(tunnel, head):
    body = bytes(range(256)) * 20_000
    chunks, at = [], 0
    while at < len(body):
        size = 1 + at * 31 % 17_389
        chunks.append(body[at : at + size])
        at += size
    tunnel.send(head("POST", "/upload", "Transfer-Encoding: chunked\r\n"))
    for chunk in chunks:
        tunnel.send(b"%x\r\n%b\r\n" % (len(chunk), chunk))
    tunnel.send(b"0\r\n\r\n")
    assert tunnel.answer("POST").json == {"size": len(body), "sha256": hashlib.sha256(body).hexdigest()}


def test_a_slow_reader_gets_everything(stage, head):
    with stage.wire(timeout=10) as wire:
        wire.tunnel(HOST).send(head(target="/bytes/8000000"))
        time.sleep(0.5)
        total = 0
        assert wire.interim().status == 200
        while total < 8_000_000:
            total += len(wire.read())
            if total < 2_000_000:
                time.sleep(0.002)
        assert total == 8_000_000
        assert wire.ask(head()).status == 200


@pytest.mark.parametrize("target", ["/cut/1000", "/cut/1000?chunked"])
def test_a_response_that_breaks_off_is_not_made_whole(stage, tunnel, head, target):
    answer = tunnel.ask(head(target=target))
    assert (answer.status, answer.whole) == (200, False)
    assert len(answer.body) == 500


def test_an_upstream_that_never_answers_is_a_502(stage, tunnel, head, upstream):
    refusal(tunnel.ask(head("POST", "/close", "Content-Length: 2\r\n") + "ab"), "upstream_unreachable", status=502)
    assert len(upstream.seen()) == 1, "what may have been acted on is not repeated"


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_upstream_that_has_left_in_the_meantime_is_connected_anew(stage, head, upstream, method):
    with stage.wire() as wire:
        assert wire.tunnel(HOST).ask(head(target="/leave")).body == b"goodbye\n"
        time.sleep(0.1)
        answer = wire.ask(head(method, "/echo"))
        if answer.status == 200:
            return
    assert stage.engine == "stock", "mitmproxy ends the tunnel with its upstream"
    assert answer.status == 0
    with stage.wire() as wire:
        assert wire.tunnel(HOST).ask(head(method)).status == 200


def test_http_1_0_is_answered_and_closed(tunnel, head, upstream):
    request = head().replace("HTTP/1.1", "HTTP/1.0")
    answer = tunnel.ask(request)
    assert (answer.status, answer.header("transfer-encoding")) == (200, None)
    assert upstream.last.values("authorization") == [BEARER]
    assert tunnel.closed()


def test_connection_close_is_kept(tunnel, head):
    answer = tunnel.ask(head(headers="Connection: close\r\n"))
    assert answer.status == 200
    assert tunnel.closed()


def test_hop_by_hop_headers_stop_here(tunnel, head, upstream):
    sent = "Keep-Alive: timeout=5\r\nConnection: keep-alive\r\nTE: trailers\r\nProxy-Connection: keep-alive\r\n"
    assert tunnel.ask(head(headers=sent)).status == 200
    names = {name.lower() for name, _ in upstream.last.headers}
    assert not names & {b"proxy-connection", b"proxy-authorization"}


@pytest.fixture
def other(stage):
    """The key of another app, and its grant for the same secret."""
    return stage.cast["other's key"], stage.cast["other's"]


class TestTwoCallers:
    """Two apps and two grants on one tunnel: each request is judged alone."""

    def request(self, key, grant, target="/echo"):
        return f"GET {target} HTTP/1.1\r\nHost: {HOST}\r\nX-Alter-Key: {key}\r\nX-Alter-Grant: {grant}\r\n\r\n"

    def test_each_may_use_its_own_grant_and_no_other(self, stage, other, upstream):
        ours, theirs = (stage.key, stage.grants["bearer"]), other
        with stage.wire(caller=None) as wire:
            wire.tunnel(HOST)
            answers = [
                wire.ask(self.request(key, grant))
                for key, grant in [ours, theirs, (ours[0], theirs[1]), (theirs[0], ours[1]), ours]
            ]
        assert [answer.status for answer in answers] == [200, 200, 403, 403, 200]
        for answer in answers[2:4]:
            refusal(answer, "grant_unavailable", status=403, stage=stage)
        assert len(upstream.seen()) == 3

    def test_a_key_that_disagrees_with_that_of_the_tunnel_is_refused(self, stage, other, tunnel, upstream):
        refusal(tunnel.ask(self.request(*other)), "caller_invalid", status=407, stage=stage)
        assert upstream.untouched()

    def test_connections_are_not_shared_between_callers(self, stage, upstream):
        if stage.engine == "stock":
            pytest.skip("mitmproxy has one upstream connection for each tunnel")
        apps = {name: stage.vaultctl.app(name) for name in ("one", "two")}
        pairs = [(key, stage.vaultctl.grant("bearer", f"system:{name}")) for name, key in apps.items()]
        for key, grant in pairs * 2:
            with stage.wire(caller=None) as wire:
                wire.tunnel(HOST).ask(self.request(key, grant))
        assert len(upstream.seen()) == 4
        assert upstream.connections() == 2


class TestChangesTakeEffectAtOnce:
    """A tunnel that is open already sees what `vaultctl` has just done."""

    def test_rotation_disabling_and_revocation(self, stage, upstream):
        vaultctl, name = stage.vaultctl, "changing"
        vaultctl.secret(name, "--kind", "bearer", "--host", HOST, token="first")
        grant = vaultctl.grant(name, "system:billing")
        request = f"GET /echo HTTP/1.1\r\nHost: {HOST}\r\nX-Alter-Grant: {grant}\r\n\r\n"
        with stage.wire() as wire:
            wire.tunnel(HOST)

            def sent():
                assert wire.ask(request).status == 200
                return upstream.last.header("authorization")

            assert sent() == "Bearer first"
            vaultctl.rotate(name, token="second")
            assert sent() == "Bearer second"
            vaultctl.run("secret", "rollback", name)
            assert sent() == "Bearer first"
            vaultctl.run("secret", "disable", name)
            refusal(wire.ask(request), "secret_disabled", status=403, stage=stage)
            vaultctl.run("secret", "enable", name)
            assert sent() == "Bearer first"
            vaultctl.run("grant", "revoke", grant)
            upstream.reset()
            refusal(wire.ask(request), "grant_revoked", status=403, stage=stage)
            assert upstream.untouched()

    def test_a_key_revoked_on_an_open_tunnel(self, stage, upstream):
        created = stage.vaultctl.json("app", "create", "leaving")
        grant = stage.vaultctl.grant("bearer", "system:leaving")
        request = f"GET /echo HTTP/1.1\r\nHost: {HOST}\r\nX-Alter-Grant: {grant}\r\n\r\n"
        with stage.wire(caller=("leaving", created["key"])) as wire:
            assert wire.tunnel(HOST).ask(request).status == 200
            stage.vaultctl.run("app", "key", "revoke", created["key_id"])
            upstream.reset()
            refusal(wire.ask(request), "caller_invalid", status=407, stage=stage)
        assert upstream.untouched()


class TestOverHttp2:
    """The same over HTTP/2, where what is special to HTTP/1.1 has no place."""

    @pytest.fixture
    def wire(self, stage):
        with stage.h2wire() as wire:
            yield wire.tunnel(HOST)

    @pytest.fixture
    def tag(self, stage):
        return [("x-alter-grant", stage.grants["bearer"])]

    @pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"])
    def test_every_method(self, wire, tag, upstream, method):
        assert wire.ask(method, "/echo", tag).status == 200
        assert wire.ask(method, "/echo", tag, body=b"hello").status == 200
        assert [(seen.method, seen.body) for seen in upstream.seen()] == [(method, b""), (method, b"hello")]
        assert {tuple(seen.values("authorization")) for seen in upstream.seen()} == {(BEARER,)}

    def test_statuses_without_a_body(self, wire, tag):
        assert [wire.ask(path=f"/status/{code}", headers=tag).status for code in (204, 304, 418)] == [204, 304, 418]

    def test_repeated_headers_and_the_path_arrive_as_they_were_sent(self, wire, tag, upstream):
        target = "/echo/a%2fb/%E9?q=%20+&q=&"
        answer = wire.ask(path=target, headers=[*tag, ("x-dup", "one"), ("accept", "*/*"), ("x-dup", "two")])
        assert json.loads(answer.body)["target"] == target
        assert upstream.last.values("x-dup") == ["one", "two"]
        pairs = wire.ask(path="/headers", headers=tag).headers
        assert [value for name, value in pairs if name == "x-dup"] == ["one", "two"]

    def test_a_refused_stream_leaves_the_connection_alone(self, wire, tag, upstream):
        refusal(wire.ask(headers=[("x-alter-grant", "0" * 36)]), "grant_unavailable", status=403)
        assert upstream.untouched()
        assert wire.ask(path="/echo", headers=tag).status == 200

    def test_an_early_response_arrives_before_the_request_has_ended(self, wire, tag):
        wire.timeout = 0.5
        stream = wire.begin("POST", "/early?s=1", tag, body=b"x" * 1000, end=False)
        assert wire.result(stream).status == 413  # mitmproxy sends its end only after that of the request
        assert wire.ask(path="/echo", headers=tag).status == 200
