"""A proxy whose functions can be made to fail while it runs; see `sabotaged_worker`."""

import itertools
import json
from pathlib import Path

from tests.e2e.product import Lone
from tests.e2e.sabotaged_worker import SIZE, TEXT

PROGRAM = Path(__file__).with_name("sabotaged_worker.py")


class Saboteur(Lone):
    """`order` says what breaks from now on."""

    def __init__(self, home, *options):
        self._switch = home.with_name(f"{home.name}-switch")
        self._switch.write_bytes(bytes(SIZE))
        self._orders = itertools.count(1)
        self.order("run")
        super().__init__(home, *options, program=[PROGRAM, self._switch])

    def order(self, mode, name=""):
        """See `sabotaged_worker`. Holds for the next call of any function."""
        number = next(self._orders)
        order = json.dumps({"mode": mode, "name": name, "order": number}).encode()
        if mode != "run":
            self._last = number
        with self._switch.open("r+b") as file:
            file.write(order.ljust(SIZE, b"\0"))

    def stop(self):
        """At once: a fault in the counting of requests would let it wait for those that are long over."""
        self.kill()
        self.process.stdin.close()

    def names(self):
        """The functions that were called, or broken, as the last order but `run` said."""
        lines = [line.split() for line in self._switch.with_suffix(".names").read_text().splitlines()]
        return [name for number, name in lines if int(number) == self._last]


__all__ = ["TEXT", "Saboteur"]
