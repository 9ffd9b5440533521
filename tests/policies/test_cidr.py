"""`cidr`: only clients from these networks."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addon.errors import Usage
from addon.policies import cidr
from addon.policies.cidr import contains, parse_networks


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        (" 192.0.2.7 ", "192.0.2.7/32"),
        ("2001:DB8::/32", "2001:db8::/32"),
        ("::1", "::1/128"),
    ],
)
def test_a_network_is_stored_in_its_normal_form(typed, stored):
    assert parse_networks((typed,)) == [stored]


@pytest.mark.parametrize(
    "typed", ["", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/-1", "10.0/8", "localhost", "10.0.0.0/8,::1"]
)
def test_what_is_no_network_is_refused(typed):
    with pytest.raises(Usage, match="not a network"):
        parse_networks(("::1", typed))


@pytest.mark.parametrize(
    ("address", "inside"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("11.0.0.1", False),
        ("2001:db8::1", True),
        ("2001:db9::1", False),
        ("", False),
        ("10.1.2.3:80", False),
        ("0x0a.1.2.3", False),
        ("unix", False),
    ],
)
def test_an_address_is_inside_or_it_is_not(attempt, address, inside):
    params = {"networks": ["10.0.0.0/8", "2001:db8::/32"]}
    assert (cidr.KIND.check(params, attempt(client_ip=address)) is None) is inside


def test_no_networks_hold_nobody():
    assert not contains((), "127.0.0.1")


@given(st.ip_addresses(), st.integers(0, 32))
def test_a_client_is_in_every_network_around_it(address, bits):
    network = ipaddress.ip_network(f"{address}/{bits}", strict=False)
    mapped = getattr(address, "ipv4_mapped", None)
    assert contains((str(network),), str(address)) or mapped
