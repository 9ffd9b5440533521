"""
What a caller may add to its audit record: `X-Alter-Reason`, `X-Alter-Context`, and the trace id of `traceparent`
(W3C Trace Context), which is also forwarded.
"""

import json
import re
from dataclasses import dataclass, field

from addon.errors import Refusal
from addon.model import Request

_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True, slots=True)
class Context:
    """`reason` is up to 512 characters; `pairs` at most 20; `trace_id` 32 hex digits or empty."""

    reason: str = ""
    pairs: dict[str, str] = field(default_factory=dict)
    trace_id: str = ""


def read(request: Request) -> Context:
    """Raises Refusal `context_malformed`."""
    reasons, contexts = request.values(b"x-alter-reason"), request.values(b"x-alter-context")
    traces = request.values(b"traceparent")
    if len(reasons) > 1 or len(contexts) > 1:
        raise Refusal("context_malformed")
    match = _TRACEPARENT.fullmatch(traces[0]) if len(traces) == 1 else None
    return Context(
        _reason(reasons[0]) if reasons else "",
        _pairs(contexts[0]) if contexts else {},
        match[1].decode("ascii") if match else "",
    )


def _reason(value: bytes) -> str:
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        raise Refusal("context_malformed") from None
    if len(text) > 512 or not text.isprintable():
        raise Refusal("context_malformed")
    return text


def _pairs(value: bytes) -> dict[str, str]:
    if len(value) > 4096:
        raise Refusal("context_malformed")
    try:
        items = json.loads(value.decode("utf-8"), object_pairs_hook=list)
        pairs = dict(items)
    except (ValueError, TypeError, RecursionError):
        raise Refusal("context_malformed") from None
    if not value.lstrip().startswith(b"{") or len(pairs) != len(items) or len(pairs) > 20:
        raise Refusal("context_malformed")
    for key, text in pairs.items():
        if not isinstance(text, str) or not 0 < len(key) <= 64 or len(text) > 512:
            raise Refusal("context_malformed")
        if not (key + text).isprintable():
            raise Refusal("context_malformed")
    return pairs
