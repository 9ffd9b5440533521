"""
Bodies of any size pass at constant memory, both ways, on both engines.

ALTER_TEST_TRANSFER is their size in MiB (200), and a quarter of it over HTTP/2, where the test upstream is slow.
"""

import hashlib
import json
import os
import re
from pathlib import Path

import pytest

from tests.e2e.stage import HOSTS

URL = f"https://{HOSTS['bearer']}"
SIZE = int(os.environ.get("ALTER_TEST_TRANSFER", "200")) << 20
GROWTH = 30 << 20
TOLD = "%{size_download} bytes down, %{size_upload} up, in %{time_total} s"

PATHS = {
    "flat": ("auto", "--http1.1", SIZE),
    "stock": ("stock", "--http1.1", SIZE),
    "h2": ("stock", "--http2", SIZE // 4),
}
"""Engine, version and size. Where curl offers both versions, the engine `auto` takes HTTP/1.1."""


@pytest.fixture(params=PATHS)
def path(request):
    return PATHS[request.param]


@pytest.fixture
def stage(launch, path):
    """A proxy with one worker, whose memory is nobody else's."""
    return launch(engine=path[0], workers=1)


def memory(stage, name):
    """A figure of the worker's memory, in bytes: VmRSS now, VmHWM the most that it ever was."""
    (worker,) = stage.proxy.workers()
    return int(re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{worker}/status").read_text())[1]) << 10


def check_growth(stage, before):
    """The worker never held much more than `before`. `pytest -rP` shows how much."""
    grown = memory(stage, "VmHWM") - before
    print(f"grown by {grown / (1 << 20):.1f} MiB from {before / (1 << 20):.1f} MiB")
    assert grown < GROWTH


def curl(stage, *arguments):
    """curl with the tag and all the time it needs; what it printed."""
    done = stage.curl("-H", f"X-Alter-Grant: {stage.grants['bearer']}", *arguments, seconds=600)
    assert done.returncode == 0, done.stderr
    print(done.stderr.decode())
    return done.stdout.decode()


def test_a_download(stage, upstream, path):
    _, version, size = path
    curl(stage, version, f"{URL}/bytes/1000000", "-o", os.devnull)
    before = memory(stage, "VmRSS")
    told = curl(stage, version, f"{URL}/bytes/{size}", "-o", os.devnull, "-w", TOLD)
    check_growth(stage, before)
    assert told.startswith(f"{size} bytes")
    assert upstream.last.version == ("HTTP/2" if version == "--http2" else "HTTP/1.1")


def test_an_upload(stage, upstream, path, tmp_path):
    _, version, size = path
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(size)
    curl(stage, version, f"{URL}/upload", "--data-binary", "x" * 100_000)
    before = memory(stage, "VmRSS")
    told = json.loads(curl(stage, version, f"{URL}/upload", "-T", large, "-w", "%{stderr}" + TOLD))
    check_growth(stage, before)
    digest = hashlib.sha256()
    for _ in range(size >> 20):
        digest.update(bytes(1 << 20))
    assert told == {"size": size, "sha256": digest.hexdigest()}
    assert upstream.last.version == ("HTTP/2" if version == "--http2" else "HTTP/1.1")
