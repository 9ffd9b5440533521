"""Live WebSockets are ended when they would be refused."""

import asyncio

import pytest

from addon.errors import Fault, Refusal
from addon.websocket import watch
from addon.websocket.watch import Watch


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(watch, "SECONDS", 0.001)


class Socket:
    """What is watched: `verdict` is raised when it is judged."""

    def __init__(self, watcher, name, verdict=None):
        self.watcher, self.name, self.verdict, self.ended, self.judged = watcher, name, verdict, [], 0
        watcher.add(name, self.judge, lambda *how: self.ended.append(how))

    def judge(self):
        self.judged += 1
        if self.verdict:
            raise self.verdict

    async def wait(self, rounds=2):
        goal = self.judged + rounds
        while self.judged < goal and not self.ended:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def test_whatever_would_be_refused_is_ended_once_and_the_rest_goes_on():
    watcher = Watch()
    good, bad = Socket(watcher, "good"), Socket(watcher, "bad")
    await good.wait()
    assert not bad.ended
    bad.verdict = Refusal("grant_revoked")
    await bad.wait()
    await good.wait(5)
    assert bad.ended == [(1008, "grant_revoked")]
    assert not good.ended


@pytest.mark.parametrize(
    ("error", "code"), [(Fault("vault_unavailable", "x"), "vault_unavailable"), (ValueError("x"), "fault")]
)
async def test_what_cannot_be_decided_ends(error, code):
    watcher = Watch()
    socket = Socket(watcher, "one", error)
    await socket.wait()
    assert socket.ended == [(1011, code)]


async def test_all_end_when_the_worker_stops_also_those_that_come_later():
    watcher = Watch()
    early = Socket(watcher, "early")
    watcher.drain()
    late = Socket(watcher, "late")
    while not late.ended:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    assert early.ended == late.ended == [(1001, "interrupted")]


async def test_what_has_ended_is_not_judged_and_nothing_ticks_for_nobody():
    watcher = Watch()
    socket = Socket(watcher, "one")
    watcher.forget("one")
    await asyncio.sleep(0.01)
    assert (socket.judged, watcher._timer) == (0, None)
