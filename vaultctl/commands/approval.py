"""`approval`: requests that wait for a person's yes."""

import click

from addon.errors import Usage
from addon.policies.paths import parse_paths, prefix_of
from addon.vault import log
from addon.vault.approvals import Approval
from vaultctl import callers, times
from vaultctl.command import noun
from vaultctl.console import Session, facts, pass_session, table

_STATES = ("pending", "approved", "denied", "used", "expired")

approval = noun("approval", help="Requests that wait for a person's yes.")


@approval.command("list", examples=["vaultctl approval list", "vaultctl approval list --state pending --json"])
@click.option("--state", type=click.Choice(_STATES), help="Only those in this state.")
@pass_session
def list_(session: Session, state: str | None) -> None:
    """All approvals, oldest first."""
    found = session.vault().approvals.list(state=state, now=session.now)
    session.emit(
        [_document(each, now=session.now) for each in found],
        table(
            ("APPROVAL", "STATE", "CALLER", "SECRET", "REQUEST", "UNTIL", "REASON"),
            [
                (a.id, a.state(session.now), a.caller, a.secret, _request(a), times.readable(a.expires_at), a.reason)
                for a in found
            ],
        ),
    )
    if not found:
        session.note("no such approvals")


@approval.command("show", examples=["vaultctl approval show 7f9c0b1e-5a55-4a53-9b36-6d0c9b6a8a51"])
@click.argument("approval_id", metavar="ID")
@pass_session
def show(session: Session, approval_id: str) -> None:
    """Everything about one approval."""
    document = _document(session.vault().approvals.get(approval_id), now=session.now)
    session.emit(document, facts(document.items()))


@approval.command(
    "approve",
    examples=[
        "vaultctl approval approve 7f9c0b1e-5a55-4a53-9b36-6d0c9b6a8a51",
        "vaultctl approval approve 7f9c0b1e-5a55-4a53-9b36-6d0c9b6a8a51 --for 10m --path /v1/charges",
    ],
)
@click.argument("approval_id", metavar="ID")
@click.option("--for", "lasts", metavar="D", help="Let alike requests through for so long, too.")
@click.option("--path", metavar="P", help="Those under this prefix. Otherwise under the path of this one.")
@pass_session
def approve(session: Session, approval_id: str, *, lasts: str | None, path: str | None) -> None:
    """Let a request through that waits, once."""
    if path is not None and lasts is None:
        raise Usage("a path, but no time", hint="add --for, such as --for 10m")
    approvals = session.vault(writable=True).approvals
    prefix = ""
    if lasts:
        prefix = prefix_of(approvals.get(approval_id).path) if path is None else parse_paths((path,))[0]
    decided = approvals.decide(
        approval_id,
        "approved",
        by=f"operator:{log.actor()}",
        now=session.now,
        lasts_until=session.now + times.parse_duration(lasts) if lasts else None,
        prefix=prefix,
    )
    _tell(session, decided)
    session.note("approved" + (f", and alike requests under {prefix} for {lasts}" if lasts else ""))


@approval.command(
    "deny", examples=["vaultctl approval deny 7f9c0b1e-5a55-4a53-9b36-6d0c9b6a8a51 --reason 'not at night'"]
)
@click.argument("approval_id", metavar="ID")
@click.option("--reason", default="", metavar="T", help="Kept with it.")
@pass_session
def deny(session: Session, approval_id: str, *, reason: str) -> None:
    """Refuse a request that waits."""
    approvals = session.vault(writable=True).approvals
    _tell(
        session, approvals.decide(approval_id, "denied", by=f"operator:{log.actor()}", now=session.now, reason=reason)
    )
    session.note("denied")


approver = noun("approver", help="Apps and agents that may decide about approvals over HTTP.")


@approver.command(
    "add", examples=["vaultctl approval approver add chatbot", "vaultctl approval approver add agent:reviewer"]
)
@click.argument("caller")
@pass_session
def add(session: Session, caller: str) -> None:
    """Let CALLER decide about what waits, except about its own requests: an app, or agent:NAME."""
    caller_type, name = callers.parse(caller)
    session.vault(writable=True).approvers.add(caller_type, name, now=session.now)
    session.emit({"caller": f"{caller_type}:{name}", "approver": True})
    session.note(f"{caller_type}:{name} may decide, with its own key, at https://alter.internal/v1/approvals")


@approver.command("remove", examples=["vaultctl approval approver remove chatbot"])
@click.argument("caller")
@pass_session
def remove(session: Session, caller: str) -> None:
    """Let CALLER decide no more, from the next request on."""
    caller_type, name = callers.parse(caller)
    session.vault(writable=True).approvers.remove(caller_type, name, now=session.now)
    session.emit({"caller": f"{caller_type}:{name}", "approver": False})
    session.note(f"{caller_type}:{name} decides no more; what it has decided stays")


@approver.command("list", examples=["vaultctl approval approver list --json"])
@pass_session
def list_approvers(session: Session) -> None:
    """Who may decide, besides the operator."""
    found = session.vault().approvers.list()
    session.emit(
        [{"caller": f"{a.type}:{a.name}", "state": a.state, "added_at": times.rfc3339(a.added_at)} for a in found],
        table(
            ("APPROVER", "STATE", "SINCE"),
            [(f"{a.type}:{a.name}", a.state, times.readable(a.added_at)) for a in found],
        ),
    )
    if not found:
        session.note("nobody but the operator decides")


approval.add_command(approver)


def _tell(session: Session, decided: Approval) -> None:
    document = _document(decided, now=session.now)
    session.emit(document, facts(document.items()))


def _request(each: Approval) -> str:
    return f"{each.method} {each.host}{each.path}"


def _document(each: Approval, *, now: float) -> dict[str, object]:
    return {
        "approval_id": each.id,
        "state": each.state(now),
        "grant_id": each.grant_id,
        "delegation_id": each.tag if each.tag != each.grant_id else None,
        "secret": each.secret,
        "caller": each.caller,
        "user": each.user or None,
        "method": each.method,
        "host": each.host,
        "port": each.port,
        "path": each.path,
        "body_sha256": each.body_sha256,
        "reason": each.reason,
        "created_at": times.rfc3339(each.created_at),
        "expires_at": times.rfc3339(each.expires_at),
        "decided_at": times.rfc3339_or_none(each.decided_at),
        "decided_by": each.decided_by or None,
        "decided_reason": each.decided_reason,
        "lasts_until": times.rfc3339_or_none(each.lasts_until),
        "lasts_under": each.prefix or None,
        "used_at": times.rfc3339_or_none(each.used_at),
    }
