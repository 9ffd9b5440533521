"""Where an installation lives."""

import os
import sys
from pathlib import Path


def locate(chosen: str | None) -> Path:
    """The absolute home: the one chosen, `$ALTER_HOME`, or the platform's user data folder."""
    named = chosen or os.environ.get("ALTER_HOME")
    if named:
        return Path(named).expanduser().absolute()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "alter-egress"
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "alter-egress"
