"""
Which addresses a request may be sent to.

A name is resolved once, every answer is judged, and the connection goes to a judged answer: there is no second look-up
that could differ. The standard library's `is_private` and `is_global` are not used: they miss 100.64.0.0/10 and the
IPv6 forms that embed an IPv4 address.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

from addon.errors import Usage


class AddressForbidden(OSError):
    """A name resolves to an address that may not be connected to. The text is what mitmproxy's side looks for."""

    def __init__(self) -> None:
        super().__init__("alter:address_forbidden")


Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# IANA special-purpose registries, and multicast.
_SPECIAL_V4 = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
    )
)  # fmt: skip
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
_SPECIAL_V6 = tuple(
    ipaddress.IPv6Network(text)
    for text in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
)
# What is sent to these arrives at the IPv4 address inside. (Not so 6to4 and the "compatible" form, which only hide one.)
_TRANSLATED = (ipaddress.IPv6Network("::ffff:0:0/96"), ipaddress.IPv6Network("64:ff9b::/96"))
# Never reachable, whatever the operator allows: cloud metadata services hand out credentials to whoever asks.
_METADATA = tuple(
    ipaddress.ip_network(text)
    for text in (
        "169.254.0.0/16",  # link-local: AWS, Google, Azure, Oracle, Tencent, Scaleway, the task roles of ECS and EKS
        "fe80::/10",  # OpenStack
        "100.100.100.200/32",  # Alibaba
        "168.63.129.16/32",  # Azure's host agent, though its address is a public one
        "192.0.0.192/32",  # Oracle
        "fd00:ec2::/32",  # AWS
        "fd20:ce::/32",  # Google
        "fd00:42::/32",  # Scaleway
    )
)


def embedded(address: Address) -> Address:
    """The IPv4 address inside an IPv6 one (mapped, compatible, NAT64, 6to4), or the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    value = int(address)
    if address.ipv4_mapped:
        return address.ipv4_mapped
    if address.sixtofour:
        return address.sixtofour
    if value >> 32 in (0, 0x0064FF9B << 64) and value > 1:
        return ipaddress.IPv4Address(value & 0xFFFFFFFF)
    return address


def is_metadata(address: Address) -> bool:
    """Whether an address belongs to a cloud metadata service."""
    return any(form in network for network in _METADATA for form in (address, embedded(address)))


def is_public(address: Address) -> bool:
    """Whether an address is an ordinary one of the public internet."""
    inner = embedded(address)
    if isinstance(inner, ipaddress.IPv4Address):
        if any(inner in network for network in _SPECIAL_V4):
            return False
        if inner == address or any(address in network for network in _TRANSLATED):
            return True
    return address in _GLOBAL_V6 and not any(address in network for network in _SPECIAL_V6)


_LOCAL_NAMES = ("localhost", "local", "internal", "home.arpa")
"""Names that mean something in one network only (RFC 6761, 6762, 8375; `internal` is set aside by ICANN)."""


def is_local_name(name: str) -> bool:
    """Whether a normalised name is local by its form: what can be told where somebody else resolves it."""
    return "." not in name or name.endswith(tuple(f".{suffix}" for suffix in _LOCAL_NAMES))


def is_loopback(text: str) -> bool:
    """Whether an address is this machine's own. Text that is no address is not."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or embedded(address).is_loopback


@dataclass(frozen=True, slots=True)
class Rules:
    """`private`: networks that untagged traffic may reach besides the public ones."""

    private: tuple[Network, ...] = ()

    def allow(self, text: str, *, bound_private: bool = False) -> bool:
        """
        Whether to connect to an address.

        `bound_private` says that a sealed binding names the host as private. Metadata addresses are never allowed, nor
        is text that is not an address.
        """
        try:
            address = ipaddress.ip_address(text.partition("%")[0])
        except ValueError:
            return False
        inner = embedded(address)
        if is_metadata(address) or any(form.is_multicast or form.is_unspecified for form in (address, inner)):
            return False
        return is_public(address) or bound_private or any(address in network for network in self.private)


_BAD_PORTS = frozenset({1719, 1720, 1723, 2049, 3306, 3389, 3659, 4045, 4190, 5060, 5061, 5432, 5984, 6000, 6379, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 9042, 10080, 11211, 27017})  # fmt: skip
"""Ports above 1023 of protocols that would act on what an HTTP or TLS client sends (fetch standard, and databases)."""


def port_allowed(port: int) -> bool:
    """Whether a destination that no secret is bound to may be on this port: 80, 443, or an unprivileged one for HTTP."""
    return port in {80, 443} or (1024 <= port < 65536 and port not in _BAD_PORTS)


@dataclass(frozen=True, slots=True)
class Redirect:
    """`--connect-to`: connections for a host and port go to a fixed address instead; TLS still proves the host."""

    host: str
    port: int
    address: str
    to_port: int


_CONNECT_TO = re.compile(r"([^:\[\]]+):([0-9]{1,5}):(\[[0-9a-fA-F:.]+\]|[0-9.]+):([0-9]{1,5})")


def parse_redirect(text: str) -> Redirect:
    """`HOST:PORT:ADDRESS:PORT`, as curl's --connect-to with an address. Raises Usage."""
    match = _CONNECT_TO.fullmatch(text)
    try:
        host, port, address, to_port = match.groups() if match else ("", 0, "", 0)
        ports = int(port), int(to_port)
        address = str(ipaddress.ip_address(address.strip("[]")))
    except ValueError:
        ports = (0, 0)
    if not all(0 < number < 65536 for number in ports):
        raise Usage(
            f"not a redirection: {text!r}",
            hint="write --connect-to HOST:PORT:ADDRESS:PORT, e.g. api.test:443:127.0.0.1:8443",
        )
    return Redirect(host.lower().removesuffix("."), ports[0], address, ports[1])


def parse_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Networks of `--allow-private`. Raises Usage."""
    from addon.policies.cidr import parse_networks as parse  # noqa: PLC0415  one grammar for both

    return tuple(ipaddress.ip_network(text) for text in parse(tuple(texts)))
