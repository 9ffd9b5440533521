"""
The product's worker with other limits of time, a program of its own: python hurried_worker.py FD NAME=SECONDS …

Its descriptors may be counted from outside.
"""

import sys

from addon import patience, process, worker

if __name__ == "__main__":
    while len(sys.argv) > 2:
        name, _, seconds = sys.argv.pop().partition("=")
        setattr(patience, name, type(getattr(patience, name))(seconds))
    process.harden = lambda: None
    sys.exit(worker.main())
