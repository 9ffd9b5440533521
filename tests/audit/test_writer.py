import asyncio
import errno
import json
import os
import threading

import pytest

from addon.audit import writer as module
from addon.audit.chain import verify
from addon.audit.reader import follow, read
from addon.audit.stream import Stream
from addon.audit.writer import Writer
from addon.errors import Fault, Locked, Usage

NOW = 1_790_000_000.0


@pytest.fixture
def open_writer(folder):
    """A writer that is closed when the test ends."""
    opened = []

    def open_writer(*, clock=lambda: NOW, **options):
        opened.append(Writer(folder, clock=clock, **options))
        return opened[-1]

    yield open_writer
    for writer in opened:
        writer.close()


class Disk:
    """Stands before the real fdatasync: counts, and can hold it up or make it fail."""

    def __init__(self, monkeypatch):
        self.syncs = 0
        self.busy = threading.Event()
        self.free = threading.Event()
        self.free.set()
        self.broken = False
        self.failures = 0  # how many syncs fail, if not all
        self._fdatasync = os.fdatasync
        monkeypatch.setattr(os, "fdatasync", self)

    def __call__(self, descriptor):
        self.syncs += 1
        self.busy.set()
        self.free.wait()
        if self.broken or self.failures:
            self.failures = max(0, self.failures - 1)
            raise OSError(errno.EIO, "injected")
        self._fdatasync(descriptor)

    def hold(self):
        self.busy.clear()
        self.free.clear()

    async def until_busy(self):
        await asyncio.to_thread(self.busy.wait)


@pytest.fixture
def disk(monkeypatch):
    disk = Disk(monkeypatch)
    yield disk
    disk.free.set()


def ids(folder):
    return [row["id"] for row in read(folder)]


def notes(folder):
    lines = [json.loads(line) for line in (folder / "00.000000000000.jsonl").read_bytes().splitlines()]
    return [line for line in lines if "note" in line]


async def outcome(waiter):
    """None, or the code of the Fault."""
    try:
        return await waiter
    except Fault as fault:
        return fault.code


# --- keeping --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("durability", ["power", "process"])
async def test_a_record_is_in_the_log_when_it_is_acknowledged(durability, folder, open_writer, make):
    writer = open_writer(durability=durability)

    await writer.record(make(id="r1"))

    assert ids(folder) == ["r1"]
    assert verify(folder).ok


async def test_a_record_is_not_acknowledged_before_it_is_on_the_disk(open_writer, make, disk):
    writer = open_writer()
    disk.hold()

    waiter = writer.record(make())
    await disk.until_busy()
    await asyncio.sleep(0)
    assert not waiter.done()

    disk.free.set()
    assert await outcome(waiter) is None


async def test_all_who_wait_while_the_disk_is_busy_share_the_next_sync(folder, open_writer, make, disk):
    writer = open_writer()
    disk.hold()
    disk.syncs = 0

    first = writer.record(make(id="first"))
    await disk.until_busy()
    others = [writer.record(make(id=f"r{n}")) for n in range(63)]
    disk.free.set()
    await asyncio.gather(first, *others)

    assert disk.syncs == 2
    assert verify(folder).records == 64


async def test_a_batch_wakes_the_loop_once(open_writer, make, disk, monkeypatch):
    writer = open_writer()
    disk.hold()
    first = writer.record(make())
    await disk.until_busy()
    others = [writer.record(make()) for _ in range(63)]

    loop, calls = asyncio.get_running_loop(), []
    wake = loop.call_soon_threadsafe
    monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *args: (calls.append(args), wake(*args))[1])
    disk.free.set()
    await asyncio.wait([first, *others])

    assert len(calls) == 2


async def test_what_is_handed_over_in_one_turn_of_the_loop_is_one_write(open_writer, make, monkeypatch):
    writer = open_writer(durability="process")
    sizes, write = [], os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: sizes.append(len(data)) or write(descriptor, data))

    for _ in range(3):
        await asyncio.gather(*(writer.record(make()) for _ in range(16)))

    assert len(sizes) == 3


async def test_the_loop_goes_on_while_the_disk_is_busy(open_writer, make, disk):
    writer = open_writer()
    disk.hold()
    waiter = writer.record(make())
    await disk.until_busy()

    for _ in range(100):
        await asyncio.sleep(0)
    assert not waiter.done()

    disk.free.set()
    assert await outcome(waiter) is None


async def test_process_durability_never_waits_for_the_disk(folder, open_writer, make, disk):
    writer = open_writer(durability="process")
    disk.syncs = 0

    await writer.record(make(id="r1"))

    assert disk.syncs == 0
    assert ids(folder) == ["r1"]


async def test_records_are_kept_in_the_order_they_were_handed_over(folder, open_writer, make):
    writer = open_writer()

    await asyncio.gather(*(writer.record(make(id=f"r{n:03}")) for n in range(100)))

    lines = (folder / "00.000000000000.jsonl").read_bytes().splitlines()[1:]
    assert [json.loads(line)["id"] for line in lines] == [f"r{n:03}" for n in range(100)]


async def test_a_waiter_that_gives_up_changes_nothing_for_the_others(folder, open_writer, make, disk):
    writer = open_writer()
    disk.hold()
    impatient, patient = writer.record(make(id="r1")), writer.record(make(id="r2"))
    impatient.cancel()
    disk.free.set()

    assert await outcome(patient) is None
    assert ids(folder) == ["r1", "r2"]


async def test_a_record_that_cannot_be_written_down_fails_alone(folder, open_writer, make):
    writer = open_writer()

    good = writer.record(make(id="r1"))
    with pytest.raises(ValueError):
        writer.record(make(duration_ms=float("inf")))

    assert await outcome(good) is None
    assert ids(folder) == ["r1"]


def test_a_loop_that_is_gone_does_not_stop_the_others(folder, open_writer, make, disk):
    writer = open_writer()
    disk.hold()

    async def leave():
        writer.record(make(id="r1"))
        await disk.until_busy()

    async def stay():
        await writer.record(make(id="r2"))

    asyncio.run(leave())
    disk.free.set()
    asyncio.run(stay())

    assert ids(folder) == ["r1", "r2"]


async def test_a_log_that_is_being_written_always_verifies(folder, open_writer, make):
    writer = open_writer(durability="process", segment_bytes=20_000)
    verdicts = []

    async def check(writing):
        while not writing.done():
            verdicts.append(await asyncio.to_thread(verify, folder))

    async def write():
        for n in range(60):
            await asyncio.gather(*(writer.record(make(path="/" + "p" * n * 30)) for _ in range(8)))

    writing = asyncio.create_task(write())
    await asyncio.gather(writing, check(writing))

    assert verdicts
    assert [verdict.first_bad for verdict in verdicts if not verdict.ok] == []
    assert verify(folder).records == 480


# --- posting and closing --------------------------------------------------------------------------------------------


async def test_a_posted_record_is_written_though_nobody_waits(folder, open_writer, make):
    writer = open_writer()

    writer.post(make(id="r1"))

    assert (await asyncio.to_thread(next, follow(folder)))["id"] == "r1"


async def test_a_posted_record_shares_the_sync_of_the_next_one_awaited(folder, open_writer, make, disk, monkeypatch):
    monkeypatch.setattr(module, "_LINGER", 60)
    writer = open_writer()
    disk.syncs = 0

    writer.post(make(id="r1"))
    writer.post(make(id="r2"))
    await asyncio.sleep(0.01)
    await writer.record(make(id="r3"))

    assert disk.syncs == 1
    assert ids(folder) == ["r1", "r2", "r3"]


def test_closing_writes_what_was_posted(folder, open_writer, make, monkeypatch):
    monkeypatch.setattr(module, "_LINGER", 60)
    writer = open_writer()

    for n in range(50):
        writer.post(make(id=f"r{n}"))
    writer.close()

    assert verify(folder).records == 50


async def test_closing_acknowledges_what_was_waited_for(open_writer, make, disk):
    writer = open_writer()
    disk.hold()
    waiters = [writer.record(make()) for _ in range(5)]
    disk.free.set()
    writer.close()

    assert [await outcome(waiter) for waiter in waiters] == [None] * 5


async def test_closing_tells_everybody_whose_record_was_not_kept(folder, open_writer, make, disk):
    writer = open_writer()
    await writer.record(make(id="before"))
    disk.hold()
    first = writer.record(make(id="under way"))
    await disk.until_busy()
    second = writer.record(make(id="waiting"))
    disk.broken = True
    disk.free.set()
    writer.close()

    assert [await outcome(first), await outcome(second)] == ["audit_unavailable"] * 2
    assert ids(folder) == ["before"]
    assert verify(folder).ok


async def test_after_closing_nothing_is_accepted(open_writer, make):
    writer = open_writer()
    writer.close()
    writer.close()

    for hand_over in (writer.record, writer.post):
        with pytest.raises(Fault) as caught:
            hand_over(make())
        assert caught.value.code == "audit_unavailable"
    assert not writer.available


def test_closing_gives_the_stream_up(folder, open_writer):
    for _ in range(3):
        open_writer().close()

    assert [path.name for path in folder.glob("*.jsonl")] == ["00.000000000000.jsonl"]


# --- failing --------------------------------------------------------------------------------------------------------


async def test_without_room_every_waiter_gets_a_fault_and_later_all_is_well(folder, open_writer, make, disk_full):
    writer = open_writer()
    await writer.record(make(id="before"))
    size = (folder / "00.000000000000.jsonl").stat().st_size

    with disk_full(size + 100):
        waiters = [writer.record(make(id=f"never{n}")) for n in range(8)]
        assert {await outcome(waiter) for waiter in waiters} == {"audit_unavailable"}
        assert await outcome(writer.record(make(id="neither"))) == "audit_unavailable"
        assert not writer.available
    assert await outcome(writer.record(make(id="after"))) is None

    assert writer.available
    assert ids(folder) == ["before", "after"]
    assert verify(folder).ok


async def test_what_could_not_be_synced_is_cut_off_at_once(folder, open_writer, make, disk):
    writer = open_writer()
    await writer.record(make(id="before"))
    disk.broken = True

    assert await outcome(writer.record(make(id="never"))) == "audit_unavailable"
    assert ids(folder) == ["before"]
    assert verify(folder).ok


async def test_a_failure_is_not_that_of_the_next_batch(folder, open_writer, make, disk):
    writer = open_writer()
    disk.hold()
    disk.failures = 1
    first = writer.record(make(id="first"))
    await disk.until_busy()
    second = writer.record(make(id="second"))
    disk.free.set()

    assert [await outcome(first), await outcome(second)] == ["audit_unavailable", None]
    assert ids(folder) == ["second"]
    assert verify(folder).ok


async def test_the_log_says_how_many_records_it_lost(folder, open_writer, make, disk):
    writer = open_writer()
    disk.broken = True
    for _ in range(3):
        assert await outcome(writer.record(make())) == "audit_unavailable"
    writer.post(make())
    assert await outcome(writer.record(make())) == "audit_unavailable"
    disk.broken = False
    await writer.record(make(id="r1"))
    await writer.record(make(id="r2"))

    (note,) = notes(folder)
    assert (note["note"], note["lost"], note["since"]) == ("resumed", 5, "2026-09-21T14:13:20.000000Z")
    assert ids(folder) == ["r1", "r2"]
    assert verify(folder).ok


async def test_an_outage_is_logged_once_and_so_is_its_end(open_writer, make, disk, caplog):
    writer = open_writer()
    disk.broken = True
    for _ in range(3):
        await outcome(writer.record(make()))
    disk.broken = False
    for _ in range(3):
        await writer.record(make())

    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("ERROR", "audit stream 00: audit_unavailable: Input/output error; requests are refused"),
        ("WARNING", "audit stream 00 is written again; 3 records were lost"),
    ]


async def test_a_removed_file_is_noticed(folder, open_writer, make):
    writer = open_writer()
    (folder / "00.000000000000.jsonl").unlink()

    assert await outcome(writer.record(make())) == "audit_unavailable"


async def test_whatever_goes_wrong_nobody_waits_for_ever(open_writer, make):
    times = iter([NOW])
    writer = open_writer(clock=lambda: next(times))

    assert await outcome(writer.record(make())) == "audit_unavailable"
    assert await outcome(writer.record(make())) == "audit_unavailable"


def test_a_clock_set_back_stops_the_start(open_writer):
    open_writer().close()

    with pytest.raises(Locked, match="the clock is 3600 s behind"):
        open_writer(clock=lambda: NOW - 3600)


def test_an_unknown_durability_is_refused(folder):
    with pytest.raises(Usage) as caught:
        Writer(folder, clock=lambda: NOW, durability="hope")

    assert caught.value.hint == "one of: power, process"
    assert not folder.exists()


# --- breaking -------------------------------------------------------------------------------------------------------

STEPS = [
    *((Writer, name) for name in ("_advance", "_begin", "_end", "_settle", "_confession")),
    *((module._Disk, name) for name in ("start", "wait")),
    *((Stream, name) for name in ("write", "_write", "_restore", "sync", "keep", "take_back")),
]
"""What runs between the handing over of a record and its acknowledgement."""


@pytest.mark.parametrize("durability", ["power", "process"])
@pytest.mark.parametrize(("owner", "name"), STEPS)
async def test_whatever_step_breaks_nobody_waits_and_the_next_record_is_kept(
    folder, open_writer, make, monkeypatch, owner, name, durability
):
    writer = open_writer(durability=durability)
    await writer.record(make(id="before"))
    original, calls = getattr(owner, name), []

    def broken(*arguments, **options):
        calls.append(name)
        raise RuntimeError

    monkeypatch.setattr(owner, name, broken)
    refused = [writer.record(make(id=f"never{n}")) for n in range(3)]
    told = [await asyncio.wait_for(outcome(waiter), 5) for waiter in refused]
    again = [await asyncio.wait_for(outcome(writer.record(make(id="neither"))), 5) for _ in range(3)]
    monkeypatch.setattr(owner, name, original)

    assert told + again == ["audit_unavailable" if calls else None] * 6
    assert await asyncio.wait_for(outcome(writer.record(make(id="after"))), 5) is None
    assert await asyncio.wait_for(outcome(writer.record(make(id="last"))), 5) is None
    assert writer.available
    assert ids(folder)[0] == "before"
    assert ids(folder)[-2:] == ["after", "last"]
    assert verify(folder).ok


async def test_what_waits_behind_a_step_that_breaks_is_refused_as_well(open_writer, make, disk, monkeypatch):
    writer = open_writer()
    disk.hold()
    first = writer.record(make())
    await disk.until_busy()
    second = writer.record(make())
    monkeypatch.setattr(Stream, "keep", None)
    disk.free.set()

    assert [await asyncio.wait_for(outcome(each), 5) for each in (first, second)] == ["audit_unavailable"] * 2


async def test_closing_tells_everybody_though_it_breaks(folder, open_writer, make, disk, monkeypatch):
    writer = open_writer()
    waiter = writer.record(make())
    monkeypatch.setattr(Stream, "keep", None)
    writer.close()

    assert await asyncio.wait_for(outcome(waiter), 5) == "audit_unavailable"
    assert verify(folder).ok


def test_a_loop_that_is_gone_before_its_turn_does_not_stop_the_others(folder, open_writer, make):
    writer = open_writer()

    async def leave():
        asyncio.get_running_loop().stop()
        writer.record(make(id="r1"))

    async def stay():
        await asyncio.wait_for(writer.record(make(id="r2")), 5)

    loop = asyncio.new_event_loop()
    monopolised = loop.create_task(leave())
    loop.call_soon(loop.stop)
    loop.run_forever()
    monopolised.cancel()
    loop.close()
    asyncio.run(stay())

    assert ids(folder)[-1] == "r2"
