"""
Thousands of malformed connections at a running proxy, the same ones in every run: no process ends, no descriptor stays
open, and no byte arrives upstream that was not permitted.
"""

import random
import re
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.product import Lone, routes
from tests.e2e.stage import HOSTS, VALUES, Stage

PROGRAM = Path(__file__).with_name("hurried_worker.py")
HOST = HOSTS["bearer"]
BEARER = f"Bearer {VALUES['bearer']['token']}"
HELLO = (
    bytes.fromhex("16030100c5010000c10303") + bytes(range(32)) + b"\x00\x00\x04\x13\x01\x13\x02\x01\x00" + bytes(148)
)
HIDDEN = f"GET /hidden HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
SPICE = [
    b"\r", b"\n", b"\0", b"\r\n", b"\r\n\r\n", b" ", b"\t", b":", b"\x0b", b"\x85", b"\xff", b"%0d%0a", b"0", b"-", b"+",
    b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: evil.test\r\n", b"X-Alter-Grant: 1\r\n",
    b"Connection: X-Alter-Grant\r\n", b"Upgrade: h2c\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", HIDDEN, b"A" * 5000,
]  # fmt: skip


def spoil(dice, data):
    """`data` with a few changes."""
    for _ in range(dice.randint(0, 3)):
        at, more = dice.randrange(len(data) + 1), dice.choice(SPICE)
        kind = dice.randrange(5)
        if kind == 0:
            data = data[:at] + more + data[at:]
        elif kind == 1:
            data = data[:at] + more + data[at + len(more) :]
        elif kind == 2:
            data = data[:at] + data[at + dice.randint(1, 30) :]
        elif kind == 3:
            data = data[:at] + dice.randbytes(dice.randint(1, 8)) + data[at:]
        else:
            data = data[:at] + data[max(0, at - dice.randint(1, 60)) :]
    return data


def head(grant, more=b"", *, method=b"GET", target=b"/echo"):
    return b"%b %b HTTP/1.1\r\nHost: %b\r\nX-Alter-Grant: %b\r\n%b\r\n" % (method, target, HOST.encode(), grant, more)


def send(wire, data):
    wire.send(data)
    wire.rest(within=0.03)


def connects(stage, dice, grant):
    with stage.wire(caller=None) as wire:
        send(wire, spoil(dice, f"CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n\r\n".encode()))


def plain(stage, dice, grant):
    scheme = dice.choice([b"http", b"https"])
    with stage.wire() as wire:
        send(wire, spoil(dice, head(grant, target=scheme + b"://" + HOST.encode() + b"/echo")))


def hellos(stage, dice, grant):
    with stage.wire() as wire:
        wire.connect(f"{HOST}:443")
        send(wire, spoil(dice, HELLO) if dice.random() < 0.7 else dice.randbytes(dice.randint(1, 3000)))


def heads(stage, dice, grant):
    with stage.wire() as wire:
        send(wire.tunnel(HOST), spoil(dice, head(grant)))


def bodies(stage, dice, grant):
    framed = head(grant, b"Transfer-Encoding: chunked\r\n", method=b"POST", target=b"/upload")
    with stage.wire() as wire:
        send(wire.tunnel(HOST), framed + spoil(dice, b"5\r\nhello\r\n3;a=b\r\nabc\r\n0\r\n\r\n") + HIDDEN)


def frames(stage, dice, grant):
    with stage.h2wire() as wire:
        wire.tunnel(HOST)
        if dice.random() < 0.5:
            wire.begin("GET", "/echo", [("x-alter-grant", grant.decode())], end=dice.random() < 0.5)
        for _ in range(dice.randint(1, 6)):
            payload = dice.randbytes(dice.choice([0, 4, 5, 8, 9, 40, 300]))
            size = len(payload) + dice.choice([0, 0, 0, 1, -1, 1000])
            frame = struct.pack(">I", max(size, 0))[1:] + bytes([dice.randrange(12), dice.randrange(256)])
            wire.send(frame + struct.pack(">I", dice.choice([0, 1, 2, 3, 5, 2**31 - 1])) + payload)
        wire.rest(within=0.03)


ATTACKS = {connects: 300, plain: 300, hellos: 300, heads: 500, bodies: 300, frames: 300}


@pytest.fixture(scope="module")
def flooded(engine, seed, tmp_path_factory, _upstream, authority_file):
    """A stage that forwards nothing without a grant."""
    home = tmp_path_factory.mktemp(f"flooded-{engine}") / "home"
    vaultctl = seed.copy(home)
    options = ["--engine", engine, "--untagged", "deny", "--upstream-ca", authority_file, *routes(_upstream)]
    limits = ["patience.KEPT=0.5", "patience.GOODBYE=0.5", "patience.HEAD=5", "patience.OPENING=5", "patience.TICK=0.1"]
    proxy = Lone(home, *options, program=[PROGRAM, *limits])
    with Stage(engine, vaultctl, proxy, seed.key, seed.grants, seed.cast) as stage:
        yield stage


def flood(stage, grant, *, seed):
    """All attacks, some at a time, in an order of chance."""
    waves = [(attack, number) for attack, count in ATTACKS.items() for number in range(count)]
    random.Random(seed).shuffle(waves)

    def attack(wave):
        kind, number = wave
        with suppress(OSError, AssertionError):  # who attacks has no right to an answer
            kind(stage, random.Random(f"{seed} {kind.__name__} {number}"), grant)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(attack, waves))


def ask(stage):
    with stage.wire() as wire:
        return wire.tunnel(HOST).ask(head(stage.grants["bearer"].encode(), target=b"/echo/good"))


def descriptors(stage, *, at_most=None):
    """How many the worker has open, once it is idle."""
    deadline = time.monotonic() + 30
    while stage.proxy.descriptors() > at_most and time.monotonic() < deadline:
        time.sleep(0.1)
    return stage.proxy.descriptors()


@pytest.fixture
def baseline(flooded, upstream):
    assert ask(flooded).status == 200
    time.sleep(2)
    upstream.reset()
    return flooded.proxy.descriptors()


def test_without_a_grant_nothing_arrives(flooded, upstream, baseline):
    flood(flooded, b"0" * 36, seed=1)
    assert upstream.untouched()
    assert flooded.proxy.process.poll() is None
    assert descriptors(flooded, at_most=baseline) <= baseline
    assert ask(flooded).status == 200
    assert not re.search("Traceback|[0-9a-f]{32}", flooded.proxy.log)


def test_with_a_grant_only_what_was_judged_arrives(flooded, upstream, baseline):
    flood(flooded, flooded.grants["bearer"].encode(), seed=2)
    for seen in upstream.seen():
        assert seen.values("authorization") == [BEARER]
        assert seen.host == HOST
        assert not [name for name, _ in seen.headers if name.lower().startswith((b"x-alter", b"proxy-"))]
        if seen.raw:
            assert re.fullmatch(
                rb"[A-Z]+ /[!-~\x80-\xff]* HTTP/1\.[01]\r\n([!-9;-~]+: ?[\t -~\x80-\xff]*\r\n)*\r\n", seen.raw
            )
    intents = [row for row in flooded.records() if row["phase"] == "intent"]
    assert 20 < len(upstream.seen()) <= len(intents), "some of it was harmless"
    assert flooded.proxy.process.poll() is None
    assert descriptors(flooded, at_most=baseline) <= baseline
    assert ask(flooded).status == 200
    assert not re.search("Traceback|[0-9a-f]{32}", flooded.proxy.log)
