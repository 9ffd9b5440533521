import os
from itertools import islice

import pytest

from addon.audit import entry
from addon.audit.reader import follow, read

NOW = 1_790_000_000.0


@pytest.fixture
def log(folder, make, open_stream):
    """Ten records, one a second, dealt to two streams in turn, each of several segments."""
    streams = [open_stream(segment_bytes=900), open_stream(segment_bytes=900)]
    for n in range(10):
        record = make(
            id=f"r{n}",
            at=NOW + n,
            grant_id=f"grant-{n % 3}",
            principal="system:billing" if n < 5 else "agent:scout",
            caller="app:billing" if n < 5 else "agent:scout",
            secret="stripe" if n % 2 else "openai",
            decision="refused" if n == 7 else "authorized",
            code="grant_expired" if n == 7 else "",
            context={"grant_id": "grant-9", "code": "rate_limited"},
        )
        streams[n % 2].append([entry.record(record)], now=NOW + n, durable=False)
    for stream in streams:
        stream.close()
    return folder


def ids(rows):
    return " ".join(row["id"].removeprefix("r") for row in rows)


def test_records_of_all_streams_come_in_the_order_of_their_times(log):
    assert ids(read(log)) == "0 1 2 3 4 5 6 7 8 9"


def test_a_limit_gives_the_last_ones_the_newest_last(log):
    assert ids(read(log, limit=3)) == "7 8 9"
    assert ids(read(log, limit=0)) == ""
    assert ids(read(log, limit=99)) == "0 1 2 3 4 5 6 7 8 9"


@pytest.mark.parametrize("limit", [None, 99])
@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"grant": "grant-1"}, "1 4 7"),
        ({"principal": "agent:scout"}, "5 6 7 8 9"),
        ({"caller": "app:billing"}, "0 1 2 3 4"),
        ({"secret": "openai"}, "0 2 4 6 8"),
        ({"decision": "refused"}, "7"),
        ({"code": "grant_expired"}, "7"),
        ({"request_id": "r3"}, "3"),
        ({"since": NOW + 7}, "7 8 9"),
        ({"until": NOW + 2}, "0 1"),
        ({"since": NOW + 2, "until": NOW + 5}, "2 3 4"),
        ({"secret": "stripe", "principal": "agent:scout", "since": NOW + 6}, "7 9"),
        ({"grant": "grant"}, ""),
        ({"grant": "grant-9"}, ""),
        ({"code": "rate_limited"}, ""),
        ({"code": None, "since": None}, "0 1 2 3 4 5 6 7 8 9"),
    ],
    ids=str,
)
def test_filters_pass_exact_values_and_half_open_times(filters, expected, limit, log):
    assert ids(read(log, limit=limit, **filters)) == expected


def test_a_limit_counts_what_passes(log):
    assert ids(read(log, limit=2, secret="openai")) == "6 8"


def test_a_row_has_every_field_even_if_nothing_was_recorded(log):
    row = next(read(log))

    assert tuple(row) == entry.FIELDS
    assert (row["user"], row["status"], row["duration_ms"]) == ("", None, None)


def test_a_value_of_any_characters_is_found(folder, make, write):
    nasty = 'app:"\\\n\ud800é\x00'
    write(make(id="r1", caller=nasty), make(id="r2"))

    assert ids(read(folder, caller=nasty)) == "1"


def test_records_out_of_order_by_minutes_are_still_found_by_since(folder, make, write):
    write(make(id="r1", at=NOW), make(id="r2", at=NOW - 200), make(id="r3", at=NOW + 1))

    assert ids(read(folder, since=NOW)) == ids(read(folder, since=NOW, limit=9)) == "1 3"


@pytest.mark.parametrize("limit", [None, 9])
def test_since_does_not_look_into_segments_that_ended_long_before(limit, folder, make, open_stream):
    stream = open_stream(segment_bytes=1)
    for n in range(4):
        stream.append([entry.record(make(id=f"r{n}", at=NOW + 1000 * n))], now=NOW + 1000 * n, durable=False)
    # Whoever opened the first of these would be told that it is no file.
    for first in (0, 1):
        path = folder / f"00.{first:012}.jsonl"
        path.unlink()
        path.mkdir()

    assert ids(read(folder, since=NOW + 2500, limit=limit)) == "3"


def test_a_limit_does_not_look_into_older_segments(folder, make, open_stream):
    stream = open_stream(segment_bytes=1)
    for n in range(4):
        stream.append([entry.record(make(id=f"r{n}", at=NOW + n))], now=NOW, durable=False)
    path = folder / "00.000000000001.jsonl"
    path.unlink()
    path.mkdir()

    assert ids(read(folder, limit=2)) == "2 3"


def test_a_log_that_does_not_exist_is_empty(folder):
    assert list(read(folder)) == []
    assert list(read(folder, limit=5)) == []


def test_a_line_that_is_no_record_is_passed_over(log):
    path = log / "00.000000000000.jsonl"
    path.write_bytes(path.read_bytes() + b'{"id":broken\n\xff\n')

    assert ids(read(log)) == ids(read(log, limit=99)) == "0 1 2 3 4 5 6 7 8 9"


def test_a_line_that_is_being_written_is_not_read(folder, make, write):
    write(make(id="r1"))
    path = folder / "00.000000000000.jsonl"
    whole = path.read_bytes()
    write(make(id="r2"))
    path.write_bytes(path.read_bytes()[:-1])

    assert path.read_bytes() > whole
    assert ids(read(folder)) == ids(read(folder, limit=9)) == "1"


# --- following ------------------------------------------------------------------------------------------------------


class Script:
    """A `sleep` during which other things happen, one each time."""

    def __init__(self, *scenes):
        self.scenes = list(scenes)

    def __call__(self, seconds):
        assert 0 < seconds <= 1
        self.scenes.pop(0)()


def nothing():
    pass


def test_following_begins_with_the_last_records(log):
    assert ids(islice(follow(log, last=2), 2)) == "8 9"


def test_following_gives_each_new_record_once(log, make, open_stream):
    stream = open_stream()

    def add(*names):
        stream.append([entry.record(make(id=name, at=NOW + 60)) for name in names], now=NOW + 60, durable=False)

    seen = follow(log, last=1, sleep=Script(lambda: add("r10"), nothing, lambda: add("r11", "r12"), nothing))

    assert ids(islice(seen, 4)) == "9 10 11 12"


def test_following_sees_new_segments_and_new_streams(folder, make, open_stream):
    first = open_stream(segment_bytes=1)

    def add(stream, name):
        stream.append([entry.record(make(id=name))], now=NOW, durable=False)

    scenes = [
        lambda: (add(first, "r1"), add(first, "r2")),
        lambda: add(open_stream(), "r3"),
    ]

    assert ids(islice(follow(folder, sleep=Script(*scenes)), 3)) == "1 2 3"


def test_following_can_begin_before_the_log_exists(folder, make, write):
    assert ids(islice(follow(folder, sleep=Script(nothing, lambda: write(make(id="r1")))), 1)) == "1"


def test_following_waits_for_the_rest_of_a_line(folder, make, write):
    write(make(id="r1"), make(id="r2"))
    path = folder / "00.000000000000.jsonl"
    whole = path.read_bytes()
    os.truncate(path, len(whole) - 40)

    seen = follow(folder, sleep=Script(nothing, lambda: path.write_bytes(whole)))

    assert ids(islice(seen, 2)) == "1 2"


def test_following_survives_lines_that_are_taken_back(folder, make, write):
    write(make(id="r1"))
    path = folder / "00.000000000000.jsonl"
    kept = path.stat().st_size
    write(make(id="r2"))

    scenes = [lambda: os.truncate(path, kept), lambda: write(make(id="r3"))]

    assert ids(islice(follow(folder, sleep=Script(*scenes)), 3)) == "1 2 3"


def test_following_filters(log, make, write):
    scene = lambda: write(make(id="r10", at=NOW + 60), make(id="r11", at=NOW + 60, secret="openai"), now=NOW + 60)  # noqa: E731

    assert ids(islice(follow(log, last=1, secret="openai", sleep=Script(scene)), 2)) == "8 11"
