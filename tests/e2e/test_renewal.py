"""SIGHUP: what is new is taken over by workers that go on serving."""

import contextlib
import os
import pty
import re
import signal
import ssl
import sys
import threading

import pytest

from addon import ca
from addon.vault.keyring import Keyring
from tests.e2e.product import PROGRAMS
from tests.e2e.stage import HOSTS
from tests.e2e.test_workers import ask, request, until

HOST = HOSTS["bearer"]
TAKEN = "new tunnels use CN=alter-egress local CA"
KEPT = "was not taken over, the one before stays in use"


def certificates(stage):
    return [pem.decode() for pem in ca.split((stage.vaultctl.home / "ca/ca-cert.pem").read_bytes())]


def issued_by(stage, pem):
    """Whether a new tunnel shows a certificate of this CA."""
    context = ssl.create_default_context(cadata=pem)
    with stage.wire() as wire:
        assert wire.connect(f"{HOST}:443").status == 200
        try:
            wire.socket = context.wrap_socket(wire.socket, server_hostname=HOST)
        except ssl.SSLCertVerificationError:
            return False
        return wire.ask(request(stage)).status == 200


def renew(stage, sign, *, times):
    before = stage.proxy.log.count(sign)
    stage.proxy.process.send_signal(signal.SIGHUP)
    until(lambda: stage.proxy.log.count(sign) == before + times)


def test_a_new_ca_is_taken_over_without_a_lost_request(launch, engine):
    """Requests on open tunnels, one under way and new tunnels all the time, while both workers are told."""
    stage = launch(engine=engine, workers=2)
    (old,) = certificates(stage)
    stage.vaultctl.run("ca", "rotate", "--prepare")
    stage.vaultctl.run("ca", "rotate")
    new, _ = certificates(stage)
    statuses, stop = [], threading.Event()

    def keep_asking():
        while not stop.is_set():
            statuses.append(ask(stage).status)

    with contextlib.ExitStack() as stack:
        kept = [stack.enter_context(stage.wire(timeout=10)).tunnel(HOST) for _ in range(8)]
        slow = stack.enter_context(stage.wire(timeout=10)).tunnel(HOST)
        assert issued_by(stage, old), "nobody was told yet"
        asking = threading.Thread(target=keep_asking)
        asking.start()
        slow.send(request(stage, "/slow?s=1"))
        renew(stage, TAKEN, times=2)
        for _ in range(6):
            assert issued_by(stage, new)
            assert not issued_by(stage, old)
        assert {wire.ask(request(stage)).status for wire in kept} == {200}
        assert slow.answer().body == b"at last\n"
        stop.set()
        asking.join()
    assert len(statuses) > 3
    assert set(statuses) == {200}
    assert stage.proxy.stop() == 0
    assert "Traceback" not in stage.proxy.log


@pytest.mark.parametrize("harm", ["garbage", "other key", "certificate alone", "open to others", "missing", "expired"])
def test_a_broken_new_ca_does_not_take_the_old_one_away(launch, engine, harm):
    stage = launch(engine=engine, workers=1)
    (old,) = certificates(stage)
    path = stage.vaultctl.home / "ca/mitmproxy-ca.pem"
    good, other = path.read_bytes(), ca.mint(now=1_800_000_000)
    private = other.key_and_cert_pem.removesuffix(other.cert_pem)
    match harm:
        case "garbage":
            path.write_bytes(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
        case "other key":
            path.write_bytes(private + old.encode())
        case "certificate alone":
            path.write_bytes(old.encode())
        case "open to others":
            path.chmod(0o640)
        case "missing":
            path.unlink()
        case "expired":
            path.write_bytes(ca.mint(now=1_000_000_000).key_and_cert_pem)
    renew(stage, KEPT, times=1)
    assert issued_by(stage, old)
    assert "PRIVATE" not in stage.proxy.log
    path.write_bytes(good)
    path.chmod(0o600)
    renew(stage, TAKEN, times=1)
    assert issued_by(stage, old)


def test_a_signal_that_comes_while_a_worker_starts_does_not_kill_it(launch):
    stage = launch(workers=1)
    (first,) = stage.proxy.workers()
    os.kill(first, signal.SIGKILL)
    until(lambda: stage.proxy.workers() and first not in stage.proxy.workers())
    (second,) = stage.proxy.workers()
    os.kill(second, signal.SIGHUP)
    assert ask(stage, timeout=20).status == 200
    until(lambda: TAKEN in stage.proxy.log)
    assert stage.proxy.workers() == [second]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_closed_terminal_ends_it(vaultctl):
    child, screen = pty.fork()
    if child == 0:
        command = [
            str(PROGRAMS / "alter-egress"),
            "--home",
            str(vaultctl.home),
            "--listen",
            "127.0.0.1:0",
            "--workers",
            "1",
        ]
        os.execv(sys.executable, [sys.executable, *command])
    shown = b""
    while not re.search(rb"ready on .*\n", shown):
        shown += os.read(screen, 4096)
    os.close(screen)
    try:
        until(lambda: os.waitpid(child, os.WNOHANG)[0] == child)
    except AssertionError:
        os.kill(child, signal.SIGTERM)
        raise


def keys(stage):
    return [key["kid"] for key in stage.vaultctl.json("key", "list") if key["state"] == "active"]


def test_a_new_private_key_is_taken_over_without_a_lost_request(launch, engine, upstream):
    """Secrets sealed before and after the rotation open in the same workers, with the old key gone."""
    stage = launch(engine=engine, workers=2)
    (old,) = keys(stage)
    stage.vaultctl.run("key", "rotate")
    assert ask(stage).status == 200, "everything still opens with the old key"
    stage.vaultctl.secret("later", "--kind", "bearer", "--host", HOST, token="sealed-to-both")
    later = stage.vaultctl.grant("later", "system:billing")
    workers = stage.proxy.workers()
    renew(stage, "values are opened with 2 private keys", times=2)
    stage.vaultctl.run("key", "retire", old, "--yes")
    stage.vaultctl.secret("last", "--kind", "bearer", "--host", HOST, token="sealed-to-new")
    last = stage.vaultctl.grant("last", "system:billing")
    for _ in range(6):
        for grant in (stage.grants["bearer"], later, last):
            with stage.wire() as wire:
                tagged = f"GET /echo HTTP/1.1\r\nHost: {HOST}\r\nX-Alter-Grant: {grant}\r\n\r\n"
                assert wire.tunnel(HOST).ask(tagged).status == 200
    assert stage.proxy.workers() == workers
    renew(stage, "values are opened with 1 private keys", times=2)
    assert ask(stage).status == 200


def test_a_key_file_that_does_not_fit_does_not_take_the_keys_away(launch):
    stage = launch(workers=1)
    path = stage.vaultctl.home / "proxy.key"
    good = path.read_bytes()
    path.write_bytes(Keyring.generate().dump())
    renew(stage, "the private keys were not taken over, those before stay in use", times=1)
    assert ask(stage).status == 200
    path.write_bytes(b"alter-egress keyring 1\nnonsense\n")
    stage.proxy.process.send_signal(signal.SIGHUP)
    until(lambda: "malformed" in stage.proxy.log)
    assert ask(stage).status == 200
    path.write_bytes(good)


def test_workers_that_were_not_told_refuse_once_the_old_key_is_retired(launch, upstream):
    stage = launch(workers=1)
    (old,) = keys(stage)
    stage.vaultctl.run("key", "rotate")
    stage.vaultctl.run("key", "retire", old, "--yes")
    answer = ask(stage)
    assert (answer.status, answer.code) == (503, "vault_unavailable")
    assert upstream.untouched()
    renew(stage, "values are opened with 1 private keys", times=1)
    assert ask(stage).status == 200
