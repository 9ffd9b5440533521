"""
Kinds of credential: which fields a secret has, and how they act on a request.

One kind, one file, one line in `KINDS`. A kind is stateless: `apply` takes the head of a request and gives back the
head to send. It never sees a flow, a socket or a clock.
"""

from addon.credentials import basic, bearer, header, query, sigv4
from addon.credentials.kind import Field, Kind
from addon.errors import Fault

KINDS: dict[str, Kind] = {kind.tag: kind for kind in (bearer.KIND, header.KIND, query.KIND, basic.KIND, sigv4.KIND)}


def kind(tag: str) -> Kind:
    """The kind with this stored tag. Raises Fault for one we do not know."""
    try:
        return KINDS[tag]
    except KeyError:
        raise Fault("vault_unavailable", "unknown kind of credential") from None


__all__ = ["KINDS", "Field", "Kind", "kind"]
