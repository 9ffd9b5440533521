"""
Whom a grant may name. One kind, one file, one line in `KINDS`.

A principal is stored as text, `kind:id`. An unknown kind matches nobody.
"""

from addon.errors import Usage
from addon.model import Caller
from addon.principals import agent, system
from addon.principals.principal import PrincipalKind

KINDS: dict[str, PrincipalKind] = {kind.tag: kind for kind in (system.KIND, agent.KIND)}


def matches(principal: str, caller: Caller) -> bool:
    """Whether a stored principal names this caller."""
    tag, _, identity = principal.partition(":")
    kind = KINDS.get(tag)
    return kind is not None and bool(identity) and kind.matches(identity, caller)


def parse(text: str) -> str:
    """The stored form of a principal an operator typed. Raises Usage with the accepted forms."""
    tag, colon, identity = text.partition(":")
    kind = KINDS.get(tag)
    if kind is None or not colon:
        raise Usage(
            f"not a principal: {text!r}", hint="write one of " + ", ".join(kind.form for kind in KINDS.values())
        )
    return f"{tag}:{kind.parse(identity)}"


def named_caller(principal: str) -> tuple[str, str] | None:
    """The (type, name) of the one app or agent a principal names, or None where it names people."""
    tag, _, identity = principal.partition(":")
    kind = KINDS.get(tag)
    return (kind.caller_type, identity) if kind and kind.caller_type else None
