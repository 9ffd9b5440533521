"""
Operations whose answer is itself a credential: with them, a caller could take away what the proxy keeps from it.

Refused unless the binding allows it. How an operation is told from the head of a request, per protocol:

    JSON, CBOR   the last part of X-Amz-Target; the last part of the path "/service/…/operation/NAME"
    REST         method and path, against the routes of the service's model
    query        `Action` in the query, when no body can follow. An action in a form body is not in the head: such
                 requests are refused, except those whose body hash is that of a harmless body known in full

The list is aws_minting.json, written by tools/build_aws_hosts.py from botocore's models, and what is added here. For a
service on it, an operation that cannot be told is refused as well.
"""

import functools
import json
import posixpath
import re
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from addon.credentials.aws_scope import S3_FAMILY
from addon.credentials.aws_wire import Pair
from addon.errors import Refusal
from addon.model import Headers

_MORE_OPERATIONS = {
    "cognito-identity": ["GetOpenIdToken", "GetOpenIdTokenForDeveloperIdentity"],
    "cognito-idp": [
        "InitiateAuth", "AdminInitiateAuth", "RespondToAuthChallenge", "AdminRespondToAuthChallenge",
        "GetTokensFromRefreshToken",
    ],
}  # fmt: skip
_MORE_ROUTES = {
    "sso-oauth": [["POST", "/token"]],
    "iot": [["POST", "/keys-and-certificate"], ["POST", "/provisioning-templates/{name}/provisioning-claim"]],
}
# Services that speak only the query protocol, and the actions of theirs that give nothing away.
_FORM_SERVICES = {
    "sts": re.compile(r"GetCallerIdentity|GetAccessKeyInfo|DecodeAuthorizationMessage"),
    "iam": re.compile(r"(?:Get|List|Simulate|Generate)[A-Za-z]+"),
}
_HARMLESS_BODIES = {
    "sts": frozenset(
        sha256(body).hexdigest()
        for body in (
            b"Action=GetCallerIdentity&Version=2011-06-15",
            b"Version=2011-06-15&Action=GetCallerIdentity",
        )
    ),
    "iam": frozenset[str](),
}
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*")
_RPC_PATH = re.compile(r"/service/[^/]+/operation/([^/]+)")


class _Minting(NamedTuple):
    """Names in lower case, and (method, path) pairs."""

    operations: frozenset[str]
    routes: list[tuple[str, re.Pattern[str]]]


def check(
    service: str, *, method: str, path: str, query: Iterable[Pair], headers: Headers, body_possible: bool
) -> frozenset[str] | None:
    """
    None for a request that hands out nothing; else the SHA-256 (hex) of the only bodies with which it does not.

    `path` and `query` are as written. Raises Refusal `credential_minting`.
    """
    actions = [unquote(pair.value) for pair in query if unquote(pair.name).lower() == "action"]
    if service in _FORM_SERVICES:
        if body_possible and not actions and _HARMLESS_BODIES[service]:
            return _HARMLESS_BODIES[service]
        if body_possible or len(actions) != 1 or not _FORM_SERVICES[service].fullmatch(actions[0]):
            raise Refusal("credential_minting")
        return None
    if service in S3_FAMILY and any(unquote(pair.name) == "session" for pair in query):
        raise Refusal("credential_minting")
    minting = _table().get(service)
    if minting is None:
        return None
    resource = posixpath.normpath(re.sub(r"/{2,}", "/", unquote(path)))
    if any(method == m and route.fullmatch(resource) for m, route in minting.routes):
        raise Refusal("credential_minting")
    if not minting.routes:
        names = [*_targets(headers), *_RPC_PATH.findall(resource), *actions]
        if not names or any(not _NAME.fullmatch(n) or n.lower() in minting.operations for n in names):
            raise Refusal("credential_minting")
    return None


def _targets(headers: Headers) -> list[str]:
    values = [v.decode("latin-1").strip() for n, v in headers if n.lower() == b"x-amz-target"]
    return [part.rpartition(".")[2].strip() for value in values for part in value.split(",")]


def load() -> None:
    """Read the table, once."""
    _table()


@functools.cache
def _table() -> dict[str, _Minting]:
    raw = json.loads(Path(__file__).with_name("aws_minting.json").read_bytes())["services"]
    table = {}
    for service in {*raw, *_MORE_OPERATIONS, *_MORE_ROUTES}:
        entry = raw.get(service, {"operations": [], "routes": []})
        routes = [*entry["routes"], *_MORE_ROUTES.get(service, [])]
        table[service] = _Minting(
            operations=frozenset(n.lower() for n in (*entry["operations"], *_MORE_OPERATIONS.get(service, []))),
            routes=[(method, _route(uri)) for method, uri in routes],
        )
    return table


def _route(uri: str) -> re.Pattern[str]:
    """A route of a service model: `{name}` is one segment, `{name+}` any number."""
    parts = re.split(r"\{[^}]*?(\+?)\}", uri)
    text = "".join(re.escape(p) if i % 2 == 0 else (".+" if p else "[^/]+") for i, p in enumerate(parts))
    return re.compile(text, re.IGNORECASE)
