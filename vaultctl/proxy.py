"""The proxy as its clients name it: `http://HOST:PORT`."""

import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

import click

from addon.errors import Unreachable, Usage
from vaultctl.console import DEFAULT_PROXY

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Proxy:
    """Where the proxy listens. `authority` is host and port as typed, brackets included."""

    scheme: str
    authority: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"

    def with_key(self, name: str, key: str) -> str:
        """The URL that proves a caller (RFC 7617 credentials as userinfo)."""
        return f"{self.scheme}://{name}:{key}@{self.authority}"

    def check(self, *, timeout: float = 1.0) -> None:
        """Raises Unreachable unless something accepts connections there within `timeout` seconds."""
        try:
            socket.create_connection((self.host, self.port), timeout=timeout).close()
        except OSError:
            raise Unreachable(
                f"no proxy answers at {self}",
                hint="start it with `alter-egress`, or name another with --proxy or ALTER_PROXY",
            ) from None


def parse(url: str) -> Proxy:
    """Raises Usage."""
    try:
        parts = urlsplit(url)
        default = _PORTS[parts.scheme]
        host, port = parts.hostname, default if parts.port is None else parts.port
    except (ValueError, KeyError):
        host = port = None
    if not host or not port or "@" in url or url.rstrip("/") != f"{parts.scheme}://{parts.netloc}":
        raise Usage(
            "the proxy is not named by a URL of scheme, host and port",
            hint=f"write it like {DEFAULT_PROXY}, without a key",
        )
    return Proxy(parts.scheme, parts.netloc, host, port)


option = click.option(
    "--proxy",
    "proxy_url",
    envvar="ALTER_PROXY",
    default=DEFAULT_PROXY,
    metavar="URL",
    show_default=True,
    help="Where the proxy listens (also ALTER_PROXY).",
)
