"""A body that is held: the same bytes again, in memory while they are few, in a file without a name when they are not."""

import hashlib
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from addon.exchange.spool import IN_MEMORY, PIECE, Spool


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 3 * PIECE), max_size=12))
def test_what_was_written_comes_back_in_pieces(sizes):
    body = [os.urandom(min(size, 64)) * (size // 64 + 1) for size in sizes]
    spool = Spool(Path("/tmp"))
    for piece in body:
        spool.write(piece)
    whole = b"".join(body)
    pieces = list(spool.pieces())
    assert b"".join(pieces) == whole
    assert (spool.size, spool.sha256) == (len(whole), hashlib.sha256(whole).hexdigest())
    assert len(pieces) <= 1 or (spool.size > IN_MEMORY and max(map(len, pieces)) <= PIECE)
    assert b"".join(spool.pieces()) == whole, "and again"
    spool.close()


def test_a_small_body_needs_no_file(tmp_path):
    spool = Spool(tmp_path / "missing")
    spool.write(b"x" * IN_MEMORY)
    spool.close()


def test_a_large_body_lies_in_a_file_that_nobody_else_can_open_and_that_is_gone_with_it(tmp_path):
    spool = Spool(tmp_path)
    spool.write(b"x" * (IN_MEMORY + 1))
    file = spool._file.fileno()
    status = os.fstat(file)
    assert status.st_nlink == 0
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert status.st_dev == tmp_path.stat().st_dev
    assert list(tmp_path.iterdir()) == []
    spool.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file)


def test_where_no_file_can_be_made_it_says_so(tmp_path):
    spool = Spool(tmp_path / "missing")
    with pytest.raises(OSError, match="No such file"):
        spool.write(b"x" * (IN_MEMORY + 1))
    spool.close()
