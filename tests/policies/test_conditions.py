"""`period`, `max_body`, `content_type` and `reason`: what a request must state about itself."""

import pytest

from addon.errors import Usage
from addon.policies import content_type, max_body, period, reason


@pytest.mark.parametrize(
    ("params", "now", "passes"),
    [
        ({"not_before": 10.0}, 9.9, False), ({"not_before": 10.0}, 10, True),
        ({"expires": 20.0}, 19.9, True), ({"expires": 20.0}, 20, False),
        ({"not_before": 10.0, "expires": 20.0}, 15, True), ({"not_before": 10.0, "expires": 20.0}, 25, False),
    ],
)  # fmt: skip
def test_a_period_holds_from_its_first_second_to_before_its_last(attempt, params, now, passes):
    assert (period.KIND.check(params, attempt(now=now)) is None) is passes


def test_a_period_is_typed_as_two_times():
    assert period.KIND.parse(("10", "")) == {"not_before": 10.0}
    assert period.KIND.parse(("", "20")) == {"expires": 20.0}
    for values in (("", ""), ("20", "10"), ("10", "10")):
        with pytest.raises(Usage, match="no time in it"):
            period.KIND.parse(values)


@pytest.mark.parametrize(
    ("headers", "passes"),
    [
        ([], True),
        ([(b"Content-Length", b"100")], True),
        ([(b"Content-Length", b"101")], False),
        ([(b"Content-Length", b"1"), (b"Content-Length", b"500")], False),
        ([(b"Content-Length", b"1e1")], False),
        ([(b"Content-Length", b"")], False),
        ([(b"Transfer-Encoding", b"chunked")], False),
        ([(b"Content-Length", b"1"), (b"transfer-encoding", b"chunked")], False),
    ],
)
def test_a_body_must_be_stated_to_be_small(attempt, headers, passes):
    assert (max_body.KIND.check(max_body.KIND.parse(("100",)), attempt(headers=headers)) is None) is passes


@pytest.mark.parametrize(
    ("headers", "passes"),
    [
        ([], True),
        ([(b"Content-Length", b"0")], True),
        ([(b"Content-Length", b"2"), (b"Content-Type", b"application/json")], True),
        ([(b"Content-Length", b"2"), (b"Content-Type", b"Application/JSON; charset=utf-8")], True),
        ([(b"Content-Length", b"2"), (b"Content-Type", b"text/plain")], False),
        ([(b"Content-Length", b"2"), (b"Content-Type", b"application/json, text/plain")], False),
        ([(b"Content-Type", b"application/json"), (b"Content-Type", b"text/plain")], False),
        ([(b"Content-Length", b"2")], False),
        ([(b"Transfer-Encoding", b"chunked")], False),
        ([(b"Content-Type", b"\xff/json")], False),
    ],
)
def test_a_body_must_have_one_of_the_media_types(attempt, headers, passes):
    policy = content_type.KIND.parse(("application/json",))
    assert (content_type.KIND.check(policy, attempt(headers=headers)) is None) is passes


@pytest.mark.parametrize(
    ("given", "passes"),
    [(None, False), (b"", False), (b"   x  ", False), (b"ticket 7", True), ("für Ü".encode(), True)],
)
def test_a_reason_must_be_given_in_so_many_characters(attempt, given, passes):
    headers = [] if given is None else [(b"X-Alter-Reason", given)]
    assert (reason.KIND.check(reason.KIND.parse(("5",)), attempt(headers=headers)) is None) is passes


@pytest.mark.parametrize(
    ("kind", "values"),
    [(max_body, ()), (max_body, ("1", "2")), (max_body, ("-1",)), (content_type, ("json",)), (content_type, ("a/b;c",)),
     (reason, ("0",)), (reason, ("x",))],
)  # fmt: skip
def test_what_means_nothing_is_refused_when_typed(kind, values):
    with pytest.raises(Usage):
        kind.KIND.parse(values)
