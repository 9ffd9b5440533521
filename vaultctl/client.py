"""
An HTTP client as an app would have one, for the demo: curl where there is one, otherwise Python's own.

Neither knows anything of the proxy beyond its URL, a CA file and a header.
"""

import http.client
import os
import shutil
import ssl
import subprocess
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from email.parser import BytesHeaderParser
from pathlib import Path
from urllib.parse import urlsplit

SECONDS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """The way out: a proxy on a port of 127.0.0.1, the caller's name and key, and the CA to trust."""

    port: int
    name: str
    key: str = field(repr=False)
    ca_file: Path


@dataclass(frozen=True, slots=True)
class Call:
    """One request of the app, without its tag."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Answer:
    """`code` is that of a refusal by the proxy. `error` says why there was no answer; then `status` is 0."""

    status: int = 0
    code: str = ""
    error: str = ""


Client = Callable[[Door, Call], Answer]


def choose() -> tuple[str, Client]:
    """The name of a client that is here, and the client."""
    return ("curl", curl) if shutil.which("curl") else ("python", python)


def curl(door: Door, call: Call) -> Answer:
    """By curl. Everything goes in by its standard input: arguments are for all to read."""
    options = [
        *(("silent", ""), ("show-error", ""), ("include", ""), ("suppress-connect-headers", ""), ("http1.1", "")),
        ("max-time", str(SECONDS)),
        ("noproxy", "none"),
        ("proxy", f"http://127.0.0.1:{door.port}"),
        ("proxy-user", f"{door.name}:{door.key}"),
        ("cacert", str(door.ca_file)),
        ("url", call.url),
        ("request", call.method),
        *(("header", f"{name}: {value}") for name, value in call.headers),
        *([("data-binary", call.body.decode())] if call.body else []),
    ]
    done = subprocess.run(
        ["curl", "--disable", "--config", "-"],  # noqa: S607  the user's own
        input="\n".join(f"{name} = {_quote(value)}" if value else name for name, value in options).encode(),
        env={"PATH": os.environ.get("PATH", os.defpath)},
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        return Answer(error=done.stderr.decode(errors="replace").strip() or f"curl ended with code {done.returncode}")
    line, _, rest = done.stdout.partition(b"\r\n")
    headers = BytesHeaderParser().parsebytes(rest.partition(b"\r\n\r\n")[0])
    return Answer(int(line.split()[1]), headers.get("X-Alter-Error", ""))


def python(door: Door, call: Call) -> Answer:
    """By the standard library."""
    parts = urlsplit(call.url)
    context = ssl.create_default_context(cafile=door.ca_file)
    connection = http.client.HTTPSConnection("127.0.0.1", door.port, timeout=SECONDS, context=context)
    proof = b64encode(f"{door.name}:{door.key}".encode()).decode()
    connection.set_tunnel(parts.hostname or "", 443, {"Proxy-Authorization": f"Basic {proof}"})
    try:
        target = parts._replace(scheme="", netloc="").geturl()
        connection.request(call.method, target, call.body or None, dict(call.headers))
        response = connection.getresponse()
        response.read()
        return Answer(response.status, response.headers.get("X-Alter-Error", ""))
    except (OSError, http.client.HTTPException) as error:
        return Answer(error=str(error) or type(error).__name__)
    finally:
        connection.close()


def _quote(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
