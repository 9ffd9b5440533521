import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addon.errors import Usage
from vaultctl import times


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("10m", 600), ("1h", 3600), ("1h30m", 5400), ("30d", 2_592_000), ("2w", 1_209_600), ("0s", 0)],
)
def test_a_duration_is_numbers_with_units(text, seconds):
    assert times.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "h", "-1h", "1.5h", "1 h", "1h ", "1H", "\uff11h", "1y", "99999w", "1h\n"])
def test_anything_else_is_refused_with_an_example(text):
    with pytest.raises(Usage) as refused:
        times.parse_duration(text)
    assert "30d" in refused.value.hint


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("1700000000", 1_700_000_000),
        ("1700000000.25", 1_700_000_000.25),
        ("2023-11-14T22:13:20Z", 1_700_000_000),
        ("2023-11-14t22:13:20z", 1_700_000_000),
        ("2023-11-14 22:13:20+00:00", 1_700_000_000),
        ("2023-11-15T00:13:20.5+02:00", 1_700_000_000.5),
    ],
)
def test_a_time_is_rfc_3339_or_unix_seconds(text, seconds):
    assert times.parse_time(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "now", "2023-11-14", "2023-11-14T22:13:20", "2023-02-30T00:00:00Z", "2023-11-14T24:61:00Z", "20231114T221320Z",
     "1e9", "-5", "nan", "inf", "99999999999999", "1970-01-01T00:00:00+14:00", "2023-W46-2T22:13:20Z"],
)  # fmt: skip
def test_a_time_without_its_offset_or_its_sense_is_refused(text):
    with pytest.raises(Usage):
        times.parse_time(text)


def test_a_deadline_counts_from_now_and_the_past_counts_back():
    assert times.deadline("1h", now=1000) == 4600
    assert times.past("10m", now=1000) == 400
    assert times.deadline("1700000000", now=1000) == times.past("1700000000", now=1000) == 1_700_000_000


@given(st.integers(min_value=0, max_value=4_102_444_800_000))
def test_what_is_written_for_programs_reads_back_to_the_millisecond(milliseconds):
    assert times.parse_time(times.rfc3339(milliseconds / 1000)) == pytest.approx(milliseconds / 1000, abs=0.0011)


@given(st.text(max_size=30))
def test_no_text_makes_the_parsers_fail_in_another_way(text):
    for parse in (times.parse_duration, times.parse_time):
        with contextlib.suppress(Usage):
            assert parse(text) >= 0


def test_a_table_shows_utc_to_the_second_and_a_dash_for_never():
    assert times.readable(1_700_000_000.9) == "2023-11-14 22:13:20Z"
    assert times.readable(None) == "-"
