"""
The proxy that our own connections go through, where a network lets nothing else out (`--upstream-proxy`).

Every upstream connection is a CONNECT to it (RFC 9110 9.3.6), whatever travels inside; TLS to the destination is proved
end to end through it, so it carries what it cannot read. It resolves names: see `network.is_local_name` for what remains
of the rules on addresses.
"""

import asyncio
import base64
import json
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from addon import files, hosts
from addon.complaints import complain
from addon.errors import Usage
from addon.trust import verifying_context

VARIABLE = "ALTER_UPSTREAM_PROXY"
"""The environment variable that may hold the URL with its credentials."""

SECONDS = 10.0
"""How long the proxy may take to answer a CONNECT."""
_LONGEST_HEAD = 1 << 14
_URL = re.compile(r"(https?)://(?:([^/@\s]*)@)?([^/@\s:\[\]]+|\[[0-9a-fA-F:.]+\])(?::([0-9]{1,5}))?/?")
_ANSWER = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[ \r]")


class Refused(ConnectionError):
    """The next proxy did not open a tunnel."""


@dataclass(frozen=True, slots=True)
class NextProxy:
    """`authorization` is the value of Proxy-Authorization, or empty; it does not print."""

    scheme: str
    host: str
    port: int
    authorization: str = field(default="", repr=False)

    def dump(self) -> str:
        """Text for a worker process, credentials included."""
        return json.dumps([self.scheme, self.host, self.port, self.authorization])

    @classmethod
    def load(cls, text: str) -> "NextProxy":
        """The proxy in `dump`ed text."""
        return cls(*json.loads(text))

    def connect_head(self, host: str, port: int) -> bytes:
        """The CONNECT for a destination: a normalised name, or an address."""
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
        if self.authorization:
            lines.append(f"Proxy-Authorization: {self.authorization}")
        return "\r\n".join([*lines, "", ""]).encode("ascii")


def parse(text: str) -> NextProxy:
    """`http[s]://[USER:PASSWORD@]HOST[:PORT]`. Raises Usage, which never repeats what it was given."""
    match = _URL.fullmatch(text)
    scheme, credentials, host, port_text = match.groups() if match else ("", None, "", None)
    port = int(port_text or {"http": 80, "https": 443}.get(scheme, 0))
    host = host.strip("[]")
    try:
        host = host if hosts.is_address(host) else hosts.normalize(host)
    except hosts.NotAName:
        port = 0
    if not 0 < port < 65536:
        raise Usage("not the address of a proxy", hint="write it as http://HOST:PORT or https://HOST:PORT")
    authorization = ""
    if credentials is not None:
        user, colon, password = credentials.partition(":")
        pair = f"{unquote(user)}:{unquote(password)}"
        if not colon or not pair.isprintable():
            raise Usage("not the credentials of a proxy", hint="write them as USER:PASSWORD, percent-encoded")
        authorization = "Basic " + base64.b64encode(pair.encode()).decode("ascii")
    return NextProxy(scheme, host, port, authorization)


def read(option: str, *, variable: str) -> NextProxy | None:
    """
    The proxy that an operator chose: a URL, `@FILE` with the URL in it, or `variable` (of the environment).

    Raises Usage, also for credentials in `option` itself, which other users of the machine can read; Locked for a FILE
    that others can.
    """
    if option.startswith("@"):
        return parse(files.read_private(Path(option[1:]), limit=4096).decode("utf-8", "replace").strip())
    if not option:
        return parse(variable.strip()) if variable.strip() else None
    chosen = parse(option)
    if chosen.authorization:
        raise Usage(
            "credentials on the command line can be read by every user of this machine",
            hint=f"put the URL into a file of mode 0600 and give --upstream-proxy @FILE, or set {VARIABLE}",
        )
    return chosen


def trust(proxy: NextProxy, *, ca_file: str) -> ssl.SSLContext | None:
    """How the proxy itself is verified, where it is spoken to over TLS."""
    return verifying_context(ca_file) if proxy.scheme == "https" else None


class Handshake(asyncio.Protocol):
    """Sends a CONNECT; `opened` is the protocol of `make`, on the same transport, once the tunnel stands. Or Refused."""

    def __init__(self, head: bytes, *, make: Callable[[], asyncio.BaseProtocol]) -> None:
        self._head = head
        self._make = make
        self._received = b""
        self._transport: Any = None
        self.opened: asyncio.Future[asyncio.BaseProtocol] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = transport
        self._transport.write(self._head)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self.opened.done():
            return
        self._received += data
        head, end, rest = self._received.partition(b"\r\n\r\n")
        if not end and len(self._received) <= _LONGEST_HEAD:
            return
        answer = _ANSWER.match(head + end)
        status = int(answer[1]) if answer else 0
        if not end or not 200 <= status < 300:
            complain(f"the upstream proxy answered CONNECT with {status or 'something else than HTTP'}")
            self._refuse()
        elif rest:
            self._refuse()  # nobody has been asked anything inside the tunnel yet
        else:
            protocol = self._make()
            self._transport.set_protocol(protocol)
            protocol.connection_made(self._transport)
            self.opened.set_result(protocol)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio calls it so
        """See asyncio.Protocol."""
        self._refuse()

    def _refuse(self) -> None:
        if not self.opened.done():
            self.opened.set_exception(Refused("no tunnel"))
        self._transport.abort()
