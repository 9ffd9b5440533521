"""How an operator names a caller: NAME or app:NAME or system:NAME, and agent:NAME."""

from addon.errors import Usage
from addon.principals import named_caller
from addon.vault import Vault

_TYPES = {"app": "app", "system": "app", "agent": "agent"}


def parse(text: str) -> tuple[str, str]:
    """(type, name); a bare name is that of an app. Raises Usage."""
    prefix, colon, name = text.rpartition(":")
    if not name or (colon and prefix not in _TYPES):
        raise Usage(f"not a caller: {text!r}", hint="write APP, app:NAME or agent:NAME")
    return _TYPES[prefix or "app"], name


def named_by(vault: Vault, tag: str) -> tuple[str, str] | None:
    """The caller that a grant, or the delegation of one, names; None where it names people. Raises NotFound."""
    grant = vault.lookup(digest=b"", tag=tag).grant
    if grant and grant.delegation:
        return "agent", grant.delegation.agent
    return named_caller(vault.grants.get(tag).principal)
