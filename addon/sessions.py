"""
Sessions of assumed roles, in memory, for as long as they live.

The first request under a role waits for its session; later ones are served by the one there is, and the next one is
fetched beside them before it runs out. However many requests there are, STS is asked once. Without a session that is
still good nothing is signed: `session_unavailable`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from addon import binding as bindings
from addon.complaints import complain
from addon.credentials import aws_role, sigv4
from addon.credentials.aws_role import NotAssumed, Session
from addon.errors import Fault
from addon.model import Clock, Head, Values
from addon.vault import Vault
from addon.vault.lookup import GrantState

MARGIN = 30.0
"""Seconds before its end from which a session serves no new request."""
AHEAD = 600.0
"""Seconds before its end at which the next one is fetched, or half of its life if that is shorter."""
PAUSE = 5.0
"""Seconds after a failure before STS is asked again."""

Post = Callable[[str, Head, bytes], Awaitable[tuple[int, bytes]]]
"""Sends a request of our own to a host: the status and body of the answer. Raises OSError or ValueError."""

_Key = tuple[str, int, bytes, bytes]


@dataclass(slots=True)
class _Held:
    session: Session | None = None
    renewal: asyncio.Task[None] | None = None
    renew_at: float = 0.0


class Sessions:
    """The sessions of one worker."""

    def __init__(self, *, vault: Vault, post: Post, clock: Clock) -> None:
        self._vault = vault
        self._post = post
        self._clock = clock
        self._held: dict[_Key, _Held] = {}

    def concern(self, grant: GrantState) -> bool:
        """Whether the secret behind a grant is used through a role."""
        return grant.kind == sigv4.KIND.tag and bindings.load(grant.binding).role is not None

    async def prepare(self, grant: GrantState) -> None:
        """Wait until there is a session. Raises Fault `session_unavailable`."""
        held = self._held.setdefault(_key(grant), _Held())
        if held.renewal is None and self._clock() >= held.renew_at:
            self._prune(held)
            held.renewal = asyncio.create_task(self._renew(held, grant))
        if held.renewal is not None and not self._good(held, margin=MARGIN):
            await asyncio.shield(held.renewal)  # others wait for it as well
        if not self._good(held, margin=MARGIN):
            raise Fault("session_unavailable")

    def values(self, grant: GrantState) -> Values:
        """What to sign with. Raises Fault `session_unavailable`."""
        held = self._held.get(_key(grant))
        if held is None or held.session is None or not self._good(held, margin=0):
            raise Fault("session_unavailable")
        return held.session.values

    def _good(self, held: _Held, *, margin: float) -> bool:
        return held.session is not None and self._clock() < held.session.expires_at - margin

    async def _renew(self, held: _Held, grant: GrantState) -> None:
        try:
            held.session = await self._assume(grant)
        except Exception as error:  # noqa: BLE001  whatever it is, the old session serves until its end
            reason = f" ({error})" if isinstance(error, NotAssumed) else ""
            complain(f"the role of the secret {grant.secret_name} cannot be assumed{reason}", error)
            held.renew_at = self._clock() + PAUSE
        else:
            life = held.session.expires_at - self._clock()
            held.renew_at = held.session.expires_at - min(AHEAD, life / 2)
        finally:
            held.renewal = None

    async def _assume(self, grant: GrantState) -> Session:
        binding, now = bindings.load(grant.binding), self._clock()
        if binding.role is None:
            raise Fault
        host = aws_role.endpoint(binding, binding.role)
        head, body = aws_role.request(
            binding.role, values=self._vault.open(grant), host=host, name=grant.secret_name, now=now
        )
        status, answer = await self._post(host, head, body)
        return aws_role.read(status, answer, now=now, seconds=binding.role.seconds)

    def _prune(self, kept: _Held) -> None:
        """Forget what serves nobody: no session of a version or binding that is gone stays for good."""
        for key, held in list(self._held.items()):
            if held is not kept and held.renewal is None and not self._good(held, margin=0):
                del self._held[key]


def _key(grant: GrantState) -> _Key:
    """A row that was changed behind our back is another one, and must be opened anew."""
    return grant.secret_id, grant.version, grant.binding, grant.sealed.payload
