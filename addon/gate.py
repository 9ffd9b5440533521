"""
One request's way through the proxy, whichever engine carries its bytes: enter, release, leave.

    enter     decide and record; a Denial carries the answer to give, a Permit allows to go on
    hold      room for a body that must be known whole
    examine   that body, where a policy looks at it
    approve   a person's yes, where a policy asks for one
    release   what to send, once the upstream is proved (and the body held, where that is needed)
    leave     the outcome

A Permit is made only here and only after its record is durable, so an engine that needs one to send anything cannot
send what was not decided and recorded. Whatever breaks becomes a Denial with 503.
"""

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from addon import pipeline, policies, refusals, selfservice, supervision, tag
from addon.audit.writer import Writer
from addon.callers import KeySource
from addon.complaints import complain
from addon.consent import Shown
from addon.errors import Fault, Refusal
from addon.interception import Interception
from addon.load import Load
from addon.model import Clock, Head, Outgoing, Record, Request
from addon.network import port_allowed
from addon.pipeline import Authorized, Local, Refused, Untagged
from addon.redaction import Screen
from addon.refusals import Answer
from addon.resolver import Resolver
from addon.selfservice import SelfService
from addon.sessions import Sessions
from addon.settings import Settings
from addon.vault import Vault
from addon.vault.approvals import Approval, Subject
from addon.vault.keyring import Keyring
from addon.vault.ledger import Ledger
from addon.websocket.watch import End, Watch

_BODIES_IN_MEMORY, _BODIES_ON_DISK = 2, 16
"""How many bodies of the largest size one worker holds at a time; a single caller gets half of that room."""

_TIDY_SECONDS = 60.0


@dataclass(slots=True)
class Permit:
    """
    A decided and recorded request. `clean` is its head without anything of ours and without the credential.

    `who` it counts for in the load. `screen` stands before the response from the moment that a credential is released.
    `examined` is the SHA-256 of the body that policies have let pass: no other may go out.
    """

    record: Record
    clean: Head
    authorized: Authorized | None
    started: float
    local: Local | None = None
    who: str = ""
    held: int = 0
    code: str = ""
    released: bool = False
    examined: str = ""
    over: bool = field(default=False, repr=False)
    screen: Screen | None = field(default=None, repr=False)

    @property
    def needs_body(self) -> bool:
        """Whether the whole body must be held, and its SHA-256 told to `release` (or itself to `answer`)."""
        authorized = self.authorized
        if authorized is None:
            return self.local is not None
        return authorized.plan.needs_body or bool(authorized.looks) or authorized.question is not None

    def allows(self, body_sha256: str | None) -> bool:
        """Whether policies have let the body with this SHA-256 pass, or look at none."""
        if self.authorized is None or not self.authorized.looks:
            return True
        return bool(self.examined) and self.examined == body_sha256

    @property
    def pool(self) -> tuple[str, str]:
        """Who asks (caller and user) and the grant: only requests that share both may share an upstream connection."""
        who = f"{self.record.caller} {self.record.user}" if self.record.user else self.record.caller
        return who, self.record.grant_id


@dataclass(frozen=True, slots=True)
class Denial:
    """Nothing of the request leaves; this is what the client is told."""

    answer: Answer


class Gate:
    """Everything it needs is open and tested before the first request."""

    def __init__(
        self,
        settings: Settings,
        *,
        vault: Vault,
        key_sets: KeySource,
        audit: Writer,
        resolver: Resolver,
        limits: Ledger,
        sessions: Sessions,
        announce: Callable[[Approval], None] = lambda _: None,
        load: Load | None = None,
        clock: Clock = time.time,
    ) -> None:
        self._settings = settings
        self._vault = vault
        self._key_sets = key_sets
        self._service = SelfService(vault, key_sets=key_sets)
        self._audit = audit
        self.resolver = resolver
        self._limits = limits
        self._sessions = sessions
        self._announce = announce
        self.load = load or Load()
        self._clock = clock
        self.interception = Interception(settings, vault=vault)
        self._held = 0
        self._held_by: dict[str, int] = {}
        self._watch = Watch()
        self.active = 0

    def take(self, keyring: Keyring) -> None:
        """Open values with these keys from now on. Raises Locked, keeping those there are, if they do not fit."""
        self._vault.take(keyring)

    async def admit(self, request: Request) -> Denial | None:
        """A tunnel opens unless it brings a bad key or one with too many, or leads to a port that never speaks TLS or HTTP."""
        try:
            refused = self.judge_tunnel(request)
            return None if refused is None else await self._deny(refused)
        except Exception as error:  # noqa: BLE001  whatever it is, no tunnel opens
            return self._fault(request, error)

    def judge_tunnel(self, request: Request) -> Refused | None:
        """Why a tunnel may not open, not yet recorded."""
        now = self._clock()
        caller = pipeline.admit(request, vault=self._vault, now=now)
        if isinstance(caller, Refused):
            return caller
        code = self._refuse_tunnel(request.host, request.port)
        if not code and caller and not self.load.claim(request.connection, str(caller)):
            code = "concurrency_exceeded"
        return _refused(self._unjudged(request)._replace(caller=str(caller or "")), code) if code else None

    def _refuse_tunnel(self, host: str, port: int) -> str | None:
        if not self.port_open(host, port):
            return "address_forbidden"
        if self.interception.contradicted(host, port):
            return "passthrough_bound"
        opaque = self._settings.untagged != "pass" and self.interception.passes(host, port, sni=None)
        return "untagged" if opaque else None

    async def pass_through(self, request: Request) -> Permit | None:
        """The permit of a tunnel that `interception` lets pass, once it is on record. None: read it, and judge what comes."""
        try:
            if self._settings.untagged != "pass" or not self.port_open(request.host, request.port):
                return None
            now = self._clock()
            caller = pipeline.admit(request, vault=self._vault, now=now)
            if isinstance(caller, Refused):
                return None
            record = self._unjudged(request)._replace(decision="passed", caller=str(caller or ""))
            await self._audit.record(record)
        except Exception as error:  # noqa: BLE001  whatever it is, nothing passes unrecorded
            complain("a tunnel could not be passed through", error)
            return None
        self.active += 1
        return Permit(record, request.head, None, time.monotonic())

    async def enter(self, request: Request) -> Permit | Denial:
        """Decide about a request and make the record durable. A `local` one is then for `answer`, not for an upstream."""
        if request.host == selfservice.HOST:
            return await self._receive(request)
        try:
            if self.interception.contradicted(request.host, request.port):
                return await self.refuse(request, "passthrough_bound")
            outcome = pipeline.authorize(
                request, vault=self._vault, now=self._clock(), key_sets=self._key_sets, limits=self._limits
            )
            if isinstance(outcome, Untagged):
                code = await self._refuse_untagged(outcome)
                if code:
                    outcome = _refused(outcome.record, code)
            if isinstance(outcome, Refused):
                return await self._deny(outcome)
            authorized = outcome if isinstance(outcome, Authorized) else None
            permit = await self._let_in(request, outcome.record, outcome.head, authorized=authorized)
        except Exception as error:  # noqa: BLE001  whatever it is, the request does not leave
            return self._fault(request, error)
        if authorized and isinstance(permit, Permit) and self._sessions.concern(authorized.grant):
            return await self._assume(permit, authorized)
        return permit

    async def _let_in(
        self,
        request: Request,
        record: Record,
        clean: Head,
        *,
        authorized: Authorized | None = None,
        local: Local | None = None,
    ) -> Permit | Denial:
        """Count a request, unless it is one too many, and make its record durable. What fails is as if it had not been."""
        who = record.caller or f"address {request.client_ip}"
        if not (self.load.claim(request.connection, who) and self.load.begin(who)):
            self._refund(authorized)
            return await self._deny(_refused(record, "concurrency_exceeded"))
        try:
            await self._audit.record(record)
        except BaseException:
            self.load.end(who)
            self._refund(authorized)
            raise
        self.active += 1
        return Permit(record, clean, authorized, time.monotonic(), local=local, who=who)

    async def _assume(self, permit: Permit, authorized: Authorized) -> Permit | Denial:
        """The permit, once there is a session of the role that the secret is used through."""
        try:
            await self._sessions.prepare(authorized.grant)
        except Exception as error:  # noqa: BLE001  whatever it is, the request does not leave
            denial = self.abandon(permit, error.code if isinstance(error, Fault) else "fault")
            self.leave(permit, status=denial.answer.status)
            return denial
        return permit

    async def _receive(self, request: Request) -> Permit | Denial:
        try:
            local = pipeline.receive(request, vault=self._vault, now=self._clock(), key_sets=self._key_sets)
            if isinstance(local, Refused):
                return await self._deny(local)
            return await self._let_in(request, local.record, tag.strip(request.head), local=local)
        except Exception as error:  # noqa: BLE001  whatever it is, nothing is answered but that
            return self._fault(request, error)

    def answer(self, permit: Permit, local: Local, body: bytes) -> Denial:
        """What the proxy itself answers to a `local` request, now that its body is here."""
        try:
            return Denial(self._service.answer(local.request, body, caller=local.caller, now=self._clock()))
        except Shown as shown:
            self.abandon(permit, shown.code)
            return Denial(shown.answer)
        except Refusal as refusal:
            return self.abandon(permit, refusal.code)
        except Exception as error:  # noqa: BLE001  whatever it is, the client gets one of our answers
            return self._break_off(permit, "a request to the proxy itself failed", error)

    async def refuse(self, request: Request, code: str) -> Denial:
        """Refuse what an engine cannot take for a request. It is recorded as far as it is known."""
        try:
            return await self._deny(_refused(self._unjudged(request), code))
        except Exception as error:  # noqa: BLE001  whatever it is, the request does not leave
            return self._fault(request, error)

    def hold(self, permit: Permit, size: int, *, on_disk: bool = False) -> Denial | None:
        """Make room for a body of `size` bytes in all; may be asked again when it turns out to be larger."""
        limit = self._settings.max_signed_body
        longest = limit if permit.local is None else selfservice.LONGEST_BODY
        if size > longest:
            return self.abandon(permit, "body_too_large")
        if permit.authorized and permit.authorized.looks and size > policies.LONGEST_BODY:
            return self.abandon(permit, "body_too_large", policy=permit.authorized.looks[0].policy)
        more = max(size - permit.held, 0)
        room = limit * (_BODIES_ON_DISK if on_disk else _BODIES_IN_MEMORY)
        who = permit.record.caller
        mine = self._held_by.get(who, 0)
        if self._held + more > room or mine + more > max(room // 2, limit):
            return self.abandon(permit, "fault")
        permit.held += more
        self._held += more
        self._held_by[who] = mine + more
        return None

    def examine(self, permit: Permit, body: Iterable[bytes]) -> Denial | None:
        """Judge the held body, in pieces, where a policy looks at it; otherwise nothing of it is read."""
        if permit.authorized is None or not permit.authorized.looks:
            return None
        try:
            whole = b"".join(body)
            pipeline.examine(permit.authorized, whole)
        except Refusal as refusal:
            return self.abandon(permit, refusal.code, policy=refusal.policy)
        except Exception as error:  # noqa: BLE001  whatever it is, the request does not leave
            return self._break_off(permit, "a body could not be judged", error)
        permit.examined = hashlib.sha256(whole).hexdigest()
        return None

    async def approve(
        self, permit: Permit, *, body_sha256: str | None, gone: Callable[[], bool] = lambda: False
    ) -> Denial | None:
        """Have a person look at it, where a policy asks for that. `gone` says whether the client still waits."""
        if permit.authorized is None or permit.authorized.question is None:
            return None
        record, question, grant = permit.record, permit.authorized.question, permit.authorized.grant
        subject = Subject(
            caller=record.caller, user=record.user, tag=grant.tag, method=record.method, host=record.host,
            port=record.port, target=permit.authorized.head.target, body_sha256=body_sha256 or "", reason=record.reason,
        )  # fmt: skip
        try:
            approval = await supervision.settle(
                question, subject, grant_id=grant.id, approvals=self._vault.approvals, clock=self._clock,
                gone=lambda: permit.over or gone(), announce=self._announce,
            )  # fmt: skip
        except supervision.Pending as pending:
            return self.abandon(permit, "approval_pending", policy=question.policy, approval_id=pending.approval.id)
        except Refusal as refusal:
            return self.abandon(permit, refusal.code, policy=question.policy, retry_after=refusal.retry_after)
        except Exception as error:  # noqa: BLE001  whatever it is, the request does not leave
            return self._break_off(permit, "an approval could not be had", error)
        permit.record = record._replace(approval_id=approval.id, approved_by=approval.decided_by)
        return None

    def release(self, permit: Permit, *, body_sha256: str | None = None) -> Outgoing | Denial:
        """What to send. To be asked for only when the upstream is proved to be the permitted host."""
        if permit.local is not None or not permit.allows(body_sha256):
            return self.abandon(permit, "fault")
        if permit.authorized is None:
            return Outgoing(permit.clean)
        try:
            if body_sha256 is not None:
                # The body took its time, and a revocation holds from the moment it is committed.
                pipeline.recheck(permit.authorized, vault=self._vault, now=self._clock())
            grant = permit.authorized.grant
            session = self._sessions.values(grant) if self._sessions.concern(grant) else None
            needed = body_sha256 if permit.authorized.plan.needs_body else None
            outgoing, permit.screen = pipeline.inject(
                permit.authorized, vault=self._vault, body_sha256=needed, session=session,
                hides_bound=self._settings.redact == "bound",
            )  # fmt: skip
        except Refusal as refusal:
            return self.abandon(permit, refusal.code)
        except Exception as error:  # noqa: BLE001  whatever it is, the request does not leave
            return self._break_off(permit, "a request could not be released", error)
        if body_sha256 is not None and outgoing.rewriter is not None:
            return self.abandon(permit, "signing_unsupported")  # a held body goes out as it was seen
        permit.released = True
        return outgoing

    def _break_off(self, permit: Permit, what: str, error: Exception) -> Denial:
        complain(what, error)
        return self.abandon(permit, error.code if isinstance(error, Fault) else "fault")

    def abandon(
        self,
        permit: Permit,
        code: str,
        *,
        sent: bool = False,
        policy: str | None = None,
        approval_id: str = "",
        retry_after: int | None = None,
    ) -> Denial:
        """Refuse after all. The outcome will carry the code; of what was `sent` already nobody is told that it was not."""
        status = refusals.CODES[code].status
        permit.code = code
        if not sent:
            permit.record = permit.record._replace(
                decision="fault" if status == 503 else "refused",
                policy=policy or permit.record.policy,
                approval_id=approval_id or permit.record.approval_id,
            )
        return Denial(
            refusals.answer(code, permit.record.id, policy=policy, approval_id=approval_id, retry_after=retry_after)
        )

    def attend(self, permit: Permit, end: End) -> None:
        """A WebSocket is open: `end` it when its request would be refused, or this worker stops."""

        def judge() -> None:
            if permit.authorized is not None:
                pipeline.recheck(permit.authorized, vault=self._vault, now=self._clock())

        self._watch.add(permit.record.id, judge, end)

    def drain(self) -> None:
        """This worker is about to stop: end what would not end by itself."""
        self._watch.drain()

    def leave(self, permit: Permit, *, status: int | None, code: str = "") -> None:
        """The exchange is over; told once. `code` says what broke it off."""
        if permit.over:
            return
        permit.over = True
        self.active -= 1
        self._watch.forget(permit.record.id)
        self.load.end(permit.who)
        self._give_back(permit)
        if not permit.released:
            self._refund(permit.authorized)
        outcome = permit.record._replace(
            at=self._clock(),
            phase="outcome",
            status=status,
            code=permit.code or code,
            duration_ms=round((time.monotonic() - permit.started) * 1000, 3),
            redactions=self._put_away(permit),
        )
        with contextlib.suppress(Fault):  # the log is closed: the intent tells that this request went out
            self._audit.post(outcome)

    def _put_away(self, permit: Permit) -> int | None:
        """The screen knows the secret, and is not kept any longer. In how many places the response showed it."""
        screen, permit.screen = permit.screen, None
        if screen is None or not screen.count:
            return None
        complain(f"a response repeated the secret {permit.record.secret}, which was made unreadable")
        return screen.count

    def _give_back(self, permit: Permit) -> None:
        if permit.held:
            who = permit.record.caller
            self._held -= permit.held
            self._held_by[who] -= permit.held
            if not self._held_by[who]:
                del self._held_by[who]

    def _refund(self, authorized: Authorized | None) -> None:
        """Nothing of a request left, so it used up nothing."""
        if authorized is None or not authorized.receipt:
            return
        try:
            self._limits.give_back(authorized.receipt)
        except Fault as fault:  # counted too much rather than too little
            complain("a limit could not be given back", fault)

    async def keep_tidy(self) -> None:
        """Destroy what is stored beyond its time, every minute, until cancelled. Nobody can use it in the meantime."""
        while True:
            try:
                self._vault.destroy_expired(now=self._clock())
            except Exception as error:  # noqa: BLE001  whatever it is, it is tried again
                complain("versions whose grace is over could not be destroyed", error)
            await asyncio.sleep(_TIDY_SECONDS)

    def bound(self, host: str, port: int) -> bool:
        """Whether an active secret is bound to a destination. Raises Fault."""
        return self._vault.bound(host, port) is not None

    async def _refuse_untagged(self, outcome: Untagged) -> str | None:
        """The code to refuse traffic without a grant with."""
        if self._settings.untagged != "pass":
            return "untagged"
        host, port = outcome.record.host, outcome.record.port
        if not self.port_open(host, port):
            return "address_forbidden"
        # A sealed binding opens a private host to its own secret only, not to whoever is on the tunnel.
        if self._vault.bound(host, port) and not await self.resolver.allows_untagged(host, port):
            return "address_forbidden"
        return None

    def port_open(self, host: str, port: int) -> bool:
        """Whether a tunnel may lead to a port. Raises Fault."""
        return port_allowed(port) or self.resolver.redirected(host, port) or self._vault.bound(host, port) is not None

    async def _deny(self, refused: Refused) -> Denial:
        answer = refusals.answer(
            refused.code,
            refused.record.id,
            policy=refused.policy,
            retry_after=refused.retry_after,
            limit=refused.limit,
        )
        if refused.code == "secret_in_request":
            complain(
                f"{refused.record.caller or refused.record.client_ip} has a value of the secret {refused.record.secret} and sent it: rotate that secret"
            )
        try:
            await self._audit.record(refused.record._replace(status=answer.status))
        except Fault as fault:
            return Denial(refusals.answer(fault.code, refused.record.id))
        return Denial(answer)

    def _unjudged(self, request: Request) -> Record:
        """What may be recorded of a request that nobody has looked into: a path may hold anything."""
        return Record(
            id=request.id, at=self._clock(), phase="intent", host=request.host, port=request.port,
            method=request.method, client_ip=request.client_ip,
        )  # fmt: skip

    def _fault(self, request: Request, error: Exception) -> Denial:
        """503, and a record if one can be left."""
        code = error.code if isinstance(error, Fault) else "fault"
        complain("a request could not be decided", error)
        answer = refusals.answer(code, request.id)
        with contextlib.suppress(Exception):  # the answer matters more
            record = self._unjudged(request)
            self._audit.post(record._replace(phase="outcome", decision="fault", code=code, status=answer.status))
        return Denial(answer)


def _refused(record: Record, code: str) -> Refused:
    record = record._replace(phase="outcome", decision="refused", code=code)
    return Refused(record=record, code=code, retry_after=1 if code == "concurrency_exceeded" else None)
