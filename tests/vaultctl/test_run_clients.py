"""Programs that know nothing of the proxy, started by `vaultctl run`, against a real proxy and a real TLS upstream."""

import shutil
import subprocess
import sys
import time

import pytest

from addon import ca
from addon.leaf import leaf
from vaultctl.upstream import Upstream, bearer

pytestmark = pytest.mark.e2e

HOST = "api.example.test"
URL = f"https://{HOST}/v1/things"
VALUE = "t0ken-of-the-clients"

CLIENTS = {
    "curl": ["curl", "-sSf", URL],
    "wget": ["wget", "-q", "-O", "-", URL],
    "git": ["git", "ls-remote", URL],
    "urllib": [sys.executable, "-c", f"import urllib.request; urllib.request.urlopen({URL!r})"],
    "requests": [sys.executable, "-c", f"import requests; requests.get({URL!r}).raise_for_status()"],
    "httpx": [sys.executable, "-c", f"import httpx; httpx.get({URL!r}).raise_for_status()"],
}


@pytest.fixture(scope="module")
def upstream(tmp_path_factory):
    authority = ca.mint(now=time.time())
    path = tmp_path_factory.mktemp("upstream") / "ca.pem"
    path.write_bytes(authority.cert_pem)
    identity = leaf(authority.key_and_cert_pem, names=[HOST], now=time.time())
    with Upstream({HOST: bearer(VALUE)}, identity=identity) as server:
        server.ca_file = path
        yield server


@pytest.fixture
def grant(cli, home, upstream, monkeypatch):
    """A grant for HOST, and a proxy that answers where ALTER_PROXY says."""
    assert cli("secret", "set", "example", "--kind", "bearer", "--host", HOST, "--private", input=VALUE).code == 0
    assert cli("app", "create", "billing").code == 0
    options = [f"--home={home}", "--listen=127.0.0.1:0", "--workers=1", f"--upstream-ca={upstream.ca_file}"]
    options += [f"--connect-to={HOST}:443:127.0.0.1:{upstream.port}"]
    command = [sys.executable, "-m", "addon.launcher", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as proxy:
        try:
            monkeypatch.setenv("ALTER_PROXY", proxy.stdout.readline().split()[3])
            yield cli("grant", "issue", "example", "--to", "system:billing").out.strip()
        finally:
            proxy.terminate()


def test_an_unchanged_program_is_authenticated_and_recorded(cli, grant, upstream):
    for name, command in CLIENTS.items():
        if not shutil.which(command[0]):
            continue
        before = len(upstream.received)
        ran = subprocess.run(
            [sys.executable, "-m", "vaultctl", "run", "--grant", grant, "--", *command],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        # git reaches the upstream and then finds no repository there
        assert ran.returncode == (128 if name == "git" else 0), (name, ran.stderr)
        assert [each.status for each in upstream.received[before:]] == [200], name
        assert VALUE not in ran.stdout + ran.stderr
    assert cli("status").code == 0
    records = cli("audit", "list", "--grant", grant, "--json").json
    assert {each["status"] for each in records if each["phase"] == "outcome"} == {200}
    assert cli("audit", "verify").code == 0


def test_the_session_ends_with_its_time(cli, grant, upstream):
    before = len(upstream.received)
    program = f"sleep 2; curl -s -o /dev/null -w '%{{http_connect}} %{{http_code}}' {URL}"
    command = [sys.executable, "-m", "vaultctl", "run", "--grant", grant, "--ttl", "1s", "--", "sh", "-c", program]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ran.stdout.split() == ["407", "000"]
    assert len(upstream.received) == before


def test_the_session_reaches_no_other_grant(cli, grant, upstream):
    other = cli("grant", "issue", "example", "--to", "system:billing").out.strip()
    before = len(upstream.received)
    command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", f"X-Alter-Grant: {other}", URL]
    command = [sys.executable, "-m", "vaultctl", "run", "--grant", grant, "--", *command]
    assert subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout == "403"
    assert len(upstream.received) == before
