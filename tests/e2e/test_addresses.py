"""
Traffic without a grant reaches public addresses only; a secret reaches a private one only if its binding says so.

Nothing here leaves the machine: what is refused is refused before a connection, and what would be connected to is a
server of this test, which counts.
"""

import socket

import pytest

from tests.e2e.stage import Stage, refusal
from tests.e2e.upstream import Upstream

LOOPBACK = ["127.0.0.1", "127.1.2.3", "localhost", "LOCALHOST", "localhost."]
ODD = ["2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1", "127.0.1", "017700000001", "0", "0.0.0.0"]
BRACKETED = ["[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::]", "[0:0:0:0:0:0:0:1]", "[64:ff9b::7f00:1]"]
PRIVATE = ["10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.1.1", "192.0.2.1", "198.18.0.1", "224.0.0.1",
           "240.0.0.1", "255.255.255.255", "[fe80::1]", "[fc00::1]", "[ff02::1]", "[2001:db8::1]", "[2002:7f00:1::1]"]  # fmt: skip
METADATA = ["169.254.169.254", "169.254.170.2", "100.100.100.200", "192.0.0.192", "[fd00:ec2::254]",
            "[::ffff:169.254.169.254]", "[64:ff9b::a9fe:a9fe]", "2852039166", "0xa9fea9fe"]  # fmt: skip


@pytest.fixture(scope="module")
def local(authority):
    """A server of this machine that nobody led the proxy to."""
    with Upstream(["localhost", "127.0.0.1"], authority=authority) as upstream:
        yield upstream


@pytest.fixture
def watched(local):
    local.reset()
    yield local
    assert not local.errors


def plain(stage, host, port):
    """The answer to a plain request."""
    with stage.wire(caller=None, timeout=3) as wire:
        return wire.ask(f"GET http://{host}:{port}/echo HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n")


def tunnelled(stage, host, port, *, headers="", caller=None):
    """The answer to a request in a tunnel, or to its CONNECT."""
    with stage.wire(caller=caller, timeout=3) as wire:
        answer = wire.connect(f"{host}:{port}")
        if answer.status != 200:
            return answer
        try:
            wire.encrypt("localhost")
        except OSError:
            return answer
        return wire.ask(f"GET /echo HTTP/1.1\r\nHost: {host}:{port}\r\n{headers}\r\n")


@pytest.mark.parametrize("host", LOOPBACK + ODD + BRACKETED)
def test_what_leads_back_to_this_machine_is_refused(stage, watched, host):
    for answer in (plain(stage, host, watched.plain_port), tunnelled(stage, host, watched.port)):
        assert answer.status in {400, 403, 502}, answer
        assert answer.code in {"address_forbidden", "upstream_unreachable", "header_forbidden", "authority_mismatch"}
    assert not watched.connections()


@pytest.mark.parametrize("host", LOOPBACK[:4])
def test_and_is_told_so(stage, watched, host):
    refusal(plain(stage, host, watched.plain_port), "address_forbidden", status=403)
    refusal(tunnelled(stage, host, watched.port), "address_forbidden", status=403)
    assert not watched.connections()


@pytest.mark.parametrize("host", PRIVATE + METADATA)
def test_private_and_metadata_addresses_are_refused(stage, host):
    for answer in (plain(stage, host, 80), tunnelled(stage, host, 443)):
        assert answer.code in {"address_forbidden", "upstream_unreachable", "header_forbidden"}, answer
        assert answer.status in {400, 403, 502}


def test_a_host_that_cannot_be_looked_up(stage):
    refusal(plain(stage, "nowhere.invalid", 80), "upstream_unreachable", status=502)


def test_a_name_that_is_none(stage):
    assert plain(stage, f"{'x' * 64}.test", 80).status in {400, 502}


class TestAllowed:
    """--allow-private opens a network for traffic without a grant."""

    @pytest.fixture(scope="class")
    @classmethod
    def stage(cls, engine, seed, tmp_path_factory, authority_file):
        home = tmp_path_factory.mktemp(f"allowed-{engine}") / "home"
        options = [
            "--allow-private",
            "127.0.0.0/8",
            "--allow-private",
            "169.254.0.0/16",
            "--upstream-ca",
            authority_file,
        ]
        with Stage.open(seed, home, *options, engine=engine) as stage:
            yield stage

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
    def test_it_is_reached(self, stage, watched, host):
        assert plain(stage, host, watched.plain_port).json["host"] == host
        assert tunnelled(stage, host, watched.port).json["host"] == host

    def test_metadata_is_not(self, stage):
        refusal(plain(stage, "169.254.169.254", 80), "address_forbidden", status=403)
        refusal(tunnelled(stage, "169.254.169.254", 443), "address_forbidden", status=403)

    def test_other_networks_are_not(self, stage):
        refusal(plain(stage, "10.0.0.1", 80), "address_forbidden", status=403)

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.9.9.9"])
    def test_the_proxy_itself_is_not(self, stage, host):
        answers = [plain(stage, host, stage.proxy.port), tunnelled(stage, host, stage.proxy.port)]
        for answer in answers:
            refusal(answer, "address_forbidden", status=403)

    def test_ports_of_other_protocols_are_not(self, stage, watched):
        with socket.create_server(("127.0.0.1", 0)):
            refusal(tunnelled(stage, "127.0.0.1", 22), "address_forbidden", status=403)
            refusal(plain(stage, "127.0.0.1", 6379), "address_forbidden", status=403)


class TestBound:
    """--private in a binding opens a host for its own secret, and for nothing else."""

    def bind(self, stage, name, *options):
        stage.vaultctl.secret(name, "--kind", "bearer", *options, token="x")
        return f"X-Alter-Grant: {stage.vaultctl.grant(name, 'system:billing')}\r\n"

    def test_a_private_binding_is_reached_by_its_secret_alone(self, launch, engine, watched):
        stage = launch(engine=engine)
        tag = self.bind(stage, "intranet", "--host", f"localhost:{watched.port}", "--private")
        answer = tunnelled(stage, "localhost", watched.port, headers=tag, caller=stage.caller)
        assert answer.status == 200
        assert watched.last.values("authorization") == ["Bearer x"]
        watched.reset()
        refusal(tunnelled(stage, "localhost", watched.port), "address_forbidden", status=403)
        refusal(tunnelled(stage, "localhost", watched.port, caller=stage.caller), "address_forbidden", status=403)
        refusal(plain(stage, "localhost", watched.plain_port), "address_forbidden", status=403)
        assert watched.untouched()

    def test_a_binding_that_is_not_private_does_not_reach_a_private_address(self, launch, engine, watched):
        stage = launch(engine=engine)
        tag = self.bind(stage, "public", "--host", f"localhost:{watched.port}")
        answer = tunnelled(stage, "localhost", watched.port, headers=tag, caller=stage.caller)
        refusal(answer, "address_forbidden", status=403, stage=stage)
        assert not watched.connections()

    def test_a_secret_for_the_proxy_itself_goes_nowhere(self, launch, engine):
        stage = launch(engine=engine)
        tag = self.bind(stage, "loop", "--host", f"localhost:{stage.proxy.port}", "--private")
        answer = tunnelled(stage, "localhost", stage.proxy.port, headers=tag, caller=stage.caller)
        refusal(answer, "address_forbidden", status=403, stage=stage)
