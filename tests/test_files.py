"""Files of ours are private from their first moment, durable before they count, and never reached through a link."""

import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from addon import files
from addon.errors import AlterError, Conflict, Locked

AS_ROOT = os.getuid() == 0
STRANGER = 54321

root_only = pytest.mark.skipif(not AS_ROOT, reason="only root can give a file away")
not_root = pytest.mark.skipif(AS_ROOT, reason="root may read everything")


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o177], ids=lambda mask: f"umask{mask:03o}")
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.fixture
def synced(monkeypatch):
    """What was flushed to the disk, in order: `file` or `folder`."""
    order, fsync = [], os.fsync

    def record(descriptor):
        order.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    return order


def mode(path):
    return stat.S_IMODE(path.lstat().st_mode)


def private(path, data=b"secret"):
    path.write_bytes(data)
    path.chmod(0o600)
    return path


# Creating


@pytest.mark.parametrize("wanted", [0o600, 0o400, 0o640, 0o644])
def test_a_new_file_has_its_mode_whatever_the_umask(tmp_path, umask, wanted):
    files.create(tmp_path / "file", b"data", mode=wanted)
    assert mode(tmp_path / "file") == wanted
    assert (tmp_path / "file").read_bytes() == b"data"


def test_a_new_file_is_private_unless_said_otherwise(tmp_path, umask):
    files.create(tmp_path / "file", b"data")
    assert mode(tmp_path / "file") == 0o600


def test_a_new_file_is_never_wider_than_its_mode_not_even_at_first(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fchmod", lambda *_: None)
    before = os.umask(0)
    try:
        files.create(tmp_path / "file", b"data")
    finally:
        os.umask(before)
    assert mode(tmp_path / "file") == 0o600


def test_a_new_file_is_on_disk_before_its_name(tmp_path, synced):
    files.create(tmp_path / "file", b"data")
    assert synced == ["file", "folder"]


def test_nothing_is_overwritten(tmp_path):
    private(tmp_path / "file", b"old")
    with pytest.raises(Conflict, match="exists"):
        files.create(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"


@pytest.mark.parametrize("target", ["there", "nowhere"])
def test_nothing_is_created_through_a_link(tmp_path, target):
    private(tmp_path / "there", b"old")
    (tmp_path / "link").symlink_to(tmp_path / target)
    with pytest.raises(Conflict, match="exists"):
        files.create(tmp_path / "link", b"new")
    assert (tmp_path / "there").read_bytes() == b"old"
    assert not (tmp_path / "nowhere").exists()


def test_a_folder_is_in_the_way_too(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(Conflict, match="exists"):
        files.create(tmp_path / "folder", b"new")


@pytest.mark.parametrize("write", [files.create, files.replace])
def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch, write):
    def full(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises((OSError, AlterError)):
        write(tmp_path / "file", b"data")
    assert list(tmp_path.iterdir()) == []


# Replacing


def test_replacing_leaves_the_new_contents_alone(tmp_path, umask, synced):
    files.create(tmp_path / "file", b"old", mode=0o644)
    synced.clear()
    files.replace(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert mode(tmp_path / "file") == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert synced[0] == "file"
    assert synced[-1] == "folder"


def test_replacing_works_where_nothing_was(tmp_path):
    files.replace(tmp_path / "file", b"new", mode=0o644)
    assert (tmp_path / "file").read_bytes() == b"new"
    assert mode(tmp_path / "file") == 0o644


def test_replacing_a_link_leaves_its_target_alone(tmp_path):
    private(tmp_path / "there", b"old")
    (tmp_path / "link").symlink_to(tmp_path / "there")
    files.replace(tmp_path / "link", b"new")
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "there").read_bytes() == b"old"


def test_what_a_crash_left_behind_is_in_nobodys_way(tmp_path):
    private(tmp_path / "there", b"old")
    leftover = tmp_path / f".file.{os.getpid()}.new"
    leftover.symlink_to(tmp_path / "there")
    files.replace(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert (tmp_path / "there").read_bytes() == b"old"
    assert not leftover.exists()


def test_a_reader_sees_old_or_new_and_never_a_mixture(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
    path, size, seen, done = tmp_path / "file", 100_000, set(), threading.Event()
    files.create(path, b"a" * size)

    def read():
        while not done.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for letter in (b"b", b"a") * 50:
        files.replace(path, letter * size)
    done.set()
    reader.join()
    assert seen <= {b"a" * size, b"b" * size}


# Reading


@pytest.mark.parametrize("closed", [0o600, 0o400, 0o700])
def test_a_private_file_is_read(tmp_path, closed):
    private(tmp_path / "file").chmod(closed)
    assert files.read_private(tmp_path / "file") == b"secret"


@pytest.mark.parametrize("bit", [1 << n for n in range(6)], ids=oct)
def test_a_file_with_any_right_for_others_is_not_read(tmp_path, bit):
    private(tmp_path / "file").chmod(0o600 | bit)
    with pytest.raises(Locked, match="readable by others") as caught:
        files.read_private(tmp_path / "file")
    assert "chmod 600" in caught.value.hint
    assert "secret" not in f"{caught.value}{caught.value.hint}"


def test_a_file_as_an_open_umask_makes_it_is_not_read(tmp_path):
    before = os.umask(0o022)
    try:
        (tmp_path / "file").write_bytes(b"secret")
    finally:
        os.umask(before)
    with pytest.raises(Locked, match="readable by others"):
        files.read_private(tmp_path / "file")


def test_a_link_to_a_private_file_is_not_followed(tmp_path):
    private(tmp_path / "file")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with pytest.raises(Locked, match="cannot be opened"):
        files.read_private(tmp_path / "link")


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(Locked, match="no file"):
        files.read_private(tmp_path / "file")


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(Locked, match="not a regular file"):
        files.read_private(tmp_path)


def test_a_device_is_no_file(monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: 0)
    with pytest.raises(Locked, match="not a regular file"):
        files.read_private(Path(os.devnull))


def test_a_pipe_is_no_file_and_nobody_waits_at_it(tmp_path):
    os.mkfifo(tmp_path / "pipe", 0o600)
    refused = []

    def read():
        with pytest.raises(Locked, match="not a regular file"):
            files.read_private(tmp_path / "pipe")
        refused.append(True)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(timeout=5)
    assert refused


@root_only
def test_a_file_of_somebody_else_is_not_read(tmp_path):
    os.chown(private(tmp_path / "file"), STRANGER, STRANGER)
    with pytest.raises(Locked, match="another user"):
        files.read_private(tmp_path / "file")


def test_a_file_of_neither_us_nor_root_is_not_read(tmp_path, monkeypatch):
    path = private(tmp_path / "file")
    if AS_ROOT:
        os.chown(path, STRANGER, STRANGER)
    monkeypatch.setattr(os, "getuid", lambda: STRANGER + 1)
    with pytest.raises(Locked, match="another user"):
        files.read_private(path)


@not_root
def test_a_file_we_may_not_open_says_so(tmp_path):
    private(tmp_path / "file").chmod(0o000)
    with pytest.raises(Locked, match="cannot be opened"):
        files.read_private(tmp_path / "file")


def test_no_more_than_the_limit_is_read(tmp_path):
    private(tmp_path / "file", b"0123456789")
    assert files.read_private(tmp_path / "file", limit=4) == b"0123"


# Folders


def test_a_new_folder_is_closed_whatever_the_umask(tmp_path, umask):
    before = os.umask(umask & ~0o100)  # a umask that takes our own x bit would keep us out of any new folder
    try:
        files.make_folder(tmp_path / "home")
    finally:
        os.umask(before)
    assert mode(tmp_path / "home") == 0o700


def test_missing_parents_are_made(tmp_path):
    files.make_folder(tmp_path / "a" / "b" / "home")
    assert mode(tmp_path / "a" / "b" / "home") == 0o700


@pytest.mark.parametrize("closed", [0o700, 0o770, 0o2770, 0o750])
def test_an_existing_folder_for_owner_and_group_is_kept_as_it_is(tmp_path, closed):
    (tmp_path / "home").mkdir()
    (tmp_path / "home").chmod(closed)
    files.make_folder(tmp_path / "home")
    assert mode(tmp_path / "home") == closed


@pytest.mark.parametrize("bit", [0o001, 0o002, 0o004], ids=oct)
def test_a_folder_with_any_right_for_everybody_refuses(tmp_path, bit):
    (tmp_path / "home").mkdir()
    (tmp_path / "home").chmod(0o700 | bit)
    with pytest.raises(Locked, match="open to every user") as caught:
        files.make_folder(tmp_path / "home")
    assert "chmod 700" in caught.value.hint


@pytest.mark.parametrize("target", ["real", "nowhere"])
def test_a_link_to_a_folder_refuses(tmp_path, target):
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "home").symlink_to(tmp_path / target)
    with pytest.raises(Locked, match="not a folder"):
        files.make_folder(tmp_path / "home")
    assert not (tmp_path / "nowhere").exists()


def test_a_file_is_no_folder(tmp_path):
    private(tmp_path / "home")
    with pytest.raises(Locked, match="not a folder"):
        files.make_folder(tmp_path / "home")


def test_a_missing_folder_says_so(tmp_path):
    with pytest.raises(Locked, match="no folder"):
        files.check_folder(tmp_path / "home")


@root_only
def test_a_folder_of_somebody_else_refuses(tmp_path):
    (tmp_path / "home").mkdir(mode=0o700)
    os.chown(tmp_path / "home", STRANGER, STRANGER)
    with pytest.raises(Locked, match="another user"):
        files.check_folder(tmp_path / "home")
