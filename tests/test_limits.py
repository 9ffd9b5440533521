"""Limits: counted all or none, exactly, across workers and restarts, and whatever the clock of the machine does."""

import contextlib
import itertools
import multiprocessing
import time
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from addon.errors import Fault, Locked, Refusal
from addon.policies.policy import Due
from addon.policies.quota import parse_quota
from addon.policies.rate import parse_rate
from addon.vault.ledger import Ledger, Preview

NOW = 1_800_000_000.0


def rate(text, *, layer="grant", subject="g"):
    return Due(layer, subject, "rate", parse_rate(text))


def quota(text, *, layer="grant", subject="g"):
    return Due(layer, subject, "quota", parse_quota(text))


class Ticks:
    """The monotonic clock of a machine."""

    def __init__(self):
        self.now = 5000.0

    def __call__(self):
        return self.now


@pytest.fixture
def ticks():
    return Ticks()


@pytest.fixture
def ledger(tmp_path, ticks):
    with contextlib.closing(Ledger.open(tmp_path / "limits.db", ticks=ticks)) as opened:
        yield opened


def taken(ledger, *dues, now=NOW, times=1000):
    """How many in a row were let through."""
    for count in range(times):
        try:
            ledger.take(dues, now=now)
        except Refusal:
            return count
    return times


def refused(ledger, *dues, now=NOW):
    with pytest.raises(Refusal) as no:
        ledger.take(dues, now=now)
    return no.value


# ── rates ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_rate_lets_so_many_through_and_then_says_how_long_to_wait(ledger, ticks):
    assert taken(ledger, rate("3/minute")) == 3
    ticks.now += 20
    no = refused(ledger, rate("3/minute"))
    assert (no.code, no.policy, no.retry_after, no.limit) == ("rate_limited", "grant.rate", 40, (3, 60))
    assert (no.found, no.remedy) == ("3 of 3 used in this minute", "it passes in 40 seconds")


def test_a_window_slides_there_is_no_second_helping_at_its_edge(ledger, ticks):
    for _ in range(4):
        assert taken(ledger, rate("4/minute"), times=1) == 1
        ticks.now += 15
    assert taken(ledger, rate("4/minute")) == 1
    ticks.now += 14.9
    assert taken(ledger, rate("4/minute")) == 0
    ticks.now += 0.2
    assert taken(ledger, rate("4/minute")) == 1


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.floats(0, 30), min_size=1, max_size=60), amount=st.integers(1, 8))
def test_no_window_anywhere_holds_more_than_the_amount(ledger, ticks, steps, amount):
    due = rate(f"{amount}/minute", subject=str(time.perf_counter_ns()))
    passed = []
    for step in steps:
        ticks.now += step
        recent = [at for at in passed if at > ticks.now - 60]
        if taken(ledger, due, times=1):
            passed.append(ticks.now)
            assert len(recent) < amount
        else:
            assert len(recent) == amount


def test_setting_the_clock_of_the_machine_changes_no_rate(ledger, ticks):
    assert taken(ledger, rate("5/minute")) == 5
    for now in (NOW - 1e8, NOW + 1e8, 0.0):
        assert taken(ledger, rate("5/minute"), now=now) == 0
    ticks.now += 60.1
    assert taken(ledger, rate("5/minute"), now=NOW - 3600) == 5


def test_a_restart_of_the_proxy_refills_nothing(tmp_path, ledger, ticks):
    assert taken(ledger, rate("5/minute")) == 5
    ledger.close()
    with contextlib.closing(Ledger.open(tmp_path / "limits.db", ticks=ticks)) as again:
        assert taken(again, rate("5/minute")) == 0
        ticks.now += 61
        assert taken(again, rate("5/minute")) == 5


@pytest.mark.parametrize(("uptime", "let_through"), [(1.0, 0), (59.0, 0), (61.0, 5), (5000.0 + 30, 0), (1e6, 5)])
def test_after_a_reboot_only_time_that_surely_passed_counts(tmp_path, ledger, ticks, uptime, let_through):
    assert taken(ledger, rate("5/minute")) == 5
    ledger.close()
    ticks.now = uptime
    with contextlib.closing(Ledger.open(tmp_path / "limits.db", ticks=ticks)) as again:
        assert taken(again, rate("5/minute")) == let_through


# ── quotas ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def test_a_number_of_uses_is_used_up_for_good(ledger, ticks):
    assert taken(ledger, quota("3")) == 3
    ticks.now += 1e7
    no = refused(ledger, quota("3"), now=NOW + 1e9)
    assert (no.code, no.policy, no.retry_after, no.limit) == ("quota_exceeded", "grant.quota", None, (3, None))


@pytest.mark.parametrize(
    ("unit", "used", "still", "over", "seconds", "window"),
    [
        ("hour", "2027-01-31T10:00:00", "2027-01-31T10:59:59", "2027-01-31T11:00:00", 3600, 3600),
        ("day", "2027-02-28T00:00:00", "2027-02-28T23:59:59", "2027-03-01T00:00:00", 86_400, 86_400),
        ("month", "2027-02-01T00:00:00", "2027-02-28T23:59:59", "2027-03-01T00:00:00", 28 * 86_400, 28 * 86_400),
        ("month", "2027-12-31T00:00:00", "2027-12-31T23:59:59", "2028-01-01T00:00:00", 86_400, 31 * 86_400),
        ("month", "2028-02-29T12:00:00", "2028-02-29T23:59:59", "2028-03-01T00:00:00", 43_200, 29 * 86_400),
    ],
)
def test_a_quota_begins_anew_with_its_calendar_period(ledger, unit, used, still, over, seconds, window):
    due = quota(f"2/{unit}")
    assert taken(ledger, due, now=at(used)) == 2
    no = refused(ledger, due, now=at(used))
    assert (no.retry_after, no.limit) == (seconds, (2, window))
    assert refused(ledger, due, now=at(still)).retry_after == 1
    assert taken(ledger, due, now=at(over)) == 2


def test_a_clock_that_is_set_back_gives_nothing_back(ledger):
    due = quota("2/day")
    assert taken(ledger, due, now=at("2027-01-02T00:00:01")) == 2
    assert taken(ledger, due, now=at("2027-01-01T23:59:59")) == 0
    assert taken(ledger, due, now=at("2027-01-02T12:00:00")) == 0
    assert taken(ledger, due, now=at("2027-01-03T00:00:00")) == 2


def test_whoever_raises_a_limit_keeps_what_was_used(ledger):
    assert taken(ledger, quota("3")) == 3
    assert taken(ledger, quota("5")) == 2
    assert taken(ledger, quota("2")) == 0


# ── several ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_all_limits_are_taken_or_none(ledger):
    small, large = quota("2", layer="secret", subject="s"), quota("5")
    assert taken(ledger, small, large) == 2
    assert taken(ledger, large) == 3


def test_the_one_to_wait_for_longest_is_named(ledger):
    both = rate("1/second"), quota("1", layer="vault", subject="")
    assert taken(ledger, *both) == 1
    assert refused(ledger, *both).policy == "vault.quota"
    assert refused(ledger, rate("1/second"), rate("1/hour")).policy == "grant.rate"


def test_limits_of_different_layers_subjects_kinds_and_units_are_apart(ledger):
    dues = [rate("1/minute"), rate("1/hour"), quota("1"), quota("1/day"), rate("1/minute", subject="h"), rate("1/minute", layer="secret")]  # fmt: skip
    for due in dues:
        assert taken(ledger, due) == 1


def test_what_is_given_back_can_be_used_again_and_only_that(ledger, ticks):
    dues = (rate("3/minute"), quota("3/day"), quota("9"))
    receipts = [ledger.take(dues, now=NOW) for _ in range(3)]
    ledger.give_back(receipts[1])
    assert taken(ledger, *dues) == 1
    ledger.give_back(receipts[1])
    assert taken(ledger, rate("3/minute")) == 0
    ticks.now += 61
    ledger.take((rate("3/minute"),), now=NOW)
    ledger.give_back(receipts[0])
    assert taken(ledger, rate("3/minute")) == 2


def test_a_use_of_a_period_that_is_over_is_given_back_to_that_period(ledger):
    receipt = ledger.take((quota("1/day"),), now=at("2027-01-01T23:59:59"))
    assert taken(ledger, quota("1/day"), now=at("2027-01-02T00:00:00")) == 1
    ledger.give_back(receipt)
    assert taken(ledger, quota("1/day"), now=at("2027-01-02T00:00:00")) == 0


# ── workers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def spend(path, begin, results, dues):
    with contextlib.closing(Ledger.open(path)) as ledger:
        begin.wait()
        results.put(taken_of(ledger, dues, 64))


def taken_of(ledger, dues, requests):
    """Of so many requests, how many were let through."""
    passed = 0
    for _ in range(requests):
        with contextlib.suppress(Refusal):
            ledger.take(dues, now=NOW)
            passed += 1
    return passed


@pytest.mark.parametrize(
    "dues", [(rate("100/minute"),), (quota("100"),), (rate("100/hour"), quota("200"), quota("100/month"))]
)
def test_256_requests_of_4_workers_against_100_let_exactly_100_through(tmp_path, dues):
    tmp_path.chmod(0o700)
    context = multiprocessing.get_context("spawn")
    begin, results = context.Barrier(4), context.Queue()
    workers = [context.Process(target=spend, args=(tmp_path / "limits.db", begin, results, dues)) for _ in range(4)]
    for worker in workers:
        worker.start()
    passed = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert sum(passed) == 100
    with contextlib.closing(Ledger.open(tmp_path / "limits.db")) as after:  # as after a restart
        assert taken(after, *dues) == 0


# ── a preview ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_preview_agrees_and_takes_nothing(tmp_path, ledger, ticks):
    preview = Preview(tmp_path / "limits.db", ticks=ticks)
    dues = (rate("3/minute"), quota("5"))
    for used in range(3):
        for _ in range(3):
            assert [mark.told for mark in preview.take(dues, now=NOW)] == [f"{used + 1} of 3 in this minute", f"{used + 1} of 5"]  # fmt: skip
        ledger.take(dues, now=NOW)
    live = refused(ledger, *dues)
    told = refused(preview, *dues)
    assert (told.code, told.policy, told.retry_after) == (live.code, live.policy, live.retry_after)


def test_a_ledger_that_is_not_there_has_counted_nothing_and_is_not_made(tmp_path):
    assert len(Preview(tmp_path / "limits.db").take((quota("1"),), now=NOW)) == 1
    assert list(tmp_path.iterdir()) == []


# ── faults ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_ledger_that_cannot_be_read_refuses(tmp_path, ledger):
    ledger._database.conn.execute("DROP TABLE hits")
    for each in (ledger, Preview(tmp_path / "limits.db")):
        with pytest.raises(Fault, match="limits cannot be"):
            each.take((rate("1/minute"),), now=NOW)
    with pytest.raises(Fault):
        ledger.give_back((ledger.take((quota("1"),), now=NOW)[0]._replace(hit=1),))


def test_a_file_that_is_no_ledger_is_not_opened(tmp_path):
    (tmp_path / "limits.db").write_bytes(b"x" * 4096)
    with pytest.raises(Locked):
        Ledger.open(tmp_path / "limits.db")


def test_a_newer_ledger_is_not_opened(tmp_path, ledger):
    ledger._database.conn.execute("PRAGMA user_version = 2")
    with pytest.raises(Locked, match="newer"):
        Ledger.open(tmp_path / "limits.db")


def test_the_file_is_closed_to_others(tmp_path, ledger):
    ledger.take((quota("1"),), now=NOW)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("limits.db*")} == {0o600}


def test_hits_are_forgotten_when_no_window_can_hold_them(tmp_path, ledger, ticks):
    for number in itertools.count():
        ledger.take((rate("9/minute", subject=str(number)),), now=NOW)
        if number == 9:
            break
    ticks.now += 86_401
    Ledger.open(tmp_path / "limits.db", ticks=ticks).close()
    assert ledger._database.conn.execute("SELECT count(*) FROM hits").fetchone() == (0,)
