"""`delegation`: what users let agents do with their access."""

from pathlib import Path

import click

from addon.errors import NotFound
from addon.vault import log
from addon.vault.delegations import Delegation
from vaultctl import times, tokens
from vaultctl.command import noun
from vaultctl.console import Session, facts, pass_session, table

delegation = noun("delegation", help="What users let agents do with their access, and until when.")


@delegation.command(
    "create",
    examples=[
        "vaultctl delegation create --grant 0b6f3c1e-9f53-4a53-9b36-6d0c9b6a8a51 --agent researcher --user-token-file token.txt --ttl 8h",
    ],
)
@click.option("--grant", "grant_id", required=True, metavar="ID", help="A delegable grant of the user.")
@click.option("--agent", required=True, metavar="NAME", help="The agent that may use it.")
@click.option("--user-token-file", required=True, metavar="F", help="A file with the user's own token, which is the consent; `-` is stdin.")  # fmt: skip
@click.option("--ttl", default="1h", show_default=True, metavar="D", help="How long. The grant may set a shorter limit; 90d is the longest.")  # fmt: skip
@tokens.means
@pass_session
def create(
    session: Session,
    *,
    grant_id: str,
    agent: str,
    user_token_file: str,
    ttl: str,
    upstream_ca: Path | None,
    shared_secret_file: str | None,
) -> None:
    """
    Let an agent use a grant of the user whose token this is, and print the id of the delegation.

    The agent sends the id as X-Alter-Grant. Kept of the token are issuer, subject, token id and time.
    """
    vault = session.vault(writable=True)
    means = tokens.Means(upstream_ca, shared_secret_file)
    user = tokens.verify(vault, tokens.read_token(user_token_file), means=means, now=session.now)
    made = vault.delegations.create(grant_id, agent=agent, user=user, now=session.now, ttl=times.parse_duration(ttl))
    session.emit(
        {
            "delegation_id": made.id,
            "grant_id": made.grant_id,
            "agent": made.agent,
            "expires_at": times.rfc3339(made.expires_at),
        },
        [made.id],
    )
    session.note(
        f"agent:{made.agent} may use {made.secret} for {made.user} until {times.readable(made.expires_at)}:"
        f" send X-Alter-Grant: {made.id} with the agent's key"
    )


@delegation.command("list", examples=["vaultctl delegation list", "vaultctl delegation list --agent researcher --json"])
@click.option("--agent", metavar="NAME", help="Only those to this agent.")
@click.option("--user", metavar="U", help="Only those of this user, as user:IDP/SUBJECT.")
@click.option("--grant", "grant_id", metavar="ID", help="Only those of this grant.")
@click.option("--state", type=click.Choice(["active", "expired", "revoked"]), help="Only those in this state.")
@pass_session
def list_(session: Session, *, agent: str | None, user: str | None, grant_id: str | None, state: str | None) -> None:
    """All delegations, oldest first."""
    found = [
        each
        for each in session.vault().delegations.list(agent=agent, user=user, grant_id=grant_id)
        if state is None or each.state(session.now) == state
    ]
    session.emit(
        [_document(each, now=session.now) for each in found],
        table(
            ("DELEGATION", "SECRET", "USER", "AGENT", "STATE", "EXPIRES", "GRANT"),
            [
                (d.id, d.secret, d.user, d.agent, d.state(session.now), times.readable(d.expires_at), d.grant_id)
                for d in found
            ],
        ),
    )
    if not found:
        session.note("no such delegation; a user makes one with `vaultctl delegation create`")


@delegation.command("show", examples=["vaultctl delegation show 5c1a1a0e-9a0b-4df0-8a51-5b6f0f7d3b11"])
@click.argument("delegation_id", metavar="ID")
@pass_session
def show(session: Session, delegation_id: str) -> None:
    """Everything about one delegation, the consent included."""
    document = _document(session.vault().delegations.get(delegation_id), now=session.now)
    session.emit(document, facts(document.items()))


@delegation.command(
    "revoke",
    examples=[
        "vaultctl delegation revoke 5c1a1a0e-9a0b-4df0-8a51-5b6f0f7d3b11 --reason 'task done'",
        "vaultctl delegation revoke 5c1a1a0e-9a0b-4df0-8a51-5b6f0f7d3b11 --user-token-file token.txt",
    ],
)
@click.argument("delegation_id", metavar="ID")
@click.option("--user-token-file", metavar="F", help="The user's own token, where the user revokes and not an operator.")  # fmt: skip
@click.option("--reason", default="", metavar="T", help="Kept with the delegation.")
@tokens.means
@pass_session
def revoke(
    session: Session,
    *,
    delegation_id: str,
    user_token_file: str | None,
    reason: str,
    upstream_ca: Path | None,
    shared_secret_file: str | None,
) -> None:
    """End a delegation for good, from the next request on."""
    vault = session.vault(writable=True)
    by = f"operator:{log.actor()}"
    if user_token_file is not None:
        means = tokens.Means(upstream_ca, shared_secret_file)
        user = tokens.verify(vault, tokens.read_token(user_token_file), means=means, now=session.now)
        by = str(user)
        if delegation_id not in {each.id for each in vault.delegations.list(user=by)}:
            raise NotFound(f"no delegation {delegation_id} of {by}", hint="`vaultctl delegation list` lists them")
    ended = vault.delegations.revoke(delegation_id, by=by, reason=reason, now=session.now)
    session.emit({"delegation_id": ended.id, "state": ended.state(session.now), "revoked_by": ended.revoked_by})
    session.note(f"the delegation {ended.id} is revoked from the next request on")


def _document(each: Delegation, *, now: float) -> dict[str, object]:
    return {
        "delegation_id": each.id,
        "grant_id": each.grant_id,
        "secret": each.secret,
        "user": each.user,
        "agent": each.agent,
        "state": each.state(now),
        "consent_token_id": each.token_id or None,
        "consent_issued_at": times.rfc3339(each.token_at),
        "created_at": times.rfc3339(each.created_at),
        "expires_at": times.rfc3339(each.expires_at),
        "revoked_at": times.rfc3339_or_none(each.revoked_at),
        "revoked_by": each.revoked_by or None,
        "revoked_reason": each.revoked_reason,
    }
