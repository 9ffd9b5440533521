"""
The scope that a signature is made in: a service, and a region or a set of them.

It follows from the host (aws_hosts), within what the binding allows; the client is heard where both are silent.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from addon.credentials import aws_hosts
from addon.credentials.aws_hosts import NOT_SIGV4, Found
from addon.errors import Refusal

S3_FAMILY: Final = frozenset({"s3", "s3express", "s3-outposts", "s3-object-lambda"})
"""Services whose canonical path is the path itself (no second encoding, no dot segments) and that take unsigned bodies."""

_REGION = re.compile(r"[a-z0-9-]{1,64}")
_REGIONS = re.compile(r"[a-z0-9-]{0,63}\*|[a-z0-9-]{1,64}")


@dataclass(frozen=True, slots=True)
class Scope:
    """
    `asymmetric` is whether the signature is Version 4a: then `region` is a set, "*" or names with a comma between them.

    `family` is `s3` or `aws`: which of the two canonical forms of a path the service uses.
    """

    service: str
    region: str
    asymmetric: bool = False

    @property
    def family(self) -> str:
        return "s3" if self.service in S3_FAMILY else "aws"


def scope(
    host: str,
    *,
    path: bytes = b"/",
    services: Sequence[str] = (),
    regions: Sequence[str] = (),
    client_scope: Scope | None = None,
) -> Scope:
    """
    The scope for a normalised host.

    `services` and `regions` are what the binding names, if anything: nothing else is signed for
    (`signing_scope_not_bound`). `client_scope` is that of the client's own signature, which decides only between what the
    binding names, and where neither host nor binding says a region. If it is asymmetric, so is the answer, for the
    regions it states: all of them must be bound, and "*" is bound where no region is named. Raises Refusal with
    `signing_scope_unknown` when nothing says it, and with `signing_unsupported` for hosts that want another signature.
    """
    found = aws_hosts.lookup(host)
    service = _service(found, path, bound=services, claimed=client_scope.service if client_scope else None)
    at, default = (found.region, found.default) if found else (None, None)
    if regions and at and at not in regions:
        raise Refusal("signing_scope_not_bound")
    if client_scope and client_scope.asymmetric:
        return Scope(service, _region_set(client_scope.region or at, bound=regions), asymmetric=True)
    if found and found.asymmetric:
        return Scope(service, _region_set(None, bound=regions), asymmetric=True)
    claimed = client_scope.region if client_scope and client_scope.service == service else None
    region = at or (_choose(regions, claimed) if regions else claimed) or default
    if region is None or not _REGION.fullmatch(region):
        raise Refusal("signing_scope_unknown")
    if regions and region not in regions:
        raise Refusal("signing_scope_not_bound")
    return Scope(service, region)


def _service(found: Found | None, path: bytes, *, bound: Sequence[str], claimed: str | None) -> str:
    """The service that the host says, else the binding. Raises Refusal."""
    service = found.service(path) if found else _choose(bound, claimed)
    if service is None:
        raise Refusal("signing_scope_unknown")
    if service == NOT_SIGV4:
        raise Refusal("signing_unsupported")
    if bound and service not in bound:
        raise Refusal("signing_scope_not_bound")
    return service


def _region_set(stated: str | None, *, bound: Sequence[str]) -> str:
    """The regions stated, else those bound, else all. Raises Refusal for what are no names, and for names not bound."""
    names = [name.strip() for name in (stated or ",".join(bound) or "*").split(",")]
    if not all(map(_REGIONS.fullmatch, names)):
        raise Refusal("signing_scope_unknown")
    if bound and not set(names) <= set(bound):
        raise Refusal("signing_scope_not_bound")
    return ",".join(names)


def _choose(bound: Sequence[str], claimed: str | None) -> str | None:
    """The only name bound, or the one of several that the client claims. Raises Refusal for a claim beyond them."""
    if len(bound) < 2:
        return bound[0] if bound else None
    if claimed is not None and claimed not in bound:
        raise Refusal("signing_scope_not_bound")
    return claimed


def conflict(pattern: str, *, services: Sequence[str], regions: Sequence[str]) -> str | None:
    """What is wrong with a host of a binding beside those names, in words; None if it can be signed for."""
    if pattern.startswith("*."):
        return None
    found = aws_hosts.lookup(pattern)
    if found is None:
        return None if services else "is not a host of AWS, so it does not say the service to sign for"
    offered = found.services.values()
    if NOT_SIGV4 in offered:
        return f"is {NOT_SIGV4}"
    if services and not set(offered).intersection(services):
        return f"belongs to the service {' or '.join(offered)}, not to {' or '.join(services)}"
    if regions and found.region and found.region not in regions:
        return f"lies in the region {found.region}, not in {' or '.join(regions)}"
    return None


def is_aws(name: str) -> bool:
    """Whether a name lies under a suffix of AWS."""
    return aws_hosts.split(name, aws_hosts.table().partitions) is not None


def region_of(pattern: str) -> str | None:
    """The region that a host of a binding says by itself, if it does."""
    found = aws_hosts.lookup(pattern.replace("*", "any", 1))
    return found.region if found else None
