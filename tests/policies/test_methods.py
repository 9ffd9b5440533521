"""`methods`: exact, upper case, and never one that reflects."""

import pytest

from addon.errors import Usage
from addon.policies import methods
from addon.policies.methods import parse_methods


def test_methods_are_stored_in_upper_case_and_once():
    assert parse_methods(("get", "GET", "Post", "M-SEARCH")) == ("GET", "POST", "M-SEARCH")
    assert methods.KIND.parse(("get",)) == {"methods": ["GET"]}


@pytest.mark.parametrize(
    "method", ["", " GET", "GET ", "GET,POST", "G\u0395T", "TRACE", "trace", "Track", "CONNECT", "GET\n", "1GET", "A" * 33]
)  # fmt: skip
def test_a_method_that_must_never_carry_a_credential_cannot_be_stored(method):
    with pytest.raises(Usage, match="not a method"):
        parse_methods((method,))


@pytest.mark.parametrize(
    ("method", "passes"), [("GET", True), ("POST", False), ("get", False), ("GETX", False), ("", False)]
)
def test_the_method_must_be_listed_as_it_is(attempt, method, passes):
    denied = methods.KIND.check({"methods": ["GET", "PUT"]}, attempt(method=method))
    assert (denied is None) is passes
    assert passes or method in denied
