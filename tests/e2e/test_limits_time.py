"""Whoever does not move is given up, client or upstream; whoever moves, however slowly, is not. With shortened limits."""

import socket
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.e2e.product import Lone, routes
from tests.e2e.stage import HOSTS, Stage, refusal

PROGRAM = Path(__file__).with_name("hurried_worker.py")
LIMITS = {"OPENING": 0.8, "HEAD": 1, "ANSWER": 1.5, "CONNECT": 0.5, "KEPT": 0.5, "GOODBYE": 0.5, "TICK": 0.05}
HOST = HOSTS["bearer"]
SILENT = HOSTS["header"]
PAUSE = 0.1
"""Well within every limit."""
PATIENCE = 20
"""Far beyond every limit, even on a machine that is busy."""


class Silence:
    """An upstream that accepts connections and never says anything."""

    def __enter__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        return self

    def __exit__(self, *_):
        self.listener.close()


@pytest.fixture(scope="module")
def hurried(engine, seed, tmp_path_factory, _upstream, authority_file):
    home = tmp_path_factory.mktemp(f"hurried-{engine}") / "home"
    vaultctl = seed.copy(home)
    with Silence() as silence:
        led = [
            *(option for option in routes(_upstream) if SILENT not in option),
            f"--connect-to={SILENT}:443:127.0.0.1:{silence.port}",
        ]
        program = [PROGRAM, *(f"patience.{name}={seconds}" for name, seconds in LIMITS.items())]
        proxy = Lone(home, "--engine", engine, "--upstream-ca", authority_file, *led, program=program)
        with Stage(engine, vaultctl, proxy, seed.key, seed.grants, seed.cast) as stage:
            yield stage


@pytest.fixture(scope="module")
def baseline(hurried):
    """The descriptors of the worker when it has served and nobody is there."""
    with hurried.wire() as wire:
        assert wire.tunnel(HOST).ask(head(hurried)).status == 200
    time.sleep(LIMITS["KEPT"] * 2)
    return hurried.proxy.descriptors()


@pytest.fixture(autouse=True)
def nothing_open(hurried, baseline, upstream):
    """`nothing_open()` waits until the descriptors are as few as before. So does the end of each test."""

    def nothing_open():
        until(lambda: hurried.proxy.descriptors() <= baseline)

    yield nothing_open
    nothing_open()
    assert hurried.proxy.process.poll() is None


def until(condition):
    """Wait for something that must happen."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def outcome(stage, path):
    """The record of the only request for `path`."""
    (row,) = until(lambda: [one for one in stage.records() if one["phase"] == "outcome" and one["path"] == path])
    return row


def head(stage, target="/echo", more="", *, method="GET", kind="bearer"):
    tag = f"X-Alter-Grant: {stage.grants[kind]}\r\n"
    return f"{method} {target} HTTP/1.1\r\nHost: {HOSTS[kind]}\r\n{tag}{more}\r\n".encode()


def trickle(wire, data):
    """Send byte by byte until the proxy hangs up; whether it did."""
    deadline = time.monotonic() + PATIENCE
    wire.socket.settimeout(PAUSE)
    for byte in data:
        with suppress(OSError):
            wire.socket.sendall(bytes([byte]))
        with suppress(TimeoutError):
            try:
                if wire.socket.recv(1 << 16) == b"":
                    return True
            except TimeoutError:
                raise
            except OSError:
                return True
        if time.monotonic() > deadline:
            break
    return False


ENDLESS = b"X-Filler: " + b"x" * 1000

OPENINGS = {
    "nothing": b"",
    "half a method": b"CONN",
    "a trickle before CONNECT": b"X" * 1000,
    "a trickle of CONNECT": f"CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n".encode() + ENDLESS,
    "a trickle of a plain request": f"GET http://{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\n".encode() + ENDLESS,
}


@pytest.mark.parametrize("case", OPENINGS)
def test_a_client_that_does_not_begin(hurried, case):
    with hurried.wire(timeout=PATIENCE) as wire:
        data = OPENINGS[case]
        assert trickle(wire, data) if "trickle" in case else (wire.send(data), wire.closed())[1]


@pytest.mark.parametrize(
    "data", [b"", b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03" + b"x" * 1000], ids=["silence", "trickle"]
)
def test_a_client_that_does_not_finish_its_hello(hurried, data):
    with hurried.wire(timeout=PATIENCE) as wire:
        assert wire.connect(f"{HOST}:443").status == 200
        assert trickle(wire, data) if data else wire.closed()


@pytest.mark.parametrize("data", [b"", b"GET /echo HTTP/1.1\r\n" + ENDLESS], ids=["silence", "trickle"])
def test_a_client_that_asks_for_nothing_in_its_tunnel(hurried, upstream, data):
    with hurried.wire(timeout=PATIENCE) as wire:
        wire.tunnel(HOST)
        assert trickle(wire, data) if data else wire.closed()
    assert upstream.untouched()


@pytest.mark.parametrize("data", [b"", b"GET /echo HTTP/1.1\r\n" + ENDLESS], ids=["silence", "trickle"])
def test_a_client_that_asks_for_nothing_more(hurried, data):
    with hurried.wire(timeout=PATIENCE) as wire:
        assert wire.tunnel(HOST).ask(head(hurried)).status == 200
        assert trickle(wire, data) if data else wire.closed()


def test_an_http2_client_that_asks_for_nothing_more(hurried):
    with hurried.h2wire(timeout=PATIENCE) as wire:
        tag = [("x-alter-grant", hurried.grants["bearer"])]
        assert wire.tunnel(HOST).ask("GET", "/echo", tag).status == 200
        with pytest.raises(EOFError):
            while True:
                wire.read()


@pytest.mark.parametrize("kind", ["bearer", "sigv4"], ids=["streamed", "held"])
def test_a_body_that_does_not_come(hurried, kind):
    path = f"/upload/{kind}/{time.monotonic_ns()}"
    with hurried.wire(timeout=PATIENCE) as wire:
        wire.tunnel(HOSTS[kind]).send(head(hurried, path, "Content-Length: 9\r\n", method="POST", kind=kind) + b"half")
        assert wire.answer().status == 0
    assert outcome(hurried, path)["code"] in {"interrupted", "client_gone"}


def test_an_upstream_that_never_proves_itself(hurried, impostor):
    for _ in range(2):
        with hurried.wire(timeout=PATIENCE) as wire:
            wire.tunnel(SILENT).send(head(hurried, kind="header"))
            refusal(wire.answer(), "upstream_unreachable", status=502, stage=hurried)


def test_an_upstream_that_never_answers(hurried, upstream):
    with hurried.wire(timeout=PATIENCE) as wire:
        assert wire.tunnel(HOST).ask(head(hurried, "/slow?s=60")).status in {0, 502}
    assert outcome(hurried, "/slow")["code"]


def test_a_client_that_does_not_read(hurried, upstream):
    with hurried.wire(timeout=PATIENCE) as wire:
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wire.tunnel(HOST).send(head(hurried, "/bytes/1000000000"))
        assert outcome(hurried, "/bytes/1000000000")["code"] in {"interrupted", "client_gone"}


def test_clients_that_do_not_read_the_end(hurried, nothing_open):
    """All of the response has come from the upstream, and the connection is to be closed after it."""
    with ExitStack() as wires:
        for _ in range(8):
            wire = wires.enter_context(hurried.wire(timeout=PATIENCE))
            wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            wire.tunnel(HOST).send(head(hurried, "/bytes/3000000", "Connection: close\r\n"))
        nothing_open()


@contextmanager
def feeding(wire, pieces):
    """Somebody sends a piece now and then."""

    def feed():
        for piece in pieces:
            time.sleep(PAUSE * 3)
            wire.send(piece)

    thread = threading.Thread(target=feed)
    thread.start()
    yield
    thread.join()


def test_a_slow_exchange_is_left_alone(hurried, upstream):
    """It takes longer than any limit, and always moves."""
    with hurried.wire(timeout=PATIENCE) as wire:
        wire.tunnel(HOST).send(head(hurried, "/upload", "Content-Length: 12\r\n", method="POST"))
        with feeding(wire, [b"x"] * 12):
            answer = wire.answer()
        assert (answer.status, answer.json["size"]) == (200, 12)
        answer = wire.ask(head(hurried, "/drip?n=12&s=0.3"))
        assert (answer.status, answer.body) == (200, b"." * 12)
        assert wire.ask(head(hurried)).status == 200
