"""
`https://alter.internal/`: what the proxy tells its callers about themselves, and delegations made by users.

    GET    /v1/whoami             caller, user, groups, and what proved them
    GET    /v1/grants             what this caller could use now: no values, no grants of others
    GET    /v1/delegations        those of the user, or those made for the agent
    POST   /v1/delegations        the user of an app lets an agent use one of the user's grants
    DELETE /v1/delegations/{id}   by the user, or by the agent
    POST   /v1/consents           a link to the page on which the user of an app approves one, or declines
    GET, POST /consent            that page (addon/consent.py); its ticket is the proof, and nothing else is needed
    GET    /v1/approvals          what waits for an approver (addon/decisions.py)
    POST   /v1/approvals/{id}     its decision
    GET    /v1/openapi.json       this interface, described

The name is never resolved and exists only inside the proxy. The proofs are those of any request: the key of a caller,
and beside it the user's token. A web page elsewhere cannot make a browser send either header across origins, nor a JSON
body, without a permission that is never given. `/v1/consents` also takes a form with the token in it, as a page of the
app posts it (`access_token`, RFC 6750 2.2), which a page elsewhere does not have; the browser then goes on to the link.
"""

import contextlib
import functools
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from addon import callers, consent, decisions, hosts, orders, principals
from addon import delegation as chain
from addon.callers import KeySource
from addon.errors import Conflict, Fault, Locked, NotFound, Refusal, Usage
from addon.hosts import NotAName
from addon.model import Caller, Request, User
from addon.refusals import Answer
from addon.vault import Vault
from addon.vault.delegations import Delegation

HOST = "alter.internal"

LONGEST_BODY = 16 * 1024

_PORT = 443
_APPROVAL = re.compile(rb"/v1/approvals/([0-9a-f-]{36})")
_DELEGATION = re.compile(rb"/v1/delegations/([A-Za-z0-9_-]{16,64})")


def check(request: Request) -> None:
    """Raises Refusal unless a request is plainly for this host: over TLS, on its port, with one Host header of its own."""
    if request.scheme != "https" or request.absolute_scheme not in {None, "https"} or request.port != _PORT:
        raise Refusal("cleartext_upstream" if request.scheme != "https" else "authority_mismatch")
    if not request.authorities or not all(_ours(authority) for authority in request.authorities):
        raise Refusal("authority_mismatch")


def is_public(request: Request) -> bool:
    """Whether a request for this host needs no caller, since it brings a proof of its own."""
    return request.path == consent.PATH


def _ours(authority: bytes) -> bool:
    try:
        host, port = hosts.split_authority(authority)
        return hosts.normalize(host) == HOST and port in {None, _PORT}
    except NotAName:
        return False


class SelfService:
    """Answers callers about the vault `vault`. Changes go through a connection of its own, opened when first needed."""

    def __init__(self, vault: Vault, *, key_sets: KeySource | None = None) -> None:
        self._vault = vault
        self._key_sets = key_sets
        self._writer: Vault | None = None
        self._desk = consent.Desk(vault, self._changes)

    def answer(self, request: Request, body: bytes, *, caller: Caller | None, now: float) -> Answer:
        """The answer to a request whose caller is proved, or not needed. Raises Refusal, Fault."""
        if is_public(request):
            return self._desk.answer(request, body, now=now)
        if caller is None:
            raise Refusal("caller_required")
        method = "GET" if request.method == "HEAD" else request.method
        named = _DELEGATION.fullmatch(request.path)
        if named and method == "DELETE":
            self._revoke(named[1].decode("ascii"), caller, now=now)
            return _answer(204, None, request.id)
        named = _APPROVAL.fullmatch(request.path)
        if named and method == "POST" and b"?" not in request.target:
            return _answer(200, self._decide(request, body, named[1].decode("ascii"), caller, now=now), request.id)
        route = _ROUTES.get((method, request.path))
        if route is None or b"?" in request.target:
            raise Refusal("not_found")
        reply = route(self, request, body, caller, now)
        return reply if isinstance(reply, Answer) else _answer(*reply, request.id)

    # ── questions ────────────────────────────────────────────────────────────────────────────────────────────────

    def _whoami(self, _: Request, __: bytes, caller: Caller, ___: float) -> tuple[int, object]:
        user = caller.user
        about = user and {
            "idp": user.idp,
            "subject": user.subject,
            "groups": sorted(user.groups),
            "expires_at": user.expires_at,
        }
        proved = ["key", *(["user_token"] if user else [])]
        return 200, {"caller": {"type": caller.type, "name": caller.name}, "user": about, "verified": proved}

    def _grants(self, _: Request, __: bytes, caller: Caller, now: float) -> tuple[int, object]:
        secrets = {secret.name: secret for secret in self._vault.secrets.list() if secret.state == "active"}
        found = [
            (grant.id, grant.secret, grant.expires_at, grant.delegable, "")
            for grant in self._vault.grants.list(state="active", now=now)
            if principals.matches(grant.principal, caller)
        ]
        if caller.type == "agent":
            found += [
                (each.id, each.secret, each.expires_at, False, each.user)
                for each in self._vault.delegations.list(agent=caller.name)
                if self._holds(each, caller, now=now)
            ]
        return 200, {
            "grants": [
                {
                    "id": grant_id,
                    "secret": secret,
                    "hosts": [f"{host}:{port}" for host, port in secrets[secret].binding.hosts],
                    "expires_at": expires_at,
                    "delegable": delegable,
                    "for_user": user or None,
                }
                for grant_id, secret, expires_at, delegable, user in found
                if secret in secrets and (not caller.grants or grant_id in caller.grants)
            ]
        }

    def _delegations(self, _: Request, __: bytes, caller: Caller, now: float) -> tuple[int, object]:
        return 200, {"delegations": [_document(each, now=now) for each in self._visible(caller)]}

    def _pending(self, _: Request, __: bytes, caller: Caller, now: float) -> tuple[int, object]:
        return 200, {"approvals": decisions.pending(caller, vault=self._vault, now=now)}

    def _openapi(self, _: Request, __: bytes, ___: Caller, ____: float) -> tuple[int, object]:
        return 200, openapi()

    # ── changes ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _create(self, request: Request, body: bytes, caller: Caller, now: float) -> tuple[int, object]:
        user = _person(caller)
        order = orders.parse(orders.read(request, body), caller)
        with _refusing():
            made = self._changes().delegations.create(
                order.grant_id, agent=order.agent, user=user, now=now, ttl=order.ttl
            )
        return 201, _document(made, now=now)

    def _ask(self, request: Request, body: bytes, caller: Caller, now: float) -> Answer:
        posted = orders.is_form(request)
        members = orders.read_form(body) if posted else orders.read(request, body)
        if posted and "access_token" in members and caller.user is None:
            caller = replace(caller, user=self._authenticate(members.pop("access_token"), now=now))
        user = _person(caller)
        order = orders.parse(members, caller, may_return=True)
        if user.expires_at <= now:
            raise Refusal("user_token_invalid")  # the leeway of its verification is not enough to answer in
        with _refusing():
            ticket, expires_at = self._changes().consents.ask(
                order.grant_id, agent=order.agent, user=user, key_id=caller.key_id, now=now, ttl=order.ttl,
                return_to=order.return_to,
            )  # fmt: skip
        url = consent.link(HOST, ticket)
        return _answer(303 if posted else 201, {"url": url, "expires_at": expires_at}, request.id, location=url)

    def _authenticate(self, token: str, *, now: float) -> User:
        user = callers.authenticate(token, idps=self._vault.idps, key_sets=self._key_sets, now=now)
        self._vault.proofs.note(user)
        return user

    def _revoke(self, delegation_id: str, caller: Caller, *, now: float) -> None:
        if delegation_id not in {each.id for each in self._visible(caller)}:
            raise Refusal("not_found")
        by = str(caller) if caller.type == "agent" else str(caller.user)
        with _refusing():
            self._changes().delegations.revoke(delegation_id, by=by, now=now)

    def _decide(self, request: Request, body: bytes, approval_id: str, caller: Caller, *, now: float) -> object:
        members = orders.read(request, body)
        return decisions.decide(caller, approval_id, members, vault=self._vault, changes=self._changes, now=now)

    def _visible(self, caller: Caller) -> list[Delegation]:
        """Those an agent was given, or a user has given. Raises Refusal for an app without its user."""
        if caller.type == "agent":
            return self._vault.delegations.list(agent=caller.name)
        if caller.user is None:
            raise Refusal("user_token_required")
        return self._vault.delegations.list(user=str(caller.user))

    def _holds(self, each: Delegation, caller: Caller, *, now: float) -> bool:
        grant = self._vault.lookup(digest=b"", tag=each.id).grant
        if grant is None or grant.delegation is None:
            return False
        try:
            chain.check(grant, grant.delegation, caller, now=now)
        except Refusal:
            return False
        return True

    def _changes(self) -> Vault:
        if self._writer is None:
            self._writer = Vault.connect(self._vault.home)
            self._writer.database.conn.execute("PRAGMA busy_timeout = 250")  # the event loop waits with us
        return self._writer


def _person(caller: Caller) -> User:
    """The user who consents through an app. Raises Refusal."""
    if caller.type != "app":
        raise Refusal("grant_unavailable")  # an agent that holds a user's token does not consent for the user
    if caller.user is None:
        raise Refusal("user_token_required")
    return caller.user


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """What the vault does not do becomes an answer."""
    try:
        yield
    except NotFound:
        raise Refusal("not_found") from None
    except Conflict:
        raise Refusal("not_delegable") from None
    except Usage:
        raise Refusal("request_malformed") from None
    except Locked as error:
        raise Fault("vault_unavailable") from error


def _document(each: Delegation, *, now: float) -> dict[str, object]:
    return {
        "id": each.id,
        "grant_id": each.grant_id,
        "secret": each.secret,
        "agent": each.agent,
        "user": each.user,
        "state": each.state(now),
        "created_at": each.created_at,
        "expires_at": each.expires_at,
        "revoked_at": each.revoked_at,
        "revoked_by": each.revoked_by or None,
    }


@functools.cache
def openapi() -> dict[str, Any]:
    """The OpenAPI document of this interface."""
    document: dict[str, Any] = json.loads((Path(__file__).parent / "selfservice_openapi.json").read_text("utf-8"))
    return document


def _answer(status: int, document: object, request_id: str, *, location: str = "") -> Answer:
    headers = [(b"X-Alter-Request-Id", request_id.encode()), (b"Cache-Control", b"no-store")]
    headers += [(b"Location", location.encode("ascii"))] if location else []
    if document is None:
        return Answer(status, tuple(headers), b"")
    return Answer(status, ((b"Content-Type", b"application/json"), *headers), json.dumps(document).encode() + b"\n")


_Route = Callable[[SelfService, Request, bytes, Caller, float], tuple[int, object] | Answer]

_ROUTES: dict[tuple[str, bytes], _Route] = {
    ("GET", b"/v1/whoami"): SelfService._whoami,  # noqa: SLF001  its own table
    ("GET", b"/v1/grants"): SelfService._grants,  # noqa: SLF001
    ("GET", b"/v1/delegations"): SelfService._delegations,  # noqa: SLF001
    ("POST", b"/v1/delegations"): SelfService._create,  # noqa: SLF001
    ("POST", b"/v1/consents"): SelfService._ask,  # noqa: SLF001
    ("GET", b"/v1/approvals"): SelfService._pending,  # noqa: SLF001
    ("GET", b"/v1/openapi.json"): SelfService._openapi,  # noqa: SLF001
}
