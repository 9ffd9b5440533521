"""`--mode reverse:https://HOST`: an app that is given a base URL speaks plain HTTP to this machine, and the upstream hears TLS."""

import subprocess

import httpx
import pytest
import requests

from tests.e2e.product import environment, routes, start
from tests.e2e.saboteur import Saboteur
from tests.e2e.stage import HOSTS, VALUES, Stage, refusal
from tests.e2e.wire import Wire

API = HOSTS["bearer"]
SECRET = VALUES["bearer"]["token"]


@pytest.fixture(scope="module")
def _reverse(engine, seed, tmp_path_factory, _upstream, _evil, authority_file):
    home = tmp_path_factory.mktemp(f"reverse-{engine}") / "home"
    options = ["--mode", f"reverse:https://{API}", "--upstream-ca", authority_file, *routes(_upstream, _evil)]
    with Stage.open(seed, home, *options, engine=engine) as stage:
        yield stage


@pytest.fixture
def reverse(_reverse, upstream, evil):
    """A proxy in front of the API."""
    return _reverse


def headers(stage, kind="bearer"):
    return {"X-Alter-Key": stage.key, **stage.tag(kind)}


def ask(stage, data):
    with Wire(stage.proxy) as wire:
        return wire.ask(data)


def head(stage, *, host=None, target="/echo", method="GET", more=""):
    host = f"127.0.0.1:{stage.proxy.port}" if host is None else host
    tag = f"X-Alter-Key: {stage.key}\r\nX-Alter-Grant: {stage.grants['bearer']}\r\n"
    return f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{tag}{more}\r\n"


def test_httpx_requests_and_curl_with_a_base_url(reverse, upstream):
    base = reverse.proxy.address
    with httpx.Client(base_url=base, trust_env=False, headers=headers(reverse)) as client:
        assert client.get("/echo").status_code == 200
        assert client.post("/echo", content=b"x" * 100_000).status_code == 200
    session = requests.Session()
    session.trust_env = False
    assert session.get(f"{base}/echo?a=1", headers=headers(reverse)).status_code == 200
    pairs = [part for name, value in headers(reverse).items() for part in ("-H", f"{name}: {value}")]
    done = subprocess.run(["curl", "-sS", "-f", *pairs, f"{base}/echo"], check=False, timeout=30, env=environment())
    assert done.returncode == 0
    session.close()
    seen = upstream.wait(4, complete=True)
    assert [one.values("authorization") for one in seen] == [[f"Bearer {SECRET}"]] * 4
    assert {(one.host, one.sni) for one in seen} == {(API, API)}
    assert all(b"x-alter" not in one.raw.lower() and b"127.0.0.1" not in one.raw for one in seen)


def test_a_placeholder_in_the_place_of_the_key(reverse, upstream):
    placeholder = f"Bearer alter_grant_{reverse.grants['bearer']}"
    answer = httpx.get(
        f"{reverse.proxy.address}/echo",
        headers={"Authorization": placeholder, "X-Alter-Key": reverse.key},
        trust_env=False,
    )
    assert answer.status_code == 200
    assert upstream.last.values("authorization") == [f"Bearer {SECRET}"]


@pytest.mark.parametrize("host", ["localhost", "evil.test", "", f"{API}", "127.0.0.1:1"])
def test_the_host_the_client_names_is_the_listeners_and_never_leaves(reverse, upstream, evil, host):
    assert ask(reverse, head(reverse, host=host)).status == 200
    assert (upstream.last.host, upstream.last.values("authorization")) == (API, [f"Bearer {SECRET}"])
    assert not evil.connections()


@pytest.mark.parametrize(
    "target", ["https://evil.test/echo", "http://evil.test/echo", "http://127.0.0.1/echo", f"https://{API}@evil.test/"]
)
def test_an_absolute_form_for_anybody_else_gets_no_credential(reverse, upstream, evil, target):
    answer = ask(reverse, head(reverse, target=target))
    assert answer.code in {"authority_mismatch", "header_forbidden", "cleartext_upstream"}
    assert answer.status in {400, 403}
    assert upstream.untouched()
    assert not evil.connections()


def test_connect_opens_no_tunnel(reverse, upstream, evil):
    with reverse.wire() as wire:
        assert wire.connect("evil.test:443").status in {0, 400, 403}
    assert not evil.connections()


def test_refusals_are_those_of_any_request(reverse, upstream):
    key, grant = {"X-Alter-Key": reverse.key}, reverse.tag()
    cases = {
        "caller_required": (407, grant),
        "caller_invalid": (407, {"X-Alter-Key": reverse.cast["expired key"], **grant}),
        "grant_revoked": (403, {**key, "X-Alter-Grant": reverse.cast["revoked"]}),
        "grant_unavailable": (403, {**key, "X-Alter-Grant": reverse.cast["other's"]}),
        "destination_not_bound": (403, headers(reverse, "header")),
        "tag_malformed": (400, {**key, "X-Alter-Grant": "x"}),
        "header_forbidden": (400, {**headers(reverse), "X-HTTP-Method-Override": "DELETE"}),
        "secret_in_request": (403, {**headers(reverse), "X-Copy": SECRET}),
    }
    for code, (status, sent) in cases.items():
        answer = httpx.get(f"{reverse.proxy.address}/echo", headers=sent, trust_env=False)
        refusal(answer, code, status=status, stage=reverse)
    assert upstream.untouched()


def test_a_secret_in_the_response_becomes_stars(reverse, upstream):
    answer = httpx.get(f"{reverse.proxy.address}/echo", headers=headers(reverse), trust_env=False)
    assert SECRET not in answer.text
    assert "*" * len(SECRET) in answer.text


def test_without_a_grant_it_is_forwarded_to_that_upstream_alone(reverse, upstream, evil):
    assert ask(reverse, "GET /echo HTTP/1.1\r\nHost: evil.test\r\nX-Alter-Key: x\r\n\r\n").status == 407
    assert ask(reverse, "GET /echo HTTP/1.1\r\nHost: evil.test\r\n\r\n").status == 200
    assert upstream.last.host == API
    assert not evil.connections()


def test_untagged_deny(launch, engine, upstream):
    stage = launch("--mode", f"reverse:https://{API}", "--untagged", "deny", engine=engine)
    refusal(ask(stage, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"), "untagged", status=403, stage=stage)
    assert upstream.untouched()


def test_an_upstream_that_cannot_prove_its_name_gets_nothing(engine, seed, tmp_path, impostor, authority_file):
    """And no secret is opened before it could; if it were, opening would fail first."""
    home = tmp_path / "home"
    control = seed.copy(home)
    mode = ["--mode", f"reverse:https://{API}", "--engine", engine, "--upstream-ca", authority_file]
    proxy = Saboteur(home, *mode, *routes(impostor))
    with Stage(engine, control, proxy, seed.key, seed.grants, seed.cast) as stage:
        proxy.order("break always", "vault.vault.Vault.open")
        refusal(ask(stage, head(stage)), "upstream_unverified", status=502, stage=stage)
        refusal(ask(stage, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"), "upstream_unverified", status=502)
        assert not proxy.names()
    assert impostor.untouched()


def test_an_upstream_that_is_not_there(launch, engine, upstream):
    stage = launch(
        "--mode", "reverse:https://gone.test", "--connect-to", "gone.test:443:127.0.0.1:1", engine=engine, leads_to=()
    )
    refusal(ask(stage, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"), "upstream_unreachable", status=502)


def test_a_private_upstream_needs_a_private_binding(launch, engine, upstream):
    stage = launch("--mode", f"reverse:https://localhost:{upstream.port}", engine=engine, leads_to=())
    refusal(ask(stage, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"), "address_forbidden", status=403)
    assert not upstream.connections()


@pytest.mark.parametrize(
    "mode",
    ["reverse:http://api.test", "reverse:https://*.test", "reverse:https://127.0.0.1", "reverse:https://api.test/v1",
     "reverse:https://user:canary@api.test", "reverse:api.test", "socks5", "upstream:http://x", ""],
)  # fmt: skip
def test_any_other_mode_is_refused(seed, mode):
    done = start(seed.home, "--mode", mode)
    assert done.returncode == 2
    assert "hint: " in done.stderr


def test_it_listens_on_this_machine_alone(seed):
    done = start(seed.home, "--mode", f"reverse:https://{API}", "--listen", "10.0.0.1:0")
    assert done.returncode == 2
    assert "keys would cross the network in clear" in done.stderr
