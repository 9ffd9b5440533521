"""`cidr`: only clients from these networks. An IPv4 client of a dual-stack listener counts as IPv4."""

import functools
import ipaddress
from typing import Any, ClassVar

from addon.errors import Usage
from addon.policies.policy import Attempt, PolicyKind, listed

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_networks(values: tuple[str, ...]) -> list[str]:
    """Networks as stored. Raises Usage."""
    try:
        return [str(ipaddress.ip_network(value.strip())) for value in values]
    except ValueError:
        raise Usage(
            "not a network: " + ", ".join(repr(value) for value in values),
            hint="write CIDR with the host bits zero, such as 10.1.0.0/16, 192.0.2.7/32 or 2001:db8::/32",
        ) from None


def contains(networks: tuple[str, ...], address: str) -> bool:
    """Whether an address lies in one of the networks. Text that is no address lies in none."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return any((mapped or ip) in network for network in _networks(networks))


@functools.lru_cache(maxsize=256)
def _networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


class Cidr:
    """Passes when the client's address lies in a listed network."""

    tag: ClassVar[str] = "cidr"

    def parse(self, values: tuple[str, ...]) -> dict[str, Any]:
        """The stored parameters."""
        return {"networks": parse_networks(values)}

    def check(self, params: dict[str, Any], attempt: Attempt) -> str | None:
        """None, or what was compared."""
        networks = tuple(listed(params, "networks"))
        address = attempt.request.client_ip
        return None if contains(networks, address) else f"{address} is not in {', '.join(networks)}"

    def describe(self, params: dict[str, Any]) -> str:
        """What passes."""
        return ", ".join(listed(params, "networks"))


KIND: PolicyKind = Cidr()
