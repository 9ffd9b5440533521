"""
The keys of all identity providers, as one worker has them in memory. This is the only thing about identity it keeps.

Key sets are fetched by threads of their own, never while a request waits: at the start, every five minutes, and once
more when a token names an unknown key, but not within 30 seconds of the last try. A set replaces the one before as a
whole, so a key that its provider took away is dead with the next fetch. When a provider cannot be reached, its last good
set counts for a day; then its tokens are refused.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from addon.callers.idp import Registration
from addon.callers.jwt import keys
from addon.callers.jwt.keys import KeySet, Unusable
from addon.callers.web import Unfetched, Web
from addon.errors import Fault, Refusal
from addon.model import Clock

REFRESH_SECONDS = 300.0
RETRY_SECONDS = 30.0
STALE_SECONDS = 86_400.0
POLL_SECONDS = 1.0

_MOST_LOCAL = 64

logger = logging.getLogger(__name__)


class Store(Protocol):
    """Where providers are registered (`vault.idps.Idps`)."""

    def list(self) -> list[Registration]:
        """Those in force."""

    def keys(self, registration: Registration) -> bytes:
        """The stored key set, or the opened shared secret. Raises Fault."""


Connect = Callable[[], contextlib.AbstractContextManager[Store]]
"""A connection to the store for one thread."""


@dataclass(slots=True)
class _Remote:
    """One key set that is fetched. `good` is the last that was, with both clocks at that moment."""

    registration: Registration
    good: tuple[KeySet, float, float] | None = None
    tried: float | None = None
    failed: bool = False
    wanted: bool = False
    busy: bool = field(default=False, repr=False)

    def due(self, now: float) -> bool:
        """Whether to fetch, by the monotonic clock."""
        if self.busy or self.tried is None:
            return not self.busy
        return now - self.tried >= (RETRY_SECONDS if self.wanted or self.failed else REFRESH_SECONDS)


class KeySets:
    """The key sets of one worker. `store` is for the thread of the requests, `connect` gives others their own."""

    def __init__(
        self,
        store: Store,
        *,
        connect: Connect,
        web: Web,
        clock: Clock = time.time,
        monotonic: Clock = time.monotonic,
    ) -> None:
        self._store = store
        self._connect = connect
        self._web = web
        self._clock = clock
        self._monotonic = monotonic
        self._local: dict[tuple[str, int], KeySet] = {}
        self._remote: dict[tuple[str, ...], _Remote] = {}
        self._wake = threading.Event()
        self._settled = threading.Event()
        self._stopped = threading.Event()

    def start(self, *, wait: float = 3.0) -> None:
        """Begin to fetch, and give the first fetches `wait` seconds to succeed or fail."""
        threading.Thread(target=self._run, name="key-sets", daemon=True).start()
        self._settled.wait(wait)

    def stop(self) -> None:
        """Fetch no more."""
        self._stopped.set()
        self._wake.set()

    def get(self, registration: Registration, *, now: float) -> KeySet:
        """
        The keys of a provider, from memory (or, the first time, from the vault).

        Raises Fault where none have come yet, Refusal `user_token_invalid` where the last ones are too old.
        """
        if registration.idp.source in {"file", "shared"}:
            return self._stored(registration)
        remote = self._remote.get(_place(registration))
        if remote is None or remote.good is None:
            self._wake.set()
            raise Fault("fault", f"no keys of {registration.idp.name} yet")
        key_set, fetched, ticked = remote.good
        if max(now - fetched, self._monotonic() - ticked) > STALE_SECONDS:
            raise Refusal("user_token_invalid")
        return key_set

    def miss(self, registration: Registration) -> None:
        """A token named a key that is not there: perhaps there is a new one."""
        remote = self._remote.get(_place(registration))
        if remote is not None and not remote.wanted:
            remote.wanted = True
            self._wake.set()

    def _stored(self, registration: Registration) -> KeySet:
        place = (registration.id, registration.revision)
        found = self._local.get(place)
        if found is None:
            try:
                found = parse(registration, self._store.keys(registration))
            except Unusable as problem:
                raise Fault("vault_unavailable", "stored keys of a provider cannot be used") from problem
            if len(self._local) >= _MOST_LOCAL:
                self._local.clear()
            self._local[place] = found
        return found

    def _run(self) -> None:
        with self._connect() as store:
            while not self._stopped.is_set():
                with contextlib.suppress(Fault):  # the vault cannot be read now; what we have stays
                    self._begin(store.list())
                self._settle()
                self._wake.wait(POLL_SECONDS)
                self._wake.clear()

    def _begin(self, registered: list[Registration]) -> None:
        """Start the fetches that are due; forget providers that are gone."""
        wanted = {_place(each): each for each in registered if each.idp.source in {"discovery", "url"}}
        self._remote = {place: self._remote.get(place) or _Remote(each) for place, each in wanted.items()}
        for remote in self._remote.values():
            if remote.due(self._monotonic()):
                remote.busy, remote.wanted = True, False
                threading.Thread(target=self._fetch, args=(remote,), name="key-set", daemon=True).start()

    def _fetch(self, remote: _Remote) -> None:
        name = remote.registration.idp.name
        try:
            key_set = parse(remote.registration, self._web.key_set(remote.registration.idp))
            remote.good = (key_set, self._clock(), self._monotonic())
            if remote.failed:
                logger.warning("the keys of the identity provider %s are there again", name)
            remote.failed = False
        except (Unfetched, Unusable) as problem:
            if not remote.failed:
                logger.warning("the keys of the identity provider %s cannot be had: %s", name, problem)
            remote.failed = True
        finally:
            remote.tried, remote.busy = self._monotonic(), False
            self._settle()

    def _settle(self) -> None:
        if all(remote.tried is not None for remote in list(self._remote.values())):
            self._settled.set()


def parse(registration: Registration, raw: bytes) -> KeySet:
    """The key set in what was stored or fetched for a provider. Raises Unusable."""
    idp = registration.idp
    return keys.shared(raw) if idp.source == "shared" else keys.parse_set(raw, algorithms=idp.algorithms)


def _place(registration: Registration) -> tuple[str, ...]:
    """What a fetched set depends on. Everything else about a provider can change without another fetch."""
    idp = registration.idp
    return (registration.id, idp.source, idp.issuer, idp.jwks_url, *idp.algorithms)
