"""
Approvals as an approver decides them over HTTP: an app or agent that the operator lets, with its own key.

    decision   `approve` or `deny`
    for        with `approve`: for so many seconds, a day at most, alike requests go through as well
    reason     a text of at most 512 characters, kept with the approval

An approver sees what waits, whoever asks, except its own requests, about which it never decides; nor does the short-lived
key of a session. An unknown member, a repeated one or another type refuses with `request_malformed`.
"""

from collections.abc import Callable
from typing import Any

from addon.errors import Conflict, Fault, Locked, NotFound, Refusal, Usage
from addon.model import Caller
from addon.policies.paths import prefix_of
from addon.vault import Vault
from addon.vault.approvals import Approval

LONGEST_SECONDS = 86_400

_MEMBERS = frozenset({"decision", "for", "reason"})
_DECISIONS = {"approve": "approved", "deny": "denied"}


def check(caller: Caller, *, vault: Vault) -> None:
    """Raises Refusal unless a caller is an approver now, Fault if that cannot be told."""
    if caller.session or not vault.approvers.includes(caller.type, caller.name):
        raise Refusal("approver_required")


def pending(caller: Caller, *, vault: Vault, now: float) -> list[dict[str, object]]:
    """What waits for this approver, oldest first. Raises Refusal, Fault."""
    check(caller, vault=vault)
    found = vault.approvals.list(state="pending", now=now)
    return [document(each, now=now) for each in found if each.caller != str(caller)]


def decide(
    caller: Caller,
    approval_id: str,
    members: dict[str, Any],
    *,
    vault: Vault,
    changes: Callable[[], Vault],
    now: float,
) -> dict[str, object]:
    """
    Decide as `members` say, over a connection of `changes`; the first decision stands. Raises Refusal, Fault.

    Whether the caller may is looked up anew, so that taking it away holds for the very next decision.
    """
    check(caller, vault=vault)
    decision, seconds, reason = _parse(members)
    try:
        waiting = vault.approvals.get(approval_id)
        if waiting.caller == str(caller):
            raise Refusal("approver_required")
        decided = changes().approvals.decide(
            approval_id,
            decision,
            by=str(caller),
            now=now,
            reason=reason,
            lasts_until=now + seconds if seconds else None,
            prefix=prefix_of(waiting.path) if seconds else "",
        )
    except NotFound:
        raise Refusal("not_found") from None
    except Conflict:
        raise Refusal("approval_closed") from None
    except Usage:
        raise Refusal("request_malformed") from None  # the path is none that others could be alike to
    except Locked as error:
        raise Fault("vault_unavailable") from error
    return document(decided, now=now)


def document(approval: Approval, *, now: float) -> dict[str, object]:
    """An approval, for programs. Times are seconds since the epoch."""
    return {
        **approval.document(),
        "state": approval.state(now),
        "decided_at": approval.decided_at,
        "decided_by": approval.decided_by or None,
        "decided_reason": approval.decided_reason,
        "lasts_until": approval.lasts_until,
        "lasts_under": approval.prefix or None,
    }


def _parse(members: dict[str, Any]) -> tuple[str, int, str]:
    decision, seconds, reason = members.get("decision"), members.get("for"), members.get("reason")
    timed = seconds is None or (type(seconds) is int and 0 < seconds <= LONGEST_SECONDS and decision == "approve")
    told = reason is None or (isinstance(reason, str) and len(reason) <= 512 and reason.isprintable())
    if (
        members.keys() - _MEMBERS
        or not isinstance(decision, str)
        or decision not in _DECISIONS
        or not timed
        or not told
    ):
        raise Refusal("request_malformed")
    return _DECISIONS[decision], seconds or 0, reason or ""
