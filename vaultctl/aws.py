"""What an unchanged AWS SDK needs in its environment: the grant where its access key id goes, and dummies."""

from collections.abc import Sequence
from dataclasses import replace

from addon.binding import Binding
from addon.credentials import aws_scope
from addon.tag import PLACEHOLDER
from addon.vault import Vault
from vaultctl.trust import Environment

DUMMY = "dummy"


def extend(made: Environment, vault: Vault, grant_ids: Sequence[str]) -> Environment:
    """
    With the variables of AWS, if one of the grants is for a secret of kind sigv4.

    One such grant is named by the access key id. Of several, the destination decides which is used. A region is named
    only if the secrets can be used in no other.
    """
    signing = {grant_id: binding for grant_id in grant_ids if (binding := _signing(vault, grant_id))}
    if not signing:
        return made
    key_id = PLACEHOLDER.decode() + next(iter(signing)) if len(signing) == 1 else DUMMY
    variables = {"AWS_ACCESS_KEY_ID": key_id, "AWS_SECRET_ACCESS_KEY": DUMMY}
    regions = {region for binding in signing.values() for region in _regions(binding)}
    if len(regions) == 1 and (region := regions.pop()):
        variables |= {"AWS_REGION": region, "AWS_DEFAULT_REGION": region}
    return replace(made, variables=made.variables | variables, without=(*made.without, "AWS_SESSION_TOKEN"))


def _signing(vault: Vault, grant_id: str) -> Binding | None:
    delegated = [each.grant_id for each in vault.delegations.list() if each.id == grant_id]
    secret = vault.secrets.get(vault.grants.get(delegated[0] if delegated else grant_id).secret)
    return secret.binding if secret.kind == "sigv4" else None


def _regions(binding: Binding) -> set[str | None]:
    """The regions a secret can be used in; None among them where a host does not say."""
    return set(binding.regions) or {aws_scope.region_of(pattern) for pattern, _ in binding.hosts}
