"""`--upstream-proxy`: every connection goes through the next proxy, and nothing else about a request changes."""

import socket
import subprocess
from pathlib import Path

import pytest

from addon.next_proxy import VARIABLE
from tests.e2e.next_proxy import NextProxy
from tests.e2e.product import environment, start
from tests.e2e.stage import HOSTS, VALUES, Stage, refusal

API = HOSTS["bearer"]
SECRET = VALUES["bearer"]["token"]
PASSWORD = "s3cret canary/@:"


def leads_to(*upstreams):
    return {(host, port): target for up in upstreams for host in up.hosts for port, target in up.ports.items()}


@pytest.fixture
def chained(launch, engine, upstream, evil):
    """`chained(proxy)` is a stage whose only way out is that proxy."""

    def chained(proxy, *options, **settings):
        given = ["--upstream-proxy", f"http://127.0.0.1:{proxy.port}"] if proxy else []
        return launch(*given, *options, engine=engine, leads_to=(), **settings)

    return chained


def test_a_tagged_request_goes_through_it_with_its_credential(chained, upstream):
    with NextProxy(leads_to(upstream)) as proxy:
        stage = chained(proxy)
        with stage.client() as client:
            assert client.get(f"https://{API}/echo", headers=stage.tag()).status_code == 200
            assert client.get(f"https://{API}/echo", headers=stage.tag()).status_code == 200
        assert [one.values("authorization") for one in upstream.seen()] == [[f"Bearer {SECRET}"]] * 2
        assert set(proxy.lines) == {f"CONNECT {API}:443 HTTP/1.1"}
        assert all("alter" not in head.lower() and SECRET not in head for head in proxy.heads)


def test_http2_goes_through_it(chained, upstream):
    with NextProxy(leads_to(upstream)) as proxy:
        stage = chained(proxy)
        with stage.client(http2=True) as client:
            answer = client.get(f"https://{API}/echo", headers=stage.tag())
        assert (answer.status_code, answer.http_version) == (200, "HTTP/2")
        assert upstream.last.values("authorization") == [f"Bearer {SECRET}"]
        assert proxy.lines == [f"CONNECT {API}:443 HTTP/1.1"]


def test_curl_without_a_grant_goes_through_it_encrypted_or_not(chained, upstream):
    with NextProxy(leads_to(upstream)) as proxy:
        stage = chained(proxy)
        for url in (f"https://{API}/echo", f"http://{API}/echo"):
            assert stage.curl(url).returncode == 0
        assert proxy.lines == [f"CONNECT {API}:443 HTTP/1.1", f"CONNECT {API}:80 HTTP/1.1"]


@pytest.mark.parametrize("given", ["file", "variable"])
def test_its_credentials_come_from_a_file_or_a_variable_and_show_nowhere(chained, upstream, tmp_path, given):
    with NextProxy(leads_to(upstream), password=PASSWORD) as proxy:
        url = f"http://user:s3cret%20canary%2F%40%3A@127.0.0.1:{proxy.port}"
        options, environ = [], {}
        if given == "file":
            file = tmp_path / "proxy.url"
            file.touch(0o600)
            file.write_text(url + "\n")
            options = ["--upstream-proxy", f"@{file}"]
        else:
            environ = {VARIABLE: url}
        stage = chained(None, *options, **environ)
        with stage.client() as client:
            assert client.get(f"https://{API}/echo", headers=stage.tag()).status_code == 200
        told = upstream.last.raw.decode()
        for pid in [stage.proxy.pid, *stage.proxy.workers()]:
            told += Path(f"/proc/{pid}/cmdline").read_text()
        stage.proxy.stop()
        told += stage.proxy.log + "".join(path.read_text() for path in (stage.vaultctl.home / "audit").rglob("*.jsonl"))
        assert "canary" not in told.replace(SECRET, "")
        assert "dXNlcj" not in told


def test_its_refusal_is_an_upstream_that_cannot_be_reached(chained, upstream):
    with NextProxy(leads_to(upstream), password=PASSWORD) as proxy:
        stage = chained(proxy)
        with stage.client() as client:
            answer = client.get(f"https://{API}/echo", headers=stage.tag())
        refusal(answer, "upstream_unreachable", status=502, stage=stage)
        assert "the upstream proxy answered CONNECT with 407" in stage.proxy.log
    assert not upstream.connections()


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 " + b"x" * 20_000,
        b"\r\n\r\n",
    ],
    ids=["not HTTP", "more than was asked for", "a head without end", "nothing"],
)
def test_what_is_no_answer_to_a_connect_opens_no_tunnel(chained, upstream, answer):
    with NextProxy(leads_to(upstream), answer=answer) as proxy:
        stage = chained(proxy)
        with stage.client() as client:
            refusal(client.get(f"https://{API}/echo", headers=stage.tag()), "upstream_unreachable", status=502)
    assert upstream.untouched()


def test_tls_to_the_destination_is_proved_through_it(chained, upstream, impostor):
    with NextProxy(leads_to(impostor)) as proxy:
        stage = chained(proxy)
        with stage.client() as client:
            answer = client.get(f"https://{API}/echo", headers=stage.tag())
        refusal(answer, "upstream_unverified", status=502, stage=stage)
    assert impostor.untouched()


def test_a_proxy_over_tls_is_proved_too(launch, engine, upstream, authority):
    with NextProxy(leads_to(upstream), identity=authority.issue_cert("127.0.0.1")) as proxy:
        stage = launch("--upstream-proxy", f"https://127.0.0.1:{proxy.port}", engine=engine, leads_to=())
        with stage.client() as client:
            assert client.get(f"https://{API}/echo", headers=stage.tag()).status_code == 200
    with NextProxy(leads_to(upstream), identity=authority.issue_cert("other.test")) as proxy:
        stage = launch("--upstream-proxy", f"https://127.0.0.1:{proxy.port}", engine=engine, leads_to=())
        with stage.client() as client:
            assert client.get(f"https://{API}/echo", headers=stage.tag()).status_code == 502
        assert not proxy.heads


@pytest.fixture(scope="module")
def _asked_of_nobody(engine, seed, tmp_path_factory, authority_file):
    home = tmp_path_factory.mktemp(f"chained-{engine}") / "home"
    with NextProxy({}) as proxy:
        options = ["--upstream-proxy", f"http://127.0.0.1:{proxy.port}", "--upstream-ca", authority_file]
        with Stage.open(seed, home, *options, engine=engine) as stage:
            yield stage, proxy


@pytest.fixture
def unasked(_asked_of_nobody):
    """A stage whose next proxy is asked for nothing."""
    stage, proxy = _asked_of_nobody
    yield stage
    assert not proxy.heads


@pytest.mark.parametrize(
    "host", ["localhost", "printer", "db.internal", "nas.local", "router.home.arpa", "127.1", "0x7f000001"]
)
def test_names_that_are_local_by_their_form_are_not_asked_for(unasked, host):
    with unasked.wire() as wire:
        answer = wire.ask(f"GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n")
    assert (answer.status, answer.code) in {(403, "address_forbidden"), (400, "header_forbidden")}
    with unasked.wire() as wire:
        opened = wire.connect(f"{host}:443")
        if opened.status == 200:
            wire.encrypt(host)
            opened = wire.ask(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")
    assert (opened.status, opened.code) in {(403, "address_forbidden"), (400, "header_forbidden")}


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "[::1]", "[::ffff:10.0.0.1]"])
def test_the_rules_on_addresses_hold(unasked, address):
    with unasked.wire() as wire:
        answer = wire.ask(f"GET http://{address}/ HTTP/1.1\r\nHost: {address}\r\n\r\n")
    refusal(answer, "address_forbidden", status=403)


def test_an_address_that_may_be_reached_is_asked_for(chained, upstream):
    with NextProxy({("192.0.2.7", 80): upstream.plain_port, ("[2001:db8::7]", 80): upstream.plain_port}) as proxy:
        stage = chained(proxy, "--allow-private", "192.0.2.0/24", "--allow-private", "2001:db8::/32")
        for address in ("192.0.2.7", "[2001:db8::7]"):
            with stage.wire() as wire:
                assert wire.ask(f"GET http://{address}/echo HTTP/1.1\r\nHost: {address}\r\n\r\n").status == 200
        assert proxy.lines == ["CONNECT 192.0.2.7:80 HTTP/1.1", "CONNECT [2001:db8::7]:80 HTTP/1.1"]


def test_what_passes_unread_goes_through_it_as_well(chained, upstream, authority_file):
    with NextProxy(leads_to(upstream)) as proxy:
        stage = chained(proxy, "--intercept", "bound")
        done = subprocess.run(
            ["curl", "-sS", "-f", "--proxy", stage.proxy.url(), "--cacert", authority_file, "https://api.unbound.test/echo"],
            capture_output=True, timeout=30, check=False, env=environment(),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert proxy.lines == ["CONNECT api.unbound.test:443 HTTP/1.1"]


def test_it_does_not_lead_back_to_us(launch, engine, upstream):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    stage = launch(
        "--listen", f"127.0.0.1:{port}", "--upstream-proxy", f"http://localhost:{port}", engine=engine, leads_to=()
    )
    with stage.client() as client:
        refusal(client.get(f"https://{API}/", headers=stage.tag()), "upstream_unreachable", status=502)


def test_a_local_name_is_asked_for_under_a_private_binding_alone(chained, upstream):
    with NextProxy({("api.internal", 443): upstream.port}) as proxy:
        stage = chained(proxy)
        stage.vaultctl.secret("intranet", "--kind", "bearer", "--host", "api.internal", "--private", token="x")
        tag = {"X-Alter-Grant": stage.vaultctl.grant("intranet", "system:billing")}
        with stage.client() as client:
            # The upstream's certificate does not name this host, so the answer is no, but it was asked for.
            refusal(client.get("https://api.internal/", headers=tag), "upstream_unverified", status=502)
            refusal(client.get("https://api.internal/"), "address_forbidden", status=403)
        assert set(proxy.lines) == {"CONNECT api.internal:443 HTTP/1.1"}


def test_a_redirected_destination_does_not_go_through_it(launch, engine, upstream, evil):
    with NextProxy({}) as proxy:
        stage = launch("--upstream-proxy", f"http://127.0.0.1:{proxy.port}", engine=engine, leads_to=(upstream,))
        with stage.client() as client:
            assert client.get(f"https://{API}/echo", headers=stage.tag()).status_code == 200
            assert client.get("https://evil.test/").status_code == 502
        assert proxy.lines == ["CONNECT evil.test:443 HTTP/1.1"]


def test_credentials_on_the_command_line_are_refused(seed):
    done = start(seed.home, "--upstream-proxy", "http://user:canary@127.0.0.1:3128")
    assert done.returncode == 2
    assert "@FILE" in done.stderr
    assert "canary" not in done.stderr


def test_a_file_that_others_can_read_is_refused(seed, tmp_path):
    file = tmp_path / "proxy.url"
    file.write_text("http://user:canary@127.0.0.1:3128")
    file.chmod(0o644)
    done = start(seed.home, "--upstream-proxy", f"@{file}")
    assert done.returncode == 5
    assert "chmod 600" in done.stderr
    assert "canary" not in done.stderr
