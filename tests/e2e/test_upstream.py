"""The test upstream itself, so that a failing end-to-end test points at the proxy."""

import hashlib
import json
import socket
import ssl
import subprocess
import time

import httpx
import pytest
import requests


@pytest.fixture(params=["HTTP/1.1", "HTTP/2"])
def client(request, upstream, authority_file):
    """httpx over one version; every host leads to the upstream."""
    context = ssl.create_default_context(cafile=authority_file)
    http2 = request.param == "HTTP/2"
    transport = httpx.HTTPTransport(verify=context, http2=http2, http1=not http2)

    class Redirected(httpx.BaseTransport):
        def handle_request(self, request):
            request.extensions["sni_hostname"] = request.url.host
            request.url = request.url.copy_with(host="127.0.0.1", port=upstream.port)
            return transport.handle_request(request)

    with httpx.Client(transport=Redirected(), base_url="https://api.stripe.test", trust_env=False) as client:
        client.version = request.param
        yield client
    transport.close()


def test_a_head_is_recorded_as_it_came(client, upstream):
    answer = client.post("/echo/x%20y?a=b&a", headers=[("X-Dup", "1"), ("X-Dup", "2")], content=b"body").json()
    seen = upstream.last
    assert (seen.version, seen.method, seen.target) == (client.version, "POST", b"/echo/x%20y?a=b&a")
    assert (seen.host, seen.sni, seen.body, seen.complete) == ("api.stripe.test", "api.stripe.test", b"body", True)
    assert seen.values("X-Dup") == ["1", "2"]
    assert answer["target"] == "/echo/x%20y?a=b&a"
    assert answer["size"] == 4


def test_requests_and_bytes_are_counted_per_host(client, upstream):
    client.get("/status/204")
    assert len(upstream.seen("api.stripe.test")) == 1
    assert upstream.octets("api.stripe.test") > 20
    assert upstream.untouched("api.datadog.test")
    assert not upstream.untouched("api.stripe.test")
    upstream.reset()
    assert upstream.untouched()


def test_large_bodies_are_counted_and_hashed(client, upstream):
    body = b"0123456789" * 300_000
    digest = hashlib.sha256(body).hexdigest()
    assert client.post("/upload", content=body).json() == {"size": 3_000_000, "sha256": digest}
    pieces = (body[i : i + 70_000] for i in range(0, len(body), 70_000))
    assert client.post("/upload", content=pieces).json() == {"size": 3_000_000, "sha256": digest}
    assert len(upstream.last.body) == 1 << 20


@pytest.mark.parametrize("path", ["/bytes/3000000", "/bytes/3000000?chunked"])
def test_large_downloads_arrive_whole(client, path):
    answer = client.get(path)
    assert len(answer.content) == 3_000_000
    assert ("content-length" in answer.headers) == ("chunked" not in path)


def test_events_come_one_by_one(client):
    with client.stream("GET", "/sse") as answer:
        times = [time.monotonic() for line in answer.iter_lines() if line]
    assert len(times) == 5
    assert times[-1] - times[0] > 0.7


def test_statuses_redirects_and_repeated_headers(client):
    assert client.get("/status/418").status_code == 418
    assert client.get("/redirect?to=https://evil.test/x").headers["location"] == "https://evil.test/x"
    assert client.get("/headers").headers.get_list("set-cookie") == ["a=1", "b=2"]
    assert client.get("/hints").text == "hinted\n"
    assert client.get("/trailers").text == "trailed\n"
    assert client.get("/drip?n=3&s=0").text == "..."
    assert client.get("/slow?s=0").text == "at last\n"
    assert client.head("/bytes/10").headers["content-length"] == "10"
    assert client.get("/nothing").status_code == 404
    assert client.get("/early").status_code == 413


@pytest.mark.parametrize("path", ["/close", "/cut/1000"])
def test_answers_that_break_off_break_off(client, path):
    with pytest.raises(httpx.RemoteProtocolError):
        client.get(path)


def test_half_a_head_is_counted_though_it_is_no_request(upstream, authority_file):
    context = ssl.create_default_context(cafile=authority_file)
    with (
        socket.create_connection(("127.0.0.1", upstream.port)) as tcp,
        context.wrap_socket(tcp, server_hostname="api.stripe.test") as tls,
    ):
        tls.sendall(b"GET / HTT")
    deadline = time.monotonic() + 5
    while not upstream.octets("api.stripe.test") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (upstream.seen(), upstream.octets("api.stripe.test")) == ([], 9)


def test_a_body_that_never_ends_leaves_a_record_that_is_not_complete(upstream):
    with socket.create_connection(("127.0.0.1", upstream.plain_port)) as tcp:
        tcp.sendall(b"POST /upload HTTP/1.1\r\nHost: x.test:80\r\nContent-Length: 9\r\n\r\nabc")
        upstream.wait()
    assert (upstream.last.host, upstream.last.complete) == ("x.test", False)


def test_requests_speaks_to_it_in_the_clear(upstream):
    url = f"http://127.0.0.1:{upstream.plain_port}/echo"
    with requests.Session() as session:
        session.trust_env = False
        assert session.post(url, data=b"x", headers={"Host": "api.stripe.test"}).json()["host"] == "api.stripe.test"


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_curl_speaks_to_it(upstream, authority_file, version):
    command = ["curl", "-sS", version, "--noproxy", "*", "--cacert", authority_file, "--data-binary", "@-"]
    route = ["--resolve", f"api.stripe.test:{upstream.port}:127.0.0.1"]
    body = b"x" * 2_000_000
    done = subprocess.run(
        [*command, *route, f"https://api.stripe.test:{upstream.port}/upload"],
        input=body,
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout)["size"] == len(body)
    assert upstream.last.version == {"--http1.1": "HTTP/1.1", "--http2": "HTTP/2"}[version]
