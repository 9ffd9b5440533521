"""An explanation, put together and shown alike by every command that gives one."""

import re
from collections.abc import Iterable, Iterator

from addon.errors import Usage
from addon.explanation import Explanation
from addon.explanation import explain as explain_request
from addon.model import Caller, Headers, Request, User
from addon.pipeline import Limits, Step
from addon.policies.cidr import contains
from addon.refusals import CODES
from addon.vault import Vault
from addon.vault.callers import Member

DENIED = 4
"""The exit code of a request that would be refused."""

_HEADER = re.compile(r"([A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}): ?([\t\x20-\x7e]{0,8192})")


def explain(
    vault: Vault,
    request: Request,
    *,
    named: tuple[str, str] | None,
    user: User | None = None,
    now: float,
    limits: Limits | None = None,
    body: bytes = b"",
) -> Explanation:
    """As `addon.explanation`, with a caller by type and name, whose keys are taken for good. Raises NotFound."""
    member = vault.callers.get(*named) if named else None
    if member and (problem := _barred(member, request.client_ip)):
        return refused("caller", "caller_invalid", problem)
    caller = Caller(type=member.type, name=member.name, key_id="", user=user) if member else None
    return explain_request(request, vault=vault, caller=caller, now=now, limits=limits, body=body)


def refused(step: str, code: str, detail: str) -> Explanation:
    """One that ends before the pipeline begins."""
    return Explanation("refused", code, (Step(step, code, detail, remedy=CODES[code].hint),))


def parse_headers(texts: Iterable[str]) -> Headers:
    """Headers typed as `NAME: VALUE`. Raises Usage."""
    found = []
    for text in texts:
        match = _HEADER.fullmatch(text)
        if match is None:
            raise Usage(f"not a header: {text!r}", hint="write it as 'Content-Type: application/json'")
        found.append((match[1].encode(), match[2].encode()))
    return tuple(found)


def describe_body(headers: Headers, body: bytes | None) -> Headers:
    """The headers that come with a body of JSON, where they do not say otherwise themselves."""
    said = {name.lower() for name, _ in headers}
    ours = ((b"Content-Type", b"application/json"), (b"Content-Length", b"%d" % len(body or b"")))
    return (*headers, *(pair for pair in ours if body is not None and pair[0].lower() not in said))


def document(result: Explanation) -> dict[str, object]:
    """For programs."""
    return {
        "decision": result.decision,
        "code": result.code,
        "policy": result.policy,
        "steps": [
            {"name": s.name, "verdict": s.verdict, "detail": s.detail, "compared": s.compared, "remedy": s.remedy}
            for s in result.steps
        ],
    }


def rows(steps: Iterable[Step]) -> Iterator[tuple[str, str, str, str]]:
    """For a table: STEP, VERDICT, DETAIL, COMPARED."""
    return ((step.name, step.verdict, step.detail, step.compared) for step in steps)


def verdict(result: Explanation) -> list[str]:
    """The end of it in words: the decision, and what would change it."""
    remedies = [step.remedy for step in result.steps if step.remedy]
    return [result.decision + (f": {result.code}" if result.code else ""), *(f"mend: {text}" for text in remedies)]


def _barred(member: Member, address: str) -> str:
    """Why no key of this caller would be accepted from there, or nothing."""
    if member.state != "active":
        return f"{member.type}:{member.name} is disabled"
    if member.cidrs and not contains(member.cidrs, address):
        return f"{member.type}:{member.name} may not call from {address}"
    return ""
