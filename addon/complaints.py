"""
Telling the operator that something is wrong, without letting a flood of requests become a flood of lines.

A cause is a text with at most a name in it, and the type of an exception; never its message, which may quote a value.
"""

import logging
import time

_SECONDS = 10.0

logger = logging.getLogger("alter-egress")

_last: dict[str, tuple[float, int]] = {}


def tell(what: str) -> None:
    """Log that something was done that the operator asked for."""
    logger.warning("%s", what)


def complain(what: str, error: BaseException | None = None) -> None:
    """Log a cause at once, and again at most every ten seconds, with how often it came up in between."""
    cause = what if error is None else f"{what}: {type(error).__name__}"
    now = time.monotonic()
    told, kept = _last.get(cause, (-_SECONDS, 0))
    if now - told < _SECONDS:
        _last[cause] = (told, kept + 1)
        return
    _last[cause] = (now, 0)
    logger.error("%s%s", cause, f" ({kept} more since)" if kept else "")
