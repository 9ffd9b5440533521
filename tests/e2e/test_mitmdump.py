"""`mitmdump -s addon/egress.py`: for people who live in mitmproxy. It refuses to run with what would undo us."""

import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

import addon
from tests.e2e.product import PROGRAMS, Control, Proxy, environment
from tests.e2e.stage import refusal
from tests.e2e.upstream import Upstream

SCRIPT = Path(addon.__file__).with_name("egress.py")
READY = re.compile(r".*proxy listening at ([\d.*]+):(\d+)")


class Mitmdump(Proxy):
    """A running mitmdump with our script. `home` is that of the vault."""

    def __init__(self, home, *options, script=SCRIPT):
        self.control = Control(home)
        command = [PROGRAMS / "mitmdump", "-s", script, "-p", "0", "--set", f"confdir={home / 'ca'}", *options]
        inherited = {"stdin": subprocess.DEVNULL, "env": environment(ALTER_HOME=str(home), PYTHONUNBUFFERED="1")}
        ready = self._start(command, READY, **inherited)
        self.address, self.port = f"http://127.0.0.1:{ready[2]}", int(ready[2])
        self.host = ready[1]


@pytest.fixture(scope="module")
def local(authority):
    """An upstream that needs no leading: its name is localhost."""
    with Upstream(["localhost"], authority=authority) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def vault(seed, local, tmp_path_factory):
    """A vault with a secret for it, and the grant."""
    vaultctl = seed.copy(tmp_path_factory.mktemp("mitmdump") / "home")
    vaultctl.secret("local", "--kind", "bearer", "--host", f"localhost:{local.port}", "--private", token="sk_local")
    return vaultctl, vaultctl.grant("local", "system:billing")


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """A copy of the script, for tests that change it."""
    return Path(shutil.copy(SCRIPT, tmp_path_factory.mktemp("script") / "egress.py"))


@pytest.fixture(scope="module")
def mitmdump(vault, script, authority_file):
    options = ["--listen-host", "127.0.0.1", "--set", f"ssl_verify_upstream_trusted_ca={authority_file}"]
    proxy = Mitmdump(vault[0].home, *options, script=script)
    yield proxy
    assert proxy.stop() == 0


@pytest.fixture
def ask(mitmdump, vault, local, seed):
    """`ask(grant)`: a request, tagged with the good grant unless another is given."""
    local.reset()

    def ask(grant=vault[1], **options):
        headers = {"X-Alter-Grant": grant} if grant else {}
        with mitmdump.client("billing", seed.key, **options) as client:
            return client.get(f"https://localhost:{local.port}/echo", headers=headers)

    return ask


@pytest.mark.parametrize("http2", [False, True], ids=["h1", "h2"])
def test_a_bearer_request_goes_out_authenticated(ask, local, http2):
    assert ask(http2=http2).status_code == 200
    assert local.last.values("authorization") == ["Bearer sk_local"]
    assert not [name for name, _ in local.last.headers if name.lower().startswith((b"x-alter", b"proxy-"))]


def test_refusals_and_records_are_as_ever(ask, local, vault):
    answer = ask("0" * 36)
    request_id = refusal(answer, "grant_unavailable", status=403)["request_id"]
    assert vault[0].json("audit", "show", request_id)[0]["code"] == "grant_unavailable"
    refusal(ask(None), "address_forbidden", status=403)
    assert local.untouched()


def test_what_it_prints_holds_no_credential(mitmdump):
    assert "sk_local" not in mitmdump.log


def until(condition, *, timeout=10):
    """Wait for something to become true."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)


def rewrite(script, text):
    """Change a file so that it looks newer than before, however soon."""
    newer = script.stat().st_mtime + 1
    script.write_text(text)
    os.utime(script, (newer, newer))


@pytest.mark.parametrize("change", ["garbled", "emptied", "deleted"])
def test_a_script_that_is_changed_while_it_runs_forwards_nothing_tagged(ask, local, script, mitmdump, change):
    text = SCRIPT.read_text()
    assert ask().status_code == 200
    local.reset()
    if change == "deleted":
        script.unlink()
    else:
        rewrite(script, "def (" if change == "garbled" else "addons = []")
    until(lambda: ask().status_code == 503)
    local.reset()
    for http2 in (False, True):
        for options in ({}, {"grant": None}):
            refusal(ask(**options, http2=http2), "fault", status=503)
    assert local.untouched()
    if change == "deleted":
        return  # mitmdump does not look for it again
    rewrite(script, text)
    until(lambda: ask().status_code == 200)
    assert local.last.values("authorization") == ["Bearer sk_local"]


UNSAFE = [
    ["--listen-host="],
    ["--ssl-insecure"],
    ["--set", "stream_large_bodies=1"],
    ["--modify-headers", "/~q/X-Other/y"],
    ["-w", "{folder}/flows"],
    ["--ignore-hosts", "localhost"],
    ["--mode", "reverse:https://localhost"],
    ["--listen-host", "0.0.0.0"],
    ["--set", "alter_untagged=maybe"],
    ["--set", "alter_home={folder}/nowhere"],
]


def test_unsafe_options_are_refused(vault, tmp_path):
    """All at once, because each takes a second to say no."""
    home, running = vault[0].home, []
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for number, options in enumerate(UNSAFE):
        chosen = [option.replace("{folder}", str(tmp_path)) for option in options]
        command = [
            PROGRAMS / "mitmdump",
            "-s",
            SCRIPT,
            "-p",
            str(port),
            "--listen-host",
            "127.0.0.1",
            "--set",
            f"confdir={home / 'ca'}",
            *chosen,
        ]
        with (tmp_path / f"log-{number}").open("w") as log:
            running.append(
                subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment(ALTER_HOME=str(home))
                )
            )
    try:
        for number, process in enumerate(running):
            code = process.wait(60)
            said = (tmp_path / f"log-{number}").read_text()
            assert code not in {0, None}, (UNSAFE[number], said)
            assert "add --listen-host 127.0.0.1" in said or number
            assert "alter" in said or "Errno" in said or "error" in said.lower()
    finally:
        for process in running:
            process.kill()
            process.wait()
    flows = tmp_path / "flows"
    assert not flows.exists() or not flows.read_bytes()
