import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addon.audit import segments as module
from addon.audit.segments import Segment, backward, forward, open_to_read, segment, segments
from addon.errors import Locked

texts = st.lists(st.binary(max_size=12).map(lambda raw: raw.replace(b"\n", b"") + b"\n"), max_size=12)


@pytest.fixture(autouse=True, scope="module")
def small_blocks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK", 7)
        yield


@given(lines=texts, torn=st.binary(max_size=20).map(lambda raw: raw.replace(b"\n", b"")))
def test_complete_lines_come_forward_and_backward_with_their_offsets(lines, torn):
    file = io.BytesIO(b"".join(lines) + torn)

    there = list(forward(file))

    assert [line for _, line in there] == lines
    assert all(file.getvalue()[offset:].startswith(line) for offset, line in there)
    assert list(backward(file)) == there[::-1]


@given(lines=texts, data=st.data())
def test_reading_can_begin_between_any_two_lines(lines, data):
    file = io.BytesIO(b"".join(lines))
    middle = len(b"".join(lines[: data.draw(st.integers(0, len(lines)))]))

    assert [*reversed(list(backward(file, end=middle))), *forward(file, start=middle)] == list(forward(file))


def test_reading_backward_reads_no_more_than_it_needs():
    class Counting(io.BytesIO):
        total = 0

        def read(self, size=-1):
            Counting.total += size
            return super().read(size)

    file = Counting(b"line\n" * 10_000)

    assert next(backward(file)) == (49_995, b"line\n")
    assert Counting.total < 50


def test_segments_are_listed_by_slot_and_then_as_written(folder):
    folder.mkdir()
    wanted = [
        segment(folder, slot=slot, first=first) for slot, first in [(0, 0), (0, 9), (0, 123_456), (1, 0), (12, 5)]
    ]
    for each in reversed(wanted):
        each.path.touch()

    assert segments(folder) == wanted
    assert segments(folder, slot=0) == wanted[:3]


@pytest.mark.parametrize(
    "name", ["00.lock", "0.000000000000.jsonl", "00.0.jsonl", "00.000000000000.jsonl.gz", "notes.txt"]
)
def test_other_files_are_not_segments(name, folder):
    folder.mkdir()
    (folder / name).touch()

    assert segments(folder) == []


def test_a_folder_that_does_not_exist_has_no_segments(folder):
    assert segments(folder) == []


def test_a_file_in_place_of_the_folder_is_an_error(folder):
    folder.touch()

    with pytest.raises(Locked):
        segments(folder)


def test_a_segment_that_is_a_link_is_not_read(folder, tmp_path):
    (tmp_path / "secret").write_text("elsewhere")
    (tmp_path / "link").symlink_to(tmp_path / "secret")

    with pytest.raises(Locked):
        open_to_read(Segment(0, 0, tmp_path / "link"))
