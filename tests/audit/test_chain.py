import json
import shutil
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from addon.audit import entry
from addon.audit.chain import Head, heads, verify
from addon.errors import Corrupt

NOW = 1_790_000_000.0
FIRST, SECOND, OTHER = "00.000000000000.jsonl", "00.000000000004.jsonl", "01.000000000000.jsonl"


@pytest.fixture
def log(folder, make, open_stream):
    """
    Two streams of five records each; the first in two segments:

        00.000000000000  header a b c     00.000000000004  header d e     01.000000000000  header a b c d e
    """
    streams = open_stream(segment_bytes=1200), open_stream()
    for stream in streams:
        for name in "abcde":
            stream.append([entry.record(make(id=name))], now=NOW, durable=False)
        stream.close()
    assert sorted(path.name for path in folder.glob("*.jsonl")) == [FIRST, SECOND, OTHER]
    return folder


def read(folder, name):
    return (folder / name).read_bytes().splitlines(keepends=True)


def change(folder, name, edit):
    lines = read(folder, name)
    edit(lines)
    (folder / name).write_bytes(b"".join(lines))


def forge(folder, name, edit):
    """What somebody does who knows how hashes are made: change lines, then chain the whole file anew."""
    lines = [json.loads(line) for line in read(folder, name)]
    edit(lines)
    previous = entry.GENESIS if lines[0]["prev"] is None else bytes.fromhex(lines[0]["prev"])
    forged = []
    for seq, members in enumerate(lines, start=lines[0]["seq"]):
        kept = {key: value for key, value in members.items() if key not in ("seq", "hash")}
        line, previous = entry.link(json.dumps(kept, separators=(",", ":"))[:-1].encode(), seq=seq, previous=previous)
        forged.append(line)
    (folder / name).write_bytes(b"".join(forged))


def found(folder, **options):
    bad = verify(folder, **options).first_bad
    return (bad.file, bad.line, bad.seq, bad.problem) if bad else None


def test_what_was_written_is_found_good(log):
    verdict = verify(log)

    assert verdict.ok
    assert verdict.first_bad is None
    assert verdict.records == 10


def test_an_empty_folder_is_good(folder):
    assert verify(folder).ok
    assert verify(folder).records == 0


ALTERED = "not the line that was written here"


@pytest.mark.parametrize(
    ("edit", "line", "seq"),
    [
        pytest.param(
            lambda lines: lines.__setitem__(2, lines[2].replace(b"POST", b"GETT")), 3, 2, id="a member is edited"
        ),
        pytest.param(
            lambda lines: lines.__setitem__(2, lines[2].replace(b'"seq":2', b'"seq":3')), 3, 2, id="renumbered"
        ),
        pytest.param(lambda lines: lines.__setitem__(2, lines[2].replace(b"a", b"A")), 3, 2, id="the hash is edited"),
        pytest.param(lambda lines: lines.__setitem__(2, lines[2].replace(b",", b", ", 1)), 3, 2, id="a space is added"),
        pytest.param(lambda lines: lines.__setitem__(2, b"\n"), 3, 2, id="a line is blanked"),
        pytest.param(lambda lines: lines.pop(2), 3, 2, id="a line is deleted"),
        pytest.param(lambda lines: lines.pop(0), 1, 0, id="the header is deleted"),
        pytest.param(lambda lines: lines.insert(2, lines[1]), 3, 2, id="a line is repeated"),
        pytest.param(lambda lines: lines.insert(2, b"{}\n"), 3, 2, id="a line is inserted"),
        pytest.param(lambda lines: lines.insert(4, lines[3]), 5, 4, id="a line is appended"),
        pytest.param(lambda lines: lines.reverse(), 1, 0, id="all is reversed"),
        pytest.param(lambda lines: lines.insert(1, lines.pop(2)), 2, 1, id="two lines change places"),
    ],
)
def test_tampering_is_found_where_it_begins(edit, line, seq, log):
    change(log, FIRST, edit)

    assert found(log) == (FIRST, line, seq, ALTERED)


def test_records_up_to_the_first_bad_line_are_counted(log):
    change(log, FIRST, lambda lines: lines.pop(3))

    assert verify(log).records == 2


def test_a_line_cut_from_the_end_of_an_earlier_segment_is_found(log):
    change(log, FIRST, lambda lines: lines.pop())

    assert found(log) == (SECOND, 0, 3, "the lines before this file are missing")


def test_half_a_line_at_the_end_of_an_earlier_segment_is_found(log):
    change(log, FIRST, lambda lines: lines.append(b'{"id":'))

    assert found(log) == (FIRST, 5, 4, "an incomplete line, and the stream goes on after it")


def test_a_missing_beginning_is_found(log):
    (log / FIRST).unlink()

    assert found(log) == (SECOND, 0, 0, "the lines before this file are missing")


def test_a_beginning_passed_off_as_the_next_segment_is_found(log):
    (log / SECOND).rename(log / FIRST)

    assert found(log) == (FIRST, 1, 0, ALTERED)


def test_a_missing_stream_before_others_is_found(log):
    (log / FIRST).unlink()
    (log / SECOND).unlink()

    assert found(log) == ("00", 0, 0, "the stream is missing")


def test_streams_that_changed_places_are_found(log):
    (log / SECOND).unlink()
    spare = log / "spare"
    (log / FIRST).rename(spare)
    (log / OTHER).rename(log / FIRST)
    spare.rename(log / OTHER)

    assert found(log) == (FIRST, 1, 0, "not the header of this file")


def test_a_line_of_another_stream_is_found(log):
    stranger = read(log, OTHER)[3]
    change(log, FIRST, lambda lines: lines.__setitem__(3, stranger))

    assert found(log) == (FIRST, 4, 3, ALTERED)


def test_a_tail_of_another_stream_is_found(log):
    tail = read(log, OTHER)[2:]
    change(log, FIRST, lambda lines: lines.__setitem__(slice(2, None), tail))

    assert found(log) == (FIRST, 3, 2, ALTERED)


def test_a_forged_earlier_segment_is_found_in_the_next(log):
    forge(log, FIRST, lambda lines: lines[2].update(caller="app:innocent"))

    assert found(log) == (SECOND, 1, 4, ALTERED)


def test_a_newer_format_is_not_called_good(log):
    forge(log, OTHER, lambda lines: lines[0].update(format=2))

    assert found(log) == (OTHER, 1, 0, "not the header of this file")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(data=st.data())
def test_any_changed_byte_of_any_line_is_found(log, data):
    name = data.draw(st.sampled_from([FIRST, SECOND, OTHER]))
    good = (log / name).read_bytes()
    place = data.draw(st.integers(0, len(good) - 2))  # the last newline is the end of a stream: see below
    try:
        (log / name).write_bytes(
            good[:place] + bytes([good[place] ^ data.draw(st.integers(1, 255))]) + good[place + 1 :]
        )

        assert not verify(log).ok
    finally:
        (log / name).write_bytes(good)


# --- what only a noted head can show --------------------------------------------------------------------------------


def test_a_head_names_the_last_line_of_each_stream(log):
    last = json.loads(read(log, SECOND)[-1])

    first, other = heads(log)
    assert first == Head(stream=json.loads(read(log, FIRST)[0])["stream"], slot=0, seq=6, hash=last["hash"])
    assert (other.slot, other.seq) == (1, 5)


def test_heads_noted_earlier_still_hold_when_the_log_has_grown(log, make, open_stream):
    noted = heads(log)
    open_stream().append([entry.record(make())], now=NOW, durable=False)

    assert heads(log) != noted
    assert verify(log, noted=noted).ok


def cut_lines(folder):
    change(folder, OTHER, lambda lines: lines.__delitem__(slice(3, None)))


def remove_last_segment(folder):
    (folder / SECOND).unlink()


def remove_last_stream(folder):
    (folder / OTHER).unlink()


def forge_the_tail(folder):
    forge(folder, OTHER, lambda lines: lines[4].update(caller="app:innocent"))


@pytest.mark.parametrize(
    ("tamper", "finding"),
    [
        (cut_lines, ("01", 0, 5, "a line that was noted is missing")),
        (remove_last_segment, ("00", 0, 6, "a line that was noted is missing")),
        (remove_last_stream, ("01", 0, 5, "a line that was noted is missing")),
        (shutil.rmtree, ("00", 0, 6, "a line that was noted is missing")),
        (forge_the_tail, (OTHER, 6, 5, "not the line that was noted")),
    ],
)
def test_only_heads_noted_elsewhere_show_a_missing_end_or_a_forged_tail(tamper, finding, log):
    noted = heads(log)
    tamper(log)

    assert verify(log).ok
    assert found(log, noted=noted) == finding


def test_a_noted_hash_that_was_never_there_is_found(log):
    noted = [replace(head, hash="00" * 32) for head in heads(log)]

    assert found(log, noted=noted) == (SECOND, 3, 6, "not the line that was noted")


def test_no_head_is_taken_of_a_stream_with_a_bad_end(log):
    change(log, OTHER, lambda lines: lines.pop(-2))

    with pytest.raises(Corrupt):
        heads(log)


# --- while workers write --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("torn", [b"{", b'{"id":"req-9","at":"2026-01-01T00:00:0'])
def test_a_line_that_is_being_written_is_not_an_error(torn, log):
    noted = heads(log)
    change(log, OTHER, lambda lines: lines.append(torn))

    assert verify(log).ok
    assert verify(log).records == 10
    assert heads(log) == noted


@pytest.mark.parametrize("begun", [b"", b'{"format":'])
def test_a_segment_that_is_being_begun_is_not_an_error(begun, log):
    noted = heads(log)
    (log / "00.000000000007.jsonl").write_bytes(begun)

    assert verify(log).ok
    assert heads(log) == noted
