import asyncio
import contextlib
import resource

import pytest

from addon.audit.stream import Stream
from addon.audit.writer import Writer
from addon.model import Record

NOW = 1_790_000_000.0


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "audit"


@pytest.fixture
def make():
    """A record with what a real one has, and whatever the test says."""

    def make(**members):
        usual = {
            "id": "req-1",
            "at": NOW,
            "phase": "intent",
            "decision": "authorized",
            "caller": "app:billing",
            "principal": "system:billing",
            "grant_id": "grant-1",
            "secret": "stripe",
            "version": 1,
            "host": "api.stripe.com",
            "port": 443,
            "method": "POST",
            "path": "/v1/charges",
            "client_ip": "127.0.0.1",
        }
        return Record(**(usual | members))

    return make


@pytest.fixture
def write(folder):
    """Write records through a real writer, each acknowledged before the next, and close it."""

    def write(*records, now=NOW, **options):
        async def run():
            for record in records:
                await writer.record(record)

        writer = Writer(folder, clock=lambda: now, durability="process", **options)
        try:
            asyncio.run(run())
        finally:
            writer.close()

    return write


@pytest.fixture
def open_stream(folder):
    """A stream that is closed when the test ends."""
    opened = []

    def open_stream(now=NOW, **options):
        opened.append(Stream(folder, now=now, **options))
        return opened[-1]

    yield open_stream
    for stream in opened:
        stream.close()


@pytest.fixture
def disk_full():
    """Really no room: the kernel refuses to let any file of this process grow beyond `size`."""

    @contextlib.contextmanager
    def disk_full(size):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return disk_full
