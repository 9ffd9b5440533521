"""
`--mode transparent`: an app that knows of no proxy, in a network whose gateway redirects its connections to one.

It is tagged by a header, and proves who it is by `X-Alter-Key`. Where it means to connect to proves nothing.
"""

import json
import re
import socket
import sys
import time
from pathlib import Path

import pytest

from addon.errors import Usage
from addon.settings import Settings
from tests.e2e.network import Inside, Network, Unavailable
from tests.e2e.product import PROGRAMS, Control, Proxy, environment, routes, start
from tests.e2e.stage import HOSTS, VALUES, Stage, refusal
from tests.e2e.wire import H2Wire, Wire

API, UNBOUND = HOSTS["bearer"], "api.unbound.test"
SECRET = VALUES["bearer"]["token"]
ROOT = Path(__file__).parents[2]
NAMES = (*HOSTS.values(), UNBOUND, "evil.test")


@pytest.fixture(scope="module", params=[4, 6], ids=["IPv4", "IPv6"])
def network(request):
    try:
        made = Network(NAMES, family=request.param).__enter__()
    except Unavailable as reason:
        pytest.skip(str(reason))
    yield made
    made.__exit__()


@pytest.fixture(scope="module")
def _inside(network, authority):
    with Inside(NAMES[:-1], authority=authority, space=network.gateway) as upstream:
        yield upstream


@pytest.fixture
def inside(_inside):
    """The upstream of all names but evil.test."""
    _inside.reset()
    yield _inside
    assert not _inside.errors


class Gateway(Proxy):
    """A proxy in the gateway's namespace, at the end of its redirection."""

    def __init__(self, network, home, *options, at=None):
        self.control, self.network = Control(home), network
        address = at or network.address
        address = f"[{address}]" if network.family == 6 else address
        command = ["ip", "netns", "exec", network.gateway, PROGRAMS / "alter-egress", "--home", home]
        command += ["--mode", "transparent", "--listen", f"{address}:0", "--workers", "1", *options]
        sign = re.compile(rf"alter-egress ready on (http://{re.escape(address)}:(\d+)) ")
        self.address, port = self._start([str(part) for part in command], sign, env=environment()).groups()
        self.port = int(port)


@pytest.fixture(scope="module")
def _stage(network, engine, seed, tmp_path_factory, _inside, authority_file):
    with _open(network, engine, seed, tmp_path_factory, _inside, authority_file) as stage:
        yield stage


def _open(network, engine, seed, tmp_path_factory, upstream, authority_file, *options):
    control = seed.copy(tmp_path_factory.mktemp("transparent") / "home")
    usual = ["--engine", engine, "--upstream-ca", authority_file, *routes(upstream)]
    proxy = Gateway(network, control.home, *usual, *options)
    network.redirect(proxy.port)
    return Stage(engine, control, proxy, seed.key, seed.grants, seed.cast)


@pytest.fixture
def stage(_stage, inside):
    """A transparent proxy; the redirection leads to it."""
    _stage.proxy.network.redirect(_stage.proxy.port)
    return _stage


class Redirected(Wire):
    """A raw connection of the app to an address of its choice."""

    def __init__(self, stage, port=443, *, address=None, timeout=5):
        network = stage.proxy.network
        target = (address or network.nowhere, port)
        self.caller, self.timeout, self.buffer = None, timeout, b""
        self.socket = network.within(network.app, lambda: socket.create_connection(target, timeout=timeout))

    def tls(self, sni, *, alpn=("http/1.1",)):
        self.encrypt(sni, alpn=alpn)
        return self


class H2Redirected(Redirected, H2Wire):
    def connect(self, authority, *, headers=""):
        return type("Opened", (), {"status": 200})


def get(stage, host=API, *, kind="bearer", more="", tag=True):
    """A request as the app would write it."""
    tag = f"X-Alter-Key: {stage.key}\r\nX-Alter-Grant: {stage.grants[kind]}\r\n" if tag else ""
    return f"GET /echo HTTP/1.1\r\nHost: {host}\r\n{tag}{more}\r\n"


CLIENT = """
import json, ssl, sys, httpx
from tests.e2e.product import H2Only
url, headers, ca, http2 = json.loads(sys.argv[1])
context = (H2Only if http2 else ssl.SSLContext)(ssl.PROTOCOL_TLS_CLIENT)
context.load_verify_locations(ca)
with httpx.Client(verify=context, headers=headers, http2=http2, http1=not http2, trust_env=False) as client:
    answer = client.get(url)
    print(json.dumps([answer.status_code, answer.http_version, answer.headers.get("x-alter-error")]))
"""


def app(stage, url, headers, *, http2=False):
    """What an app in the namespace gets."""
    arguments = json.dumps([url, headers, str(stage.proxy.ca), http2])
    done = stage.proxy.network.execute(sys.executable, "-c", CLIENT, arguments, env=environment(), cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_an_app_that_knows_of_no_proxy(stage, inside):
    headers = {"X-Alter-Key": stage.key, **stage.tag()}
    for http2, version in ((False, "HTTP/1.1"), (True, "HTTP/2")):
        inside.reset()
        assert app(stage, f"https://{API}/echo", headers, http2=http2) == [200, version, None]
        assert inside.last.values("authorization") == [f"Bearer {SECRET}"]
        assert (inside.last.host, inside.last.sni) == (API, API)
        assert b"x-alter" not in inside.last.raw.lower()


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_curl(stage, inside, version):
    done = stage.proxy.network.execute(
        "curl", "-sS", "-f", version, "--cacert", stage.proxy.ca,
        "-H", f"X-Alter-Key: {stage.key}", "-H", f"X-Alter-Grant: {stage.grants['bearer']}", f"https://{API}/echo",
        env=environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert inside.last.values("authorization") == [f"Bearer {SECRET}"]


def test_without_a_grant_it_is_forwarded(stage, inside):
    assert app(stage, f"https://{UNBOUND}/echo", {}) == [200, "HTTP/1.1", None]
    assert inside.last.host == UNBOUND


def test_refusals_are_those_of_any_request(stage, inside):
    key = {"X-Alter-Key": stage.key}
    cases = {
        "caller_required": (407, API, stage.tag()),
        "caller_invalid": (407, API, {"X-Alter-Key": stage.cast["expired key"], **stage.tag()}),
        "grant_revoked": (403, API, {**key, "X-Alter-Grant": stage.cast["revoked"]}),
        "destination_not_bound": (403, UNBOUND, {**key, **stage.tag()}),
        "tag_malformed": (400, API, {**key, "X-Alter-Grant": "x"}),
    }
    for code, (status, host, sent) in cases.items():
        for alpn, wire in ((("http/1.1",), Redirected), (("h2",), H2Redirected)):
            with wire(stage) as client:
                if wire is Redirected:
                    more = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
                    answer = client.tls(host, alpn=alpn).ask(get(stage, host, tag=False, more=more))
                else:
                    client.tunnel(host)
                    answer = client.ask("GET", "/echo", [(name.lower(), value) for name, value in sent.items()])
            refusal(answer, code, status=status, stage=stage)
    assert inside.untouched()


@pytest.mark.parametrize(
    ("sni", "host"),
    [("evil.test", API), (API, "evil.test"), (UNBOUND, API), (None, API), ("203.0.113.7", API), (API, f"{API}:8443")],
)
def test_the_name_in_the_hello_and_every_other_must_be_the_bound_one(stage, inside, sni, host):
    with Redirected(stage) as wire:
        answer = wire.tls(sni).ask(get(stage, host))
    assert answer.code in {"authority_mismatch", "destination_not_bound"}
    assert answer.status == 403
    assert inside.untouched()


def test_the_address_the_app_connects_to_is_not_used(stage, inside):
    """An app cannot lead a credential to a server of its own, nor the proxy to a private address."""
    network = stage.proxy.network
    private = "10.9.9.9" if network.family == 4 else "fd99::9"
    for address in (network.nowhere, private):
        with Redirected(stage, address=address) as wire:
            assert wire.tls(API).ask(get(stage)).status == 200
        assert inside.last.values("authorization") == [f"Bearer {SECRET}"]


def test_another_port_is_another_destination(stage, inside):
    for port in (444, 6379):
        with Redirected(stage, port) as wire:
            refusal(wire.tls(API).ask(get(stage, f"{API}:{port}")), "destination_not_bound", status=403, stage=stage)
    with Redirected(stage, 6379) as wire:
        refusal(wire.tls(UNBOUND).ask(get(stage, UNBOUND, tag=False)), "address_forbidden", status=403, stage=stage)
    assert inside.untouched()


def test_without_a_name_the_address_is_the_destination_and_nothing_is_bound_to_it(stage, inside):
    network = stage.proxy.network
    private = "10.9.9.9" if network.family == 4 else "fd99::9"
    host = f"[{private}]" if network.family == 6 else private
    with Redirected(stage, address=private) as wire:
        refusal(wire.tls(None).ask(get(stage, host, tag=False)), "address_forbidden", status=403)
    with Redirected(stage, address=private) as wire:
        refusal(wire.tls(None).ask(get(stage, host)), "authority_mismatch", status=403, stage=stage)


def test_plain_http_gets_no_credential_and_reaches_no_private_address(stage, inside):
    with Redirected(stage, 80) as wire:
        refusal(wire.ask(get(stage)), "cleartext_upstream", status=403, stage=stage)
    private = "10.9.9.9" if stage.proxy.network.family == 4 else "fd99::9"
    with Redirected(stage, 80, address=private) as wire:
        refusal(wire.ask(get(stage, tag=False)), "address_forbidden", status=403)
    assert inside.untouched()


def test_it_is_no_proxy_for_whoever_asks_for_one(stage, inside):
    with Redirected(stage) as wire:
        assert wire.connect(f"{API}:443").status in {0, 400, 403}
    assert not inside.connections()


def test_who_was_not_redirected_is_not_served(stage, inside):
    """The rule spares the listener's own address here, as it would for another machine in that network."""
    network = stage.proxy.network
    with Redirected.__new__(Redirected) as wire:
        wire.caller, wire.timeout, wire.buffer = None, 5, b""
        target = (network.address, stage.proxy.port)
        wire.socket = network.within(network.gateway, lambda: socket.create_connection(target, timeout=5))
        assert wire.ask(get(stage)).status == 0
    assert not inside.connections()


def test_upstreams_are_proved(network, engine, seed, tmp_path_factory, authority_file):
    import trustme  # noqa: PLC0415

    with Inside([API], authority=trustme.CA(), space=network.gateway) as impostor:
        stage = _open(network, engine, seed, tmp_path_factory, impostor, authority_file)
        with stage:
            for wire in (Redirected, H2Redirected):
                with wire(stage) as client:
                    if wire is Redirected:
                        answer = client.tls(API).ask(get(stage))
                    else:
                        client.tunnel(API)
                        sent = [("x-alter-key", stage.key), ("x-alter-grant", stage.grants["bearer"])]
                        answer = client.ask("GET", "/echo", sent)
                refusal(answer, "upstream_unverified", status=502, stage=stage)
        assert impostor.untouched()


def test_what_is_not_bound_may_pass_unread(network, engine, seed, tmp_path_factory, inside, authority_file):
    with _open(network, engine, seed, tmp_path_factory, inside, authority_file, "--intercept", "bound") as stage:
        done = network.execute(
            "curl", "-sS", "-f", "--cacert", authority_file, f"https://{UNBOUND}/echo", env=environment()
        )
        assert done.returncode == 0, done.stderr
        with Redirected(stage) as wire:
            assert wire.tls(API).ask(get(stage)).status == 200
        deadline = time.monotonic() + 5
        while not (rows := [row for row in stage.records(host=UNBOUND) if row["phase"] == "outcome"]):
            assert time.monotonic() < deadline
    assert [(row["decision"], row["code"]) for row in rows] == [("passed", "")]
    assert inside.last.values("authorization") == [f"Bearer {SECRET}"]


def test_apps_of_one_user_on_the_same_machine(network, engine, seed, tmp_path_factory, inside, authority_file):
    """The proxy's own connections are another user's, and so are not redirected."""
    control = seed.copy(tmp_path_factory.mktemp("local") / "home")
    nobody, loopback = 65534, {4: "127.0.0.1", 6: "::1"}[network.family]
    proxy = Gateway(
        network, control.home, "--engine", engine, "--upstream-ca", authority_file, *routes(inside), at=loopback
    )
    with Stage(engine, control, proxy, seed.key, seed.grants, seed.cast) as stage:
        network.redirect_user(nobody, proxy.port)
        tag = ["-H", f"X-Alter-Key: {stage.key}", "-H", f"X-Alter-Grant: {stage.grants['bearer']}"]
        where = f"{API}:443:{network.nowhere if network.family == 4 else f'[{network.nowhere}]'}"
        curl = ["curl", "-sS", "-f", "-k", "--max-time", "10", "--resolve", where, *tag, f"https://{API}/echo"]
        done = network.execute(*curl, space=network.gateway, user=nobody, env=environment())
        assert done.returncode == 0, done.stderr
        assert inside.last.values("authorization") == [f"Bearer {SECRET}"]


@pytest.mark.parametrize(
    "address", ["10.77.0.1", "192.168.1.1", "172.17.0.1", "100.64.0.1", "fd77::1", "127.0.0.1", "::1"]
)
def test_it_may_listen_where_redirected_connections_arrive(address):
    Settings(home="/home", mode="transparent", listen_host=address).check()


@pytest.mark.parametrize(
    "address", ["0.0.0.0", "::", "::ffff:0.0.0.0", "8.8.8.8", "2606:4700::1111", "224.0.0.1", "169.254.0.1", "fe80::1"]
)
def test_it_may_not_listen_where_anybody_arrives(address):
    with pytest.raises(Usage, match="reachable from anywhere") as refused:
        Settings(home="/home", mode="transparent", listen_host=address).check()
    assert "gateway" in refused.value.hint


def test_other_modes_do_not_listen_there(seed):
    assert start(seed.home, "--listen", "10.77.0.1:0").returncode == 2
