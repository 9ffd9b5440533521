"""`--intercept bound` and `--passthrough`: TLS that nobody reads is opaque, and still under every rule about where it goes."""

import resource
import shutil
import ssl
import subprocess
import time

import httpx
import pytest

from tests.e2e.product import Lone, Proxy, environment, routes, start
from tests.e2e.stage import HOSTS, VALUES, Stage, refusal
from tests.e2e.test_limits_time import LIMITS, PROGRAM

API = HOSTS["bearer"]
SECRET = VALUES["bearer"]["token"]
UNBOUND = "api.unbound.test"


@pytest.fixture(scope="module")
def _bound(engine, seed, tmp_path_factory, _upstream, _evil, authority_file):
    home = tmp_path_factory.mktemp(f"bound-{engine}") / "home"
    options = ["--intercept", "bound", "--upstream-ca", authority_file, *routes(_upstream, _evil)]
    with Stage.open(seed, home, *options, engine=engine) as stage:
        yield stage


@pytest.fixture
def bound(_bound, upstream, evil):
    """A proxy that reads bound hosts only."""
    return _bound


def direct(stage, authority_file, *, caller=..., **options):
    """A client that trusts the upstream's own CA, and not ours."""
    caller = stage.caller if caller is ... else caller
    context = ssl.create_default_context(cafile=authority_file)
    if options.get("http2"):
        context.set_alpn_protocols(["h2"])
    url = stage.proxy.url(*caller) if caller else stage.proxy.url()
    return httpx.Client(proxy=url, verify=context, timeout=10, trust_env=False, **options)


def passed(stage, host=UNBOUND):
    """The records of the newest tunnel that went through unread, once it is over."""
    rows = [row for row in stage.records(host=host) if (row["method"], row["phase"]) == ("CONNECT", "intent")]
    intent = max(rows, key=lambda row: row["at"])
    return intent, stage.audit(intent["id"])


def test_an_unbound_host_shows_its_own_certificate_and_is_on_record(bound, upstream, authority_file):
    with direct(bound, authority_file) as client:
        assert client.get(f"https://{UNBOUND}/echo").status_code == 200
    intent, outcome = passed(bound)
    assert (intent["decision"], intent["caller"], intent["port"]) == ("passed", "app:billing", 443)
    assert (outcome["decision"], outcome["code"], outcome["path"]) == ("passed", "", "")
    assert outcome["duration_ms"] > 0


def test_a_tunnel_that_nobody_reads_may_be_silent_for_longer_than_one_that_is_read(
    engine, seed, tmp_path, upstream, authority_file
):
    """What is a request in it, and what a pause between two, only its ends can tell."""
    home = tmp_path / "home"
    vaultctl = seed.copy(home)
    limits = [f"patience.{name}={seconds}" for name, seconds in (LIMITS | {"ANSWER": 60}).items()]
    options = ["--engine", engine, "--intercept", "bound", "--upstream-ca", authority_file, *routes(upstream)]
    proxy = Lone(home, *options, program=[PROGRAM, *limits])
    with (
        Stage(engine, vaultctl, proxy, seed.key, seed.grants, seed.cast) as stage,
        direct(stage, authority_file, limits=httpx.Limits(keepalive_expiry=60)) as client,
    ):
        assert client.get(f"https://{UNBOUND}/echo").status_code == 200
        time.sleep(3 * LIMITS["HEAD"])
        assert client.get(f"https://{UNBOUND}/echo").status_code == 200
        assert len([row for row in stage.records(host=UNBOUND) if row["phase"] == "intent"]) == 1


def test_its_record_can_be_listed_and_explained(bound, upstream, authority_file):
    with direct(bound, authority_file) as client:
        assert client.get(f"https://{UNBOUND}/echo").status_code == 200
    record = passed(bound)[1]
    assert record["id"] in {row["id"] for row in bound.vaultctl.json("audit", "list")}
    told = bound.vaultctl.json("audit", "explain", record["id"])
    assert (told["decision"], told["recorded"]["decision"]) == ("passed", "passed")
    assert bound.vaultctl.json("audit", "verify")["ok"]


def test_http2_passes_as_well(bound, upstream, authority_file):
    with direct(bound, authority_file, http2=True) as client:
        assert client.get(f"https://{UNBOUND}/echo").http_version == "HTTP/2"


def test_curl_passes_as_well(bound, upstream, authority_file):
    done = subprocess.run(
        [
            "curl",
            "-sS",
            "--proxy",
            bound.proxy.url(*bound.caller),
            "--cacert",
            authority_file,
            f"https://{UNBOUND}/echo",
        ],
        capture_output=True,
        timeout=30,
        check=False,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    assert upstream.last.host == UNBOUND


def test_a_bound_host_is_read_and_gets_its_credential(bound, upstream):
    with bound.client() as client:
        assert client.get(f"https://{API}/echo", headers=bound.tag()).status_code == 200
    assert upstream.last.values("authorization") == [f"Bearer {SECRET}"]


def test_a_tunnel_that_nobody_reads_is_opaque(bound, upstream, authority_file):
    """What an app says inside it, its tag included, is between the two ends."""
    with direct(bound, authority_file) as client:
        assert client.get(f"https://{UNBOUND}/echo", headers=bound.tag()).status_code == 200
    assert upstream.last.values("x-alter-grant") == [bound.grants["bearer"]]
    assert upstream.last.values("authorization") == []


def test_a_host_is_read_from_the_moment_a_secret_is_bound_to_it(launch, engine, upstream, authority_file):
    bound = launch("--intercept", "bound", engine=engine)
    with direct(bound, authority_file) as client:
        assert client.get(f"https://{UNBOUND}/echo").status_code == 200
    bound.vaultctl.secret("new", "--kind", "bearer", "--host", f"{UNBOUND}:8443", token="new")
    with direct(bound, authority_file) as client, pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        client.get(f"https://{UNBOUND}/echo")


def test_a_name_in_the_hello_that_is_bound_is_read_wherever_the_tunnel_leads(bound, upstream):
    with bound.wire() as wire:
        wire.tunnel("evil.test", sni=API)
        answer = wire.ask(f"GET /echo HTTP/1.1\r\nHost: {API}\r\nX-Alter-Grant: {bound.grants['bearer']}\r\n\r\n")
    refusal(answer, "authority_mismatch", status=403, stage=bound)
    assert upstream.untouched()


def test_what_is_not_tls_is_read(bound, upstream):
    with bound.wire() as wire:
        assert wire.connect(f"{UNBOUND}:80").status == 200
        tag = f"X-Alter-Grant: {bound.grants['bearer']}\r\n"
        refusal(wire.ask(f"GET / HTTP/1.1\r\nHost: {UNBOUND}\r\n{tag}\r\n"), "cleartext_upstream", status=403)
    assert upstream.untouched()


def test_a_bad_key_opens_no_tunnel(bound, upstream):
    with bound.wire(caller=("billing", bound.cast["expired key"])) as wire:
        refusal(wire.connect(f"{UNBOUND}:443"), "caller_invalid", status=407, stage=bound)
    assert not upstream.connections()


def test_without_a_key_nobody_is_named(bound, upstream, authority_file):
    with direct(bound, authority_file, caller=None) as client:
        assert client.get(f"https://{UNBOUND}/echo").status_code == 200
    assert passed(bound)[1]["caller"] == ""


@pytest.mark.parametrize("host", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "localhost"])
def test_a_private_address_is_not_reached(bound, host):
    with bound.wire() as wire:
        assert wire.connect(f"{host}:443").status == 200
        with pytest.raises(OSError, match=r"EOF|reset"):
            wire.encrypt("nowhere.test")
    outcome = passed(bound, host)[1]
    assert (outcome["decision"], outcome["code"]) == ("refused", "address_forbidden")


def test_a_port_of_another_protocol_is_refused(bound):
    with bound.wire() as wire:
        refusal(wire.connect(f"{UNBOUND}:6379"), "address_forbidden", status=403, stage=bound)


def test_untagged_deny_refuses_the_tunnel(launch, engine, upstream):
    stage = launch("--intercept", "bound", "--untagged", "deny", engine=engine)
    with stage.wire() as wire:
        refusal(wire.connect(f"{UNBOUND}:443"), "untagged", status=403, stage=stage)
    with stage.client() as client:
        assert client.get(f"https://{API}/echo", headers=stage.tag()).status_code == 200
    assert {one.host for one in upstream.seen()} == {API}


def test_nothing_passes_unrecorded(bound, upstream, authority_file):
    with direct(bound, authority_file) as client:
        assert client.get(f"https://{UNBOUND}/echo").status_code == 200
    upstream.reset()
    (worker,) = bound.proxy.workers()
    limits = resource.prlimit(worker, resource.RLIMIT_FSIZE)
    resource.prlimit(worker, resource.RLIMIT_FSIZE, (100, limits[1]))
    with bound.wire() as wire:
        wire.tunnel(UNBOUND)  # with us, and not with the upstream
        refusal(wire.ask(f"GET /echo HTTP/1.1\r\nHost: {UNBOUND}\r\n\r\n"), "audit_unavailable", status=503)
    resource.prlimit(worker, resource.RLIMIT_FSIZE, limits)
    assert not upstream.connections()


class TestPassthrough:
    """--passthrough HOST, for one host at a time."""

    def test_the_host_passes_and_others_do_not(self, launch, engine, upstream, authority_file):
        stage = launch("--passthrough", UNBOUND, engine=engine)
        with direct(stage, authority_file) as client:
            assert client.get(f"https://{UNBOUND}/echo").status_code == 200
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                client.get("https://evil.test/echo")
        assert passed(stage)[1]["decision"] == "passed"

    def test_another_port_of_it_does_not(self, launch, engine, upstream):
        stage = launch("--passthrough", f"{UNBOUND}:8443", engine=engine)
        with stage.client() as client:
            assert client.get(f"https://{UNBOUND}/echo").status_code == 200

    def test_another_name_in_the_hello_does_not(self, launch, engine, upstream):
        stage = launch("--passthrough", UNBOUND, engine=engine)
        with stage.wire() as wire:
            wire.tunnel(UNBOUND, sni="evil.test")
            assert wire.ask(f"GET /echo HTTP/1.1\r\nHost: {UNBOUND}\r\n\r\n").status in {200, 502}
        assert not any(row["decision"] == "passed" for row in stage.records())

    def test_a_secret_bound_to_it_closes_it(self, launch, engine, upstream):
        stage = launch("--passthrough", API, engine=engine)
        with stage.wire() as wire:
            refusal(wire.connect(f"{API}:443"), "passthrough_bound", status=403, stage=stage)
        with stage.wire() as wire:
            answer = wire.ask(f"GET https://{API}/ HTTP/1.1\r\nHost: {API}\r\n\r\n")
            refusal(answer, "passthrough_bound", status=403, stage=stage)
        assert upstream.untouched()

    def test_a_wildcard_is_no_single_host(self, seed):
        done = start(seed.home, "--passthrough", "*.unbound.test")
        assert done.returncode == 2
        assert "name each host" in done.stderr


def test_a_constrained_ca_speaks_for_the_bound_host_alone(seed, tmp_path, engine, upstream, evil, authority_file):
    """A client that trusts it, and the public CAs, reaches both; it could not be used against any other host."""
    control = seed.copy(tmp_path / "home")
    shutil.move(control.home / "ca", tmp_path / "old-ca")
    control.run("ca", "init", "--constrain", API)
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes((control.home / "ca" / "ca-cert.pem").read_bytes() + authority_file.read_bytes())
    usual = ["--engine", engine, "--upstream-ca", authority_file, *routes(upstream, evil)]
    for intercept, reached in (("bound", True), ("all", False)):
        proxy = Proxy(control.home, *usual, "--intercept", intercept)
        opened = Stage(engine, control, proxy, seed.key, seed.grants, seed.cast)
        with opened as stage, direct(stage, trusted) as client:
            assert client.get(f"https://{API}/echo", headers=stage.tag()).status_code == 200
            if reached:
                assert client.get(f"https://{UNBOUND}/echo").status_code == 200
            else:
                with pytest.raises(httpx.ConnectError, match="permitted subtree violation"):
                    client.get(f"https://{UNBOUND}/echo")
