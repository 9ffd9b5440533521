"""One app that takes everything it can get: it is refused in time, on record, and others are served as before."""

import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from addon.vault import Vault
from tests.e2e.product import Lone, routes
from tests.e2e.stage import HOSTS, Stage, refusal

HOST = HOSTS["bearer"]
PROGRAM = Path(__file__).with_name("hurried_worker.py")
CONNECTIONS, REQUESTS, STRANGERS = 8, 4, 12


@pytest.fixture
def crowded(engine, vaultctl, seed, upstream, authority_file):
    """A stage on which a caller may have few connections and requests, and nobody may wait with many."""
    limits = [f"--max-connections-per-caller={CONNECTIONS}", f"--max-requests-per-caller={REQUESTS}"]
    options = ["--engine", engine, "--upstream-ca", authority_file, *routes(upstream), *limits]
    proxy = Lone(vaultctl.home, *options, program=[PROGRAM, f"load.STRANGERS={STRANGERS}"])
    with Stage(engine, vaultctl, proxy, seed.key, seed.grants, seed.cast) as stage:
        yield stage


@pytest.fixture
def other(crowded):
    """Another app with a grant of its own; its name, its key and the header."""
    name = "other"
    return (name, crowded.cast["other's key"]), {"X-Alter-Grant": crowded.cast["other's"]}


def get(path="/echo", headers=()):
    lines = "".join(f"{name}: {value}\r\n" for name, value in dict(headers).items())
    return f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n{lines}\r\n"


def served(stage, other):
    """Whether the other app is, in a tunnel of its own and by its key in a header."""
    caller, tag = other
    with stage.wire(caller=caller) as wire:
        assert wire.tunnel(HOST).ask(get(headers=tag)).status == 200
    with stage.wire(caller=None) as wire:
        assert wire.tunnel(HOST).ask(get(headers=tag | {"X-Alter-Key": caller[1]})).status == 200
    return True


def test_tunnels(crowded, other):
    with ExitStack() as held:
        answers = [held.enter_context(crowded.wire()).connect(f"{HOST}:443") for _ in range(CONNECTIONS + 3)]
        assert [answer.status for answer in answers] == [200] * CONNECTIONS + [429] * 3
        refusal(answers[-1], "concurrency_exceeded", status=429, stage=crowded)
        assert crowded.audit(answers[-1].header("x-alter-request-id"))["caller"] == "app:billing"
        assert served(crowded, other)
    with crowded.wire() as wire:
        assert wire.tunnel(HOST).ask(get(headers=crowded.tag())).status == 200, "when they are gone"


@pytest.mark.parametrize("tagged", [True, False])
def test_requests(crowded, other, upstream, tagged):
    tag = crowded.tag() if tagged else {}
    with ExitStack() as held:
        wires = [held.enter_context(crowded.wire()) for _ in range(REQUESTS)]
        for wire in wires:
            wire.tunnel(HOST).send(get("/slow?s=3", tag))
        upstream.wait(REQUESTS)
        with crowded.wire() as wire:
            refusal(wire.tunnel(HOST).ask(get(headers=tag)), "concurrency_exceeded", status=429, stage=crowded)
            assert len(upstream.seen()) == REQUESTS
            assert served(crowded, other)
            assert [each.answer().status for each in wires] == [200] * REQUESTS
            assert wire.ask(get(headers=tag)).status == 200, "when they are over"


def test_streams_of_one_connection(crowded, upstream):
    with crowded.h2wire() as wire:
        wire.tunnel(HOST)
        tag = [(name.lower(), value) for name, value in crowded.tag().items()]
        streams = [wire.begin("GET", "/slow?s=2", tag) for _ in range(REQUESTS)]
        upstream.wait(REQUESTS)
        refusal(wire.ask("GET", "/echo", tag), "concurrency_exceeded", status=429, stage=crowded)
        assert wire.result(streams[0]).status == 200
    assert len(upstream.seen()) == REQUESTS


def test_requests_that_came_to_nothing_are_counted_no_longer(crowded, upstream):
    for _ in range(REQUESTS * 2):
        with crowded.wire() as wire:
            wire.tunnel(HOST).send(get("/slow?s=30", crowded.tag()))
            upstream.wait()
            upstream.reset()
        with crowded.wire() as wire:
            wire.tunnel("api.unbound.test").ask(get("/cut/10", crowded.tag()).replace(HOST, "api.unbound.test"))
    with crowded.wire() as wire:
        assert wire.tunnel(HOST).ask(get(headers=crowded.tag())).status == 200


def test_strangers(crowded, other):
    """They hold connections open and prove nothing; those that waited longest are closed."""
    with ExitStack() as held:
        wires = [held.enter_context(crowded.wire(caller=None)) for _ in range(STRANGERS * 4)]
        for wire in wires[::2]:
            assert wire.connect(f"{HOST}:443").status in {200, 0}
        assert served(crowded, other)
        assert wires[0].closed()
        assert served(crowded, other)


def test_nobody_without_a_key_uses_up_what_belongs_to_others(crowded, other, upstream):
    with ExitStack() as held:
        wires = [held.enter_context(crowded.wire(caller=None)) for _ in range(CONNECTIONS)]
        answers = [wire.tunnel(HOST).ask(get()) for wire in wires]
        assert {answer.status for answer in answers} == {200}
        with crowded.wire(caller=None) as wire:
            refusal(wire.tunnel(HOST).ask(get()), "concurrency_exceeded", status=429, stage=crowded)
        assert served(crowded, other)


def test_keys_of_the_same_caller_share(crowded):
    vault = Vault.connect(crowded.vaultctl.home)
    second = vault.callers.mint_key("app", "billing", now=time.time())[1]
    vault.close()
    with ExitStack() as held:
        for _ in range(CONNECTIONS):
            assert held.enter_context(crowded.wire()).connect(f"{HOST}:443").status == 200
        with crowded.wire(caller=("billing", second)) as wire:
            assert wire.connect(f"{HOST}:443").code == "concurrency_exceeded"
