"""How complaints and notices are written to stderr: as text, or as JSON lines for a log collector."""

import datetime as dt
import json
import logging
import sys

FORMS = ("text", "json")


def configure(form: str) -> None:
    """Warnings and errors of this process go to stderr in this form from now on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else logging.Formatter("%(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)


class _Json(logging.Formatter):
    """`at` (RFC 3339, UTC), `level`, `logger`, `message`; `hint` where there is one, `error` the type of an exception."""

    def format(self, record: logging.LogRecord) -> str:
        at = dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds")
        members: dict[str, object] = {
            "at": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if hint := getattr(record, "hint", None):
            members["hint"] = hint
        # Neither the text of an exception nor its traceback: they may quote what was being worked on.
        if record.exc_info and record.exc_info[0]:
            members["error"] = record.exc_info[0].__name__
        return json.dumps(members)
