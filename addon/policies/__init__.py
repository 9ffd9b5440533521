"""
Typed checks on an attempt. One kind, one file, one line in `KINDS`.

Stored as `[[kind, {parameters}], …]`. All must pass. What cannot be read is a Fault: an unknown tag may be a
restriction that a newer version wrote.
"""

import functools
import json
from collections.abc import Callable, Sequence
from typing import Any

from addon import strict_json
from addon.errors import Fault, Refusal
from addon.policies import (
    approval,
    cidr,
    content_type,
    hours,
    json_members,
    max_body,
    methods,
    paths,
    period,
    quota,
    rate,
    reason,
)
from addon.policies.policy import Ask, Attempt, Due, LimitKind, Look, PolicyKind

LIMITS: dict[str, LimitKind] = {kind.tag: kind for kind in (rate.KIND, quota.KIND)}
"""Those that count; the others look at the request alone."""

LONGEST_BODY = json_members.LONGEST
"""Bytes of a body that a policy looks at."""

KINDS: dict[str, PolicyKind] = {
    kind.tag: kind
    for kind in (
        methods.KIND,
        paths.KIND,
        cidr.KIND,
        hours.KIND,
        period.KIND,
        max_body.KIND,
        content_type.KIND,
        json_members.KIND,
        reason.KIND,
        *LIMITS.values(),
        approval.KIND,
    )
}

Policies = tuple[tuple[str, dict[str, Any]], ...]


@functools.lru_cache(maxsize=1024)
def load(stored: str) -> Policies:
    """The policies in stored text. Raises Fault for an unknown kind or any other shape."""
    try:
        policies = tuple(_read(*item) for item in _list(json.loads(stored)))
    except (ValueError, TypeError, RecursionError) as error:
        raise Fault("vault_unavailable", "stored policies cannot be read") from error
    if any(tag not in KINDS for tag, _ in policies):
        raise Fault("vault_unavailable", "stored policies hold an unknown kind")
    return policies


def _list(value: object) -> list[list[Any]]:
    # A string and an object can be iterated, too, and empty ones would pass for no policies at all.
    if not isinstance(value, list) or not all(isinstance(item, list) for item in value):
        raise TypeError
    return value


def _read(tag: object, params: object) -> tuple[str, dict[str, Any]]:
    if not isinstance(tag, str) or not isinstance(params, dict):
        raise TypeError
    return tag, params


def dump(policies: Policies) -> str:
    """The text to store."""
    return json.dumps([[tag, params] for tag, params in policies], separators=(",", ":"), sort_keys=True)


def describe(tag: str, params: dict[str, Any]) -> str:
    """What a policy lets pass, in a few words for the operator. Raises Fault."""
    try:
        return KINDS[tag].describe(params)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise Fault("vault_unavailable", f"policy {tag} cannot be read") from error


def check(
    policies: Policies,
    attempt: Attempt,
    *,
    layer: str,
    subject: str = "",
    passed: Callable[[str, dict[str, Any]], None] | None = None,
) -> list[Due | Ask | Look]:
    """
    What is still to be done: limits to be counted, the body to be looked at (`examine`), a person to be asked.

    Raises Refusal `policy_denied`, naming layer and kind, for a policy that does not pass. `passed` is told of each that
    does: layer and kind, parameters.
    """
    due: list[Due | Ask | Look] = []
    for tag, params in policies:
        try:
            denied = KINDS[tag].check(params, attempt)
            remedy = denied and f"it passes with {tag}: {KINDS[tag].describe(params)}"
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise Fault("vault_unavailable", f"policy {tag} cannot be evaluated") from error
        if denied is not None:
            raise Refusal("policy_denied", policy=f"{layer}.{tag}", found=denied, remedy=remedy or "")
        if tag in LIMITS:
            due += [Due(layer, subject, tag, limit) for limit in LIMITS[tag].limits(params)]
            continue
        if tag == json_members.KIND.tag:
            due.append(Look(f"{layer}.{tag}", params))
            continue
        if tag == approval.KIND.tag:
            due.append(Ask(f"{layer}.{tag}", approval.APPROVAL.seconds(params)))
        if passed is not None:
            passed(f"{layer}.{tag}", params)
    return due


def examine(looks: Sequence[Look], body: bytes, *, passed: Callable[[str, dict[str, Any]], None] | None = None) -> None:
    """Look at a whole body, as `check` asked for. Raises Refusal `policy_denied`, naming layer and kind, and Fault."""
    if not looks:
        return
    kind = json_members.KIND
    try:
        read, unreadable = json_members.read(body), ""
    except strict_json.Ambiguous as problem:
        read, unreadable = None, str(problem) if body else "there is no body"
    for policy, params in looks:
        try:
            denied = unreadable or kind.examine(params, read)
            remedy = f"it passes with {kind.tag}: {kind.describe(params)}"
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise Fault("vault_unavailable", f"policy {kind.tag} cannot be evaluated") from error
        if denied:
            raise Refusal("policy_denied", policy=policy, found=denied, remedy=remedy)
        if passed is not None:
            passed(policy, params)
