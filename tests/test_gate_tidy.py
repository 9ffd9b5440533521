"""While a proxy runs, what is stored beyond its time is destroyed."""

import asyncio
import logging

import pytest

from addon import gate as gates
from addon.gate import Gate
from addon.settings import Settings


@pytest.fixture
def gate(story, monkeypatch):
    monkeypatch.setattr(gates, "_TIDY_SECONDS", 0.0)
    others = dict.fromkeys(("key_sets", "audit", "resolver", "limits", "sessions"))
    return Gate(Settings(home=str(story.vault.home)), vault=story.vault, clock=lambda: story.now, **others)


async def until_gone(story):
    """Until the first version is destroyed."""
    while len(story.vault.secrets.get("stripe").versions) > 1:  # noqa: ASYNC110  nothing tells
        await asyncio.sleep(0)


@pytest.fixture
def expired(story):
    """The first version of `stripe` is past its grace; nobody has noticed."""
    story.vault.secrets.rotate("stripe", values={"token": "second"}, now=story.now - 60, grace=60)
    assert len(story.vault.secrets.get("stripe").versions) == 2


@pytest.mark.usefixtures("expired")
async def test_an_attempt_that_fails_is_not_the_last(gate, story, monkeypatch, caplog):
    whole, failures = story.vault.destroy_expired, [OSError(), ValueError()]

    def fail_at_first(**when):
        if failures:
            raise failures.pop()
        return whole(**when)

    monkeypatch.setattr(story.vault, "destroy_expired", fail_at_first)
    tidying = asyncio.create_task(gate.keep_tidy())
    with caplog.at_level(logging.ERROR):
        await asyncio.wait_for(until_gone(story), 10)
    assert "could not be destroyed: OSError" in caplog.text
    assert not tidying.done()
    tidying.cancel()
