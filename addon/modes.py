"""
How apps reach the proxy (`--mode`).

    regular              they know it: CONNECT, or the absolute form
    transparent          they do not: the network redirects their connections here; the SNI stands for the CONNECT
    reverse:https://HOST they know it as HOST: their requests, in the clear, are all for that one upstream
"""

import ipaddress
import re
import sys
from dataclasses import dataclass

from addon import hosts, network
from addon.errors import Usage

_REVERSE = re.compile(r"reverse:https://([^/@:\s]+)(?::([0-9]{1,5}))?/?")


@dataclass(frozen=True, slots=True)
class Mode:
    """`name` is `regular`, `transparent` or `reverse`; only the last has an upstream, by its normalised name."""

    name: str
    host: str = ""
    port: int = 0

    @property
    def spec(self) -> str:
        """As mitmproxy writes it."""
        return f"reverse:https://{self.host}:{self.port}" if self.host else self.name


def parse(text: str) -> Mode:
    """Raises Usage."""
    if text == "transparent" and sys.platform != "linux":
        raise Usage("transparent mode is for Linux alone", hint="use --mode regular or reverse:https://HOST here")
    if text in {"regular", "transparent"}:
        return Mode(text)
    match = _REVERSE.fullmatch(text)
    if not match:
        raise Usage(
            f"not a mode: {text!r}",
            hint="use regular, transparent, or reverse:https://HOST (no path; a credential only ever goes out over TLS)",
        )
    host, port = hosts.parse_pattern(match[1] + (f":{match[2]}" if match[2] else ""))
    if host.startswith("*."):
        raise Usage(f"not a mode: {text!r}", hint="name the one host that all requests are for")
    return Mode("reverse", host, port)


def check_listener(text: str, address: str) -> None:
    """
    Raises Usage for an address on which keys would cross a network in clear.

    Redirected apps speak TLS to the listener, or send no key that is of any use; but it must be an address of one network
    (the gateway of a namespace or a bridge), or others could have it relay for them.
    """
    listener = ipaddress.ip_address(address)
    if listener.is_loopback:
        return
    if text == "transparent":
        forms = (listener, network.embedded(listener))
        if any(
            network.is_public(form) or form.is_unspecified or form.is_multicast or form.is_link_local for form in forms
        ):
            raise Usage(
                f"{address} is reachable from anywhere",
                hint="listen on the private address that redirected connections arrive at, such as the gateway of a namespace",
            )
        return
    raise Usage(
        f"{address} is reachable from other machines, and keys would cross the network in clear",
        hint="listen on 127.0.0.1 or ::1; put a TLS tunnel in front, or run one proxy beside each app",
    )
