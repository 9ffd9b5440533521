"""`hours`: weekly windows in wall time, daylight saving included."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addon.errors import Usage
from addon.policies import hours

BERLIN = "Europe/Berlin"


def passes(attempt, window, at, zone=BERLIN):
    now = datetime.fromisoformat(at).replace(tzinfo=ZoneInfo(zone)).timestamp()
    return hours.KIND.check(hours.KIND.parse((window,)), attempt(now=now)) is None


@pytest.mark.parametrize(
    ("at", "inside"),
    [
        ("2026-11-23T08:59:59", False),
        ("2026-11-23T09:00:00", True),
        ("2026-11-23T17:59:59", True),
        ("2026-11-23T18:00:00", False),
        ("2026-11-28T12:00:00", False),
        ("2026-07-01T09:00:00", True),
        ("2026-03-30T09:00:00", True),
        ("2026-10-26T08:59:00", False),
    ],
)
def test_office_hours_follow_the_clock_on_the_wall(attempt, at, inside):
    assert passes(attempt, f"Mon-Fri 09:00-18:00 {BERLIN}", at) is inside


@pytest.mark.parametrize(
    ("at", "inside"),
    [
        ("2026-11-27T21:59:00", False),
        ("2026-11-27T22:00:00", True),
        ("2026-11-28T05:59:00", True),
        ("2026-11-28T06:00:00", False),
        ("2026-11-28T22:00:00", False),
        ("2026-11-27T03:00:00", False),
    ],
)
def test_a_window_over_midnight_belongs_to_the_day_it_begins_on(attempt, at, inside):
    assert passes(attempt, f"Fri 22:00-06:00 {BERLIN}", at) is inside


def test_the_hour_that_does_not_exist_and_the_one_that_comes_twice(attempt):
    policy = hours.KIND.parse((f"Sun 02:00-03:00 {BERLIN}",))

    def at(text):
        return (
            hours.KIND.check(policy, attempt(now=datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())) is None
        )

    assert not any(at(f"2026-03-29T{hour:02}:{minute:02}:00") for hour in range(24) for minute in (0, 30))
    assert at("2026-10-25T00:30:00")
    assert at("2026-10-25T01:30:00")
    assert not at("2026-10-25T02:30:00")


def test_any_of_several_windows_will_do(attempt):
    policy = hours.KIND.parse(("Mon 09:00-10:00 UTC", "Sat,Sun 00:00-24:00 UTC"))
    saturday = datetime(2026, 11, 28, 23, 59, 59, tzinfo=UTC).timestamp()
    assert hours.KIND.check(policy, attempt(now=saturday)) is None
    denied = hours.KIND.check(policy, attempt(now=saturday - 86_400))
    assert denied == "Fri 23:59 UTC is not within Mon 09:00-10:00 UTC, Sat,Sun 00:00-24:00 UTC"


@pytest.mark.parametrize(
    "text",
    ["", "Mon", "Mon 09:00 UTC", "Mon 9:00-18:00 UTC", "Mon 09:00-18:00", "Mon 09:00-09:00 UTC", "Mon 24:00-01:00 UTC",
     "Mon 25:00-26:00 UTC", "Foo 09:00-18:00 UTC", "Mon-Foo 09:00-18:00 UTC", "Mon 09:00-18:00 Nowhere/City",
     "Mon 09:00-18:00 ../../etc/passwd", "Mon 09:00-24:01 UTC", "Mon 09:60-10:00 UTC"],
)  # fmt: skip
def test_hours_that_mean_nothing_are_refused_when_typed(text):
    with pytest.raises(Usage, match="not weekly hours"):
        hours.KIND.parse((text,))


@given(st.integers(1_700_000_000, 1_900_000_000), st.sampled_from(["UTC", BERLIN, "America/New_York", "Asia/Kolkata"]))
def test_a_day_and_the_rest_of_the_week_never_both_hold(now, zone):
    day, rest = (hours.parse_window(f"{days} 00:00-24:00 {zone}") for days in ("Wed", "Thu-Tue"))
    assert hours._inside(day, now) is not hours._inside(rest, now)
