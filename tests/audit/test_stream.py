import errno
import gc
import json
import os
import stat
from pathlib import Path

import pytest

from addon.audit import entry
from addon.audit.chain import verify
from addon.audit.segments import segments
from addon.errors import Conflict, Corrupt, Fault, Locked

NOW = 1_790_000_000.0


def note(text="n"):
    return entry.note(text, now=NOW)


def lines(folder, name="00.000000000000.jsonl"):
    return [json.loads(line) for line in (folder / name).read_bytes().splitlines()]


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix == ".jsonl")


def test_a_new_stream_begins_with_a_header(folder, open_stream):
    open_stream()

    (header,) = lines(folder)
    assert (header["format"], header["slot"], header["seq"], header["prev"]) == (1, 0, 0, None)
    assert len(bytes.fromhex(header["stream"])) == 16


def test_only_the_owner_can_read_and_change_it(folder, open_stream):
    umask = os.umask(0)
    try:
        open_stream()
    finally:
        os.umask(umask)

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_each_stream_has_a_slot_of_its_own(folder, open_stream):
    assert [open_stream().slot for _ in range(3)] == [0, 1, 2]
    assert len({lines(folder, name)[0]["stream"] for name in names(folder)}) == 3


def test_a_slot_is_taken_over_with_its_chain(folder, open_stream):
    first, _second = open_stream(), open_stream()
    first.append([note("before")], now=NOW, durable=True)
    first.close()

    again = open_stream()
    again.append([note("after")], now=NOW, durable=True)

    assert again.slot == 0
    assert [line.get("note") for line in lines(folder)] == [None, "before", "after"]
    assert verify(folder).ok


def test_more_streams_than_slots_are_refused(open_stream, monkeypatch):
    monkeypatch.setattr("addon.audit.stream._SLOTS", 2)
    open_stream()
    open_stream()

    with pytest.raises(Conflict, match="all 2 audit streams"):
        open_stream()


# --- what is refused at the start -----------------------------------------------------------------------------------


def test_a_linked_folder_is_refused(folder, tmp_path, open_stream):
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(Locked, match="not a folder"):
        open_stream()


def test_a_folder_open_to_everybody_is_refused(folder, open_stream):
    folder.mkdir()
    folder.chmod(0o755)

    with pytest.raises(Locked, match="open to every user"):
        open_stream()


@pytest.mark.parametrize("name", ["00.lock", "00.000000000000.jsonl"])
def test_a_linked_file_is_refused_and_its_target_is_left_alone(name, folder, tmp_path, open_stream):
    target = tmp_path / "target"
    target.write_text("mine")
    target.chmod(0o600)
    folder.mkdir(mode=0o700)
    (folder / name).symlink_to(target)

    with pytest.raises(Locked, match="cannot be opened"):
        open_stream()
    assert target.read_text() == "mine"


@pytest.mark.parametrize("name", ["00.lock", "00.000000000000.jsonl"])
def test_a_pipe_in_place_of_a_file_is_refused(name, folder, open_stream):
    folder.mkdir(mode=0o700)
    os.mkfifo(folder / name, 0o600)

    with pytest.raises(Locked, match="not a regular file"):
        open_stream()


@pytest.mark.parametrize("mode", [0o604, 0o620, 0o602, 0o666])
def test_a_file_open_to_others_is_refused_with_the_mend(mode, folder, open_stream):
    open_stream().close()
    path = folder / "00.000000000000.jsonl"
    path.chmod(mode)

    with pytest.raises(Locked, match="open to others") as caught:
        open_stream()
    assert caught.value.hint == f"close it: chmod 600 {path}"


def test_the_group_may_be_let_read(folder, open_stream):
    open_stream().close()
    (folder / "00.000000000000.jsonl").chmod(0o640)

    open_stream()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_refused(folder, open_stream):
    open_stream().close()
    os.chown(folder / "00.000000000000.jsonl", 65534, -1)

    with pytest.raises(Locked, match="belongs to another user"):
        open_stream()


def test_a_folder_without_room_is_refused(open_stream, disk_full):
    with disk_full(10), pytest.raises(Locked, match="cannot be written"):
        open_stream()


def test_a_refused_start_leaves_nothing_half_made(folder, open_stream, disk_full):
    with disk_full(10), pytest.raises(Locked):
        open_stream()

    assert names(folder) == []
    assert open_stream().slot == 0


def test_a_newer_format_is_refused(folder, open_stream):
    open_stream().close()
    path = folder / "00.000000000000.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"format":1', b'"format":2'))

    with pytest.raises(Locked, match="format this version does not know"):
        open_stream()


def test_a_clock_set_back_by_more_than_a_minute_is_refused(folder, open_stream):
    open_stream(now=NOW).close()

    with pytest.raises(Locked, match="the clock is 61 s behind"):
        open_stream(now=NOW - 61)
    open_stream(now=NOW - 59)


@pytest.mark.parametrize("old", [b'"note":"b"', b'"seq":2', b'"hash":"', b"}\n"])
def test_a_last_line_that_was_changed_is_refused(old, folder, open_stream):
    stream = open_stream()
    stream.append([note("a"), note("b")], now=NOW, durable=True)
    stream.close()
    path = folder / "00.000000000000.jsonl"
    before, _, after = path.read_bytes().rpartition(old)
    path.write_bytes(before + old.swapcase() + b"0\n" + after)

    with pytest.raises(Corrupt, match="not as it was written"):
        open_stream()


def test_a_last_line_that_was_removed_from_the_middle_is_refused(folder, open_stream):
    stream = open_stream()
    stream.append([note("a"), note("b")], now=NOW, durable=True)
    stream.close()
    path = folder / "00.000000000000.jsonl"
    header, _, last = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(header + last)

    with pytest.raises(Corrupt):
        open_stream()


@pytest.mark.parametrize("garbage", [b"\n", b"{}\n", b"not a line\n", b'{"format":"x"}\n', b"\x00\n\x00\n"])
def test_a_file_that_is_not_a_stream_is_refused(garbage, folder, open_stream):
    folder.mkdir(mode=0o700)
    path = folder / "00.000000000000.jsonl"
    path.write_bytes(garbage)
    path.chmod(0o600)

    with pytest.raises(Corrupt):
        open_stream()


def test_the_file_of_another_slot_is_refused(folder, open_stream):
    for stream in (open_stream(), open_stream()):
        stream.close()
    (folder / "01.000000000000.jsonl").rename(folder / "00.000000000000.jsonl")

    with pytest.raises(Corrupt):
        open_stream()


# --- what a crash leaves --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("torn", [b"{", b'{"id":"req-9","at":"2026', b"\x00" * 5000])
def test_a_torn_line_is_cut_off_and_the_log_says_so(torn, folder, open_stream):
    stream = open_stream()
    stream.append([note("kept")], now=NOW, durable=True)
    stream.close()
    with (folder / "00.000000000000.jsonl").open("ab") as file:
        file.write(torn)

    open_stream().append([note("next")], now=NOW, durable=True)

    assert [line.get("note") for line in lines(folder)] == [None, "kept", "recovered", "next"]
    assert lines(folder)[2]["bytes"] == len(torn)
    assert verify(folder).ok


@pytest.mark.parametrize("begun", [b"", b'{"format":1,"str'])
def test_a_stream_that_was_only_begun_begins_again(begun, folder, open_stream):
    folder.mkdir(mode=0o700)
    path = folder / "00.000000000000.jsonl"
    path.write_bytes(begun)
    path.chmod(0o600)

    open_stream().append([note()], now=NOW, durable=True)

    assert [line["seq"] for line in lines(folder)] == [0, 1]
    assert verify(folder).ok


@pytest.mark.parametrize("begun", [b"", b'{"format":1,"str'])
def test_a_segment_that_was_only_begun_is_forgotten(begun, folder, open_stream):
    stream = open_stream()
    stream.append([note()], now=NOW, durable=True)
    stream.close()
    path = folder / "00.000000000002.jsonl"
    path.write_bytes(begun)
    path.chmod(0o600)

    open_stream().append([note()], now=NOW, durable=True)

    assert names(folder) == ["00.000000000000.jsonl"]
    assert [line["seq"] for line in lines(folder)] == [0, 1, 2]
    assert verify(folder).ok


# --- segments -------------------------------------------------------------------------------------------------------


def test_a_full_segment_is_left_and_the_chain_goes_on_in_the_next(folder, open_stream):
    stream = open_stream(segment_bytes=400)
    for n in range(6):
        stream.append([note(f"n{n}")], now=NOW, durable=True)

    first, *others = segments(folder)
    assert len(others) >= 2
    for before, after in zip([first, *others], others, strict=False):
        last, header = lines(folder, before.path.name)[-1], lines(folder, after.path.name)[0]
        assert header["prev"] == last["hash"]
        assert header["seq"] == after.first == last["seq"] + 1
        assert header["stream"] == lines(folder)[0]["stream"]
    assert verify(folder).ok


def test_a_stream_of_several_segments_is_taken_over_at_its_end(folder, open_stream):
    for n in range(6):
        stream = open_stream(segment_bytes=400)
        stream.append([note(f"n{n}")], now=NOW, durable=True)
        stream.close()

    assert len(segments(folder)) > 2
    assert verify(folder).ok


def test_a_new_segment_is_on_the_disk_before_it_is_used(open_stream, monkeypatch):
    stream = open_stream(segment_bytes=1)
    order = []
    for name in ("write", "fdatasync", "fsync"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, name=name, real=real: (order.append(name), real(*args))[1])

    stream.append([note()], now=NOW, durable=False)

    header, folder, line = ["write", "fdatasync"], ["fsync"], ["write"]
    assert order == header + folder + line


def test_a_file_in_the_place_of_the_next_segment_is_not_written_over(folder, open_stream):
    stream = open_stream(segment_bytes=1)
    path = folder / "00.000000000001.jsonl"
    path.write_text("somebody else's")

    with pytest.raises(Fault, match="File exists"):
        stream.append([note()], now=NOW, durable=True)
    assert path.read_text() == "somebody else's"


def open_files():
    gc.collect()
    return len(list(Path("/dev/fd").iterdir()))


def test_a_stream_holds_two_files_open_whatever_it_went_through(open_stream):
    before = open_files()
    first = open_stream(segment_bytes=1)
    second = open_stream()
    for _ in range(5):
        first.append([note()], now=NOW, durable=False)

    assert open_files() - before == 4
    first.close()
    second.close()
    second.close()
    assert open_files() == before


def test_without_room_for_the_next_segment_nothing_is_written(folder, open_stream, disk_full):
    stream = open_stream(segment_bytes=1)
    with disk_full(10), pytest.raises(Fault):
        stream.append([note()], now=NOW, durable=True)
    assert names(folder) == ["00.000000000000.jsonl"]

    stream.append([note()], now=NOW, durable=True)

    assert names(folder) == ["00.000000000000.jsonl", "00.000000000001.jsonl"]
    assert verify(folder).ok


# --- failing writes -------------------------------------------------------------------------------------------------


def test_without_room_nothing_is_written_and_later_it_goes_on(folder, open_stream, disk_full):
    stream = open_stream()
    stream.append([note("before")], now=NOW, durable=True)
    path = folder / "00.000000000000.jsonl"
    kept = path.read_bytes()

    with disk_full(len(kept) + 50), pytest.raises(Fault) as caught:
        stream.append([note("never")], now=NOW, durable=True)
    assert caught.value.code == "audit_unavailable"
    assert path.read_bytes() == kept

    stream.append([note("after")], now=NOW, durable=True)
    assert [line.get("note") for line in lines(folder)] == [None, "before", "after"]
    assert verify(folder).ok


def fail(*_):
    raise OSError(errno.EIO, "injected")


def test_lines_that_did_not_reach_the_disk_are_taken_away(folder, open_stream, monkeypatch):
    stream = open_stream()
    kept = (folder / "00.000000000000.jsonl").read_bytes()

    with monkeypatch.context() as broken, pytest.raises(Fault, match="Input/output error"):
        broken.setattr(os, "fdatasync", fail)
        stream.append([note("never")], now=NOW, durable=True)

    assert (folder / "00.000000000000.jsonl").read_bytes() == kept


def test_half_a_line_that_cannot_be_taken_away_at_once_is_taken_away_first(folder, open_stream, disk_full, monkeypatch):
    stream = open_stream()
    path = folder / "00.000000000000.jsonl"
    size = path.stat().st_size

    with monkeypatch.context() as broken, disk_full(size + 50), pytest.raises(Fault):
        broken.setattr(os, "ftruncate", fail)
        stream.append([note("never")], now=NOW, durable=True)
    assert path.stat().st_size == size + 50

    stream.append([note("after")], now=NOW, durable=True)
    assert [line.get("note") for line in lines(folder)] == [None, "after"]
    assert verify(folder).ok


def test_a_write_in_pieces_is_finished(folder, open_stream, monkeypatch):
    stream = open_stream()
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))

    stream.append([note("a"), note("b")], now=NOW, durable=True)

    assert verify(folder).ok
    assert len(lines(folder)) == 3


@pytest.mark.parametrize("change", ["append", "truncate", "remove"])
def test_a_stream_that_somebody_else_changed_is_not_written(change, folder, open_stream):
    stream = open_stream()
    path = folder / "00.000000000000.jsonl"
    if change == "append":
        path.write_bytes(path.read_bytes() + b"{}\n")
    elif change == "truncate":
        os.truncate(path, 10)
    else:
        path.unlink()

    for _ in range(2):
        with pytest.raises(Fault, match="another program changed the stream"):
            stream.append([note()], now=NOW, durable=True)


def test_a_stream_cut_short_during_an_outage_is_not_filled_up(folder, open_stream, disk_full, monkeypatch):
    stream = open_stream()
    path = folder / "00.000000000000.jsonl"
    with monkeypatch.context() as broken, disk_full(path.stat().st_size + 50), pytest.raises(Fault):
        broken.setattr(os, "ftruncate", fail)
        stream.append([note()], now=NOW, durable=True)
    os.truncate(path, 10)

    with pytest.raises(Fault, match="another program changed the stream"):
        stream.append([note()], now=NOW, durable=True)
    assert path.stat().st_size == 10


def test_only_durable_lines_wait_for_the_disk(open_stream, monkeypatch):
    stream = open_stream()
    synced = []
    monkeypatch.setattr(os, "fdatasync", synced.append)

    stream.append([note()], now=NOW, durable=False)
    assert synced == []
    stream.append([note()], now=NOW, durable=True)
    assert len(synced) == 1
