"""
One request, from arrival to decision.

    1 tag      which grant is asked for; control headers come off
    2 caller   key → app or agent; token → user, groups
    3 grant    read now; its principal must be the caller, or a delegation must hold in every link
    4 binding  the destination, method and path must be those the secret is sealed for
    5 policies every layer must pass
    6 record   handed to the audit log; nothing may leave before it is durable
    7 open     the only step that sees plaintext                       ┐ `inject`, after the record is durable and the
    8 apply    the head to send, and what becomes of the body          ┘ upstream is proved

Rule 1: every step is called from `authorize` or `inject`, in the order it happens.
Rule 2: a step takes values and returns a value; it never sees a flow, a socket or a clock.
Rule 3: a refusal is a value, a fault is an exception; the shell turns both into an answer and sends nothing.
"""

from dataclasses import dataclass, replace
from typing import Any, NoReturn

from addon import binding as bindings
from addon import callers, context, credentials, delegation, policies, principals, tag
from addon.callers import KeySource
from addon.credentials.kind import Plan, Target
from addon.destination import check_destination, check_hygiene, check_shape
from addon.errors import Refusal
from addon.model import Caller, Head, Outgoing, Record, Request
from addon.policies.policy import Attempt, Layer
from addon.refusals import CODES
from addon.vault import Vault
from addon.vault.lookup import GrantState


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorized:
    """May go out once `record` is durable, with what `inject` makes of `head`."""

    record: Record
    caller: Caller
    grant: GrantState
    head: Head
    plan: Plan
    target: Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Nothing goes out. `code` is one of `refusals.CODES`."""

    record: Record
    code: str
    policy: str | None = None
    retry_after: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Untagged:
    """No grant is asked for; `head` is free of everything of ours. Whether it may go out is the operator's choice."""

    record: Record
    head: Head


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

    def allowed(self, layer: str, rule: tuple[str, dict[str, Any]]) -> None:
        """One policy of the current step passed."""
        if self._collected is not None:
            self._collected.append(Step("policy", "passed", f"{layer}.{rule[0]}", policies.describe(*rule)))

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
    caller: Caller | None = None,
    steps: list[Step] | None = None,
) -> Outcome:
    """
    Steps 1 to 6 for one request at `now` (seconds since the epoch). Raises Fault.

    `key_sets` verifies user tokens; without it, a request that carries one is a fault. `caller` is given only to explain
    a request that was never made; otherwise the request must prove it. `steps` collects the explanation.
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
        if proof:
            caller = callers.identify(proof, state.key, client_ip=request.client_ip, now=now)
        record = record._replace(caller=str(caller or ""))

        trace.at("user", record.caller or "nobody")
        token = callers.find_token(request) if proof else None
        if caller and token is not None:
            user = callers.authenticate(token, idps=vault.idps, key_sets=key_sets, now=now)
            caller = replace(caller, user=user)
            if vault.proofs.note(user):
                state = vault.lookup(digest=b"", tag=found.id if found else "")
        if caller and caller.user:
            record = record._replace(user=str(caller.user))

        trace.at("grant", record.user or "no user token")
        grant = state.grant if found else _session_grant(request, caller, vault=vault)
        if found is None and grant is None:
            return Untagged(record=record._replace(decision="untagged"), head=head)
        if caller is None:
            _refuse("caller_required")
        grant = _usable(grant, caller, now=now)
        record = record._replace(
            principal=grant.principal, grant_id=grant.id, secret=grant.secret_name, version=grant.version
        )
        if grant.delegation:
            record = record._replace(delegation_id=grant.delegation.id, user=str(grant.delegation.user))

        trace.at("binding", f"{grant.secret_name} version {grant.version} for {grant.principal}")
        binding = bindings.load(grant.binding)
        check_hygiene(request)
        check_destination(request, binding)
        plan = credentials.kind(grant.kind).plan(head, binding=binding, host=request.host)

        trace.at("policies", f"{request.method} {request.scheme}://{request.host}:{request.port}")
        layers = (Layer(caller.type, caller.name, caller.policies), *grant.policies)
        rules = [(layer, rule) for layer in layers for rule in policies.load(layer.stored)]
        attempt = Attempt(request=request, caller=caller, now=now)
        for layer, rule in rules:
            policies.check((rule,), attempt, layer=layer.name)
            trace.allowed(layer.name, rule)
        trace.at("record", f"{len(rules)} passed")
    except Refusal as no:
        trace.refused(no)
        record = record._replace(phase="outcome", decision="refused", code=no.code, policy=no.policy or "")
        return Refused(record=record, code=no.code, policy=no.policy, retry_after=no.retry_after)
    return Authorized(
        record=record._replace(decision="authorized"),
        caller=caller,
        grant=grant,
        head=head,
        plan=plan,
        target=Target(host=request.host, port=request.port, now=now),
    )


def inject(authorized: Authorized, *, vault: Vault, body_sha256: str | None = None) -> Outgoing:
    """Steps 7 and 8: what to send. `body_sha256` (hex) is given exactly when the plan needs it. Raises Refusal, Fault."""
    values = vault.open(authorized.grant)
    return authorized.plan.apply(values, target=authorized.target, body_sha256=body_sha256)


def recheck(authorized: Authorized, *, vault: Vault, now: float) -> None:
    """Whether a grant that was good a while ago still is. Raises Refusal, Fault."""
    _usable(vault.lookup(digest=b"", tag=authorized.grant.tag).grant, authorized.caller, now=now)


def admit(request: Request, *, vault: Vault, now: float) -> Refused | None:
    """Whether a CONNECT may open a tunnel: a key that comes with it must be good; without one, requests bring theirs."""
    try:
        proof = callers.find(request)
        if proof:
            state = vault.lookup(digest=proof.key.digest, tag="")
            callers.identify(proof, state.key, client_ip=request.client_ip, now=now)
    except Refusal as no:
        record = _begin(request, now=now)._replace(phase="outcome", decision="refused", code=no.code)
        return Refused(record=record, code=no.code)
    return None


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


def _refuse(code: str) -> NoReturn:
    raise Refusal(code)
