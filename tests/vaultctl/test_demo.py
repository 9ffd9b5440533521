"""`vaultctl demo`: it must show what it claims, fail when that is not so, and leave nothing behind."""

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from addon.errors import Unreachable
from vaultctl import client, demonstration, samples, upstream

VAULTCTL = Path(sys.executable).with_name("vaultctl")
TITLES = ["bearer", "header", "query", "basic", "sigv4", "rotation", "revocation", "wrong destination"]


@pytest.fixture
def environment(tmp_path):
    """A user without a home, without a proxy, and with a folder for temporary files of its own."""
    return {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "TMPDIR": str(tmp_path)}


def processes_of(folder):
    """Those whose command line names the folder."""
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = each.read_bytes()
        except OSError:
            continue
        if str(folder).encode() in command:
            found.append(command)
    return found


def everything(text):
    """The text, and whatever in it is Base64."""
    decoded = []
    for word in text.replace('"', " ").split():
        try:
            decoded.append(base64.b64decode(word, validate=True).decode("latin-1"))
        except ValueError:
            continue
    return "\n".join([text, *decoded])


def test_every_request_is_shown_from_both_sides_and_nothing_stays_behind(environment, tmp_path):
    began = time.monotonic()
    done = subprocess.run([VAULTCTL, "demo"], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - began < 15
    lines = done.stdout.splitlines()
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 100
    assert "\x1b" not in done.stdout
    for title in TITLES:
        assert any(f" {title}: " in line for line in lines)
    assert any("X-Alter-Grant: " in line and "Authorization: Bearer sk_t****" in line for line in lines)
    assert sum("nothing (0 requests)" in line for line in lines) == 2
    assert any(line.startswith("audit verify: 14 records, every line") for line in lines)
    assert list(tmp_path.iterdir()) == []
    assert processes_of(tmp_path) == []


def test_json_is_one_document_with_the_same_facts_and_a_rotation_changes_only_what_leaves(environment):
    done = subprocess.run([VAULTCTL, "demo", "--json"], env=environment, capture_output=True, timeout=60, check=True)
    document = json.loads(done.stdout)
    assert (document["ok"], document["problems"]) == (True, [])
    assert [each["title"] for each in document["exchanges"]] == TITLES
    assert [each["status"] for each in document["exchanges"]] == [200] * 6 + [403, 403]
    assert [each["reached"] for each in document["exchanges"]] == [1] * 6 + [0, 0]
    assert [each["code"] for each in document["exchanges"][6:]] == ["grant_revoked", "destination_not_bound"]
    assert document["verify"] == {"ok": True, "records": 14, "first_bad": None}
    assert len(document["audit"]) == 14
    before, after = document["exchanges"][0], document["exchanges"][5]
    assert before["grant_id"] == after["grant_id"]
    assert before["sent"] == after["sent"]
    assert before["received"] != after["received"]


@pytest.mark.parametrize("chosen", [client.curl, client.python])
def test_both_clients_see_the_same_and_no_invented_secret_is_ever_told(chosen, monkeypatch):
    if chosen is client.curl and not shutil.which("curl"):
        pytest.skip("no curl here")
    apis = samples.invent()
    rotated = samples.stripe_key()
    monkeypatch.setattr(demonstration, "invent", lambda: apis)
    monkeypatch.setattr(demonstration, "stripe_key", lambda: rotated)
    told = []
    report = demonstration.perform(client=chosen, now=time.time(), tell=told.append)
    assert report.problems == ()
    assert tuple(told) == report.exchanges
    secrets = [rotated, *(value for api in apis for value in api.values.values())]
    output = everything(repr(report))
    assert [value for value in secrets if value in output] == []


def test_an_upstream_that_is_not_satisfied_fails_the_demo_and_says_why(monkeypatch):
    apis = samples.invent()
    apis[1] = replace(apis[1], check=upstream.headers({"DD-API-KEY": "another"}))
    monkeypatch.setattr(demonstration, "invent", lambda: apis)
    report = demonstration.perform(client=client.python, now=time.time(), tell=lambda _: None)
    assert report.problems == ("header: wrong dd-api-key",)
    assert [each.status for each in report.exchanges][:3] == [200, 401, 200]


def test_a_failed_demo_ends_with_exit_code_1_and_the_first_problem():
    script = (
        "from vaultctl import demonstration, upstream, cli\n"
        "from dataclasses import replace\n"
        "apis = demonstration.invent()\n"
        "apis[0] = replace(apis[0], check=upstream.bearer('another'))\n"
        "demonstration.invent = lambda: apis\n"
        "cli.main(['demo'])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "401 bearer: " in done.stdout
    assert "FAILED bearer: wrong authorization" in done.stdout
    assert done.stderr.startswith("error: the demo did not go as it should: bearer: wrong authorization\nhint: ")


def test_a_proxy_that_does_not_start_is_reported_with_its_own_words(tmp_path):
    with (
        pytest.raises(Unreachable) as error,
        demonstration._proxy(["--home=/nonexistent/vault"], log=tmp_path / "log", pause=lambda: None),
    ):
        pass
    assert "/nonexistent/vault" in error.value.message
    assert error.value.hint


@pytest.mark.parametrize(("number", "lines"), [(signal.SIGINT, 1), (signal.SIGTERM, 7), (signal.SIGHUP, 16)])
def test_a_signal_at_any_time_stops_the_proxy_and_removes_the_folder(number, lines, environment, tmp_path):
    with subprocess.Popen([VAULTCTL, "demo"], env=environment, stdout=subprocess.PIPE, text=True) as process:
        for _ in range(lines):
            process.stdout.readline()
        process.send_signal(number)
        process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert list(tmp_path.iterdir()) == []
    assert processes_of(tmp_path) == []


def test_a_reader_that_goes_away_stops_everything_as_well(environment, tmp_path):
    with subprocess.Popen(
        [VAULTCTL, "demo"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(30) != 0
        assert process.stderr.read() == ""
    assert list(tmp_path.iterdir()) == []
    assert processes_of(tmp_path) == []
