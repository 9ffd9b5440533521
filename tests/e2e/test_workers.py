"""The processes: they start together, stand in for each other, and end with what is under way done."""

import contextlib
import os
import re
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from tests.e2e.product import Proxy, start
from tests.e2e.stage import HOSTS

HOST = HOSTS["bearer"]


def alive(pid):
    """Whether a process runs (a zombie does not)."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
        return file.read().rpartition(")")[2].split()[0] != "Z"
    return False


def until(condition, *, timeout=10):
    """Wait for something to become true."""
    deadline = time.monotonic() + timeout
    while not (result := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
    return result


def request(stage, target="/echo"):
    return f"GET {target} HTTP/1.1\r\nHost: {HOST}\r\nX-Alter-Grant: {stage.grants['bearer']}\r\n\r\n"


def ask(stage, target="/echo", *, timeout=5):
    with stage.wire(timeout=timeout) as wire:
        return wire.tunnel(HOST).ask(request(stage, target))


def test_the_ready_line_says_where_and_how_many(launch):
    stage = launch(workers=2)
    assert re.fullmatch(r"alter-egress ready on http://127\.0\.0\.1:\d+ \(2 workers\)\n", stage.proxy.log)
    assert ask(stage).status == 200
    assert stage.proxy.stop() == 0
    stage = launch(workers=1)
    assert re.fullmatch(r"alter-egress ready on http://127\.0\.0\.1:\d+ \(1 worker\)\n", stage.proxy.log)


def test_a_worker_that_is_killed_is_replaced_and_requests_go_on(launch, engine, upstream):
    stage = launch(engine=engine, workers=2)
    first, second = stage.proxy.workers()
    os.kill(first, signal.SIGKILL)
    for _ in range(20):
        assert ask(stage).status == 200
    until(lambda: len(stage.proxy.workers()) == 2)
    until(lambda: "ended with code -9; starting another" in stage.proxy.log)
    until(lambda: set(stage.proxy.workers()) - {first, second})
    third = next(pid for pid in stage.proxy.workers() if pid not in {first, second})
    os.kill(second, signal.SIGKILL)
    until(lambda: second not in stage.proxy.workers())
    assert alive(third)
    assert ask(stage, timeout=10).status == 200, "by the one that was started in between"
    assert stage.vaultctl.json("audit", "verify")["ok"]
    assert stage.proxy.stop() == 0


def test_every_worker_writes_a_stream_of_its_own(launch):
    stage = launch(workers=2)
    for _ in range(30):
        assert ask(stage).status == 200
    assert stage.proxy.stop() == 0
    assert len(list((stage.vaultctl.home / "audit").glob("*.jsonl"))) == 2
    verdict = stage.vaultctl.json("audit", "verify")
    assert verdict["ok"]
    records = stage.records()
    assert len([row for row in records if row["phase"] == "intent"]) == 30
    assert len([row for row in records if row["phase"] == "outcome"]) == 30


@pytest.mark.parametrize(
    ("engine", "signum"), [("auto", signal.SIGTERM), ("stock", signal.SIGTERM), ("auto", signal.SIGINT)]
)
def test_a_signal_lets_what_is_under_way_finish(launch, upstream, engine, signum):
    stage = launch(engine=engine, workers=1)
    answers = []
    with stage.wire() as wire:
        wire.tunnel(HOST).send(request(stage, "/slow?s=0.7"))
        upstream.wait()
        stage.proxy.process.send_signal(signum)
        time.sleep(0.2)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", stage.proxy.port), timeout=1)
        answers.append(wire.answer())
        assert (answers[0].status, answers[0].body) == (200, b"at last\n")
    assert stage.proxy.process.wait(10) == 0
    assert {row["status"] for row in stage.records() if row["phase"] == "outcome"} == {200}
    assert "Traceback" not in stage.proxy.log


def test_a_download_under_way_is_finished_for_a_slow_reader(launch, engine, upstream):
    stage = launch(engine=engine, workers=1)
    with stage.wire(timeout=10) as wire:
        wire.tunnel(HOST).send(request(stage, "/bytes/6000000"))
        upstream.wait()
        threading.Timer(0.1, stage.proxy.process.terminate).start()
        time.sleep(0.5)
        answer = wire.answer()
        assert (answer.status, answer.whole, len(answer.body)) == (200, True, 6_000_000)
    assert stage.proxy.process.wait(20) == 0


def test_a_tunnel_without_a_request_does_not_hold_it_up(launch, engine):
    stage = launch(engine=engine, workers=1)
    with stage.wire() as idle, stage.wire() as kept:
        idle.tunnel(HOST)
        assert kept.tunnel(HOST).ask(request(stage)).status == 200
        began = time.monotonic()
        assert stage.proxy.stop() == 0
        assert time.monotonic() - began < 5


def test_workers_end_by_themselves_when_their_supervisor_is_killed(launch, upstream):
    stage = launch(workers=2)
    workers = stage.proxy.workers()
    with stage.wire() as wire:
        wire.tunnel(HOST).send(request(stage, "/slow?s=0.5"))
        upstream.wait()
        os.kill(stage.proxy.pid, signal.SIGKILL)
        assert wire.answer().body == b"at last\n"
    until(lambda: not any(alive(pid) for pid in workers))
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", stage.proxy.port), timeout=1)
    assert stage.vaultctl.json("audit", "verify")["ok"]


def test_a_port_in_use(launch, vaultctl):
    stage = launch()
    done = start(vaultctl.home, "--listen", f"127.0.0.1:{stage.proxy.port}")
    assert done.returncode == 7
    assert done.stderr.splitlines() == [
        f"error: cannot listen on 127.0.0.1:{stage.proxy.port} (Address already in use)",
        "hint: stop what listens there, or choose another port with --listen 127.0.0.1:0",
    ]
    assert ask(stage).status == 200


def test_a_worker_cannot_be_read_by_another_process_of_its_user(launch):
    """No core dump, not dumpable, and nothing of the vault in its arguments or environment."""
    stage = launch(workers=1)
    (worker,) = stage.proxy.workers()
    folder = Path(f"/proc/{worker}")
    assert re.search(r"Max core file size\s+0\s+0", (folder / "limits").read_text())
    assert (folder / "environ").stat().st_uid == 0, "the kernel gives what is not dumpable to root"


def test_ipv6(seed, tmp_path, upstream, authority_file):
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(socket.create_server(("::1", 0), family=socket.AF_INET6))
        except OSError:
            pytest.skip("there is no IPv6 here")
    done = start(seed.copy(tmp_path / "home").home, "--listen", "[::1]:0", "--workers", "0")
    assert done.returncode == 2, "the address was accepted; the number of workers was not"


def test_a_version_whose_grace_is_over_is_destroyed_though_nobody_asks(vaultctl):
    def versions():
        return [each["version"] for each in vaultctl.json("secret", "show", "bearer")["versions"]]

    rotated = time.time()
    vaultctl.rotate("bearer", "--grace", "1s", token="sk_test_rotated_0123456789abcdef")
    until(lambda: time.time() > rotated + 2)
    assert versions() == [1, 2]
    proxy = Proxy(vaultctl.home, "--workers", 2)
    try:
        until(lambda: versions() == [2])
    finally:
        proxy.stop()
