"""An upstream that cannot prove its name gets nothing: not the credential, not the request, not a byte of it."""

import contextlib
import datetime as dt
import socket
import socketserver
import ssl
import threading
import warnings

import pytest

from tests.e2e.product import routes
from tests.e2e.stage import HOSTS, Stage, refusal
from tests.e2e.upstream import Upstream


class Issuer:
    """A CA whose certificates have something wrong with them."""

    def __init__(self, authority, *names, **changes):
        self.authority, self.names, self.changes = authority, names, changes

    def issue_cert(self, *hosts):
        return self.authority.issue_cert(*(self.names or hosts), **self.changes)


@pytest.fixture(scope="module")
def doubtful(authority, _impostor):
    """Servers by what is wrong with them."""
    now = dt.datetime.now(dt.UTC)
    with contextlib.ExitStack() as stack:

        def serve(issuer):
            return stack.enter_context(Upstream(list(HOSTS.values()), authority=issuer))

        expired = serve(Issuer(authority, not_before=now - dt.timedelta(9), not_after=now - dt.timedelta(1)))
        old = serve(authority)
        with warnings.catch_warnings(action="ignore"):
            old._context.minimum_version = old._context.maximum_version = ssl.TLSVersion.TLSv1_1
        old._context.set_ciphers("DEFAULT:@SECLEVEL=0")
        yield {
            "unknown CA": _impostor,
            "expired": expired,
            "not yet valid": serve(Issuer(authority, not_before=now + dt.timedelta(1))),
            "wrong name": serve(Issuer(authority, "other.test", "stripe.test", "*.test")),
            "TLS 1.1": old,
        }


WRONG = dict(zip(["unknown CA", "expired", "not yet valid", "wrong name", "TLS 1.1"], HOSTS, strict=True))
"""What is wrong with the upstream of each kind of secret."""


class Plain(socketserver.BaseRequestHandler):
    """An HTTP server that was not told about TLS."""

    def handle(self):
        self.server.heard = self.request.recv(1 << 16)
        self.request.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


@pytest.fixture(scope="module")
def plain():
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Plain) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def tricked(engine, seed, doubtful, plain, tmp_path_factory, authority_file):
    """A proxy whose every upstream is doubtful."""
    home = tmp_path_factory.mktemp(f"tricked-{engine}") / "home"
    leads = [route for wrong, kind in WRONG.items() for route in routes(doubtful[wrong]) if f"={HOSTS[kind]}:" in route]
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = closed.getsockname()[1]
    leads.append(f"--connect-to=evil.test:443:127.0.0.1:{nobody}")
    leads.append(f"--connect-to=plain.test:443:127.0.0.1:{plain.server_address[1]}")
    with Stage.open(seed, home, "--upstream-ca", authority_file, *leads, engine=engine) as stage:
        yield stage


@pytest.mark.parametrize("http2", [False, True], ids=["h1", "h2"])
@pytest.mark.parametrize("wrong", WRONG)
def test_nothing_is_sent(tricked, doubtful, wrong, http2):
    kind, upstream = WRONG[wrong], doubtful[wrong]
    upstream.reset()
    code = "upstream_unreachable" if wrong == "TLS 1.1" else "upstream_unverified"
    with tricked.client(http2=http2) as client:
        for _ in range(2):
            url = f"https://{HOSTS[kind]}/echo"
            answer = client.post(url, headers=tricked.tag(kind), content=b"secret body")
            refusal(answer, code, status=502, stage=tricked)
            refusal(client.get(url), code, status=502, stage=tricked)
    assert upstream.untouched()


@pytest.mark.parametrize("http2", [False, True], ids=["h1", "h2"])
def test_a_request_that_is_refused_anyway_is_told_so(tricked, doubtful, http2):
    """What the grant says comes before what the upstream is."""
    with tricked.client(http2=http2) as client:
        answer = client.get(f"https://{HOSTS['bearer']}/echo", headers={"X-Alter-Grant": "0" * 36})
        refusal(answer, "grant_unavailable", status=403, stage=tricked)


def test_nobody_there(tricked):
    with tricked.client() as client:
        refusal(client.get("https://evil.test/"), "upstream_unreachable", status=502, stage=tricked)


def test_an_upstream_without_tls(tricked, plain):
    with tricked.wire() as wire:
        answer = wire.tunnel("plain.test").ask("GET /echo HTTP/1.1\r\nHost: plain.test\r\n\r\n")
        refusal(answer, "upstream_unreachable", status=502, stage=tricked)
    assert plain.heard.startswith(b"\x16\x03")


def test_without_the_private_ca_the_genuine_upstream_is_refused_as_well(seed, engine, tmp_path, upstream):
    with (
        Stage.open(seed, tmp_path / "home", *routes(upstream), engine=engine) as stage,
        stage.client() as client,
    ):
        answer = client.get(f"https://{HOSTS['bearer']}/echo", headers=stage.tag())
        refusal(answer, "upstream_unverified", status=502, stage=stage)
    assert upstream.untouched()
