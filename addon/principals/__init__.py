"""
Whom a grant may name. One kind, one file, one line in `KINDS`.

A principal is stored as text, `kind:id`. An unknown kind matches nobody.
"""

from addon.errors import Usage
from addon.model import Caller, User
from addon.principals import agent, group, system, user
from addon.principals.principal import PrincipalKind

KINDS: dict[str, PrincipalKind] = {kind.tag: kind for kind in (user.KIND, group.KIND, system.KIND, agent.KIND)}


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


def named_idp(principal: str) -> str:
    """The identity provider whose people a principal names, or nothing where it names an app or agent."""
    tag, _, identity = principal.partition(":")
    kind = KINDS.get(tag)
    return identity.partition("/")[0] if kind and kind.caller_type is None else ""


def includes(principal: str, person: User) -> bool:
    """Whether a principal names this user, alone or through a group, whoever calls."""
    tag, _, identity = principal.partition(":")
    return {"user": user.includes, "group": group.includes}.get(tag, _nobody)(identity, person)


def _nobody(_: str, __: User) -> bool:
    return False
