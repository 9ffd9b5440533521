"""
A body that is held until it has ended: in memory while it is small, else in a file without a name.

The file lies in the folder of the vault, never in a temporary one: that may be memory (tmpfs), which is what a large body
must not take, and it belongs to everybody. Only its owner can open it (0600); where the system can make a file that
never had a name (O_TMPFILE), nobody else ever could. It is gone when it is closed, and when the process dies.
"""

import tempfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Final

IN_MEMORY: Final = 1 << 20
"""The largest body, in bytes, that no file is made for."""
PIECE: Final = 1 << 18


class Spool:
    """Raises OSError where the disk does not take it."""

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY, dir=str(folder))  # noqa: SIM115  see `close`
        self._digest = sha256()
        self.size = 0

    @property
    def sha256(self) -> str:
        """Of what was written so far, in hex."""
        return self._digest.hexdigest()

    def write(self, data: bytes) -> None:
        """Append."""
        self._file.write(data)
        self._digest.update(data)
        self.size += len(data)

    def pieces(self) -> Iterator[bytes]:
        """The whole body, in order; a small one in one piece."""
        self._file.seek(0)
        while piece := self._file.read(max(PIECE, IN_MEMORY if self.size <= IN_MEMORY else PIECE)):
            yield piece

    def close(self) -> None:
        """Forget the body."""
        self._file.close()
