"""`grant`: who may use which secret, how and until when."""

from pathlib import Path
from typing import Any

import click

from addon import principals
from addon.errors import Usage
from addon.explanation import attempt
from addon.principals import named_idp
from addon.vault.grants import Grant
from vaultctl import callers, explanations, rules, times, tokens
from vaultctl.command import noun
from vaultctl.console import Session, facts, pass_session, table

_FORMS = ", ".join(kind.form for kind in principals.KINDS.values())

grant = noun("grant", help="Who may use which secret, how and until when.")


@grant.command(
    "issue",
    examples=[
        "vaultctl grant issue stripe --to system:billing",
        "vaultctl grant issue stripe --to agent:researcher --expires 30d --method GET --path /v1/charges",
    ],
)
@click.argument("secret")
@click.option("--to", "principal", required=True, metavar="PRINCIPAL", help=f"Whom: {_FORMS}.")
@click.option("--label", default="", metavar="L", help="A note for people.")
@click.option("--expires", metavar="WHEN", help="A duration such as 30d, or a TIME. Otherwise until revoked.")
@rules.options
@click.option("--delegable", is_flag=True, help="Its users may delegate it to agents.")
@click.option("--max-delegation", metavar="D", help="The longest delegation of it. Otherwise 90d.")
@click.option("--max-proof-age", metavar="D", help="How old a token may be that proves the group of a delegation. Otherwise 24h.")  # fmt: skip
@pass_session
def issue(
    session: Session,
    /,
    *,
    secret: str,
    principal: str,
    label: str,
    expires: str | None,
    delegable: bool,
    max_delegation: str | None,
    max_proof_age: str | None,
    **typed: Any,
) -> None:
    """Let a principal use SECRET, and print the id of the grant."""
    chosen = rules.read(typed, now=session.now)
    if not delegable and (max_delegation or max_proof_age):
        raise Usage("a limit of delegations, but none are allowed", hint="add --delegable")
    issued = session.vault(writable=True).grants.issue(
        secret,
        principal=principal,
        now=session.now,
        expires_at=None if expires is None else times.deadline(expires, now=session.now),
        label=label,
        rules=chosen,
        delegable=delegable,
        delegation_seconds=times.parse_duration(max_delegation) if max_delegation else None,
        proof_seconds=times.parse_duration(max_proof_age or "24h"),
    )
    document = {
        "grant_id": issued.id,
        "secret": issued.secret,
        "principal": issued.principal,
        "expires_at": times.rfc3339_or_none(issued.expires_at),
    }
    session.emit(document, [issued.id])
    token = " and the user's token as X-Alter-User-Token" if named_idp(issued.principal) else ""
    session.note(
        f"{issued.principal} may use {issued.secret}: send X-Alter-Grant: {issued.id}{token} through the proxy"
    )


@grant.command("list", examples=["vaultctl grant list", "vaultctl grant list --secret stripe --state active --json"])
@click.option("--secret", metavar="S", help="Only grants of this secret.")
@click.option("--principal", metavar="P", help="Only grants to this principal.")
@click.option("--state", type=click.Choice(["active", "expired", "revoked"]), help="Only grants in this state.")
@pass_session
def list_(session: Session, secret: str | None, principal: str | None, state: str | None) -> None:
    """All grants, oldest first."""
    chosen = principals.parse(principal) if principal else None
    found = session.vault().grants.list(secret=secret, principal=chosen, state=state, now=session.now)
    session.emit(
        [_document(each, now=session.now) for each in found],
        table(
            ("GRANT", "SECRET", "PRINCIPAL", "STATE", "EXPIRES", "POLICIES", "LABEL"),
            [
                (g.id, g.secret, g.principal, g.state(session.now), times.readable(g.expires_at), _kinds(g), g.label)
                for g in found
            ],
        ),
    )
    if not found:
        session.note("no such grant; issue one with `vaultctl grant issue SECRET --to PRINCIPAL`")


@grant.command("show", examples=["vaultctl grant show 0b6f3c1e-9f53-4a53-9b36-6d0c9b6a8a51"])
@click.argument("grant_id", metavar="ID")
@pass_session
def show(session: Session, grant_id: str) -> None:
    """Everything about one grant."""
    found = session.vault().grants.get(grant_id)
    document = _document(found, now=session.now)
    session.emit(document, facts((document | {"policies": rules.words(found.policies)}).items()))


@grant.command(
    "revoke",
    examples=[
        "vaultctl grant revoke 0b6f3c1e-9f53-4a53-9b36-6d0c9b6a8a51 --reason 'left the team'",
        "vaultctl grant revoke --secret stripe --yes",
    ],
)
@click.argument("grant_ids", metavar="[ID]...", nargs=-1)
@click.option("--secret", metavar="S", help="All grants of this secret.")
@click.option("--principal", metavar="P", help="All grants to this principal.")
@click.option("--reason", default="", metavar="T", help="Kept with the grant.")
@click.option("--yes", is_flag=True, help="Do not ask before revoking all of a secret or principal.")
@pass_session
def revoke(
    session: Session, *, grant_ids: tuple[str, ...], secret: str | None, principal: str | None, reason: str, yes: bool
) -> None:
    """Withdraw grants for good, from the next request on."""
    if bool(grant_ids) == bool(secret or principal):
        raise click.UsageError("name either the ids of grants, or --secret and --principal")
    chosen = principals.parse(principal) if principal else None
    vault = session.vault(writable=True)
    if not grant_ids:
        live = [g for g in vault.grants.list(secret=secret, principal=chosen) if g.revoked_at is None]
        session.confirm(f"revoke {len(live)} grants?", yes=yes)
    revoked = vault.grants.revoke(now=session.now, ids=grant_ids, secret=secret, principal=chosen, reason=reason)
    session.emit({"revoked": revoked}, revoked)
    session.note(f"{len(revoked)} revoked, effective from the next request on")


@grant.command(
    "explain",
    examples=[
        "vaultctl grant explain 0b6f3c1e-9f53-4a53-9b36-6d0c9b6a8a51 --url https://api.stripe.com/v1/charges",
        "vaultctl grant explain 0b6f3c1e-9f53-4a53-9b36-6d0c9b6a8a51 --url https://api.stripe.com/ --method DELETE --at 2027-01-01T00:00:00Z",
        "vaultctl grant explain 0b6f3c1e-9f53-4a53-9b36-6d0c9b6a8a51 --url https://api.openai.com/v1/chat/completions --method POST --body @body.json",
    ],
)
@click.argument("grant_id", metavar="ID")
@click.option("--url", required=True, metavar="URL", help="Where the request would go.")
@click.option("--method", default="GET", show_default=True, metavar="M", help="Its method.")
@click.option("--as", "caller_text", metavar="CALLER", help="Who would call. Otherwise the one the grant names.")
@click.option("--user-token-file", metavar="F", help="The token of the user who would sit before it; `-` is stdin.")
@tokens.means
@click.option("--ip", default="127.0.0.1", show_default=True, metavar="IP", help="From which address.")
@click.option("--at", metavar="TIME", help="When. Otherwise now.")
@click.option(
    "--header", "headers", multiple=True, metavar="H", help="One more header, as 'NAME: VALUE'. May be repeated."
)
@click.option("--body", metavar="@FILE", help="Its body, sent as JSON unless a header says otherwise; `@-` is stdin.")
@pass_session
def explain(
    session: Session,
    *,
    grant_id: str,
    url: str,
    method: str,
    caller_text: str | None,
    user_token_file: str | None,
    upstream_ca: Path | None,
    shared_secret_file: str | None,
    ip: str,
    at: str | None,
    headers: tuple[str, ...],
    body: str | None,
) -> None:
    """
    Walk through the decision about a request nobody made.

    Every step with its verdict; nothing is opened, recorded or used up. Exit code 0: it would be authorized; 4: refused.
    """
    now = session.now if at is None else times.parse_time(at)
    given = None if body is None else _read_body(body)
    sent = explanations.describe_body(explanations.parse_headers(headers), given)
    request = attempt(grant_id, url=url, method=method, client_ip=ip, headers=sent)
    vault = session.vault()
    named = callers.parse(caller_text) if caller_text else callers.named_by(vault, grant_id)
    token = tokens.read_token(user_token_file) if user_token_file and named else None
    try:
        means = tokens.Means(upstream_ca, shared_secret_file)
        user = tokens.verify(vault, token, means=means, now=now) if token else None
    except tokens.Unproved as unproved:
        result = explanations.refused("user", "user_token_invalid", unproved.message)
    else:
        result = explanations.explain(vault, request, named=named, user=user, now=now, body=given or b"")
    lines = table(("STEP", "VERDICT", "DETAIL", "COMPARED"), explanations.rows(result.steps))
    session.emit(explanations.document(result), [*lines, "", *explanations.verdict(result)])
    if given is None and result.policy.endswith(".json"):
        session.note("it cannot be said without the body: give it with --body @FILE")
    if result.decision != "authorized":
        click.get_current_context().exit(explanations.DENIED)


def _read_body(source: str) -> bytes:
    if not source.startswith("@"):
        raise Usage("the body is not named as a file", hint="write --body @FILE, or --body @- for stdin")
    return tokens.read_file(source[1:], what="the body", limit=64 << 20)


def _document(each: Grant, *, now: float) -> dict[str, object]:
    return {
        "grant_id": each.id,
        "secret": each.secret,
        "principal": each.principal,
        "state": each.state(now),
        "label": each.label,
        "policies": rules.document(each.policies),
        "delegable": each.delegable,
        "max_delegation_seconds": each.delegation_seconds,
        "max_proof_age_seconds": each.proof_seconds if each.delegable else None,
        "created_at": times.rfc3339(each.created_at),
        "expires_at": times.rfc3339_or_none(each.expires_at),
        "revoked_at": times.rfc3339_or_none(each.revoked_at),
        "revoked_reason": each.revoked_reason,
    }


def _kinds(each: Grant) -> str:
    return ", ".join(kind for kind, _ in each.policies)
