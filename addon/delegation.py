"""
Whether a delegation holds now: every link of it, judged anew on each request.

    delegation   not revoked, not expired, used by its agent
    source       the grant lives and may be delegated; its secret is enabled
    user         named by the grant, directly or through a group
    provider     still registered
    group        proven by the user's newest token, not longer ago than the grant says

The agent itself is judged before, with its key.
"""

from addon.errors import Refusal
from addon.model import Caller
from addon.vault.lookup import DelegationState, GrantState


def check(grant: GrantState, delegation: DelegationState, caller: Caller, *, now: float) -> None:
    """Raises Refusal. Only the agent it was made for learns more than `grant_unavailable`."""
    if caller.type != "agent" or caller.name != delegation.agent:
        raise Refusal("grant_unavailable")
    if delegation.revoked_at is not None:
        raise Refusal("delegation_revoked")
    if delegation.expires_at <= now:
        raise Refusal("delegation_expired")
    if not _source_holds(grant, delegation, now=now):
        raise Refusal("delegation_source_lost")
    if grant.secret_state != "active":
        raise Refusal("secret_disabled")


def _source_holds(grant: GrantState, delegation: DelegationState, *, now: float) -> bool:
    lives = grant.revoked_at is None and (grant.expires_at is None or grant.expires_at > now)
    return lives and grant.delegable and delegation.idp_live and _names(grant, delegation, now=now)


def _names(grant: GrantState, delegation: DelegationState, *, now: float) -> bool:
    """Whether the grant names the user. A group proof is of the very group the grant names (see `vault.lookup`)."""
    if grant.principal.startswith("group:"):
        return delegation.proven_at is not None and delegation.proven_at + grant.proof_seconds > now
    return grant.principal == str(delegation.user)
