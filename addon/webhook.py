"""
Tells somebody else's program that a request waits for approval, so that it can ask people where they are.

One POST for each, with a JSON document, signed: `X-Alter-Signature: t=SECONDS,v1=HEX`, where HEX is the HMAC-SHA256 of
`SECONDS.BODY` under the key in `webhook.key`. Tried again for a while; whether it arrives changes nothing about the
request. Over TLS with a verified certificate, or to this machine. No redirect is followed, and the answer is not read.
"""

import asyncio
import contextlib
import hmac
import http.client
import json
import secrets
import ssl
import time
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from addon import files
from addon.complaints import complain
from addon.errors import Conflict, Usage
from addon.model import Clock
from addon.vault.approvals import Approval

KEY_FILE = "webhook.key"

PAUSES = (1.0, 5.0, 25.0)
"""Seconds between one try and the next."""

_TRY_SECONDS = 10.0
_LOCAL = {"127.0.0.1", "::1", "localhost"}


def check_url(url: str) -> SplitResult:
    """Raises Usage for an address that nothing may be told to."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    safe = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOCAL)
    if not safe or not parts.hostname or port == 0 or parts.username or not url.isascii() or not url.isprintable():
        raise Usage(f"not an address for a webhook: {url!r}", hint="give an https:// URL, or http:// on 127.0.0.1")
    return parts


def read_key(home: Path) -> bytes:
    """The key that announcements are signed with, made if there is none. Raises Locked."""
    with contextlib.suppress(Conflict):
        files.create(home / KEY_FILE, secrets.token_hex(32).encode() + b"\n")
    return files.read_private(home / KEY_FILE).strip()


def sign(body: bytes, *, key: bytes, now: float) -> str:
    """The value of `X-Alter-Signature`."""
    return f"t={int(now)},v1={hmac.digest(key, b'%d.%s' % (int(now), body), 'sha256').hex()}"


class Webhook:
    """Announces from within an event loop, and never makes it wait. Raises Usage for an unsafe `url`."""

    def __init__(self, url: str, *, key: bytes, ca_file: str, clock: Clock = time.time) -> None:
        self._url = check_url(url)
        self._key = key
        self._context = ssl.create_default_context(cafile=ca_file) if self._url.scheme == "https" else None
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()

    def announce(self, approval: Approval) -> None:
        """Begin to tell of a request that waits."""
        task = asyncio.create_task(self._tell(_document(approval), until=approval.expires_at))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(self, body: bytes, *, until: float) -> None:
        for pause in (*PAUSES, None):
            try:
                status = await asyncio.to_thread(self._post, body)
            except (OSError, http.client.HTTPException) as error:
                problem: Exception = error
            else:
                if 200 <= status < 300:
                    return
                problem = RuntimeError(f"status {status}")
            if pause is None or self._clock() + pause >= until:
                complain("an approval could not be announced", problem)
                return
            await asyncio.sleep(pause)

    def _post(self, body: bytes) -> int:
        host, port = self._url.hostname or "", self._url.port
        if self._context is None:
            connection = http.client.HTTPConnection(host, port, timeout=_TRY_SECONDS)
        else:
            connection = http.client.HTTPSConnection(host, port, timeout=_TRY_SECONDS, context=self._context)
        path = (self._url.path or "/") + (f"?{self._url.query}" if self._url.query else "")
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "alter-egress",
            "X-Alter-Signature": sign(body, key=self._key, now=self._clock()),
        }
        with contextlib.closing(connection):
            connection.request("POST", path, body, headers)
            return connection.getresponse().status


def _document(approval: Approval) -> bytes:
    """What is told: what `vaultctl approval show` shows."""
    return json.dumps({"type": "approval.pending", **approval.document()}).encode()
