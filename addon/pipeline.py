"""
One request, from arrival to decision.

    1 tag      which grant is asked for; control headers come off
    2 caller   key → app or agent; token → user, groups; and it holds no value of the vault itself
    3 grant    read now; its principal must be the caller, or a delegation must hold in every link
    4 binding  the destination, method and path must be those the secret is sealed for
    5 policies every layer must pass; then limits are counted, all of them or none
    6 record   handed to the audit log; nothing may leave before it is durable
      body     where a policy looks at the body, it is held and judged (`examine`) before anybody is asked or anything opened
    7 open     the only step that sees plaintext                       ┐ `inject`, after the record is durable and the
    8 apply    what to send, and what the response must not show       ┘ upstream is proved

Rule 1: every step is called from `authorize`, `examine` or `inject`, in the order it happens.
Rule 2: a step takes values and returns a value; it never sees a flow, a socket or a clock.
Rule 3: a refusal is a value, a fault is an exception; the shell turns both into an answer and sends nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, NoReturn, Protocol

from addon import binding as bindings
from addon import callers, context, credentials, delegation, policies, principals, selfservice, supervision, tag
from addon.callers import KeySource
from addon.credentials.kind import Plan, Target
from addon.destination import check_destination, check_hygiene, check_shape
from addon.errors import Fault, Refusal
from addon.model import Caller, Head, Outgoing, Proof, Record, Request, Values
from addon.policies.policy import Ask, Attempt, Due, Layer, Look
from addon.redaction import Screen, ask_plainly
from addon.refusals import CODES
from addon.supervision import Question
from addon.vault import Vault
from addon.vault.ledger import Receipt
from addon.vault.lookup import GrantState


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorized:
    """
    May go out once `record` is durable, with what `inject` makes of `head`.

    `receipt` is what it took of limits; `looks` are policies that have to see the body first; `question` is what a person
    must approve first. `request` and `proof` are what `recheck` judges again.
    """

    record: Record
    caller: Caller
    grant: GrantState
    head: Head
    plan: Plan
    target: Target
    request: Request = field(repr=False)
    proof: Proof | None = field(default=None, repr=False)
    receipt: Receipt = ()
    looks: tuple[Look, ...] = ()
    question: Question | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Nothing goes out. `code` is one of `refusals.CODES`."""

    record: Record
    code: str
    policy: str | None = None
    retry_after: int | None = None
    limit: tuple[int, int | None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Untagged:
    """No grant is asked for; `head` is free of everything of ours. Whether it may go out is the operator's choice."""

    record: Record
    head: Head


@dataclass(frozen=True, slots=True, kw_only=True)
class Local:
    """A request for the proxy itself, of a proved caller, or of nobody (None) where none is needed. Nothing of it goes out."""

    record: Record
    request: Request
    caller: Caller | None


class Limits(Protocol):
    """Who counts (`vault.ledger`)."""

    def take(self, dues: Sequence[Due], *, now: float) -> Receipt:
        """Count one request against all limits, or against none and raise Refusal. Raises Fault."""


Outcome = Authorized | Refused | Untagged


@dataclass(frozen=True, slots=True)
class Step:
    """
    One line of an explanation: `verdict` is `passed` or the code of the refusal; `detail` is what was found.

    A policy adds what it `compared`; a refusal, the `remedy`.
    """

    name: str
    verdict: str
    detail: str = ""
    compared: str = ""
    remedy: str = ""


class Trace:
    """Which step a decision has reached. Costs next to nothing when nobody collects."""

    __slots__ = ("_collected", "_current")

    def __init__(self, collected: list[Step] | None) -> None:
        self._collected = collected
        self._current = ""

    def at(self, name: str, found: str = "") -> None:
        """The previous step passed, having found `found`; `name` begins."""
        if self._collected is not None and self._current:
            self._collected.append(Step(self._current, "passed", found))
        self._current = name

    def allowed(self, policy: str, params: dict[str, Any]) -> None:
        """A policy (layer and kind) of the current step passed."""
        if self._collected is not None:
            told = policies.describe(policy.partition(".")[2], params)
            self._collected.append(Step("policy", "passed", policy, told))

    def counted(self, receipt: Receipt) -> None:
        """The limits of the current step had room; what is left is to be recorded."""
        if self._collected is not None:
            self._collected += [Step("limit", "passed", mark.due.policy, mark.told) for mark in receipt]
        self.at("record", f"{len(receipt)} counted")

    def refused(self, no: Refusal) -> None:
        """The current step refused."""
        if self._collected is not None:
            remedy = no.remedy or CODES[no.code].hint
            self._collected.append(Step(self._current, no.code, no.policy or "", no.found, remedy))


def authorize(
    request: Request,
    *,
    vault: Vault,
    now: float,
    key_sets: KeySource | None = None,
    limits: Limits | None = None,
    caller: Caller | None = None,
    steps: list[Step] | None = None,
) -> Outcome:
    """
    Steps 1 to 6 for one request at `now` (seconds since the epoch). Raises Fault.

    `key_sets` verifies user tokens and `limits` counts; without them, a request that needs one of them is a fault.
    `caller` is given only to explain a request that was never made; otherwise the request must prove it. `steps`
    collects the explanation.
    """
    trace = Trace(steps)
    record = _begin(request, now=now)
    try:
        trace.at("tag")
        check_shape(request)
        found = tag.find(request.head)
        notes = context.read(request)
        record = record._replace(reason=notes.reason, context=notes.pairs, trace_id=notes.trace_id)
        head = tag.strip(request.head)

        trace.at("caller", found.id if found else "no grant named")
        proof = None if caller else callers.find(request)
        state = vault.lookup(digest=proof.key.digest if proof else b"", tag=found.id if found else "")
        record = _recognise(record, request, vault=vault)
        if proof:
            caller = callers.identify(proof, state.key, client_ip=request.client_ip, now=now)
        record = record._replace(caller=str(caller or ""))

        trace.at("user", record.caller or "nobody")
        token = callers.find_token(request) if proof else None
        if caller and token is not None:
            caller, news = _authenticate(token, caller, vault=vault, key_sets=key_sets, now=now)
            if news:
                state = vault.lookup(digest=b"", tag=found.id if found else "")
        record = record._replace(user=str(caller.user or "") if caller else "")

        trace.at("known", record.user or "no user token")
        if record.secret:
            _refuse("secret_in_request")

        trace.at("grant", "no value of the vault in it" if vault.recognises else "not looked for: the proxy alone can")
        grant = state.grant if found else _session_grant(request, caller, vault=vault)
        if found is None and grant is None:
            return Untagged(record=record._replace(decision="untagged"), head=head)
        if caller is None:
            _refuse("caller_required")
        record = _named(record, grant, tried=found)
        grant = _usable(grant, caller, now=now)
        if grant.delegation:
            record = record._replace(delegation_id=grant.delegation.id, user=str(grant.delegation.user))

        trace.at("binding", f"{grant.secret_name} version {grant.version} for {grant.principal}")
        binding = bindings.load(grant.binding)
        check_hygiene(request, websocket="websocket" in binding.flags)
        check_destination(request, binding)
        plan = credentials.kind(grant.kind).plan(head, binding=binding, host=request.host)

        trace.at("policies", f"{request.method} {request.scheme}://{request.host}:{request.port}")
        left = _check_policies(grant.policies, Attempt(request=request, caller=caller, now=now), trace)
        question = supervision.read(request, [each for each in left if isinstance(each, Ask)])

        trace.at("limits")
        receipt = _take([each for each in left if isinstance(each, Due)], limits, now=now)
        trace.counted(receipt)
    except Refusal as no:
        trace.refused(no)
        record = record._replace(phase="outcome", decision="refused", code=no.code, policy=no.policy or "")
        return Refused(record=record, code=no.code, policy=no.policy, retry_after=no.retry_after, limit=no.limit)
    return Authorized(
        record=record._replace(decision="authorized"),
        caller=caller,
        grant=grant,
        head=head,
        plan=plan,
        target=Target(host=request.host, port=request.port, now=now),
        request=request,
        proof=proof,
        receipt=receipt,
        looks=tuple(each for each in left if isinstance(each, Look)),
        question=question,
    )


class Injected(NamedTuple):
    """What to send, and what the response to it has to pass."""

    outgoing: Outgoing
    screen: Screen

    @property
    def head(self) -> Head:
        """The head to send."""
        return self.outgoing.head


def examine(authorized: Authorized, body: bytes, *, steps: list[Step] | None = None) -> None:
    """Judge the whole body, where a policy looks at it. Raises Refusal, Fault. `steps` goes on with the explanation."""
    trace = Trace(steps)
    trace.at("body")
    try:
        policies.examine(authorized.looks, body, passed=trace.allowed)
    except Refusal as no:
        trace.refused(no)
        raise


def inject(
    authorized: Authorized,
    *,
    vault: Vault,
    body_sha256: str | None = None,
    session: Values | None = None,
    hides_bound: bool = False,
) -> Injected:
    """
    Steps 7 and 8: what to send. Raises Refusal, Fault.

    `body_sha256` (hex) is given exactly when the plan needs it; `session` are temporary values, made of the stored ones;
    the response must show neither of them.
    With `hides_bound`, the response must show no value of any secret that is bound to the destination, retired ones included.
    """
    grant = authorized.grant
    kind, binding = credentials.kind(grant.kind), bindings.load(grant.binding)
    values = vault.open(grant) if session is None else session
    redacts = "no-redact" not in binding.flags
    hidden = kind.hidden(values, binding=binding) if redacts else ()
    if redacts and session is not None:
        hidden += kind.hidden(vault.open(grant), binding=binding)
    if redacts and hides_bound:
        hidden = tuple({*hidden, *vault.texts_for(authorized.target.host, authorized.target.port)})
    whole = kind.sent or hides_bound
    screen = Screen(hidden, cookies="cookies" in binding.flags, decodes=whole)
    if screen.knows(authorized.head):
        _refuse("secret_in_request")
    outgoing = authorized.plan.apply(values, target=authorized.target, body_sha256=body_sha256)
    if redacts:
        outgoing = outgoing._replace(head=ask_plainly(outgoing.head, whole=whole))
    return Injected(outgoing, screen)


def receive(request: Request, *, vault: Vault, now: float, key_sets: KeySource) -> Local | Refused:
    """Who asks something of the proxy itself; the proofs are those of any request. Raises Fault."""
    record = _begin(request, now=now)
    try:
        check_shape(request)
        selfservice.check(request)
        proof = callers.find(request)
        if proof is None and selfservice.is_public(request):
            return Local(record=record._replace(decision="authorized"), request=request, caller=None)
        if proof is None:
            _refuse("caller_required")
        state = vault.lookup(digest=proof.key.digest, tag="")
        caller = callers.identify(proof, state.key, client_ip=request.client_ip, now=now)
        record = record._replace(caller=str(caller))
        token = callers.find_token(request)
        if token is not None:
            caller, _ = _authenticate(token, caller, vault=vault, key_sets=key_sets, now=now)
            record = record._replace(user=str(caller.user))
    except Refusal as no:
        return Refused(record=record._replace(phase="outcome", decision="refused", code=no.code), code=no.code)
    return Local(record=record._replace(decision="authorized"), request=request, caller=caller)


def recheck(authorized: Authorized, *, vault: Vault, now: float) -> None:
    """
    Whether what was allowed a while ago still is: key, user, grant, binding and policies. Raises Refusal, Fault.

    No limit is counted again, and nobody asked.
    """
    request, proof, user = authorized.request, authorized.proof, authorized.caller.user
    state = vault.lookup(digest=proof.key.digest if proof else b"", tag=authorized.grant.tag)
    caller = authorized.caller
    if proof:
        caller = replace(callers.identify(proof, state.key, client_ip=request.client_ip, now=now), user=user)
    if user:
        callers.recheck(user, idps=vault.idps, now=now)
    grant = _usable(state.grant, caller, now=now)
    binding = bindings.load(grant.binding)
    check_hygiene(request, websocket="websocket" in binding.flags)
    check_destination(request, binding)
    _check_policies(grant.policies, Attempt(request=request, caller=caller, now=now), Trace(None))


def admit(request: Request, *, vault: Vault, now: float) -> Refused | Caller | None:
    """Who opens a tunnel: a key that comes with a CONNECT must be good; without one (None), requests bring theirs."""
    try:
        proof = callers.find(request)
        if proof is None:
            return None
        state = vault.lookup(digest=proof.key.digest, tag="")
        return callers.identify(proof, state.key, client_ip=request.client_ip, now=now)
    except Refusal as no:
        record = _begin(request, now=now)._replace(phase="outcome", decision="refused", code=no.code)
        return Refused(record=record, code=no.code)


def _begin(request: Request, *, now: float) -> Record:
    return Record(
        id=request.id,
        at=now,
        phase="intent",
        host=request.host,
        port=request.port,
        method=request.method,
        path=request.path.decode("latin-1"),
        client_ip=request.client_ip,
    )


def _recognise(record: Record, request: Request, *, vault: Vault) -> Record:
    """The record, which names the secret that the request holds a value of, and then nothing that the request says."""
    held = vault.recognise(request.head)
    return record._replace(secret=held, path="", reason="", context={}, trace_id="") if held else record


def _authenticate(
    token: str, caller: Caller, *, vault: Vault, key_sets: KeySource | None, now: float
) -> tuple[Caller, bool]:
    """The caller with its user, and whether the token said anything new about the user's groups. Raises Refusal, Fault."""
    user = callers.authenticate(token, idps=vault.idps, key_sets=key_sets, now=now)
    return replace(caller, user=user), vault.proofs.note(user)


def _session_grant(request: Request, caller: Caller | None, *, vault: Vault) -> GrantState | None:
    """The one grant of a session that is bound to the destination. None if there is none, Refusal if there are two."""
    fitting = []
    for grant_id in caller.grants if caller else ():
        grant = vault.lookup(digest=b"", tag=grant_id).grant
        if grant and bindings.load(grant.binding).covers(request.host, request.port):
            fitting.append(grant)
    if len(fitting) > 1:
        fitting = [grant for grant in fitting if grant.revoked_at is None] or fitting[:1]
    if len(fitting) > 1:
        _refuse("grant_ambiguous")
    return fitting[0] if fitting else None


def _named(record: Record, grant: GrantState | None, *, tried: tag.Tag | None) -> Record:
    """The record says what was asked for, whatever the answer will be; the client is told less."""
    if grant is None:
        return record._replace(grant_id=tried.id if tried else "")
    return record._replace(
        principal=grant.principal, grant_id=grant.id, secret=grant.secret_name, version=grant.version
    )


def _usable(grant: GrantState | None, caller: Caller, *, now: float) -> GrantState:
    """Raises Refusal. Only the principal a grant names learns more than `grant_unavailable`."""
    if grant is None or (caller.grants and grant.tag not in caller.grants):
        _refuse("grant_unavailable")
    if grant.delegation:
        delegation.check(grant, grant.delegation, caller, now=now)
        return grant
    if not principals.matches(grant.principal, caller):
        lacking = caller.type == "app" and caller.user is None and principals.named_idp(grant.principal)
        _refuse("user_token_required" if lacking else "grant_unavailable")
    if grant.revoked_at is not None:
        _refuse("grant_revoked")
    if grant.expires_at is not None and grant.expires_at <= now:
        _refuse("grant_expired")
    if grant.secret_state != "active":
        _refuse("secret_disabled")
    return grant


def _check_policies(layers: tuple[Layer, ...], attempt: Attempt, trace: Trace) -> list[Due | Ask | Look]:
    """What the caller's policies and those of every other layer leave to be done. Raises Refusal, Fault."""
    caller = attempt.caller
    layers = (Layer(caller.type, caller.name, caller.policies), *layers)
    rules = [(layer, policies.load(layer.stored)) for layer in layers]  # all can be read, or none is judged
    left: list[Due | Ask | Look] = []
    for layer, each in rules:
        left += policies.check(each, attempt, layer=layer.name, subject=layer.subject, passed=trace.allowed)
    return left


def _take(due: list[Due], limits: Limits | None, *, now: float) -> Receipt:
    """Last of all, since what is taken is used up."""
    if not due:
        return ()
    if limits is None:
        raise Fault("fault", "there is nobody to count limits")
    return limits.take(due, now=now)


def _refuse(code: str) -> NoReturn:
    raise Refusal(code)
