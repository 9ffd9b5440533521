"""Which addresses may be reached, by whom, and on which ports."""

import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from addon import network
from addon.errors import Usage
from addon.network import Redirect, Rules

FORBIDDEN = {
    "169.254.169.254": "cloud metadata",
    "169.254.170.2": "credentials of an ECS task",
    "169.254.170.23": "credentials of an EKS pod",
    "169.254.0.23": "Tencent metadata",
    "169.254.42.42": "Scaleway metadata",
    "100.100.100.200": "Alibaba metadata, in carrier-grade NAT space",
    "192.0.0.192": "Oracle metadata",
    "168.63.129.16": "Azure's host agent, at a public address",
    "127.0.0.1": "loopback",
    "127.1.2.3": "all of 127/8 is loopback",
    "0.0.0.0": "unspecified, which Linux takes for loopback",
    "0.1.2.3": "this network",
    "10.0.0.1": "private",
    "172.16.0.1": "private",
    "172.31.255.255": "private",
    "192.168.1.1": "private",
    "100.64.0.1": "carrier-grade NAT",
    "192.0.2.1": "documentation",
    "198.18.0.1": "benchmarks",
    "198.19.255.255": "benchmarks",
    "198.51.100.1": "documentation",
    "203.0.113.1": "documentation",
    "192.88.99.1": "6to4 relays, withdrawn",
    "224.0.0.1": "multicast",
    "239.255.255.255": "multicast",
    "240.0.0.1": "reserved",
    "255.255.255.255": "broadcast",
    "::": "unspecified",
    "::1": "loopback",
    "::2": "compatible with 0.0.0.2",
    "::ffff:169.254.169.254": "mapped metadata",
    "::ffff:127.0.0.1": "mapped loopback",
    "::ffff:10.0.0.1": "mapped private",
    "::ffff:0.0.0.0": "mapped unspecified",
    "::169.254.169.254": "compatible metadata",
    "::8.8.8.8": "compatible, withdrawn",
    "fe80::1": "link-local",
    "fe80::1%eth0": "link-local with a zone",
    "fe80::a9fe:a9fe": "OpenStack metadata",
    "fd00:ec2::254": "AWS metadata",
    "fd00:ec2::23": "credentials of an EKS pod",
    "fd20:ce::254": "Google metadata",
    "fd00:42::42": "Scaleway metadata",
    "fc00::1": "unique local",
    "fd12:3456::1": "unique local",
    "fec0::1": "site-local, withdrawn",
    "ff02::1": "multicast",
    "64:ff9b::a9fe:a9fe": "NAT64 of metadata",
    "64:ff9b::7f00:1": "NAT64 of loopback",
    "64:ff9b::": "NAT64 of unspecified",
    "64:ff9b:1::a9fe:a9fe": "local NAT64",
    "2002:a9fe:a9fe::1": "6to4 of metadata",
    "2002:7f00:1::1": "6to4 of loopback",
    "2002:808:808::1": "6to4, even of a public address",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2": "Teredo",
    "2001:2::1": "benchmarks",
    "2001:20::1": "ORCHID",
    "2001:db8::1": "documentation",
    "3fff::1": "documentation",
    "5f00::1": "segment routing",
    "100::1": "discard",
    "4000::1": "not assigned",
    "": "nothing",
    "api.test": "a name",
    "127.1": "an address only to libc",
    "2852039166": "an address only to libc",
    "0x7f.1": "an address only to libc",
    "0177.0.0.1": "an address only to libc",
    "010.8.8.8": "octal to some",
    "127.0.0.1:80": "with a port",
    "[::1]": "with brackets",
    "8.8.8.8/32": "a network",
    "8.8.8.8\n": "with a line break",
}
ALLOWED = {
    "8.8.8.8": "public",
    "1.1.1.1": "public",
    "100.63.255.255": "just below carrier-grade NAT",
    "100.128.0.1": "just above it",
    "172.15.255.255": "just below private",
    "172.32.0.1": "just above it",
    "223.255.255.255": "just below multicast",
    "2606:4700::1111": "public",
    "2001:200::1": "just above the special block",
    "::ffff:8.8.8.8": "mapped public",
    "64:ff9b::808:808": "NAT64 of a public address: how an IPv6-only network reaches IPv4",
}
METADATA = [
    address for address, reason in FORBIDDEN.items() if "metadata" in reason or "credentials" in reason or "agent" in reason
]  # fmt: skip


@pytest.mark.parametrize("address", FORBIDDEN, ids=lambda a: f"{a} {FORBIDDEN[a]}")
def test_what_is_not_the_public_internet_is_forbidden(address):
    assert not Rules().allow(address)


@pytest.mark.parametrize("address", ALLOWED, ids=lambda a: f"{a} {ALLOWED[a]}")
def test_the_public_internet_is_allowed(address):
    assert Rules().allow(address)


EVERYTHING = Rules((ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")))


@pytest.mark.parametrize("address", METADATA)
def test_metadata_is_reached_by_nobody_whatever_the_operator_allows(address):
    assert not Rules().allow(address, bound_private=True)
    assert not EVERYTHING.allow(address, bound_private=True)
    assert network.is_metadata(ipaddress.ip_address(address.partition("%")[0]))


@pytest.mark.parametrize(
    "address",
    ["0.0.0.0", "::", "::ffff:0.0.0.0", "64:ff9b::", "224.0.0.1", "ff02::1", "::ffff:224.0.0.1", "64:ff9b::e000:1", "text", ""],
)  # fmt: skip
def test_what_is_no_destination_at_all_is_reached_by_nobody(address):
    assert not EVERYTHING.allow(address, bound_private=True)


@pytest.mark.parametrize("address", ["10.0.0.1", "127.0.0.1", "::1", "fd12:3456::1", "192.168.1.1", "100.64.0.1"])
def test_a_sealed_binding_opens_private_addresses(address):
    assert Rules().allow(address, bound_private=True)
    assert not Rules().allow(address, bound_private=False)


@pytest.mark.parametrize(
    ("address", "allowed"),
    [("10.1.2.3", True), ("10.2.0.1", False), ("::1", True), ("::2", False), ("127.0.0.1", False), ("fd00::1", False)],
)
def test_untagged_traffic_reaches_the_private_networks_the_operator_names(address, allowed):
    assert Rules(network.parse_networks(["10.1.0.0/16", "::1/128"])).allow(address) is allowed


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_judged_alike_in_every_disguise(address):
    """Mapped and NAT64 lead to the same place; the forms that only hide an address are worse at best."""
    number = int(address)
    plain = Rules().allow(str(address))
    for translated in (f"::ffff:{address}", str(ipaddress.IPv6Address((0x0064FF9B << 96) | number))):
        assert Rules().allow(translated) is plain
        assert EVERYTHING.allow(translated, bound_private=True) is EVERYTHING.allow(str(address), bound_private=True)
    for hidden in (ipaddress.IPv6Address((0x2002 << 112) | (number << 80) | 1), ipaddress.IPv6Address(number)):
        assert not Rules().allow(str(hidden))
        assert not network.is_metadata(address) or not EVERYTHING.allow(str(hidden), bound_private=True)


@given(st.ip_addresses())
@example(ipaddress.ip_address("::ffff:224.0.0.1"))
def test_whatever_python_itself_calls_special_is_forbidden(address):
    special = (
        address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified or address.is_reserved
    )  # fmt: skip
    if (special or not address.is_global) and not network.embedded(address).is_global:
        assert not Rules().allow(str(address))


# ── ports ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("port", [80, 443, 1024, 3000, 4443, 5000, 8000, 8080, 8443, 9200, 65535])
def test_http_and_its_usual_ports_are_open(port):
    assert network.port_allowed(port)


@pytest.mark.parametrize(
    "port",
    [-1, 0, 1, 22, 23, 25, 53, 110, 139, 143, 445, 465, 587, 993, 995, 1023, 2049, 3306, 3389, 5432, 6379, 6667, 9042, 11211,
     27017, 65536],
)  # fmt: skip
def test_ports_of_other_protocols_are_closed(port):
    assert not network.port_allowed(port)


# ── redirections ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("api.test:443:127.0.0.1:8443", Redirect("api.test", 443, "127.0.0.1", 8443)),
        ("API.Test.:443:[::1]:8443", Redirect("api.test", 443, "::1", 8443)),
        ("api.test:1:10.0.0.1:65535", Redirect("api.test", 1, "10.0.0.1", 65535)),
    ],
)
def test_a_redirection_names_a_destination_and_an_address(text, parsed):
    assert network.parse_redirect(text) == parsed


@pytest.mark.parametrize(
    "text",
    [
        "", "api.test", "api.test:443", "api.test:443:127.0.0.1", "api.test:443:127.0.0.1:", ":443:127.0.0.1:443",
        "api.test:0:127.0.0.1:443", "api.test:443:127.0.0.1:0", "api.test:65536:127.0.0.1:443",
        "api.test:443:127.0.0.1:99999", "api.test:443:other.test:443", "api.test:443:::1:443", "api.test:443:[::1:443",
        "api.test:443:[]:443", "api.test:443:127.1:443", "api.test:443:[127.0.0.1:443", "api.test:443:127.0.0.1:443\n",
        "api.test:443:[fe80::1%eth0]:443",
    ],
)  # fmt: skip
def test_a_redirection_that_is_not_whole_is_refused_with_an_example(text):
    with pytest.raises(Usage) as refused:
        network.parse_redirect(text)
    assert "--connect-to HOST:PORT:ADDRESS:PORT" in refused.value.hint


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0.0/33", "private", "", "10.0.0.0/8,::1/128"])
def test_a_network_is_written_with_its_host_bits_zero(text):
    with pytest.raises(Usage, match="not a network"):
        network.parse_networks([text])
