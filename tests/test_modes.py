"""How apps reach the proxy, as an operator writes it."""

import pytest

from addon import modes, network
from addon.errors import Usage


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("regular", "regular"),
        ("transparent", "transparent"),
        ("reverse:https://api.stripe.com", "reverse:https://api.stripe.com:443"),
        ("reverse:https://API.stripe.com.:8443/", "reverse:https://api.stripe.com:8443"),
    ],
)
def test_a_mode(text, spec):
    assert modes.parse(text).spec == spec


@pytest.mark.parametrize(
    "text",
    ["", "Regular", "transparent ", "socks5", "reverse:api.test", "reverse:http://api.test", "reverse:https://", "reverse:https://*.test",
     "reverse:https://10.0.0.1", "reverse:https://[::1]", "reverse:https://api.test/v1", "reverse:https://u@api.test",
     "reverse:https://api.test:0", "reverse:https://api.test:65536", "reverse:https://api.test\n"],
)  # fmt: skip
def test_anything_else_is_no_mode(text):
    with pytest.raises(Usage) as refused:
        modes.parse(text)
    assert refused.value.hint


def test_transparent_mode_is_for_the_one_system_it_was_proved_on(monkeypatch):
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(Usage, match="Linux"):
        modes.parse("transparent")


@pytest.mark.parametrize(
    "name", ["localhost", "printer", "a.localhost", "nas.local", "metadata.google.internal", "x.home.arpa"]
)
def test_a_name_that_means_something_in_one_network_only(name):
    assert network.is_local_name(name)


@pytest.mark.parametrize("name", ["api.test", "local.example.com", "notlocal.com", "mylocal.net", "internal.io"])
def test_a_name_that_may_mean_something_everywhere(name):
    assert not network.is_local_name(name)
