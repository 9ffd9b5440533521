"""The upstream is proved first, and only then is the secret opened: whatever way the request came."""

import pytest

from tests.e2e.product import routes
from tests.e2e.saboteur import Saboteur
from tests.e2e.stage import HOSTS, Stage, refusal
from tests.e2e.wire import basic

OPENS = "vault.vault.Vault.open"


@pytest.fixture(scope="module")
def watched(engine, seed, tmp_path_factory, _upstream, _impostor, authority_file):
    """A stage whose proxy tells which functions it called; the host of the kind `header` leads to an impostor."""
    home = tmp_path_factory.mktemp(f"order-{engine}") / "home"
    vaultctl = seed.copy(home)
    led = routes(_upstream)
    led = [option for option in led if HOSTS["header"] not in option and HOSTS["sigv4"] not in option]
    led += [option for option in routes(_impostor) if HOSTS["header"] in option or HOSTS["sigv4"] in option]
    proxy = Saboteur(home, "--engine", engine, "--upstream-ca", authority_file, *led)
    with Stage(engine, vaultctl, proxy, seed.key, seed.grants, seed.cast) as stage:
        yield stage


def plain(stage, kind):
    """The absolute form with https, outside a tunnel: the proxy makes the TLS connection."""
    host = HOSTS[kind]
    with stage.wire() as wire:
        lines = (
            f"Host: {host}\r\nProxy-Authorization: {basic(*stage.caller)}\r\nX-Alter-Grant: {stage.grants[kind]}\r\n"
        )
        return wire.ask(f"GET https://{host}/echo HTTP/1.1\r\n{lines}\r\n")


def tunnel(stage, kind):
    with stage.wire() as wire:
        tag = f"X-Alter-Grant: {stage.grants[kind]}\r\n"
        return wire.tunnel(HOSTS[kind]).ask(f"GET /echo HTTP/1.1\r\nHost: {HOSTS[kind]}\r\n{tag}\r\n")


def stream(stage, kind):
    with stage.h2wire() as wire:
        return wire.tunnel(HOSTS[kind]).ask("GET", "/echo", [("x-alter-grant", stage.grants[kind])])


@pytest.mark.parametrize("kind", ["header", "sigv4"])
@pytest.mark.parametrize("way", [plain, tunnel, stream])
def test_an_impostor_has_no_secret_opened_for_it(watched, impostor, way, kind):
    watched.proxy.order("list")
    answer = way(watched, kind)
    watched.proxy.order("run")
    refusal(answer, "upstream_unverified", status=502, stage=watched)
    assert OPENS not in watched.proxy.names()
    assert impostor.untouched()


@pytest.mark.parametrize("way", [plain, tunnel, stream])
def test_the_real_one_gets_it(watched, upstream, way):
    watched.proxy.order("list")
    answer = way(watched, "bearer")
    watched.proxy.order("run")
    assert answer.status == 200
    assert OPENS in watched.proxy.names()
    assert len(upstream.seen()) == 1


@pytest.mark.parametrize("way", [plain, tunnel, stream])
def test_a_secret_that_cannot_be_opened_leaves_a_proved_upstream_untouched(watched, upstream, way):
    watched.proxy.order("break always", OPENS)
    answer = way(watched, "bearer")
    watched.proxy.order("run")
    refusal(answer, "fault", status=503, stage=watched)
    assert upstream.untouched()
    assert way(watched, "bearer").status == 200
