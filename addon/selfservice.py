"""
`https://alter.internal/`: what the proxy tells its callers about themselves, and delegations made by users.

    GET    /v1/whoami             caller, user, groups, and what proved them
    GET    /v1/grants             what this caller could use now: no values, no grants of others
    GET    /v1/delegations        those of the user, or those made for the agent
    POST   /v1/delegations        the user of an app lets an agent use one of the user's grants
    DELETE /v1/delegations/{id}   by the user, or by the agent
    GET    /v1/openapi.json       this interface, described

The name is never resolved and exists only inside the proxy. The proofs are those of any request: the key of a caller,
and beside it the user's token. A web page elsewhere cannot make a browser send either header across origins, nor a JSON
body, without a permission that is never given.
"""

import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from addon import delegation as chain
from addon import hosts, principals
from addon.callers.jwt import wire
from addon.errors import Conflict, Fault, Locked, NotFound, Refusal, Usage
from addon.hosts import NotAName
from addon.model import Caller, Request
from addon.refusals import Answer
from addon.vault import Vault
from addon.vault.delegations import Delegation

HOST = "alter.internal"

LONGEST_BODY = 16 * 1024

_PORT = 443
_DEFAULT_TTL = 3600
_DELEGATION = re.compile(rb"/v1/delegations/([A-Za-z0-9_-]{16,64})")


def check(request: Request) -> None:
    """Raises Refusal unless a request is plainly for this host: over TLS, on its port, with one Host header of its own."""
    if request.scheme != "https" or request.absolute_scheme not in {None, "https"} or request.port != _PORT:
        raise Refusal("cleartext_upstream" if request.scheme != "https" else "authority_mismatch")
    if not request.authorities or not all(_ours(authority) for authority in request.authorities):
        raise Refusal("authority_mismatch")


def _ours(authority: bytes) -> bool:
    try:
        host, port = hosts.split_authority(authority)
        return hosts.normalize(host) == HOST and port in {None, _PORT}
    except NotAName:
        return False


class SelfService:
    """Answers callers about the vault `vault`. Changes go through a connection of its own, opened when first needed."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._writer: Vault | None = None

    def answer(self, request: Request, body: bytes, *, caller: Caller, now: float) -> Answer:
        """The answer to a request whose caller is proved. Raises Refusal, Fault."""
        method = "GET" if request.method == "HEAD" else request.method
        named = _DELEGATION.fullmatch(request.path)
        if named and method == "DELETE":
            self._revoke(named[1].decode("ascii"), caller, now=now)
            return _answer(204, None, request.id)
        route = _ROUTES.get((method, request.path))
        if route is None or b"?" in request.target:
            raise Refusal("not_found")
        status, document = route(self, request, body, caller, now)
        return _answer(status, document, request.id)

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

    def _openapi(self, _: Request, __: bytes, ___: Caller, ____: float) -> tuple[int, object]:
        return 200, openapi()

    # ── changes ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _create(self, request: Request, body: bytes, caller: Caller, now: float) -> tuple[int, object]:
        if caller.type != "app":
            raise Refusal("grant_unavailable")  # an agent that holds a user's token does not consent for the user
        if caller.user is None:
            raise Refusal("user_token_required")
        grant_id, agent, ttl = _order(request, body)
        if caller.grants and grant_id not in caller.grants:
            raise Refusal("not_found")
        try:
            made = self._changes().delegations.create(grant_id, agent=agent, user=caller.user, now=now, ttl=ttl)
        except NotFound:
            raise Refusal("not_found") from None
        except Conflict:
            raise Refusal("not_delegable") from None
        except Usage:
            raise Refusal("request_malformed") from None
        except Locked as error:
            raise Fault("vault_unavailable") from error
        return 201, _document(made, now=now)

    def _revoke(self, delegation_id: str, caller: Caller, *, now: float) -> None:
        if delegation_id not in {each.id for each in self._visible(caller)}:
            raise Refusal("not_found")
        try:
            by = str(caller) if caller.type == "agent" else str(caller.user)
            self._changes().delegations.revoke(delegation_id, by=by, now=now)
        except Locked as error:
            raise Fault("vault_unavailable") from error

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


def _order(request: Request, body: bytes) -> tuple[str, str, float]:
    """Grant, agent and seconds of a request for a delegation. Raises Refusal."""
    kinds = [value.partition(b";")[0].strip().lower() for value in request.values(b"content-type")]
    try:
        members = wire.parse(body, check="body")
    except wire.Invalid:
        raise Refusal("request_malformed") from None
    grant_id, agent, ttl = (members.get(name) for name in ("grant_id", "agent", "ttl_seconds"))
    ttl = _DEFAULT_TTL if ttl is None else ttl
    good = isinstance(grant_id, str) and isinstance(agent, str) and type(ttl) is int and 0 < ttl < 1 << 32
    if not good or kinds != [b"application/json"] or members.keys() - {"grant_id", "agent", "ttl_seconds"}:
        raise Refusal("request_malformed")
    return str(grant_id), str(agent), float(ttl)


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


def _answer(status: int, document: object, request_id: str) -> Answer:
    headers = [(b"X-Alter-Request-Id", request_id.encode()), (b"Cache-Control", b"no-store")]
    if document is None:
        return Answer(status, tuple(headers), b"")
    return Answer(status, ((b"Content-Type", b"application/json"), *headers), json.dumps(document).encode() + b"\n")


_Route = Callable[[SelfService, Request, bytes, Caller, float], tuple[int, object]]

_ROUTES: dict[tuple[str, bytes], _Route] = {
    ("GET", b"/v1/whoami"): SelfService._whoami,  # noqa: SLF001  its own table
    ("GET", b"/v1/grants"): SelfService._grants,  # noqa: SLF001
    ("GET", b"/v1/delegations"): SelfService._delegations,  # noqa: SLF001
    ("POST", b"/v1/delegations"): SelfService._create,  # noqa: SLF001
    ("GET", b"/v1/openapi.json"): SelfService._openapi,  # noqa: SLF001
}
