"""`rate` and `quota`: how many is said here, and counted elsewhere."""

import pytest

from addon import policies
from addon.errors import Fault, Usage
from addon.policies import quota, rate
from addon.policies.policy import Limit


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("60/minute", Limit(60, "minute", 60)),
        (" 5/Second ", Limit(5, "second", 1)),
        ("10000/day", Limit(10_000, "day", 86_400)),
        ("1/hour", Limit(1, "hour", 3600)),
    ],
)
def test_a_rate_is_so_many_in_any_unit_on_end(text, limit):
    assert rate.KIND.limits(rate.KIND.parse((text,))) == (limit,)


@pytest.mark.parametrize(
    ("text", "limit"),
    [("100", Limit(100, "")), ("5/hour", Limit(5, "hour")), ("7/DAY", Limit(7, "day")), ("1/month", Limit(1, "month"))],
)
def test_a_quota_is_so_many_ever_or_in_each_unit_of_the_calendar(text, limit):
    assert quota.KIND.limits(quota.KIND.parse((text,))) == (limit,)


@pytest.mark.parametrize("kind", [rate.KIND, quota.KIND], ids=lambda kind: kind.tag)
@pytest.mark.parametrize(
    "values", [(), ("",), ("0",), ("0/hour",), ("-1/hour",), ("1.5/hour",), ("1/week",), ("1/hour ago",), ("٣/hour",), ("5/hour", "6/hour"), ("1e3/hour",)]
)  # fmt: skip
def test_what_is_no_limit_is_refused_when_typed_and_a_fault_when_stored(attempt, kind, values):
    with pytest.raises(Usage):
        kind.parse(values)
    with pytest.raises(Fault):
        policies.check(((kind.tag, {"limits": list(values)}),), attempt(), layer="grant")


@pytest.mark.parametrize("params", [{}, {"limits": "5/hour"}, {"limits": [5]}, {"limits": ["5/hour"], "burst": 1}, {"limit": ["5/hour"]}])  # fmt: skip
@pytest.mark.parametrize("kind", [rate.KIND, quota.KIND], ids=lambda kind: kind.tag)
def test_any_other_shape_is_a_fault(attempt, kind, params):
    with pytest.raises(Fault):
        policies.check(((kind.tag, params),), attempt(), layer="grant")


def test_what_is_left_to_count_names_layer_subject_and_kind(attempt):
    rules = (("rate", {"limits": ["5/hour", "9/day"]}), ("methods", {"methods": ["GET"]}), ("quota", {"limits": ["7"]}))
    due = policies.check(rules, attempt(), layer="secret", subject="s-1")
    assert [(each.policy, each.key) for each in due] == [
        ("secret.rate", "secret:s-1:rate:hour"),
        ("secret.rate", "secret:s-1:rate:day"),
        ("secret.quota", "secret:s-1:quota:"),
    ]
