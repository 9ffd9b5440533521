"""What a worker remembers of its providers' keys: rotation, removal, outage, storms of unknown keys."""

import contextlib
import time

import pytest

from addon.callers import authenticate
from addon.callers.idp import Registration
from addon.callers.key_sets import POLL_SECONDS, REFRESH_SECONDS, RETRY_SECONDS, STALE_SECONDS, KeySets
from addon.callers.web import Unfetched, Web
from addon.errors import Fault, Refusal
from tests.callers.conftest import body, drip
from tests.provider import NOW, Provider


class Clockwork:
    """Two clocks that move together, when told."""

    def __init__(self):
        self.passed = 0.0

    def wall(self):
        return NOW + self.passed

    def monotonic(self):
        return 1000.0 + self.passed


class Store:
    """Providers as the vault would list them."""

    def __init__(self, *idps, keys=b""):
        self.registered = [Registration(f"id-{n}", 1, idp) for n, idp in enumerate(idps)]
        self.document = keys
        self.reads = 0
        self.broken = False

    def list(self):
        if self.broken:
            raise Fault("vault_unavailable")
        return self.registered

    def find(self, issuer):
        return next((each for each in self.registered if each.idp.issuer == issuer), None)

    def keys(self, _):
        self.reads += 1
        return self.document


class StillWeb:
    """A web that answers at once, and counts."""

    def __init__(self, provider):
        self.provider = provider
        self.fetched = 0
        self.down = False

    def key_set(self, _):
        self.fetched += 1
        if self.down:
            raise Unfetched("down")
        return self.provider.jwks()


def until(condition, *, seconds=3.0):
    """Wait for something another thread does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.005)


@pytest.fixture
def scene():
    return Scene()


class Scene:
    """A provider, its keys as a worker sees them, and clocks to move."""

    def __init__(self):
        self.provider = Provider(keys={"r1": ("RS256", 0)})
        self.store = Store(self.provider.idp(source="discovery"))
        self.web = StillWeb(self.provider)
        self.clock = Clockwork()
        self.sets = KeySets(
            self.store, connect=lambda: contextlib.nullcontext(self.store), web=self.web, clock=self.clock.wall,
            monotonic=self.clock.monotonic,
        )  # fmt: skip

    def turn(self):
        """What the background does once, and its fetches to the end."""
        self.sets._begin(self.store.list())
        until(lambda: not any(remote.busy for remote in self.sets._remote.values()))

    def wait(self, seconds):
        self.clock.passed += seconds
        self.turn()

    def code(self, **claims):
        """What becomes of a fresh token; empty if it proves its user."""
        now = self.clock.wall()
        self.provider.now = int(now)
        try:
            authenticate(self.provider.token(**claims), idps=self.store, key_sets=self.sets, now=now)
        except (Refusal, Fault) as no:
            return no.code
        return ""


def test_before_the_first_fetch_a_token_cannot_be_decided(scene):
    assert scene.code() == "fault"
    scene.turn()
    assert scene.code() == ""


def test_an_unknown_issuer_needs_no_keys(scene):
    assert scene.code(iss="https://evil.test") == "user_token_invalid"
    assert scene.code(iss=...) == "user_token_invalid"
    assert scene.code(iss=5) == "user_token_invalid"


def test_keys_are_fetched_every_five_minutes_and_not_before(scene):
    scene.turn()
    scene.wait(REFRESH_SECONDS - 1)
    assert scene.web.fetched == 1
    scene.wait(1)
    assert scene.web.fetched == 2


def test_a_new_key_is_fetched_once_a_token_names_it(scene):
    scene.turn()
    scene.provider.keys["r2"] = ("RS256", 2)
    scene.clock.passed += RETRY_SECONDS
    assert scene.code(kid="r2") == "user_token_invalid"
    assert scene.web.fetched == 1
    scene.turn()
    assert scene.code(kid="r2") == ""


def test_ten_thousand_unknown_keys_cause_one_fetch_in_thirty_seconds(scene):
    scene.turn()
    for n in range(10_000):
        scene.sets.miss(scene.store.registered[0])
        if n % 100 == 0:
            assert scene.code(header={"kid": f"x{n}"}) == "user_token_invalid"
            scene.turn()
    assert scene.web.fetched == 1
    scene.wait(RETRY_SECONDS)
    scene.code(header={"kid": "y"})
    scene.turn()
    assert scene.web.fetched == 2
    scene.turn()
    assert scene.web.fetched == 2


def test_a_key_that_was_taken_away_is_dead_with_the_next_fetch(scene):
    scene.provider.keys["r2"] = ("RS256", 2)
    scene.turn()
    assert scene.code(kid="r1") == scene.code(kid="r2") == ""
    token_of_old_key = scene.provider.keys.pop("r1")
    scene.wait(REFRESH_SECONDS)
    scene.provider.keys["gone"] = token_of_old_key
    assert scene.code(kid="gone", header={"kid": "r1"}) == "user_token_invalid"
    assert scene.code(kid="r2") == ""


def test_a_key_replaced_under_the_same_name_is_replaced_here(scene):
    scene.turn()
    scene.provider.keys["r1"] = ("RS256", 9)
    assert scene.code() == "user_token_invalid"
    scene.wait(REFRESH_SECONDS)
    assert scene.code() == ""


def test_the_last_good_set_counts_for_a_day_and_then_no_more(scene):
    scene.turn()
    scene.web.down = True
    for _ in range(10):
        scene.wait(STALE_SECONDS / 10)
        assert scene.code() == ""
    scene.wait(1)
    assert scene.code() == "user_token_invalid"
    scene.web.down = False
    scene.wait(RETRY_SECONDS)
    assert scene.code() == ""


def test_a_clock_that_jumps_ahead_makes_keys_old_not_young(scene):
    scene.turn()
    wall = scene.clock.wall()
    registration = scene.store.registered[0]
    with pytest.raises(Refusal, match="user_token_invalid"):
        scene.sets.get(registration, now=wall + STALE_SECONDS + 1)
    assert scene.sets.get(registration, now=wall - 10 * STALE_SECONDS)
    scene.clock.passed += STALE_SECONDS + 1
    with pytest.raises(Refusal, match="user_token_invalid"):
        scene.sets.get(registration, now=wall - 10 * STALE_SECONDS)


def test_after_a_failure_it_is_tried_again_every_thirty_seconds(scene):
    scene.web.down = True
    scene.turn()
    scene.wait(RETRY_SECONDS - 1)
    assert scene.web.fetched == 1
    scene.wait(1)
    assert scene.web.fetched == 2


def test_rubbish_in_place_of_keys_leaves_the_last_good_set(scene):
    scene.turn()
    good = scene.web.key_set
    scene.web.key_set = lambda _: b"<html>"
    scene.wait(REFRESH_SECONDS)
    assert scene.code() == ""
    scene.web.key_set = good


def test_a_provider_that_is_removed_is_forgotten(scene):
    scene.turn()
    [registration] = scene.store.registered
    scene.store.registered = []
    scene.turn()
    with pytest.raises(Fault):
        scene.sets.get(registration, now=NOW)


def test_a_change_of_claims_keeps_the_keys_and_a_change_of_address_does_not(scene):
    scene.turn()
    idp = scene.provider.idp
    other_claims = Registration("id-0", 2, idp(source="discovery", group_claim="roles"))
    scene.store.registered = [other_claims]
    scene.turn()
    assert scene.sets.get(other_claims, now=scene.clock.wall())
    assert scene.web.fetched == 1
    moved = Registration("id-0", 3, idp(source="url", jwks_url="https://elsewhere.test/"))
    with pytest.raises(Fault):
        scene.sets.get(moved, now=scene.clock.wall())


def test_stored_keys_are_read_once_for_each_revision():
    provider = Provider()
    store = Store(provider.idp(source="file"), keys=provider.jwks())
    sets = KeySets(store, connect=lambda: contextlib.nullcontext(store), web=None)
    for _ in range(3):
        authenticate(provider.token(), idps=store, key_sets=sets, now=NOW)
    assert store.reads == 1
    store.registered = [Registration("id-0", 2, store.registered[0].idp)]
    authenticate(provider.token(), idps=store, key_sets=sets, now=NOW)
    assert store.reads == 2


def test_stored_keys_that_cannot_be_read_are_a_fault():
    provider = Provider()
    store = Store(provider.idp(source="file"), keys=b"{}")
    sets = KeySets(store, connect=lambda: contextlib.nullcontext(store), web=None)
    with pytest.raises(Fault, match="vault_unavailable"):
        authenticate(provider.token(), idps=store, key_sets=sets, now=NOW)


# ── live ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def running(live, ca_file):
    """Key sets of a live provider, fetched by their own threads."""
    made = []

    def start(**options):
        store = Store(live.provider.idp(source="discovery"))
        sets = KeySets(
            store, connect=lambda: contextlib.nullcontext(store), web=Web(ca=ca_file, seconds=1.0), clock=lambda: NOW,
            **options,
        )  # fmt: skip
        made.append(sets)
        return store, sets

    yield start
    for sets in made:
        sets.stop()


def test_the_start_waits_for_the_keys(live, running):
    store, sets = running()
    sets.start(wait=5.0)
    assert authenticate(live.provider.token(), idps=store, key_sets=sets, now=NOW).subject == "ada"


def test_a_provider_that_is_slow_delays_the_start_only_so_far(live, running):
    live.answers["/keys"] = drip(live.provider.jwks())
    store, sets = running()
    begun = time.monotonic()
    sets.start(wait=0.3)
    assert time.monotonic() - begun < 1.0
    with pytest.raises(Fault):
        sets.get(store.registered[0], now=NOW)


def test_a_request_never_waits_for_a_fetch(live, running):
    live.answers["/keys"] = lambda _: time.sleep(2)
    store, sets = running()
    sets.start(wait=0.0)
    begun = time.monotonic()
    for _ in range(100):
        with pytest.raises(Fault):
            sets.get(store.registered[0], now=NOW)
    assert time.monotonic() - begun < 0.5


def test_rotation_at_a_live_provider_is_followed_and_a_storm_is_not(live, running):
    clock = Clockwork()
    store, sets = running(monotonic=clock.monotonic)
    sets.start(wait=5.0)
    live.provider.keys = {"r2": ("RS256", 2)}
    for n in range(1000):
        with pytest.raises(Refusal):
            authenticate(live.provider.token(kid="r2", header={"kid": f"r{n + 2}"}), idps=store, key_sets=sets, now=NOW)
    time.sleep(POLL_SECONDS / 5)
    assert len(live.fetches()) == 1
    clock.passed += RETRY_SECONDS
    sets._wake.set()
    until(lambda: len(live.fetches()) == 2)
    until(lambda: sets.get(store.registered[0], now=NOW).find("r2"))
    assert authenticate(live.provider.token(kid="r2"), idps=store, key_sets=sets, now=NOW)


def test_an_outage_and_its_end(live, running):
    clock = Clockwork()
    store, sets = running(monotonic=clock.monotonic)
    live.stop()
    sets.start(wait=3.0)
    with pytest.raises(Fault):
        sets.get(store.registered[0], now=NOW)
    live.start()
    clock.passed += RETRY_SECONDS
    sets._wake.set()
    until(live.fetches)
    until(lambda: sets._remote[next(iter(sets._remote))].good)
    assert sets.get(store.registered[0], now=NOW)


def test_a_vault_that_cannot_be_read_ends_nothing(live, running):
    store, sets = running()
    store.broken = True
    sets.start(wait=0.1)
    store.broken = False
    sets._wake.set()
    until(live.fetches)


def test_a_provider_that_hangs_does_not_keep_another_from_being_fetched(live, running, ca_file):
    live.answers["/keys"] = lambda _: time.sleep(2)
    quick = Provider(issuer=live.provider.issuer + "/quick")
    live.answers["/quick-keys"] = body(quick.jwks())
    store, sets = running()
    store.registered.append(Registration("q", 1, quick.idp(source="url", jwks_url=live.url + "/quick-keys", name="quick")))  # fmt: skip
    sets.start(wait=0.0)
    until(lambda: any(remote.good for remote in sets._remote.values()), seconds=1.0)
