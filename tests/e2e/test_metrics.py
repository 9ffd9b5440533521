"""What an operator's tools can watch: numbers, readiness and complaints."""

import json
import os
import re
import signal
import socket

import httpx
import pytest

from tests.e2e.product import start
from tests.e2e.stage import HOSTS
from tests.e2e.test_workers import ask, until

HOST = HOSTS["bearer"]


def base(stage):
    return re.search(r"^metrics on (http://\S+)/metrics$", stage.proxy.log, re.MULTILINE)[1]


def get(stage, path):
    return httpx.get(base(stage) + path, trust_env=False, timeout=10)


def numbers(stage):
    """Sample → value."""
    lines = [line for line in get(stage, "/metrics").text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def ended(stage, decision, code=""):
    return numbers(stage).get(f'alter_requests_total{{code="{code}",decision="{decision}"}}', 0)


def refused(stage, tag="nobody-has-this-grant"):
    with stage.wire() as wire:
        return wire.tunnel(HOST).ask(f"GET /{tag} HTTP/1.1\r\nHost: {HOST}\r\nX-Alter-Grant: {tag}\r\n\r\n")


def test_the_numbers_of_all_workers_are_added_up_and_outlive_them(launch, engine):
    stage = launch("--metrics", "127.0.0.1:0", engine=engine, workers=2)
    for _ in range(20):
        assert ask(stage).status == 200
    for _ in range(3):
        assert refused(stage).code == "grant_unavailable"
    until(lambda: ended(stage, "authorized") == 20)
    assert ended(stage, "refused", "grant_unavailable") == 3
    now = numbers(stage)
    assert now["alter_workers_ready"] == 2
    assert now["alter_worker_restarts_total"] == 0
    assert now["alter_request_seconds_count"] >= 20
    assert get(stage, "/metrics").headers["content-type"].startswith("text/plain; version=")
    first, _ = stage.proxy.workers()
    os.kill(first, signal.SIGKILL)
    until(lambda: numbers(stage)["alter_worker_restarts_total"] == 1)
    until(lambda: numbers(stage)["alter_workers_ready"] == 2, timeout=30)
    assert ended(stage, "authorized") == 20


def test_nothing_a_caller_chooses_becomes_a_label(launch):
    stage = launch("--metrics", "127.0.0.1:0", workers=1)
    refused(stage)
    assert ask(stage).status == 200
    until(lambda: ended(stage, "authorized") == 1)
    before = set(numbers(stage))
    for n in range(30):
        refused(stage, f"grant-number-{n:08}")
    until(lambda: ended(stage, "refused", "grant_unavailable") == 31)
    assert set(numbers(stage)) == before
    text = get(stage, "/metrics").text
    for word in ("billing", stage.key, stage.grants["bearer"], HOST, "canary", "grant-number"):
        assert word not in text


def test_health_and_readiness(launch, upstream):
    stage = launch("--metrics", "127.0.0.1:0", workers=1)
    assert (get(stage, "/healthz").status_code, get(stage, "/readyz").status_code) == (200, 200)
    assert get(stage, "/secrets").status_code == 404
    assert httpx.post(base(stage) + "/metrics", trust_env=False).status_code == 501
    (worker,) = stage.proxy.workers()
    os.kill(worker, signal.SIGKILL)
    until(lambda: get(stage, "/readyz").status_code == 503)
    assert get(stage, "/healthz").status_code == 200
    until(lambda: get(stage, "/readyz").status_code == 200, timeout=30)
    with stage.wire(timeout=10) as wire:
        wire.tunnel(HOST).send(
            f"GET /slow?s=1.5 HTTP/1.1\r\nHost: {HOST}\r\nX-Alter-Grant: {stage.grants['bearer']}\r\n\r\n"
        )
        upstream.wait()
        stage.proxy.process.terminate()
        until(lambda: get(stage, "/readyz").text == "stopping\n")
        assert wire.answer().status == 200
    assert stage.proxy.process.wait(20) == 0


def test_a_client_that_says_nothing_or_nonsense_harms_nobody(launch):
    stage = launch("--metrics", "127.0.0.1:0", workers=1)
    port = int(base(stage).rsplit(":", 1)[1])
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
    with socket.create_connection(("127.0.0.1", port)) as rude:
        rude.sendall(b"\0\xff" * 50_000 + b"\r\n\r\n")
    assert get(stage, "/readyz").status_code == 200
    for each in silent:
        each.close()
    assert "Traceback" not in stage.proxy.log


@pytest.mark.parametrize("address", ["0.0.0.0:0", "192.0.2.1:9090", "[::]:0"])
def test_it_is_for_this_machine_alone(vaultctl, address):
    done = start(vaultctl.home, "--metrics", address)
    assert done.returncode == 2
    assert "could be read from other machines" in done.stderr


def test_a_port_in_use(vaultctl):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = start(vaultctl.home, "--listen", "127.0.0.1:0", "--metrics", f"127.0.0.1:{taken.getsockname()[1]}")
    assert done.returncode == 7
    assert "--metrics" in done.stderr


def test_complaints_are_json_lines_if_asked_for(launch):
    stage = launch("--log-format", "json", workers=1)
    (worker,) = stage.proxy.workers()
    os.kill(worker, signal.SIGKILL)
    until(lambda: "starting another" in stage.proxy.log)
    until(lambda: stage.proxy.workers() not in ([], [worker]))
    assert ask(stage, timeout=20).status == 200
    (stage.vaultctl.home / "ca/mitmproxy-ca.pem").write_bytes(b"damaged")
    stage.proxy.process.send_signal(signal.SIGHUP)
    until(lambda: "local CA is damaged" in stage.proxy.log)
    lines = [json.loads(line) for line in stage.proxy.log.splitlines()[1:]]
    assert set.union(*map(set, lines)) == {"at", "level", "logger", "message"}
    assert ("error", "worker 1 ended with code -9; starting another") in {
        (one["level"], one["message"]) for one in lines
    }


def test_why_it_cannot_start_is_a_json_line_too(vaultctl):
    (vaultctl.home / "proxy.key").unlink()
    done = start(vaultctl.home, "--listen", "127.0.0.1:0", "--log-format", "json", "--workers", "1")
    assert done.returncode == 5
    said = json.loads(done.stderr)
    assert said["level"] == "error"
    assert "proxy.key" in said["message"]
    assert said["hint"]
