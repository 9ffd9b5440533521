"""
Typed checks on an attempt. One kind, one file, one line in `KINDS`.

Stored as `[[kind, {parameters}], …]`. All must pass. What cannot be read is a Fault: an unknown tag may be a
restriction that a newer version wrote.
"""

import functools
import json
from typing import Any

from addon.errors import Fault, Refusal
from addon.policies import cidr, methods, paths
from addon.policies.policy import Attempt, PolicyKind

KINDS: dict[str, PolicyKind] = {kind.tag: kind for kind in (methods.KIND, paths.KIND, cidr.KIND)}

Policies = tuple[tuple[str, dict[str, Any]], ...]


@functools.lru_cache(maxsize=1024)
def load(stored: str) -> Policies:
    """The policies in stored text. Raises Fault for an unknown kind or any other shape."""
    try:
        policies = tuple((tag, dict(params)) for tag, params in json.loads(stored))
    except (ValueError, TypeError) as error:
        raise Fault("vault_unavailable", "stored policies cannot be read") from error
    if any(tag not in KINDS for tag, _ in policies):
        raise Fault("vault_unavailable", "stored policies hold an unknown kind")
    return policies


def dump(policies: Policies) -> str:
    """The text to store."""
    return json.dumps([[tag, params] for tag, params in policies], separators=(",", ":"), sort_keys=True)


def check(policies: Policies, attempt: Attempt, *, layer: str) -> None:
    """Raises Refusal `policy_denied`, naming layer and kind, unless every policy passes."""
    for tag, params in policies:
        try:
            denied = KINDS[tag].check(params, attempt)
        except (KeyError, TypeError, ValueError) as error:
            raise Fault("vault_unavailable", f"policy {tag} cannot be evaluated") from error
        if denied is not None:
            raise Refusal("policy_denied", policy=f"{layer}.{tag}")
