import signal
import subprocess
import sys

import pytest

from addon.audit.chain import verify
from addon.audit.reader import read

CHILD = """
import asyncio, sys, time
from pathlib import Path
from addon.audit.writer import Writer
from addon.model import Record

writer = Writer(Path(sys.argv[1]), clock=time.time, durability=sys.argv[2], segment_bytes=20_000)

async def request(worker):
    for n in range(1_000_000):
        name = f"{sys.argv[3]}-{worker}-{n}"
        await writer.record(Record(id=name, at=time.time(), phase="intent", decision="authorized", path="/" + "p" * 200))
        print(name, flush=True)
        writer.post(Record(id=name, at=time.time(), phase="outcome", status=200))

async def main():
    await asyncio.gather(*(request(worker) for worker in range(8)))

asyncio.run(main())
"""


@pytest.mark.parametrize("durability", ["power", "process"])
def test_what_was_acknowledged_survives_the_death_of_the_process(durability, folder):
    acknowledged = []
    for generation in range(3):
        command = [sys.executable, "-c", CHILD, str(folder), durability, str(generation)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            acknowledged += [child.stdout.readline().strip() for _ in range(300 + 137 * generation)]
            child.send_signal(signal.SIGKILL)
            acknowledged += [line.strip() for line in child.stdout if line.endswith("\n")]

    assert len(acknowledged) >= 3 * 300
    kept = [row["id"] for row in read(folder) if row["phase"] == "intent"]
    assert set(acknowledged) <= set(kept)
    assert len(list(folder.glob("00.*.jsonl"))) > 3
    assert verify(folder).ok
