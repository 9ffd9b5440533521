"""
Files that only their owner may read.

Created with their final mode (never widened and then narrowed), never through a symbolic link, fsynced together with
their folder before anyone relies on them.
"""

import contextlib
import os
import stat
from pathlib import Path

from addon.errors import Conflict, Locked


def make_folder(path: Path) -> None:
    """Make `path` with mode 0700 (and its parents), or check that an existing one is ours and closed to others."""
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                path.mkdir(mode=0o700)
        except OSError as error:
            raise _unwritable(path, error) from error
    check_folder(path)


def check_folder(path: Path) -> None:
    """Raises Locked unless `path` is a real folder that nobody outside owner and group can enter or change."""
    try:
        status = path.lstat()
    except OSError as error:
        raise Locked(
            f"no folder at {path}", hint="make one with `vaultctl init`, or name another with --home"
        ) from error
    if not stat.S_ISDIR(status.st_mode):
        raise Locked(
            f"{path} is not a folder (symbolic links are not followed)", hint="name the real folder with --home"
        )
    if status.st_uid not in (os.getuid(), 0):
        raise Locked(f"{path} belongs to another user", hint="run as the user that owns it, or use another --home")
    if status.st_mode & 0o007:
        raise Locked(f"{path} is open to every user", hint=f"close it: chmod 700 {path}")


def create(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write a new file and make it durable. Raises Conflict if anything is there already, a dangling link included."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, mode)
    except FileExistsError as error:
        raise Conflict(f"{path} exists already", hint="move it away first; nothing is overwritten") from error
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(path.parent)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def replace(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Put new contents in place atomically: a reader sees the old file or the new one, never half of one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    create(temporary, data, mode=mode)
    temporary.replace(path)
    sync_folder(path.parent)


def read_private(path: Path, *, limit: int = 1 << 20) -> bytes:
    """
    The contents of a file that must be secret: a regular file of ours (or root's), mode 0600 or tighter.

    Raises Locked, saying which rule is broken and the command that mends it.
    """
    try:
        # O_NONBLOCK, or a pipe with nobody at its other end would keep us waiting.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise Locked(f"no file at {path}", hint="`vaultctl doctor` lists what is missing") from error
    except OSError as error:
        raise Locked(f"{path} cannot be opened ({os.strerror(error.errno or 0)})", hint="it must be a regular file that this user may read") from error  # fmt: skip
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Locked(f"{path} is not a regular file", hint="put the file itself there, not a link or a device")
        if status.st_uid not in (os.getuid(), 0):
            raise Locked(
                f"{path} belongs to another user", hint=f"chown it to the user that runs this: chown $USER {path}"
            )
        if status.st_mode & 0o077:
            raise Locked(f"{path} is readable by others", hint=f"close it: chmod 600 {path}")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(limit)
    finally:
        os.close(descriptor)


def _unwritable(path: Path, error: OSError) -> Locked:
    return Locked(
        f"{path} cannot be made ({os.strerror(error.errno or 0)})",
        hint=f"give this user a folder to write to at {path.parent}, or choose another with --home",
    )


def sync_folder(path: Path) -> None:
    """Make a creation or a rename in `path` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
