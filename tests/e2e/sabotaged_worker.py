"""
The product's worker with a switch, a program of its own: python sabotaged_worker.py FD SWITCH

SWITCH is a file of 512 bytes, read at every call of a function of the product, and says as JSON what to do:

    {"mode": "run"}                                     nothing
    {"mode": "list", "order": n}                        write "n name" of each function, once, to SWITCH.names
    {"mode": "break", "name": …, "order": n}            raise where it is next called, once; then write the same
    {"mode": "break always", "name": …, "order": n}     raise whenever it is called; the first time, write the same

A name is that of the module and that of the function, such as `pipeline.authorize`.
"""

import contextlib
import json
import mmap
import sys
from pathlib import Path

import addon
from addon import worker

SIZE = 512
TEXT = "the canary of the saboteur"
ROOT = Path(addon.__file__).parent
monitoring = sys.monitoring


class Sabotage(Exception):
    """Nobody can be prepared for this one."""


class Switch:
    """What the file says."""

    def __init__(self, path):
        self._names = path.with_suffix(".names").open("a")
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), SIZE, prot=mmap.PROT_READ)
        self._raw, self._order = b"", {"mode": "run", "order": 0}
        self._written = set()

    def called(self, code, _offset):
        name = name_of(code)
        if name is None:
            return monitoring.DISABLE
        raw = self._map[:SIZE]
        if raw != self._raw:
            with contextlib.suppress(ValueError):  # half of it is written
                self._raw, self._order = raw, json.loads(raw.rstrip(b"\0"))
        order = self._order
        if order["mode"] == "list" or order.get("name") == name:
            first = self._write(f"{order['order']} {name}")
            if order["mode"] == "break always" or (order["mode"] == "break" and first):
                raise Sabotage(TEXT)
        return None

    def _write(self, line):
        """Whether it is new."""
        if line in self._written:
            return False
        self._written.add(line)
        self._names.write(line + "\n")
        self._names.flush()
        return True


def name_of(code):
    """The name of a function of the product, None for any other."""
    path = Path(code.co_filename)
    if not path.is_relative_to(ROOT) or code.co_name.startswith("<"):
        return None
    return ".".join([*path.relative_to(ROOT).with_suffix("").parts, code.co_qualname])


if __name__ == "__main__":
    switch = Switch(Path(sys.argv.pop()))
    monitoring.use_tool_id(monitoring.DEBUGGER_ID, "saboteur")
    monitoring.register_callback(monitoring.DEBUGGER_ID, monitoring.events.PY_START, switch.called)
    monitoring.set_events(monitoring.DEBUGGER_ID, monitoring.events.PY_START)
    sys.exit(worker.main())
