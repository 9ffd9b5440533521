"""
The one table of answers the proxy makes itself: code → status, and what the client is told.

Texts are fixed. They name no host, no other caller and no stored value, because whoever reads them may be hostile.
The documentation page of refusals is generated from this table (`docs/refusals.md`, checked by a test).
"""

import json
from dataclasses import dataclass
from http import HTTPStatus


@dataclass(frozen=True, slots=True)
class Code:
    """`status` is the HTTP status; `detail` says what happened; `hint` says what would mend it."""

    status: int
    detail: str
    hint: str


CODES: dict[str, Code] = {
    "caller_required": Code(407, "The request names a grant but does not prove who is calling.", "Put the key of an app or agent into the proxy URL (http://NAME:KEY@HOST:PORT), or send it as X-Alter-Key."),
    "caller_invalid": Code(407, "The key is unknown, mistyped, expired, revoked, disabled or used from another address.", "Check the key; `vaultctl app key create` makes a new one."),
    "tag_malformed": Code(400, "X-Alter-Grant is not a grant id.", "Send one id of 16 to 64 letters, digits, '-' or '_', as `vaultctl grant issue` printed it."),
    "tag_repeated": Code(400, "The request names more than one grant.", "Send X-Alter-Grant once."),
    "context_malformed": Code(400, "X-Alter-Context or X-Alter-Reason is not acceptable.", "The context is a JSON object of at most 20 string pairs and 4096 bytes; the reason is at most 512 characters."),
    "header_forbidden": Code(400, "The request carries a header that a tagged request must not have.", "Remove overrides of method or path, upgrades, trailers, control characters, and Connection options other than close and keep-alive."),
    "websocket_malformed": Code(400, "The request asks for a WebSocket, but not as RFC 6455 has it.", "Send GET over HTTP/1.1, without a body, with Upgrade: websocket, Connection: Upgrade, Sec-WebSocket-Version: 13 and one Sec-WebSocket-Key."),
    "header_too_large": Code(431, "The head of the request is too large.", "Send at most 64 KiB of request line and headers, in at most 200 lines."),
    "user_token_required": Code(401, "The grant names a user or a group, and no user token came with the request.", "Send the user's token as X-Alter-User-Token."),
    "user_token_invalid": Code(401, "The user token does not verify.", "Get a fresh token from the identity provider; `vaultctl idp check` explains a token claim by claim."),
    "grant_unavailable": Code(403, "There is no such grant for this caller.", "Check the grant id and whose key is used; `vaultctl grant show` tells whom it names."),
    "grant_expired": Code(403, "The grant has expired.", "Ask for a new grant."),
    "grant_revoked": Code(403, "The grant was revoked.", "Ask for a new grant."),
    "secret_disabled": Code(403, "The secret behind the grant is disabled.", "`vaultctl secret enable` turns it on again."),
    "delegation_revoked": Code(403, "The delegation was revoked.", "Ask the user for a new delegation."),
    "delegation_expired": Code(403, "The delegation has expired.", "Ask the user for a new delegation."),
    "delegation_source_lost": Code(403, "The user no longer has the access that was delegated.", "The user's own grant must work before a delegation of it can."),
    "destination_not_bound": Code(403, "The secret is not bound to this destination.", "Use the host and port the secret was stored for; `vaultctl secret show` lists them."),
    "authority_mismatch": Code(403, "The request names a different host than the one it is sent to.", "Host, :authority, SNI and the URL must all name the host of the tunnel."),
    "cleartext_upstream": Code(403, "A credential is only ever sent over TLS.", "Use an https:// URL."),
    "address_forbidden": Code(403, "The destination resolves to an address that is not allowed.", "Private hosts need `--private` in the binding of the secret, or `--allow-private` for untagged traffic."),
    "method_not_bound": Code(403, "The secret is not bound to this method.", "`vaultctl secret show` lists the methods it is stored for."),
    "path_not_bound": Code(403, "The secret is not bound to this path.", "`vaultctl secret show` lists the path prefixes; encoded slashes and dot segments never match."),
    "websocket_not_bound": Code(403, "The secret is not bound for WebSockets.", "`vaultctl secret bind NAME --websocket` allows them."),
    "credential_minting": Code(403, "This operation would hand usable credentials to the caller.", "The binding must allow it with --allow-credential-minting."),
    "secret_in_request": Code(403, "The request itself carries a value from the vault.", "Rotate that secret: the caller should not have it."),
    "policy_denied": Code(403, "A policy does not allow this request.", "The member `policy` names the layer and kind; `vaultctl grant explain` shows every step."),
    "approval_pending": Code(202, "The request waits for a person's approval; nothing was sent.", "Send the very same request again, with X-Alter-Approval: and the approval_id."),
    "approval_denied": Code(403, "The request was not approved.", "Ask the approver."),
    "approval_expired": Code(403, "Nobody approved the request in time.", "Send it again and have it approved."),
    "approver_required": Code(403, "This caller may not decide about the approval.", "Only an approver decides, with its own key, and never about its own requests; `vaultctl approval approver add` makes one."),
    "untagged": Code(403, "Requests without a grant are not forwarded here.", "Send X-Alter-Grant."),
    "passthrough_bound": Code(403, "The proxy is told not to read this host's traffic, but a secret is bound to it.", "Start the proxy without --passthrough for this host, or bind the secret elsewhere."),
    "request_malformed": Code(400, "The request to the proxy itself is not what its interface takes.", "https://alter.internal/v1/openapi.json describes it."),
    "not_found": Code(404, "There is no such thing here for this caller.", "https://alter.internal/v1/openapi.json lists what there is."),
    "not_delegable": Code(409, "The grant cannot be delegated now.", "It must be live and issued with --delegable, the agent enabled, and the user's token fresh."),
    "approval_closed": Code(409, "The approval was decided before, or nobody waits for it any more.", "https://alter.internal/v1/approvals lists those that wait."),
    "grant_ambiguous": Code(409, "More than one grant of this session fits the destination.", "Name one with X-Alter-Grant."),
    "body_too_large": Code(413, "The body is too large to be held.", "For a signature: send x-amz-content-sha256, or raise --max-signed-body. A policy on JSON looks at 1 MiB at most."),
    "signing_unsupported": Code(422, "This kind of AWS request cannot be signed here.", "SigV4a needs an extra: pip install 'alter-egress[sigv4a]'. Not supported are event streams, S3 Express sessions, POST policies, and chunks signed with SigV4a or framed otherwise than S3 documents."),
    "signing_scope_unknown": Code(422, "The AWS service and region cannot be told from the host.", "Store the secret with --service and --region."),
    "signing_scope_not_bound": Code(422, "The secret is not bound to this AWS service or region.", "`vaultctl secret show` lists the scope it is stored for."),
    "rate_limited": Code(429, "Too many requests.", "Wait for the seconds in Retry-After."),
    "quota_exceeded": Code(429, "The quota of the grant is used up.", "Ask for a new grant, or wait for the seconds in Retry-After."),
    "concurrency_exceeded": Code(429, "The caller has too many connections or requests open at once.", "Wait until some have ended; --max-connections-per-caller and --max-requests-per-caller set how many there may be."),
    "upstream_unverified": Code(502, "The certificate of the upstream does not verify, so nothing was sent.", "Check the host; give a private CA with --upstream-ca."),
    "upstream_unreachable": Code(502, "The upstream cannot be reached.", "Check that it is up and that the proxy may connect to it."),
    "websocket_invalid": Code(502, "The upstream switched protocols, but not to the WebSocket that was asked for, or sent what is no frame.", "Check that it speaks RFC 6455. Extensions are not offered to it unless the binding has --no-redact."),
    "response_undecodable": Code(502, "The response is compressed in a way that cannot be searched for the secret.", "The upstream was asked for an uncompressed one; `--no-redact` in the binding lets everything through."),
    "vault_unavailable": Code(503, "The vault cannot be read, so nothing was sent.", "Try again; `vaultctl status` on the proxy's machine says what is wrong."),
    "audit_unavailable": Code(503, "The use could not be recorded, so nothing was sent.", "Check the disk of the proxy's audit folder."),
    "session_unavailable": Code(503, "The role behind the secret could not be assumed, so nothing was sent.", "Try again; the log of the proxy says what AWS STS answered. The stored key needs sts:AssumeRole, and the role must trust it."),
    "fault": Code(503, "The request could not be decided, so nothing was sent.", "Try again; the request id leads to the record."),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answer:
    """A response made by the proxy itself: everything but its framing."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    @property
    def reason(self) -> bytes:
        """The reason phrase of the status."""
        return HTTPStatus(self.status).phrase.encode()


def answer(
    code: str,
    request_id: str,
    *,
    policy: str | None = None,
    retry_after: int | None = None,
    limit: tuple[int, int | None] | None = None,
    approval_id: str = "",
) -> Answer:
    """
    The response for `code` (problem+json, RFC 9457, with Proxy-Status, RFC 9209). An unknown code becomes `fault`.

    `limit` is what `policy` allows: so many in so many seconds, or ever (draft-ietf-httpapi-ratelimit-headers-10).
    """
    if code not in CODES:
        code = "fault"
    entry = CODES[code]
    document: dict[str, object] = {
        "type": f"https://alter.internal/refusals#{code}",
        "title": HTTPStatus(entry.status).phrase,
        "status": entry.status,
        "code": code,
        "detail": entry.detail,
        "hint": entry.hint,
        "request_id": request_id,
    }
    if policy:
        document["policy"] = policy
    if approval_id:
        document["approval_id"] = approval_id
    headers = [
        (b"Content-Type", b"application/problem+json"),
        (b"X-Alter-Error", code.encode()),
        (b"X-Alter-Request-Id", request_id.encode()),
        (b"Proxy-Status", f'alter-egress; error={_proxy_error(entry.status, code)}; details="{code}"'.encode()),
        (b"Cache-Control", b"no-store"),
    ]
    if entry.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        headers.append((b"Proxy-Authenticate", b'Basic realm="alter-egress"'))
    if entry.status == HTTPStatus.UNAUTHORIZED:
        headers.append((b"WWW-Authenticate", b'Bearer realm="alter-egress"'))
    if entry.status == HTTPStatus.SERVICE_UNAVAILABLE:
        retry_after = retry_after or 1
    if retry_after is not None:
        headers.append((b"Retry-After", str(retry_after).encode()))
    if limit is not None:
        headers += _rate_limit(policy or code, *limit, retry_after)
    return Answer(entry.status, tuple(headers), json.dumps(document).encode() + b"\n")


def _rate_limit(name: str, amount: int, seconds: int | None, wait: int | None) -> list[tuple[bytes, bytes]]:
    window = "" if seconds is None else f";w={seconds}"
    reset = "" if wait is None else f";t={wait}"
    return [
        (b"RateLimit-Policy", f'"{name}";q={amount}{window}'.encode()),
        (b"RateLimit", f'"{name}";r=0{reset}'.encode()),
    ]


def _proxy_error(status: int, code: str) -> str:
    """The nearest error type of RFC 9209 2.3."""
    special = {
        "upstream_unverified": "tls_certificate_error",
        "upstream_unreachable": "destination_unavailable",
        "address_forbidden": "destination_ip_prohibited",
    }
    if code in special:
        return special[code]
    return "proxy_internal_error" if status >= 500 else "http_request_denied"
