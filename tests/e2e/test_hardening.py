"""
Each patch twice: what a client or an upstream sees with it, and the defect in plain mitmproxy. A test of the second
kind that fails says that mitmproxy has mended the defect, and that the patch can go.
"""

import asyncio
import contextlib
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest
import trustme
from mitmproxy.exceptions import AddonHalt

from addon import hardening
from addon.hardening import target
from tests.e2e import rawserver
from tests.e2e.rawserver import HOST, TAG, Client, H2Client, Origin, Proxy

MB = 1 << 20


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def certificate(authority):
    return authority.issue_cert(HOST)


@pytest.fixture(scope="module")
def _hardened(authority):
    with Proxy(authority) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def _plain(authority):
    with Proxy(authority, hardened=False) as proxy:
        yield proxy


@pytest.fixture
def hardened(_hardened):
    _hardened.tell()
    return _hardened


@pytest.fixture
def plain(_plain):
    _plain.tell()
    return _plain


def get(path="/", *, method="GET", headers="", body=""):
    return f"{method} {path} HTTP/1.1\r\nHost: {HOST}\r\n{headers}\r\n{body}"


def post(length, *, headers="", body=""):
    return get(method="POST", headers=f"Content-Length: {length}\r\n{headers}", body=body)


@contextlib.asynccontextmanager
async def exchange(proxy, certificate, *, client=Client, patience=5, **origin):
    """A TLS origin and a client that has a tunnel to it."""
    async with Origin(certificate, **origin) as upstream, client(proxy, patience=patience) as wire:
        await wire.tunnel(upstream.port)
        yield upstream, wire


async def until(condition, *, patience=1.5):
    """Whether `condition` comes true in time."""
    for _ in range(int(patience / 0.02)):
        if condition():
            return True
        await asyncio.sleep(0.02)
    return False


class TestRefusalsAreSentAtOnce:
    """P1"""

    async def test_an_upload_of_100_mb_is_refused_before_its_body_is_sent(self, hardened, certificate):
        hardened.tell(plan={"requestheaders": rawserver.deny})
        async with exchange(hardened, certificate) as (origin, client):
            before = hardened.memory()
            refusal = await client.send(post(100 * MB))
            assert (refusal.status, refusal.code) == (403, "policy_denied")
            for _ in range(100):
                await client.send(b"x" * MB, answered=False)
            hardened.tell()
            assert (await client.send(get())).status == 200, "the connection can be used again"
            assert hardened.memory() - before < 12 * MB
            assert len(origin.requests) == 1

    async def test_a_chunked_upload_is_refused_before_its_body_is_sent(self, hardened, certificate):
        hardened.tell(plan={"requestheaders": rawserver.deny})
        async with exchange(hardened, certificate) as (origin, client):
            assert (await client.send(get(method="PUT", headers="Transfer-Encoding: chunked\r\n"))).status == 403
            hardened.tell()
            assert (await client.send("5\r\nhello\r\n0\r\n\r\n" + get())).status == 200
            assert len(origin.requests) == 1

    async def test_an_http2_upload_is_refused_in_full_while_its_body_is_in_flight(self, hardened, certificate):
        hardened.tell(plan={"requestheaders": rawserver.deny})
        async with exchange(hardened, certificate, client=H2Client) as (origin, client):
            stream = await client.begin("POST", body=b"x" * 1000, end=False)
            refusal = await client.result(stream)
            assert (refusal.status, refusal.code, refusal.ended) == (403, "policy_denied", True)
            client.wire.send_data(stream, b"x" * 1000, end_stream=True)
            hardened.tell()
            assert (await client.result(await client.begin())).status == 200
            assert len(origin.requests) == 1

    async def test_a_client_that_awaits_100_continue_gets_the_refusal_and_a_closed_connection(
        self, hardened, certificate
    ):
        hardened.tell(plan={"requestheaders": rawserver.deny})
        async with exchange(hardened, certificate) as (_, client):
            refusal = await client.send(post(9, headers="Expect: 100-continue\r\n"))
            assert (refusal.status, refusal.headers["connection"]) == (403, "close")
            assert await client.closed()

    async def test_a_refusal_of_head_has_no_body(self, hardened, certificate):
        hardened.tell(plan={"requestheaders": rawserver.deny})
        async with exchange(hardened, certificate) as (_, client):
            assert (await client.send(get(method="HEAD"))).status == 403
            assert (await client.send(get())).code == "policy_denied", "and the next response starts where it should"

    async def test_the_response_of_any_other_addon_is_sent_at_once_as_well(self, hardened, certificate):
        hardened.tell(plan={"requestheaders": rawserver.deny_plainly})
        async with exchange(hardened, certificate) as (_, client):
            assert (await client.send(post(100))).status == 403

    async def test_a_client_that_gives_up_during_a_refused_upload_is_no_error(self, hardened, certificate):
        hardened.tell(plan={"requestheaders": rawserver.deny})
        async with exchange(hardened, certificate) as (_, client):
            assert (await client.send(post(100))).status == 403
        await asyncio.sleep(0.05)
        assert hardened.tell() == []

    async def test_plain_mitmproxy_waits_for_the_body(self, plain, certificate):
        plain.tell(plan={"requestheaders": rawserver.deny_plainly}, verdict=None)
        async with exchange(plain, certificate, patience=0.3) as (_, client):
            assert (await client.send(post(5))).status == -1
            assert (await client.send("hello")).status == 403

    async def test_plain_mitmproxy_hangs_when_the_refused_request_is_streamed(self, plain, certificate):
        plain.tell(plan={"requestheaders": rawserver.deny}, verdict=None)
        async with exchange(plain, certificate, patience=0.3) as (_, client):
            assert (await client.send(post(5, body="hello"))).status == -1
        assert "NotImplementedError" in plain.output()


class TestEverySocketIsClosed:
    """P2"""

    async def upload_and_be_killed(self, proxy, port):
        async with Client(proxy, patience=1) as client:
            with contextlib.suppress(OSError):
                await client.tunnel(port)
                await client.send(post(100 * MB), answered=False)
                for _ in range(8):
                    await client.send(b"x" * (MB // 4), answered=False)
            return await client.closed()

    async def abort_uploads(self, proxy, certificate):
        """How many of 40 uploads that an addon killed were closed, and how many descriptors stayed."""
        proxy.tell(plan={"requestheaders": rawserver.kill}, verdict=None)
        async with Origin(certificate) as origin:
            await self.upload_and_be_killed(proxy, origin.port)
            before = proxy.descriptors()
            closed = await asyncio.gather(*(self.upload_and_be_killed(proxy, origin.port) for _ in range(40)))
            await until(lambda: proxy.descriptors() <= before)
            return sum(closed), proxy.descriptors() - before

    async def test_40_aborted_uploads_leave_nothing_open(self, hardened, certificate):
        assert await self.abort_uploads(hardened, certificate) == (40, 0)

    async def test_plain_mitmproxy_leaks_sockets(self, plain, certificate):
        closed, leaked = await self.abort_uploads(plain, certificate)
        assert closed < 40
        assert leaked > 0


class TestClaims:
    """P12 and P13"""

    REPLIES: ClassVar = {"/": b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n"}

    async def test_the_scheme_that_a_request_claims_is_told(self, hardened, certificate):
        hardened.tell(plan={"requestheaders": rawserver.deny_cleartext})
        async with exchange(hardened, certificate) as (origin, client):
            answers = [await client.send(get(f"{scheme}://{HOST}:{origin.port}/")) for scheme in ("http", "https")]
            assert [answer.status for answer in answers] == [403, 200]

    async def test_a_response_without_a_status_is_none(self, hardened, certificate):
        async with exchange(hardened, certificate, replies=self.REPLIES) as (_, client):
            refusal = await client.send(get())
            assert (refusal.status, refusal.code) == (502, "upstream_unreachable")

    async def test_plain_mitmproxy_overwrites_the_scheme(self, plain, certificate):
        plain.tell(plan={"requestheaders": rawserver.deny_cleartext})
        async with exchange(plain, certificate) as (origin, client):
            assert (await client.send(get(f"http://{HOST}:{origin.port}/"))).status == 200

    async def test_plain_mitmproxy_takes_any_number_for_a_status(self, plain, certificate):
        async with exchange(plain, certificate, replies=self.REPLIES, patience=0.3) as (_, client):
            assert (await client.send(get())).status in {-1, 20}


class TestHttp1:
    """P3, P4 and P6"""

    TRAILED: ClassVar = "3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n"
    REPLIES: ClassVar = {
        "/trailers": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + TRAILED.encode(),
        "/early": b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </s.css>\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfinal",
        "/endless": b"HTTP/1.1 200 OK\r\n" + b"X-Filler: 0123456789\r\n" * 10_000,
    }

    async def test_trailers_of_a_request_are_dropped(self, hardened, certificate):
        async with exchange(hardened, certificate) as (origin, client):
            request = get(method="POST", headers="Transfer-Encoding: chunked\r\n", body=self.TRAILED)
            assert (await client.send(request)).status == 200
            assert (await client.send(get())).status == 200
            assert b"X-T" not in origin.received

    async def test_trailers_of_a_response_are_dropped(self, hardened, certificate):
        async with exchange(hardened, certificate, replies=self.REPLIES) as (_, client):
            assert (await client.send(get("/trailers"))).body == b"abc"
            assert (await client.send(get())).status == 200

    async def test_a_chunk_line_without_end_closes_the_connection(self, hardened, certificate):
        async with exchange(hardened, certificate) as (_, client):
            await client.send(get(method="POST", headers="Transfer-Encoding: chunked\r\n"), answered=False)
            assert (await client.send(b"1;" + b"x" * 200_000)).status in (0, 400)

    @pytest.mark.parametrize("path", ["/request", "/trailers"])
    async def test_plain_mitmproxy_crashes_on_trailers(self, plain, certificate, path):
        async with exchange(plain, certificate, replies=self.REPLIES, patience=0.3) as (_, client):
            request = get(method="POST", headers="Transfer-Encoding: chunked\r\n", body=self.TRAILED)
            response = await client.send(request if path == "/request" else get(path))
            assert response.status == -1
        assert "HTTP trailers are not implemented yet" in plain.output()

    async def test_interim_responses_are_skipped(self, hardened, certificate):
        async with exchange(hardened, certificate, replies=self.REPLIES) as (_, client):
            response = await client.send(get("/early"))
            assert (response.status, response.body) == (200, b"final")

    @pytest.mark.parametrize("piece", [1, 7, 40])
    async def test_interim_responses_are_skipped_however_they_arrive(self, hardened, certificate, piece):
        async def trickle(writer):
            reply = self.REPLIES["/early"]
            for start in range(0, len(reply), piece):
                writer.write(reply[start : start + piece])
                await asyncio.sleep(0)

        async with exchange(hardened, certificate, replies={"/": trickle}) as (_, client):
            assert (await client.send(get())).body == b"final"
            assert (await client.send(get())).body == b"final"

    async def test_plain_mitmproxy_takes_the_interim_for_the_final_response(self, plain, certificate):
        async with exchange(plain, certificate, replies=self.REPLIES, patience=0.3) as (_, client):
            assert (await client.send(get("/early"))).status == 102

    async def test_a_head_over_64_kib_gets_431(self, hardened, certificate):
        async with exchange(hardened, certificate) as (origin, client):
            refusal = await client.send(get(headers=f"X-Filler: {'x' * 70_000}")[:-2])
            assert (refusal.status, refusal.code) == (431, "header_too_large")
            assert await client.closed()
            assert origin.requests == []

    async def test_a_head_under_64_kib_with_a_large_body_passes(self, hardened, certificate):
        async with exchange(hardened, certificate) as (_, client):
            filler = f"X-Filler: {'x' * 60_000}\r\n"
            assert (await client.send(post(300_000, headers=filler, body="x" * 300_000))).status == 200

    async def test_a_response_head_over_64_kib_is_an_upstream_failure(self, hardened, certificate):
        async with exchange(hardened, certificate, replies=self.REPLIES) as (_, client):
            assert (await client.send(get("/endless"))).code == "upstream_unreachable"

    async def test_plain_mitmproxy_reads_a_head_without_end(self, plain):
        async with Client(plain, patience=0.3) as client:
            assert (await client.send(b"GET http://127.0.0.1/ HTTP/1.1\r\nX-Filler: " + b"x" * MB)).status == -1


class TestFraming:
    """P5"""

    SMUGGLED = b"GET /admin HTTP/1.1\r\nHost: localhost\r\n\r\n"

    async def test_an_http2_body_without_length_is_one_request_for_an_http1_upstream(self, hardened, certificate):
        async with exchange(hardened, certificate, client=H2Client) as (origin, client):
            assert (await client.result(await client.begin("POST", body=self.SMUGGLED))).status == 200
            (head,) = origin.requests
            assert b"transfer-encoding: chunked" in head.lower()

    async def test_a_held_body_goes_out_with_its_length(self, hardened, certificate):
        hardened.tell(verdict="hold", stream=False)
        async with exchange(hardened, certificate, client=H2Client) as (origin, client):
            assert (await client.result(await client.begin("POST", body=self.SMUGGLED))).status == 200
            (head,) = origin.requests
            assert b"Content-Length: %d\r\n" % len(self.SMUGGLED) in head
            assert b"chunked" not in head

    async def test_http2_trailers_are_dropped_for_an_http1_upstream(self, hardened, certificate):
        async with exchange(hardened, certificate, client=H2Client) as (origin, client):
            stream = await client.begin("POST", body=b"abc", trailers=[("x-alter-grant", "tag")])
            assert (await client.result(stream)).status == 200
            assert b"x-alter-grant" not in origin.received

    async def test_http2_trailers_of_an_upstream_are_dropped_for_an_http1_client(self, hardened, certificate):
        hardened.tell(plan={"tls_start_server": rawserver.speak_h2_upstream})
        async with exchange(hardened, certificate, h2=True) as (_, client):
            assert (await client.send(get())).body == b"ok"
            assert (await client.send(get())).body == b"ok"

    async def test_plain_mitmproxy_lets_a_body_become_a_second_request(self, plain, certificate):
        async with exchange(plain, certificate, client=H2Client) as (origin, client):
            await client.result(await client.begin("POST", body=self.SMUGGLED))
            assert [head.split(b" ", 2)[:2] for head in origin.requests] == [[b"POST", b"/"], [b"GET", b"/admin"]]

    async def test_plain_mitmproxy_crashes_on_http2_trailers_of_an_upstream(self, plain, certificate):
        plain.tell(plan={"tls_start_server": rawserver.speak_h2_upstream})
        async with exchange(plain, certificate, h2=True, patience=0.3) as (_, client):
            await client.send(get())
            assert (await client.send(get())).status == -1


def telltale(response):
    """Whether the response tells what only the proxy should know."""
    shown = response.body.lower() + str(response.headers).lower().encode()
    return any(word in shown for word in (b"mitmproxy", HOST.encode(), b"errno", b"exception", b"127.0.0.1"))


async def fetch(client, **request):
    """One GET, or what `request` asks for, over whichever protocol the client speaks."""
    if isinstance(client, H2Client):
        return await client.result(await client.begin(**request))
    return await client.send(get(**request))


class TestAnswersAreOurs:
    """P7"""

    @pytest.mark.parametrize("kind", [Client, H2Client])
    async def test_an_upstream_that_cannot_be_reached(self, hardened, kind):
        async with Client(hardened), kind(hardened) as client:
            await client.tunnel(1)
            for _ in range(2):
                refusal = await fetch(client)
                assert (refusal.status, refusal.code, refusal.ended) == (502, "upstream_unreachable", True)
                assert not telltale(refusal)
        errors = hardened.tell()
        assert errors[-1] == ("upstream_unreachable", refusal.headers["x-alter-request-id"])
        assert len(errors) == 2, "the error hook fired for each, and the connection was kept"

    @pytest.mark.parametrize("kind", [Client, H2Client])
    @pytest.mark.parametrize("stream", [True, "mirror"])
    async def test_an_upstream_whose_certificate_does_not_verify(self, hardened, kind, stream):
        hardened.tell(stream=stream)
        async with exchange(hardened, trustme.CA().issue_cert(HOST), client=kind) as (origin, client):
            refusal = await fetch(client)
            assert (refusal.status, refusal.code) == (502, "upstream_unverified")
            assert not telltale(refusal)
            assert origin.requests == []

    async def test_an_upstream_that_closes_without_an_answer(self, hardened, certificate):
        async def close(writer):
            writer.close()

        async with exchange(hardened, certificate, replies={"/": close}) as (_, client):
            assert (await client.send(get())).code == "upstream_unreachable"
            assert (await client.send(get("/other"))).status == 200

    async def test_an_upstream_that_closes_in_the_middle_of_an_upload(self, hardened, certificate):
        async def close(writer):
            writer.close()

        async with exchange(hardened, certificate, replies={"/": close}) as (_, client):
            assert (await client.send(post(MB, body="x" * 1000))).code == "upstream_unreachable"
            assert (await client.send("x" * (MB - 1000) + get("/other"))).status == 200

    async def test_an_upstream_that_breaks_off_is_not_followed_by_a_second_head(self, hardened, certificate):
        async def break_off(writer):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
            writer.close()

        async with exchange(hardened, certificate, replies={"/": break_off}) as (_, client):
            await client.send(get(), answered=False)
            assert (await client.reader.read()).endswith(b"\r\n\r\nhalf")

    async def test_a_failure_told_to_head_has_no_body(self, hardened):
        async with Client(hardened) as client:
            await client.tunnel(1)
            assert (await client.send(get(method="HEAD"))).status == 502
            assert (await client.send(get())).code == "upstream_unreachable"

    @pytest.mark.parametrize(
        "request_",
        [
            "GET / HTTP/11\r\n\r\n",
            "GET / HTTP/1.1\r\nno colon\r\n\r\n",
            get(headers="bad name: 1\r\n"),
            get(method="POST", headers="Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", body="abc"),
            get(method="POST", headers="Content-Length: 3\r\nContent-Length: 4\r\n", body="abc"),
        ],
    )
    async def test_a_malformed_request(self, hardened, certificate, request_):
        async with exchange(hardened, certificate) as (origin, client):
            refusal = await client.send(request_)
            assert (refusal.status, refusal.code) == (400, "header_forbidden")
            assert refusal.headers["connection"] == "close"
            assert not telltale(refusal)
            assert await client.closed()
            assert origin.requests == []

    async def test_a_request_without_a_host(self, hardened):
        async with Client(hardened) as client:
            assert (await client.send("GET / HTTP/1.1\r\n\r\n")).code == "header_forbidden"

    async def test_a_connection_refused_by_an_addon_tells_the_code(self, hardened, certificate):
        hardened.tell(plan={"server_connect": rawserver.refuse_connection})
        async with exchange(hardened, certificate) as (origin, client):
            refusal = await client.send(get())
            assert (refusal.status, refusal.code) == (403, "address_forbidden")
            assert origin.connections == 0

    async def test_a_tunnel_that_fails_at_once(self, authority):
        with Proxy(authority, connection_strategy="eager") as proxy:
            async with Client(proxy) as client:
                refusal = await client.tunnel(1)
                assert (refusal.status, refusal.code) == (502, "upstream_unreachable")
                assert not telltale(refusal)

    async def test_a_body_over_the_limit_of_mitmproxy(self, authority, certificate):
        with Proxy(authority, body_size_limit="1k") as proxy:
            async with exchange(proxy, certificate) as (_, client):
                assert (await client.send(post(2000))).code == "body_too_large"

    async def test_plain_mitmproxy_tells_what_it_knows(self, plain):
        async with Client(plain) as client:
            await client.tunnel(1)
            failure = await client.send(get())
            assert failure.status == 502
            assert b"Errno" in failure.body
            assert "mitmproxy" in failure.headers["server"]
            assert await client.closed(), "and gives up the connection"

    async def test_plain_mitmproxy_quotes_what_it_cannot_parse(self, plain):
        async with Client(plain) as client:
            assert b"no colon" in (await client.send("GET http://localhost/ HTTP/1.1\r\nno colon\r\n\r\n")).body


BEFORE = {
    "client_connected": 0,
    "next_layer": 0,
    "http_connect": 503,
    "http_connected": 0,
    "tls_clienthello": 0,
    "tls_start_client": 0,
    "tls_established_client": 0,
    "requestheaders": 503,
    "request": 503,
    "server_connect": 503,
    "server_connected": 0,
    "tls_start_server": 0,
    "tls_established_server": 0,
}
"""Hooks before a request leaves, and what the client sees when one fails: an answer, or a closed connection (0)."""

AFTER = ("responseheaders", "response")
OVER = ("server_disconnected", "client_disconnected")

KINDS = [RuntimeError, asyncio.CancelledError, AddonHalt]


async def attempt(proxy, port):
    """A tagged request in a tunnel of its own."""
    try:
        async with Client(proxy, patience=2) as client:
            connected = await client.tunnel(port)
            return await client.send(get(headers=TAG)) if connected.status == 200 else connected
    except OSError:
        return rawserver.Response(0)


class TestHooksFailClosed:
    """P8"""

    @pytest.mark.parametrize("how", [rawserver.fail, rawserver.fail_later])
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("hook", BEFORE)
    async def test_a_failure_before_the_request_leaves(self, hardened, certificate, hook, kind, how):
        held = {"verdict": "hold", "stream": False} if hook == "request" else {}
        hardened.tell(plan={hook: partial(how, kind)}, **held)
        async with Origin(certificate) as origin:
            response = await attempt(hardened, origin.port)
            assert response.status == BEFORE[hook]
            assert response.code == ("fault" if response.status else None)
            assert origin.received == b""
            hardened.tell()
            assert (await attempt(hardened, origin.port)).status == 200, "and the proxy goes on"

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("hook", AFTER)
    async def test_a_failure_after_the_request_left(self, hardened, certificate, hook, kind):
        hardened.tell(plan={hook: partial(rawserver.fail, kind)})
        async with Origin(certificate) as origin:
            response = await attempt(hardened, origin.port)
            assert response.status == 0 or hook == "response"
            assert b"tag-of-the-caller" not in origin.received

    @pytest.mark.parametrize("hook", OVER)
    async def test_a_failure_when_all_is_over_refuses_nothing(self, hardened, certificate, hook):
        hardened.tell(plan={hook: partial(rawserver.fail, RuntimeError)})
        async with Origin(certificate) as origin:
            assert (await attempt(hardened, origin.port)).status == 200
            assert (await attempt(hardened, origin.port)).status == 200

    @pytest.mark.parametrize("hook", [*BEFORE, *AFTER])
    async def test_a_hook_that_ends_the_process(self, authority, certificate, hook):
        held = {"verdict": "hold", "stream": False} if hook == "request" else {}
        with Proxy(authority) as proxy:
            proxy.tell(plan={hook: partial(rawserver.fail, SystemExit)}, **held)
            async with Origin(certificate) as origin:
                response = await attempt(proxy, origin.port)
                assert b"tag-of-the-caller" not in origin.received
                if hook in BEFORE:
                    assert response.status in (0, BEFORE[hook])
                    assert origin.received == b""

    @pytest.mark.parametrize("kind", KINDS)
    async def test_an_upload_is_refused_while_its_body_is_in_flight(self, hardened, certificate, kind):
        hardened.tell(plan={"requestheaders": partial(rawserver.fail, kind)})
        async with exchange(hardened, certificate) as (origin, client):
            assert (await client.send(post(100 * MB, headers=TAG, body="x" * 1000))).code == "fault"
            assert origin.received == b""

    async def test_a_failure_after_a_streamed_body_leaves_the_request_without_an_end(self, hardened, certificate):
        hardened.tell(plan={"request": partial(rawserver.fail, RuntimeError)})
        async with exchange(hardened, certificate) as (origin, client):
            request = get(method="POST", headers="Transfer-Encoding: chunked\r\n", body="3\r\nabc\r\n0\r\n\r\n")
            assert (await client.send(request)).status == 0
            assert await until(origin.tasks[0].done), "the upstream connection was closed"
            assert origin.received.endswith(b"3\r\nabc\r\n")

    async def test_the_log_names_the_place_and_not_the_text(self, hardened, certificate):
        hardened.tell(plan={"requestheaders": partial(rawserver.fail, RuntimeError)})
        async with Origin(certificate) as origin:
            await attempt(hardened, origin.port)
        assert "hook requestheaders failed: RuntimeError at rawserver.py:" in hardened.output()
        assert "the secret of the hook" not in hardened.output()

    async def test_a_layer_that_crashes_drops_the_connection(self, hardened, certificate):
        hardened.tell(stream=partial(rawserver.fail, RuntimeError))
        async with exchange(hardened, certificate) as (origin, client):
            assert (await client.send(post(5, body="hello"))).status == 0
            assert b"hello" not in origin.received

    async def test_hooks_may_wait_and_hold_up_only_their_own_request(self, hardened, certificate):
        hardened.tell(plan={"requestheaders": rawserver.wait, "request": rawserver.wait})
        async with Origin(certificate) as origin:
            started = time.monotonic()
            responses = await asyncio.gather(*(attempt(hardened, origin.port) for _ in range(10)))
            assert [response.status for response in responses] == [200] * 10
            assert 2 * rawserver.WAIT < time.monotonic() - started < 18 * rawserver.WAIT

    async def test_an_intercepted_request_leaves_when_it_is_resumed(self, hardened, certificate):
        hardened.tell(plan={"requestheaders": rawserver.intercept})
        async with Origin(certificate) as origin:
            started = time.monotonic()
            assert (await attempt(hardened, origin.port)).status == 200
            assert time.monotonic() - started > rawserver.WAIT

    @pytest.mark.parametrize("kind", [RuntimeError, AddonHalt])
    async def test_plain_mitmproxy_forwards_what_a_failing_hook_should_have_stopped(self, plain, certificate, kind):
        plain.tell(plan={"requestheaders": partial(rawserver.fail, kind)}, **({} if kind is AddonHalt else NO_VERDICT))
        async with Origin(certificate) as origin:
            assert (await attempt(plain, origin.port)).status == 200
            assert b"tag-of-the-caller" in origin.received


NO_VERDICT = {"verdict": None}


class TestARequestNeedsAVerdict:
    """P8"""

    @pytest.mark.parametrize("kind", [Client, H2Client])
    async def test_without_one_it_is_refused(self, hardened, certificate, kind):
        hardened.tell(**NO_VERDICT)
        async with exchange(hardened, certificate, client=kind) as (origin, client):
            refusal = await fetch(client)
            assert (refusal.status, refusal.code) == (503, "fault")
            assert origin.received == b""

    @pytest.mark.parametrize("verdict", [True, 1, "Pass", "held", ""])
    async def test_nothing_but_the_three_words_is_one(self, hardened, certificate, verdict):
        hardened.tell(verdict=verdict)
        async with exchange(hardened, certificate) as (origin, client):
            assert (await client.send(get())).code == "fault"
            assert origin.received == b""

    @pytest.mark.parametrize("verdict", ["pass", "injected"])
    async def test_pass_and_injected_go_out(self, hardened, certificate, verdict):
        hardened.tell(verdict=verdict)
        async with exchange(hardened, certificate) as (_, client):
            assert (await client.send(get())).status == 200

    async def test_a_held_request_goes_out_once_it_is_injected(self, hardened, certificate):
        hardened.tell(verdict="hold", stream=False)
        async with exchange(hardened, certificate) as (origin, client):
            assert (await client.send(post(5, body="hello"))).status == 200
            assert b"Signature: 5" in origin.requests[0]

    @pytest.mark.parametrize("late", [None, "hold", "held"])
    async def test_a_held_request_that_is_not_injected_is_refused(self, hardened, certificate, late):
        hardened.tell(verdict="hold", stream=False, late=late)
        async with exchange(hardened, certificate) as (origin, client):
            assert (await client.send(post(5, body="hello"))).code == "fault"
            assert origin.received == b""

    async def test_a_held_request_must_not_be_streamed(self, hardened, certificate):
        hardened.tell(verdict="hold", stream=True)
        async with exchange(hardened, certificate) as (origin, client):
            assert (await client.send(post(5))).code == "fault"
            assert origin.received == b""

    async def test_a_refusal_that_an_addon_withdraws_is_still_one(self, hardened, certificate):
        hardened.tell(plan={"requestheaders": rawserver.deny, "request": rawserver.withdraw}, **NO_VERDICT)
        async with exchange(hardened, certificate) as (origin, client):
            assert (await client.send(get())).code == "fault"
            assert origin.received == b""

    @pytest.mark.parametrize("hello", ["\r\nGET / HTTP/1.1\r\n" + TAG + "\r\n", "SSH-2.0-x\r\n", "\x00\x01\x02\x03"])
    async def test_what_mitmproxy_does_not_take_for_http_needs_one_too(self, hardened, certificate, hello):
        async with exchange(hardened, certificate) as (origin, client):
            assert (await client.send(hello)).status == 0
            assert origin.received == b""
        hardened.tell(plan={"tcp_start": rawserver.let_pass})
        async with exchange(hardened, certificate, patience=0.2) as (origin, client):
            await client.send(hello)
            assert await until(lambda: origin.received == hello.encode())

    async def test_a_held_body_that_mitmproxy_begins_to_stream_is_refused(self, authority, certificate):
        with Proxy(authority, stream_large_bodies="1k") as proxy:
            proxy.tell(verdict="hold", stream=False)
            async with exchange(proxy, certificate) as (origin, client):
                chunks = f"800\r\n{'x' * 2048}\r\n"
                request = get(method="POST", headers=TAG + "Transfer-Encoding: chunked\r\n", body=chunks)
                assert (await client.send(request)).code == "fault"
                assert origin.received == b""

    async def test_under_mitmdump_other_addons_work_and_a_script_that_is_gone_forwards_nothing(
        self, authority, certificate, tmp_path
    ):
        for name, text in SCRIPTS.items():
            (tmp_path / name).write_text(text)
        (tmp_path / "mitmproxy-ca.pem").write_bytes(authority.private_key_pem.bytes() + authority.cert_pem.bytes())
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        command = [
            str(Path(sys.executable).with_name("mitmdump")), "--listen-host", "127.0.0.1", "--listen-port", "0",
            "--set", f"confdir={tmp_path}", "--set", f"ssl_verify_upstream_trusted_ca={tmp_path / 'ca.pem'}",
            "-s", str(tmp_path / "ours.py"), "-s", str(tmp_path / "theirs.py"),
        ]  # fmt: skip
        mitmdump = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220  it blocks no one
        try:
            for line in mitmdump.stdout:
                if "listening at" in line:
                    break
            proxy = Listening(int(line.rpartition(":")[2].strip(".\n ")), str(tmp_path / "ca.pem"))
            async with Origin(certificate) as origin:
                response = await attempt(proxy, origin.port)
                assert (response.status, response.headers["x-updates"]) == (200, "4")
                (tmp_path / "ours.py").unlink()
                for _ in range(60):
                    response = await attempt(proxy, origin.port)
                    if response.status != 200:
                        break
                    await asyncio.sleep(0.05)
                assert response.code == "fault"
                assert b"tag-of-the-caller" not in origin.received
        finally:
            mitmdump.kill()
            mitmdump.communicate()


class Listening:
    def __init__(self, port, ca):
        self.port, self.ca = port, ca


SCRIPTS = {
    "ours.py": """
from addon import hardening
hardening.install()
def requestheaders(flow):
    flow.metadata["alter.verdict"] = "pass"
    del flow.request.headers["X-Alter-Grant"]
""",
    "theirs.py": """
updates = 0
def update(flows):
    global updates
    updates += len(flows)
def responseheaders(flow):
    flow.response.headers["X-Updates"] = str(updates)
""",
}


class TestConnectionsWorkAsBefore:
    """What the patches put in the place of mitmproxy's own must do what that did."""

    async def test_websocket_messages_go_both_ways(self, hardened, certificate):
        async def accept(writer):
            writer.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\x81\x02to"
            )

        upgrade = (
            "Upgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        )
        async with exchange(hardened, certificate, replies={"/": accept}) as (origin, client):
            assert (await client.send(get(headers=upgrade))).status == 101
            assert await client.reader.readexactly(4) == b"\x81\x02to"
            before = len(origin.received)
            await client.send(b"\x81\x84\x00\x00\x00\x00from", answered=False)
            assert await until(lambda: origin.received[before:][:2] == b"\x81\x84")

    async def test_a_client_that_does_not_read_holds_the_upstream_back(self, hardened, certificate):
        written = 0

        async def pour(writer):
            nonlocal written
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
            while True:
                writer.write(b"x" * MB)
                await writer.drain()
                written += MB

        async with exchange(hardened, certificate, replies={"/": pour}) as (_, client):
            client.writer.transport.pause_reading()
            await client.send(get(), answered=False)
            await asyncio.sleep(0.3)
            assert 0 < written < 60 * MB

    async def test_an_http2_connection_carries_many_requests_at_once(self, hardened, certificate):
        async with exchange(hardened, certificate, client=H2Client, h2=True) as (_, client):
            streams = [await client.begin(path=f"/{number}") for number in range(20)]
            responses = await client.results(streams)
            assert [(response.status, response.body, response.ended) for response in responses] == [
                (200, b"ok", True)
            ] * 20

    @pytest.mark.parametrize("end", [b"", b"half a frame"])
    async def test_a_client_that_leaves_closes_its_upstream_connection(self, hardened, certificate, end):
        async with Origin(certificate) as origin:
            before = hardened.descriptors()
            async with Client(hardened) as client:
                await client.tunnel(origin.port)
                await client.send(get())
                assert hardened.descriptors() == before + 2
                await client.send(end, answered=False)
            assert await until(lambda: hardened.descriptors() <= before)


class TestManyCertificates:
    """P9"""

    def test_the_oldest_goes_first_and_nothing_is_compared(self):
        assert rawserver.call(rawserver.certificates, hardened=True) == {"kept": [2, 3, 4], "compared": 0}

    def test_10_000_are_kept(self):
        assert rawserver.call(rawserver.certificate_cap, hardened=True) == 10_000

    def test_plain_mitmproxy_compares_all_of_them(self):
        assert rawserver.call(rawserver.certificates, hardened=False)["compared"] > 0
        assert rawserver.call(rawserver.certificate_cap, hardened=False) == 100


class TestHeldBodiesAreLimited:
    """P10"""

    @pytest.mark.parametrize("framing", ["", "Transfer-Encoding: chunked\r\n"])
    async def test_a_held_body_is_refused_as_soon_as_there_is_no_room_for_it(self, hardened, certificate, framing):
        hardened.tell(verdict="hold", stream=False, plan={"requestheaders": rawserver.limit})
        async with exchange(hardened, certificate) as (origin, client):
            before = hardened.memory()
            size, piece = 100 * MB, b"x" * MB
            await client.send(get(method="PUT", headers=framing) if framing else post(size), answered=False)
            frame = b"100000\r\n%b\r\n" if framing else b"%b"
            refusal = await client.send(frame % piece + frame % piece)
            assert (refusal.status, refusal.code) == (413, "body_too_large")
            for _ in range(98):
                await client.send(frame % piece, answered=False)
            hardened.tell()
            assert (await client.send(b"0\r\n\r\n" * bool(framing) + get().encode())).status == 200
            assert hardened.memory() - before < 20 * MB
            assert len(origin.requests) == 1

    async def test_what_there_is_room_for_goes_out(self, hardened, certificate):
        hardened.tell(verdict="hold", stream=False, plan={"requestheaders": rawserver.limit})
        async with exchange(hardened, certificate) as (origin, client):
            assert (await client.send(post(5, body="hello"))).status == 200
            assert len(origin.requests) == 1

    async def test_plain_mitmproxy_collects_it_all(self, plain, certificate):
        plain.tell(verdict="hold", stream=False, plan={"requestheaders": rawserver.limit})
        async with exchange(plain, certificate, patience=0.3) as (_, client):
            before = plain.memory()
            await client.send(get(method="PUT", headers="Transfer-Encoding: chunked\r\n"), answered=False)
            for _ in range(40):
                await client.send(b"100000\r\n" + b"x" * MB + b"\r\n", answered=False)
            assert await until(lambda: plain.memory() - before > 30 * MB, patience=5)


class TestHttp2FlowControl:
    """P11. The origin takes what its window of 64 KiB allows, and never more."""

    async def upload(self, proxy, certificate, *, most, streams=1):
        """Send `most` bytes on each stream, or what the proxy takes; the bytes taken."""
        async with exchange(proxy, certificate, client=H2Client, h2=True) as (_, client):
            numbers = [await client.begin("POST", end=False) for _ in range(streams)]
            sent = 0
            for number in numbers:
                left = most
                while left:
                    room = min(client.wire.local_flow_control_window(number), client.wire.max_outbound_frame_size, left)
                    if room:
                        client.wire.send_data(number, b"x" * room)
                        await client.flush()
                        sent, left = sent + room, left - room
                    else:
                        try:
                            client.wire.receive_data(await asyncio.wait_for(client.reader.read(65536), 0.5))
                        except TimeoutError:
                            break
            return sent

    async def test_an_upload_is_taken_no_faster_than_its_upstream_takes_it(self, hardened, certificate):
        assert await self.upload(hardened, certificate, most=40 * MB) < 3 * MB

    async def test_many_uploads_together_have_a_limit_as_well(self, hardened, certificate):
        assert await self.upload(hardened, certificate, most=2 * MB, streams=20) < 20 * MB

    async def test_plain_mitmproxy_takes_it_all(self, plain, certificate):
        assert await self.upload(plain, certificate, most=40 * MB) == 40 * MB


class TestInstallation:
    def test_the_installed_mitmproxy_is_proved(self):
        target.verify()

    @pytest.mark.parametrize("name", target.DIGESTS)
    def test_a_file_that_differs_refuses_the_start(self, monkeypatch, name):
        monkeypatch.setitem(target.DIGESTS, name, ("0" * 64,))
        with pytest.raises(hardening.Unproven) as refused:
            hardening.install()
        assert name in refused.value.message
        assert refused.value.hint == "install mitmproxy 12.2.3 or 12.3.1"

    def test_a_file_that_is_missing_refuses_the_start(self, monkeypatch):
        monkeypatch.setitem(target.DIGESTS, "proxy/no_such_file.py", ("0" * 64,))
        with pytest.raises(hardening.Unproven):
            hardening.install()

    def test_a_second_installation_changes_nothing(self):
        assert rawserver.call(rawserver.install_again, hardened=True)
