"""The demo's upstream: it must be as strict as the demo claims, or the demo shows nothing."""

import http.client
import json
import socket
import ssl
import threading
import time

import pytest
import trustme
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from addon.leaf import leaf
from vaultctl.upstream import Upstream, basic, bearer, headers, query, sigv4

HOSTS = {
    "bearer.test": bearer("tok-1"),
    "two.test": headers({"X-Key": "k", "X-App": "a"}),
    "query.test": query("key", "a b"),
    "basic.test": basic("user", "päss"),
    "aws.test": sigv4({"AKID": "secret"}, region="eu-west-1", service="iot"),
}


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def upstream(authority):
    pem = authority.private_key_pem.bytes() + authority.cert_pem.bytes()
    with Upstream(HOSTS, identity=leaf(pem, names=list(HOSTS), now=time.time())) as upstream:
        yield upstream


@pytest.fixture
def connect(upstream, authority):
    """A TLS connection that claims to be made to this host."""
    context = ssl.create_default_context()
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    authority.configure_trust(context)
    opened = []

    def connect(sni):
        tcp = socket.create_connection(("127.0.0.1", upstream.port), timeout=5)
        opened.append(context.wrap_socket(tcp, server_hostname=sni))
        return opened[-1]

    yield connect
    for one in opened:
        one.close()


@pytest.fixture
def send(connect):
    """Send one request; its status and its JSON."""

    def send(host, target="/", *pairs, method="GET", body=b"", sni=None):
        lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in pairs)]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        tls = connect(sni or host)
        tls.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        answer = http.client.HTTPResponse(tls)
        answer.begin()
        return answer.status, json.loads(answer.read())

    return send


def test_each_host_takes_its_own_credential(send):
    assert send("bearer.test", "/", ("Authorization", "Bearer tok-1")) == (200, {"ok": True, "host": "bearer.test"})
    assert send("two.test", "/", ("X-Key", "k"), ("x-app", "a"))[0] == 200
    assert send("query.test", "/p?x=1&key=a+b")[0] == 200
    assert send("query.test", "/p?key=a%20b")[0] == 200
    assert send("basic.test", "/", ("Authorization", "Basic dXNlcjpww6Rzcw=="))[0] == 200


@pytest.mark.parametrize(
    ("host", "target", "pairs"),
    [
        ("bearer.test", "/", []),
        ("bearer.test", "/", [("Authorization", "Bearer tok-2")]),
        ("bearer.test", "/", [("Authorization", "bearer tok-1")]),
        ("bearer.test", "/", [("Authorization", "Bearer tok-1"), ("authorization", "Bearer tok-1")]),
        ("two.test", "/", [("X-Key", "k")]),
        ("two.test", "/", [("X-Key", "k"), ("X-App", "a"), ("Authorization", "Bearer alter_grant_x")]),
        ("query.test", "/", []),
        ("query.test", "/?key=a+b&key=a+b", []),
        ("query.test", "/?key=a+b", [("Authorization", "Bearer x")]),
        ("basic.test", "/", [("Authorization", "Basic dXNlcjpvdGhlcg==")]),
        ("aws.test", "/", [("Authorization", "Bearer tok-1")]),
    ],
)
def test_anything_else_is_401_and_names_no_secret(send, upstream, host, target, pairs):
    status, answer = send(host, target, *pairs)
    assert status == 401
    assert answer["ok"] is False
    assert upstream.received[-1].reason == answer["error"]
    assert "tok" not in answer["error"]


@pytest.mark.parametrize("name", ["X-Alter-Grant", "x_alter_reason", "Proxy-Authorization", "Proxy-Connection"])
def test_a_leaked_control_header_is_418(send, name):
    status, answer = send("bearer.test", "/", ("Authorization", "Bearer tok-1"), (name, "v"))
    assert (status, answer["error"]) == (418, f"a control header left the proxy: {name}")


def test_a_host_is_served_only_on_a_connection_made_to_it(send):
    assert send("bearer.test", "/", ("Authorization", "Bearer tok-1"), sni="two.test")[0] == 421
    assert send("other.test", "/", sni="two.test")[0] == 421


def test_a_signed_request_is_verified(send):
    def signed(method, target, body):
        request = AWSRequest(method, f"https://aws.test{target}", data=body)
        SigV4Auth(Credentials("AKID", "secret"), "iot", "eu-west-1").add_auth(request)
        return list(request.headers.items())

    pairs = signed("POST", "//a%20b?x=y", b"{}")
    assert send("aws.test", "//a%20b?x=y", *pairs, method="POST", body=b"{}")[0] == 200
    assert send("aws.test", "//a%20b?x=z", *pairs, method="POST", body=b"{}")[0] == 401
    assert send("aws.test", "//a%20b?x=y", *pairs, method="POST", body=b"[]")[0] == 401


def test_after_a_rotation_only_the_new_value_is_taken(send, upstream):
    upstream.expect("bearer.test", bearer("tok-2"))
    assert send("bearer.test", "/", ("Authorization", "Bearer tok-1"))[0] == 401
    assert send("bearer.test", "/", ("Authorization", "Bearer tok-2"))[0] == 200


def test_everything_that_arrives_is_recorded(send, upstream):
    send("bearer.test", "//x?y=1", ("X-Dup", "1"), ("X-Dup", "2"), method="PUT", body=b"12345")
    seen = upstream.received[-1]
    assert (seen.host, seen.method, seen.target, seen.body_size) == ("bearer.test", "PUT", b"//x?y=1", 5)
    assert (seen.values("x-dup"), seen.status) == (["1", "2"], 401)
    assert "X-Dup" not in repr(seen)


def test_a_chunked_body_is_read(connect, upstream):
    tls = connect("bearer.test")
    tls.sendall(b"POST / HTTP/1.1\r\nHost: bearer.test\r\nTransfer-Encoding: chunked\r\n\r\n")
    tls.sendall(b"3\r\nabc\r\na\r\n0123456789\r\n0\r\nX-Trailer: 1\r\n\r\n")
    assert tls.recv(12) == b"HTTP/1.1 401"
    assert upstream.received[-1].body_size == 13


@pytest.mark.parametrize(
    "framing",
    [
        "Content-Length: 1\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip, chunked",
        "Content-Length: 1\r\nContent-Length: 2",
        "Content-Length: -1",
        "Content-Length: 99999999999",
    ],
)
def test_framing_that_can_be_read_in_two_ways_is_dropped_unrecorded(connect, upstream, framing):
    tls = connect("bearer.test")
    tls.sendall(f"POST / HTTP/1.1\r\nHost: bearer.test\r\nAuthorization: Bearer tok-1\r\n{framing}\r\n\r\n".encode())
    assert tls.recv(1) == b""
    assert upstream.received == ()


def test_many_connections_are_served_at_once(send, upstream):
    def work():
        assert send("bearer.test", "/", ("Authorization", "Bearer tok-1"))[0] == 200

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.status for one in upstream.received] == [200] * 20
