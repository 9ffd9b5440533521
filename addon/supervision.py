"""
A person's yes for one request: asked for, waited for, used once.

The sender is held until the answer comes (60 s at most), or is told to come back (`Prefer: respond-async`, RFC 7240 4.1)
with the very same request and `X-Alter-Approval`.
"""

import asyncio
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from addon.errors import NotFound, Refusal
from addon.model import Clock, Request
from addon.policies.policy import Ask
from addon.vault.approvals import Approval, Approvals, Subject

HELD_SECONDS = 60.0

_POLL_SECONDS = 0.2
_ID = re.compile(rb"[0-9a-f-]{36}")


@dataclass(frozen=True, slots=True)
class Question:
    """What makes a person look, within how many seconds; what the sender says of it: an id it was given, to come `later`."""

    policy: str
    seconds: int
    approval_id: str
    later: bool


class Pending(Exception):
    """Nobody has answered yet, and the sender comes back."""

    def __init__(self, approval: Approval) -> None:
        super().__init__(approval.id)
        self.approval = approval


def read(request: Request, asks: Iterable[Ask]) -> Question | None:
    """The question that policies raise about a request. One answer is for all of them. Raises Refusal `approval_denied`."""
    ask = min(asks, key=lambda each: each.seconds, default=None)
    if ask is None:
        return None
    ids = request.values(b"x-alter-approval")
    if len(ids) > 1 or not all(_ID.fullmatch(each) for each in ids):
        raise Refusal("approval_denied", policy=ask.policy)
    preferences = b",".join(request.values(b"prefer")).lower().split(b",")
    later = any(each.partition(b";")[0].strip() == b"respond-async" for each in preferences)
    return Question(ask.policy, ask.seconds, ids[0].decode("ascii") if ids else "", later)


async def settle(
    question: Question,
    subject: Subject,
    *,
    grant_id: str,
    approvals: Approvals,
    clock: Clock,
    gone: Callable[[], bool],
    announce: Callable[[Approval], None],
) -> Approval:
    """
    The approval that lets a request through: one for alike requests, or its own, which is then used up. A new question is
    handed to `announce`.

    Raises Refusal for a no, for none in time, and when the sender is `gone`; Pending; Fault.
    """
    started = clock()
    approval = None
    while (lasting := approvals.lasting(subject, now=clock())) is None:
        if approval is None:
            approval = _begin(question, subject, grant_id=grant_id, approvals=approvals, now=started)
            if not question.approval_id:
                announce(approval)
        else:
            approval = approvals.get(approval.id)
        match approval.state(clock()):
            case "approved" if approvals.use(approval.id, subject, now=clock()):
                return approval
            case "denied":
                raise Refusal("approval_denied", policy=question.policy)
            case "pending" if question.later or clock() - started >= HELD_SECONDS:
                raise Pending(approval)
            case "pending" if not gone():
                await asyncio.sleep(_POLL_SECONDS)
            case _:
                raise Refusal("approval_expired", policy=question.policy)
    return lasting


def _begin(question: Question, subject: Subject, *, grant_id: str, approvals: Approvals, now: float) -> Approval:
    if question.approval_id:
        try:
            named = approvals.get(question.approval_id)
        except NotFound:
            named = None
        if named is None or named.digest != subject.digest:
            raise Refusal("approval_denied", policy=question.policy)
        return named
    seconds = question.seconds if question.later else min(question.seconds, HELD_SECONDS)
    return approvals.ask(subject, grant_id=grant_id, now=now, expires_at=now + seconds)
