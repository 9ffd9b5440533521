"""
`https://alter.internal/consent`: the page on which a user lets an agent use a grant, or does not.

    GET  /consent?ticket=T                    who asks, for what, until when, and two buttons
    POST /consent    ticket=T&decision=D      `approve` makes the delegation, `decline` makes none; both end the ticket

A browser has no key of ours, so the ticket, which an app got for its user, is the whole proof. It also is what makes
forging a form useless: nobody's cookie is honoured here, so a page elsewhere gains nothing by making a browser send a
form, unless it puts a ticket in; and whoever has one of somebody else could answer by themselves. A ticket of the
forger's own would delegate the forger's own access. So a second token beside it would prove nothing more. It stays with
its user: 256 random bits for one answer, no referrer, no copy in a cache, no frame, no script, nothing from elsewhere. A
form that a browser itself says comes from another site is refused all the same.

Whatever is wrong with a ticket, the answer is one and the same page.
"""

import base64
import hashlib
import html
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from addon import binding as bindings
from addon import hosts, refusals
from addon.errors import Conflict, Fault, Locked, NotFound, Refusal
from addon.hosts import NotAName
from addon.model import Request
from addon.refusals import Answer
from addon.vault import Vault
from addon.vault.consents import Consent
from addon.vault.delegations import Delegation, Proposal

PATH = b"/consent"

_LINK = re.compile(rb"/consent\?ticket=([A-Za-z0-9_-]{43})")
_FORM = re.compile(rb"ticket=([A-Za-z0-9_-]{43})&decision=(approve|decline)")
_URL = re.compile(r"https://([A-Za-z0-9._:-]+)((?:/[!-~]*)?)")
_LONGEST_URL = 2048


class Shown(Refusal):
    """A refusal that a person reads: `answer` is a page."""

    def __init__(self, code: str, answer: Answer) -> None:
        super().__init__(code)
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Return:
    """Where the browser goes with the answer. `origin` is what RFC 6454 6.2 says; `url` begins with it."""

    origin: str
    url: str

    def to(self, name: str, value: str) -> bytes:
        """The URL with one parameter more. Both are plain words."""
        return f"{self.url}{'&' if '?' in self.url else '?'}{name}={value}".encode("ascii")


def parse_return(text: str) -> Return:
    """An https URL of a named host without user or fragment, in printable ASCII. Raises NotAName."""
    match = _URL.fullmatch(text)
    if not match or len(text) > _LONGEST_URL or set(text) & set("#\\"):
        raise NotAName
    host, port = hosts.split_authority(match[1].encode("ascii"))
    origin = f"https://{hosts.normalize(host)}{'' if port in {None, 443} else f':{port}'}"
    return Return(origin, origin + (match[2] or "/"))


def link(host: str, ticket: str) -> str:
    """Where the user's browser is sent."""
    return f"https://{host}{PATH.decode()}?ticket={ticket}"


class Desk:
    """Shows what is asked and takes the answer. `changes` is a connection that may write, opened when first needed."""

    def __init__(self, vault: Vault, changes: Callable[[], Vault]) -> None:
        self._vault = vault
        self._changes = changes

    def answer(self, request: Request, body: bytes, *, now: float) -> Answer:
        """The page for a request to PATH. Raises Shown, Fault."""
        try:
            ticket, act = self._read(request, body)
            # Found by reading first: what nobody asked for never takes the lock of the vault.
            return act(ticket, self._vault.consents.find(ticket, now=now), request, now)
        except NotFound:
            raise Shown("not_found", _refusal("not_found", request, _NOTHING)) from None
        except Conflict:
            raise Shown("not_delegable", _refusal("not_delegable", request, _IMPOSSIBLE)) from None
        except Locked as error:
            raise Fault("vault_unavailable") from error

    def _read(self, request: Request, body: bytes) -> "tuple[str, _Act]":
        """The ticket, and what to do with it. Raises NotFound."""
        if request.method in {"GET", "HEAD"}:
            return _match(_LINK, request.target)[1].decode(), self._review
        if request.method != "POST" or request.target != PATH or not _from_our_page(request):
            raise _nothing()
        ticket, decision = _match(_FORM, body).groups()
        return ticket.decode(), self._approve if decision == b"approve" else self._decline

    def _review(self, ticket: str, consent: Consent, request: Request, now: float) -> Answer:
        proposal = self._vault.delegations.propose(
            consent.grant_id, agent=consent.agent, user=consent.user, now=now, ttl=consent.ttl
        )
        back = parse_return(consent.return_to).origin if consent.return_to else ""
        return _page(200, request, _question(consent, proposal, ticket), form_action=f"'self' {back}".strip())

    def _approve(self, ticket: str, consent: Consent, request: Request, now: float) -> Answer:
        made = self._changes().consents.approve(ticket, now=now)
        if consent.return_to:
            return _redirect(request, parse_return(consent.return_to).to("delegation_id", made.id))
        return _page(200, request, _approved(made))

    def _decline(self, ticket: str, consent: Consent, request: Request, now: float) -> Answer:
        self._changes().consents.decline(ticket, now=now)
        if consent.return_to:
            return _redirect(request, parse_return(consent.return_to).to("error", "access_denied"))
        return _page(200, request, _DECLINED)


_Act = Callable[[str, Consent, Request, float], Answer]


def _match(pattern: re.Pattern[bytes], data: bytes) -> re.Match[bytes]:
    match = pattern.fullmatch(data)
    if match is None:
        raise _nothing()
    return match


def _from_our_page(request: Request) -> bool:
    """A form, of which no browser says that it comes from elsewhere (Fetch Metadata)."""
    kinds = [value.partition(b";")[0].strip().lower() for value in request.values(b"content-type")]
    sites = request.values(b"sec-fetch-site")
    return kinds == [b"application/x-www-form-urlencoded"] and (not sites or sites == [b"same-origin"])


def _nothing() -> NotFound:
    return NotFound("no such ticket", hint="the app can ask for another one")


# ── what is shown ────────────────────────────────────────────────────────────────────────────────────────────────────

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:36rem;margin:3rem auto;padding:0 1rem;color:#1b1b1b}"
    "h1{font-size:1.5rem}dl{display:grid;grid-template-columns:max-content 1fr;gap:.4rem 1.5rem}dt{color:#555}"
    "dd{margin:0;overflow-wrap:anywhere}form{display:flex;gap:1rem;margin-top:2rem}"
    "button{font:inherit;padding:.5rem 1.5rem;border:1px solid #555;border-radius:.3rem;background:#fff;color:inherit}"
    "button[value=approve]{background:#14532d;border-color:#14532d;color:#fff}"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

_NOTHING = ("Nothing to decide", "<p>This link has been used, has ended, or never was one. The app can ask again.</p>")
_IMPOSSIBLE = ("Not possible now", "<p>This access cannot be given to the agent now. Nothing was changed.</p>")
_DECLINED = ("Declined", "<p>The agent was given nothing. You can close this page.</p>")


def _question(consent: Consent, proposal: Proposal, ticket: str) -> tuple[str, str]:
    binding = bindings.load(proposal.grant.binding)
    rows = {
        "Agent": consent.agent,
        "Asked by": f"the app {consent.app}",
        "Your account": f"{consent.user.subject} ({consent.user.idp})",
        "Access to": proposal.grant.secret_name,
        "Hosts": ", ".join(host if port == 443 else f"{host}:{port}" for host, port in binding.hosts),
        "Methods": ", ".join(binding.methods),
        "Paths": ", ".join("all" if path == "/" else f"{path}…" for path in binding.paths),
        "Until": _readable(proposal.expires_at),
    }
    listed = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>" for name, text in rows.items())
    return f"Let {consent.agent} use {proposal.grant.secret_name}?", (
        "<p>The agent could send requests with your access, for as long as you have it. It never sees the credential,"
        f" and you can end this at any time.</p><dl>{listed}</dl>"
        f'<form method="post" action="{PATH.decode()}"><input type="hidden" name="ticket" value="{html.escape(ticket)}">'
        '<button name="decision" value="approve">Approve</button>'
        '<button name="decision" value="decline">Decline</button></form>'
    )


def _approved(made: Delegation) -> tuple[str, str]:
    until, agent, secret = _readable(made.expires_at), html.escape(made.agent), html.escape(made.secret)
    return "Approved", (
        f"<p>The agent {agent} may use {secret} until {until}. You can close this page.</p>"
        f"<dl><dt>Delegation</dt><dd>{html.escape(made.id)}</dd></dl>"
    )


def _readable(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def _page(status: int, request: Request, content: tuple[str, str], *, form_action: str = "'none'") -> Answer:
    title, body = content
    document = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><main><h1>{html.escape(title)}</h1>{body}</main></body></html>\n"
    )
    policy = (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action {form_action};"
        " frame-ancestors 'none'; base-uri 'none'"
    )
    headers = (
        (b"Content-Type", b"text/html; charset=utf-8"),
        (b"Content-Security-Policy", policy.encode("ascii")),
        (b"X-Content-Type-Options", b"nosniff"),
        (b"X-Frame-Options", b"DENY"),
        *_headers(request),
    )
    return Answer(status, headers, document.encode())


def _refusal(code: str, request: Request, content: tuple[str, str]) -> Answer:
    refusal = refusals.answer(code, request.id)
    page = _page(refusal.status, request, content)
    told = {name for name, _ in page.headers}
    return Answer(page.status, (*page.headers, *(pair for pair in refusal.headers if pair[0] not in told)), page.body)


def _redirect(request: Request, url: bytes) -> Answer:
    """RFC 9110 15.4.4: go there with GET."""
    return Answer(303, ((b"Location", url), *_headers(request)), b"")


def _headers(request: Request) -> tuple[tuple[bytes, bytes], ...]:
    return (
        (b"Referrer-Policy", b"no-referrer"),
        (b"Cache-Control", b"no-store"),
        (b"X-Alter-Request-Id", request.id.encode()),
    )
