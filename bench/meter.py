"""
What a tree of processes costs: CPU time, and memory at its peak. From /proc, so Linux only.

CPU time is the scheduler's own count in nanoseconds, of every thread; look while nothing is in flight. Memory is resident
pages, shared ones counted once for each process.
"""

import contextlib
import os
import threading
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_PROC = Path("/proc")


def tree(root):
    """The process and all its descendants."""
    children = {}
    for entry in _PROC.iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found, todo = [], [root]
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return found


def cpu_seconds(processes):
    """Used so far by all threads that are alive."""
    nanoseconds = 0
    for process in processes:
        for thread in (_PROC / str(process) / "task").iterdir():
            nanoseconds += int((thread / "schedstat").read_text().split()[0])
    return nanoseconds / 1e9


def resident(processes):
    """Bytes in memory now."""
    return sum(int((_PROC / str(process) / "statm").read_text().split()[1]) * _PAGE for process in processes)


class Peak:
    """The highest `resident` while the block runs, looked at every 10 ms."""

    def __init__(self, processes):
        self._processes = processes
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.bytes = 0

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _watch(self):
        while not self._stop.wait(0.01):
            self.bytes = max(self.bytes, resident(self._processes))
