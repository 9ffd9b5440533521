"""
What a caller asks to be made at `https://alter.internal/`: a JSON object, or the fields of a form.

    grant_id, agent   texts
    ttl_seconds       a whole number; an hour if it is left out
    return_to         an https URL (see `consent.parse_return`), where the user's browser goes with the answer

An unknown member, a repeated one or another type refuses with `request_malformed`.
"""

import re
import urllib.parse
from dataclasses import dataclass
from typing import Any

from addon import consent
from addon.callers.jwt import wire
from addon.errors import Refusal
from addon.hosts import NotAName
from addon.model import Caller, Request

_DEFAULT_TTL = 3600
_MEMBERS = frozenset({"grant_id", "agent", "ttl_seconds"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a delegation is to be made of. `ttl` is in seconds; `return_to` is a URL, or empty."""

    grant_id: str
    agent: str
    ttl: float
    return_to: str


def parse(members: dict[str, Any], caller: Caller, *, may_return: bool = False) -> Order:
    """Raises Refusal, also for a grant that is not one of the caller's session."""
    grant_id, agent, ttl, return_to = (members.get(name) for name in ("grant_id", "agent", "ttl_seconds", "return_to"))
    ttl = _DEFAULT_TTL if ttl is None else ttl
    good = isinstance(grant_id, str) and isinstance(agent, str) and type(ttl) is int and 0 < ttl < 1 << 32
    unknown = members.keys() - _MEMBERS - ({"return_to"} if may_return else set())
    if not good or unknown or not isinstance(return_to, str | None):
        raise Refusal("request_malformed")
    if return_to is not None:
        try:
            return_to = consent.parse_return(return_to).url
        except NotAName:
            raise Refusal("request_malformed") from None
    if caller.grants and grant_id not in caller.grants:
        raise Refusal("not_found")
    return Order(grant_id=str(grant_id), agent=str(agent), ttl=float(ttl), return_to=return_to or "")


def read(request: Request, body: bytes) -> dict[str, Any]:
    """The members of a JSON body. Raises Refusal."""
    if _kinds(request) != [b"application/json"]:
        raise Refusal("request_malformed")
    try:
        return wire.parse(body, check="body")
    except wire.Invalid:
        raise Refusal("request_malformed") from None


def is_form(request: Request) -> bool:
    """Whether the body is said to be a form, as a page posts it."""
    return _kinds(request) == [b"application/x-www-form-urlencoded"]


def read_form(body: bytes) -> dict[str, Any]:
    """The fields of a form (WHATWG URL 5.1), `ttl_seconds` as a number. Raises Refusal."""
    try:
        pairs = urllib.parse.parse_qsl(body.decode("ascii"), strict_parsing=True, errors="strict", max_num_fields=8)
    except ValueError:
        raise Refusal("request_malformed") from None
    members: dict[str, Any] = dict(pairs)
    if len(members) != len(pairs):
        raise Refusal("request_malformed")
    if re.fullmatch(r"[0-9]{1,10}", members.get("ttl_seconds", "")):
        members["ttl_seconds"] = int(members["ttl_seconds"])
    return members


def _kinds(request: Request) -> list[bytes]:
    return [value.partition(b";")[0].strip().lower() for value in request.values(b"content-type")]
