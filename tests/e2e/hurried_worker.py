"""
The product's worker with other limits, a program of its own: python hurried_worker.py FD MODULE.NAME=NUMBER …

Its descriptors may be counted from outside.
"""

import sys

from addon import load, patience, process, worker

MODULES = {"load": load, "patience": patience}

if __name__ == "__main__":
    while len(sys.argv) > 2:
        place, _, number = sys.argv.pop().partition("=")
        module, _, name = place.partition(".")
        owner = MODULES[module]
        setattr(owner, name, type(getattr(owner, name))(number))
    process.harden = lambda: None
    sys.exit(worker.main())
