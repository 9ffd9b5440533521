import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addon.audit import entry
from addon.model import Record

anything = st.text(alphabet=st.characters(exclude_categories=()), max_size=60)
"""Lone surrogates, control characters and all."""

times = st.floats(min_value=0, max_value=4e9)

records = st.builds(
    Record,
    id=anything,
    at=times,
    phase=st.sampled_from(["intent", "outcome"]),
    decision=anything,
    code=anything,
    caller=anything,
    user=anything,
    principal=anything,
    grant_id=anything,
    secret=anything,
    version=st.none() | st.integers(0, 2**40),
    host=anything,
    port=st.integers(0, 65535),
    method=anything,
    path=anything,
    client_ip=anything,
    status=st.none() | st.integers(100, 599),
    duration_ms=st.none() | st.floats(0, 1e9),
    policy=anything,
    reason=anything,
    context=st.dictionaries(anything, anything, max_size=20),
    trace_id=anything,
)


def line_of(record, *, seq=1, previous=entry.GENESIS):
    return entry.link(entry.record(record), seq=seq, previous=previous)[0]


@given(records)
def test_a_record_comes_back_as_it_was_written(record):
    row = entry.row(line_of(record))

    expected = {name: getattr(record, name) for name in entry.FIELDS}
    expected["at"] = entry.timestamp(record.at)
    expected["path"] = record.path.partition("?")[0]
    expected["port"] = record.port or None
    if record.duration_ms is not None:
        expected["duration_ms"] = round(record.duration_ms, 3)
    assert row == expected
    assert list(row) == list(entry.FIELDS)


@given(records)
def test_a_line_is_one_line_of_ascii_without_control_characters(record):
    line = line_of(record)

    assert line.isascii()
    assert line.endswith(b"\n")
    assert min(line[:-1]) >= 0x20


@given(records)
def test_nothing_outside_the_allow_list_appears(record):
    assert set(json.loads(line_of(record))) <= {*entry.FIELDS, "seq", "hash"}


def test_each_field_of_a_record_is_in_the_log_on_purpose():
    """If this fails, a field was added to Record: decide whether it may be kept, and say so in FIELDS."""
    assert set(entry.FIELDS) == set(Record._fields)


def test_members_that_say_nothing_are_left_out():
    line = line_of(Record(id="req-1", at=0.0, phase="outcome"))

    assert set(json.loads(line)) == {"id", "at", "phase", "seq", "hash"}


def test_a_query_never_gets_into_the_log(make):
    line = line_of(make(path="/v1/charges?api_key=hunter2&x=1"))

    assert entry.row(line)["path"] == "/v1/charges"
    assert b"hunter2" not in line


def test_overlong_texts_are_cut_and_marked(make):
    row = entry.row(line_of(make(path="/" + "p" * 5000, reason="r" * 5000, caller="c" * 5000)))

    assert {name: len(row[name]) for name in ("path", "reason", "caller")} == {
        "path": 2048,
        "reason": 512,
        "caller": 512,
    }
    assert row["path"].endswith("p…")


def test_a_context_is_cut_to_twenty_short_pairs(make):
    context = {f"{n:03}" + "k" * 100: "v" * 1000 for n in range(30)}

    kept = entry.row(line_of(make(context=context)))["context"]

    assert len(kept) == 20
    assert {(len(key), len(value)) for key, value in kept.items()} == {(64, 512)}


def test_a_duration_that_is_not_a_number_is_an_error(make):
    with pytest.raises(ValueError):
        entry.record(make(duration_ms=float("nan")))


@given(times)
def test_a_time_is_rfc_3339_in_utc_to_the_microsecond(moment):
    text = entry.timestamp(moment)

    assert len(text) == 27
    assert datetime.fromisoformat(text) == datetime.fromtimestamp(moment, UTC)
    assert abs(entry.seconds(text) - moment) < 1e-6


@given(times, times)
def test_times_sort_as_text(one, other):
    assert (entry.timestamp(one) < entry.timestamp(other)) <= (one < other)


@given(records)
def test_the_time_is_read_off_a_line_without_parsing_it(record):
    record = record._replace(id=record.id + '"at":"', reason='"at":"1999')

    assert entry.time_of(line_of(record)) == entry.timestamp(record.at).encode()


@given(records, st.sampled_from(["id", "caller", "grant_id", "secret", "code"]))
def test_a_line_contains_the_fragment_of_each_of_its_texts(record, name):
    assert not getattr(record, name) or entry.fragment(name, getattr(record, name)) in line_of(record)


def test_an_intact_line_in_its_place_gives_its_hash(make):
    line, digest = entry.link(entry.record(make()), seq=7, previous=b"p" * 32)

    assert entry.check(line, seq=7, previous=b"p" * 32) == digest
    assert json.loads(line)["hash"] == digest.hex()
    assert json.loads(line)["seq"] == 7


def test_an_intact_line_elsewhere_is_not_accepted(make):
    line, _ = entry.link(entry.record(make()), seq=7, previous=b"p" * 32)

    assert entry.check(line, seq=8, previous=b"p" * 32) is None
    assert entry.check(line, seq=7, previous=b"q" * 32) is None


@given(record=records, data=st.data())
def test_no_changed_line_is_accepted(record, data):
    line = line_of(record)
    place = data.draw(st.integers(0, len(line) - 1))
    changed = line[:place] + bytes([line[place] ^ data.draw(st.integers(1, 255))]) + line[place + 1 :]

    assert entry.check(changed, seq=1, previous=entry.GENESIS) is None


@given(record=records, data=st.data())
def test_no_shortened_or_lengthened_line_is_accepted(record, data):
    line = line_of(record)
    place = data.draw(st.integers(0, len(line) - 1))

    assert entry.check(line[:place] + line[place + 1 :], seq=1, previous=entry.GENESIS) is None
    assert entry.check(line[:place] + b" " + line[place:], seq=1, previous=entry.GENESIS) is None


@pytest.mark.parametrize(
    "line", [b"", b"\n", b"null\n", b"[1]\n", b"{\n", b"\xff\xfe\n", b'{"id":\n', b'{"id":"a"', b"[" * 100_000]
)
def test_a_line_that_is_not_ours_has_no_record(line):
    assert entry.row(line) is None


def test_headers_and_notes_are_not_records():
    header = entry.link(entry.header("ab", slot=0, previous=entry.GENESIS, now=0.0), seq=0, previous=entry.GENESIS)[0]
    note = entry.link(entry.note("recovered", now=0.0, bytes=3), seq=1, previous=entry.GENESIS)[0]

    assert (entry.row(header), entry.row(note)) == (None, None)
    assert entry.time_of(header) == entry.time_of(note) == b"1970-01-01T00:00:00.000000Z"


def test_the_format_is_frozen():
    """Bytes that are on people's disks; the hashes were made with sha256sum. A change here is a new FORMAT."""
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC).timestamp()
    header, first = entry.link(
        entry.header("ab" * 16, slot=3, previous=entry.GENESIS, now=noon), seq=0, previous=entry.GENESIS
    )
    record, _ = entry.link(
        entry.record(Record(id="r", at=noon, phase="intent", path="/é", port=443)), seq=1, previous=first
    )

    assert header == (
        b'{"format":1,"stream":"abababababababababababababababab","slot":3,"prev":null,'
        b'"at":"2026-01-01T12:00:00.000000Z","seq":0,'
        b'"hash":"419b74deca9e87070790f91baffeb26ef203c3714edd9a23a2d66a9bb2ae093b"}\n'
    )
    assert record == (
        b'{"id":"r","at":"2026-01-01T12:00:00.000000Z","phase":"intent","path":"/\\u00e9","port":443,"seq":1,'
        b'"hash":"5db4e07190df1af9c975fd435ed0c8f2cacf3382f57b658f3be8975d20f45717"}\n'
    )
