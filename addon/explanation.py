"""
Why a request would be authorized or refused: the live pipeline, run on a request nobody made.

Nothing is opened, recorded or used up.
"""

import ipaddress
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from addon import hosts
from addon.errors import Refusal, Usage
from addon.model import Caller, Headers, Request
from addon.pipeline import Authorized, Limits, Refused, Step, authorize, examine
from addon.vault import Vault
from addon.vault.ledger import FILE as LEDGER
from addon.vault.ledger import Preview


@dataclass(frozen=True, slots=True)
class Explanation:
    """
    `decision` is `authorized` or `refused`; `code` is empty unless refused; `steps` end with the one that decided.

    `policy` is the layer and kind that refused, if one did.
    """

    decision: str
    code: str
    steps: tuple[Step, ...]
    policy: str = ""


def attempt(grant_id: str, *, url: str, method: str, client_ip: str, headers: Headers = ()) -> Request:
    """The request that would carry a grant, and these headers, to a URL. Raises Usage."""
    try:
        parts = urlsplit(url)
        host, port = hosts.normalize(parts.hostname or ""), parts.port or (443 if parts.scheme == "https" else 80)
        ipaddress.ip_address(client_ip)
        authority = parts.netloc.encode()
        target = ((parts.path or "/") + (f"?{parts.query}" if parts.query else "")).encode()
    except ValueError:
        raise Usage(
            f"cannot explain a request to {url!r} from {client_ip!r}",
            hint="give a whole URL such as --url https://api.example.com/v1/things, and a plain address with --ip",
        ) from None
    return Request(
        id="explain",
        scheme=parts.scheme,
        host=host,
        port=port,
        method=method.upper(),
        target=target,
        headers=((b"Host", authority), (b"X-Alter-Grant", grant_id.encode()), *headers),
        authorities=(authority,),
        sni=host,
        client_ip=client_ip,
    )


def explain(
    request: Request,
    *,
    vault: Vault,
    caller: Caller | None,
    now: float,
    limits: Limits | None = None,
    body: bytes = b"",
) -> Explanation:
    """
    Every step of the decision about `request` at `now`, as made by `caller`. Raises NotFound for one that does not exist.

    `body` is for policies that look at it; `limits` tells what is used up; otherwise that is what the proxy has counted so far.
    """
    if caller is not None:
        caller = replace(caller, policies=vault.layers.stored(caller.type, caller.name))
    steps: list[Step] = []
    limits = limits or Preview(vault.home / LEDGER)
    outcome = authorize(request, vault=vault, now=now, limits=limits, caller=caller, steps=steps)
    if isinstance(outcome, Refused):
        return Explanation("refused", outcome.code, tuple(steps), outcome.policy or "")
    if isinstance(outcome, Authorized):
        try:
            examine(outcome, body, steps=steps)
        except Refusal as no:
            return Explanation("refused", no.code, tuple(steps), no.policy or "")
        return Explanation("authorized", "", tuple(steps))
    return Explanation("refused", "untagged", tuple(steps))
