"""
An S3 server that really verifies signatures: OpenStack Swift, in a venv of its own, on a port of 127.0.0.1.

Swift needs libraries that would clash with ours, so it is installed once into a folder that is kept (some seconds and
65 MB). Where that is impossible, `Unavailable` says why.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from tests.e2e.product import environment

VERSION = "2.38.3"
REGION = "us-east-1"
APP = Path(__file__).with_name("swift_app.py")


class Unavailable(Exception):
    """Swift cannot be installed or started here; the message says why."""


def install(cache):
    """The Python of a venv with Swift, made under `cache` unless it is there already."""
    place = cache / f"swift-{VERSION}-py{sys.version_info.major}{sys.version_info.minor}"
    python = place / "bin" / "python"
    if python.exists():
        return python
    # Made aside and moved into place whole, so that a half-made one is never used.
    made = Path(tempfile.mkdtemp(dir=cache, prefix="making-"))
    try:
        venv.create(made, with_pip=True, symlinks=True)
        pip = [made / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        done = subprocess.run([*pip, f"swift=={VERSION}"], capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            raise Unavailable(f"swift cannot be installed: {done.stderr.strip().splitlines()[-1]}")
        made.rename(place)
    except (OSError, subprocess.SubprocessError) as error:
        if not python.exists():  # somebody else was faster
            raise Unavailable(f"swift cannot be installed: {error}") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return python


class S3Server:
    """
    A running server; a context manager. Both keys lead to one account.

    `identity` is the path of a PEM with key and chain: https with it, http without. Buckets are addressed by path, or
    by virtual host; `hosts` are the names it is reached by through the proxy. `folder` is empty and takes the data.
    """

    region = REGION
    # SDKs use the short name in us-east-1.
    hosts = tuple(
        f"{label}{end}" for end in (f"s3.{REGION}.amazonaws.com", "s3.amazonaws.com") for label in ("", "bucket.")
    )
    key = ("AKIATESTKEY0000000001", "s3-secret-one")
    temporary_key = ("ASIATESTKEY0000000002", "s3-secret-two", "s3-session-token")

    def __init__(self, cache, folder, *, identity=None):
        python = install(cache)
        keys = {key_id: [secret, *(token or [None])] for key_id, secret, *token in (self.key, self.temporary_key)}
        command = [python, "-W", "ignore", APP, folder, json.dumps(keys), *filter(None, [identity])]
        with (folder / "log").open("w+") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True, env=environment()
            )
            port = self.process.stdout.readline()
            if not port:
                self.stop()
                log.seek(0)
                raise Unavailable(f"swift does not start: {log.read()[-300:]}")
        self.port = int(port)
        self.ports = {443: self.port}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
