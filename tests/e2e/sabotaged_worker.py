"""
The product's worker with a switch, a program of its own: python sabotaged_worker.py FD SWITCH

SWITCH is a file of 512 bytes, read at every call of a function of the product, and says as JSON what to do:

    {"mode": "run"}                                     nothing
    {"mode": "list"}                                    write the name of each function, once, to SWITCH.names
    {"mode": "break", "name": …, "order": n}            raise where it is next called, once for each n
    {"mode": "break always", "name": …, "order": n}     raise whenever it is called

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
        self._raw, self._order = b"", {"mode": "run"}
        self._known = set()
        self._done = None

    def called(self, code, _offset):
        name = name_of(code)
        if name is None:
            return monitoring.DISABLE
        raw = self._map[:SIZE]
        if raw != self._raw:
            with contextlib.suppress(ValueError):  # half of it is written
                self._raw, self._order = raw, json.loads(raw.rstrip(b"\0"))
        order = self._order
        if order["mode"] == "list":
            if name not in self._known:
                self._known.add(name)
                self._names.write(name + "\n")
                self._names.flush()
        elif order.get("name") == name and (order["mode"] == "break always" or self._done != order["order"]):
            self._done = order["order"]
            raise Sabotage(TEXT)
        return None


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
