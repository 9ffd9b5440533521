"""
AWS Signature Version 4 (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html).

The client may have signed with any key, or not at all: its signature is taken off, the target is written in normal form,
and the result is signed. A presigned URL is signed again where it stands, with its own life time; Version 2 becomes 4.

    signed      Host, X-Amz-*, Content-Type, Content-MD5: what no honest hop changes
    body        the client's hash where it sent one, UNSIGNED-PAYLOAD for S3, else the hash that the shell computes
    refused     chunk signatures, event streams, POST policies, SigV4a, S3 Express: `signing_unsupported`
"""

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import ClassVar

from addon.binding import Binding
from addon.credentials import aws_body, aws_minting, aws_presigned, aws_scope, aws_signer, aws_wire, placement
from addon.credentials.aws_presigned import Presigned
from addon.credentials.aws_scope import Scope
from addon.credentials.aws_signer import Key, Signable
from addon.credentials.aws_wire import Pair
from addon.credentials.kind import Field, Target
from addon.errors import Fault, Refusal, Usage
from addon.model import Head, Headers, Values

MINTING_FLAG = "allow-credential-minting"

_FIELDS = (
    Field("access_key_id", "access key id", secret=False),
    Field("secret_access_key", "secret access key"),
    Field("session_token", "session token, for temporary credentials", required=False),
)
_KEY_ID = re.compile(r"[!-+.0-<>-~-]+")
_NAME = re.compile(r"[A-Za-z0-9-]{1,64}")
_EXAMPLES = {"service": "s3", "region": "us-east-1"}

_OLD = frozenset({
    b"authorization", b"date", b"x-amz-date", b"x-amz-security-token", b"x-amz-s3session-token", b"x-amz-region-set",
})  # fmt: skip
_CLIENT_SCOPE = re.compile(rb"Credential=[^/,]+/[0-9]{8}/([^/,]+)/([^/,]+)/aws4_request")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What the head alone decides. `payload` None: the body's hash. `bodies`: the only hashes that may go out."""

    scope: Scope
    path: str
    query: list[Pair]
    presigned: Presigned | None
    payload: str | None
    bodies: frozenset[str] | None


class SigV4:
    """The fields of an access key. The binding may name service and region; else the host says them."""

    tag: ClassVar[str] = "sigv4"

    def fields(self, binding: Binding) -> tuple[Field, ...]:  # noqa: ARG002
        return _FIELDS

    def check_binding(self, binding: Binding) -> Binding:
        if binding.placements:
            raise Usage("sigv4 has no placements", hint="leave out --header, --format and --query-param")
        for option, name in (("service", binding.service), ("region", binding.region)):
            if name is not None and not _NAME.fullmatch(name):
                raise Usage(f"not an AWS {option}: {name!r}", hint=f"as in --{option} {_EXAMPLES[option]}")
        for name, _ in binding.constants:
            if placement.canonical(name.encode()) in _OLD | {aws_body.HEADER}:
                raise Usage(f"{name} is part of the signature", hint="leave it out; it is written for every request")
        for pattern, _ in binding.hosts:
            if problem := aws_scope.conflict(pattern, service=binding.service, region=binding.region):
                raise Usage(f"{pattern} {problem}", hint="check --host, --service and --region")
        return placement.check_binding(binding)

    def check_values(self, binding: Binding, values: dict[str, str]) -> None:  # noqa: ARG002
        placement.check_fields(_FIELDS, values)
        for name, value in values.items():
            placement.check_value(name, _problem(name, value))

    def needs_body(self, binding: Binding, head: Head, host: str, port: int) -> bool:  # noqa: ARG002
        return _plan(binding, head, host).payload is None

    def apply(self, head: Head, *, binding: Binding, values: Values, target: Target, body_sha256: str | None) -> Head:
        plan = _plan(binding, head, target.host)
        payload = plan.payload or body_sha256
        if payload is None:
            raise Fault("fault", "the hash of the body is missing")
        if plan.bodies is not None and payload not in plan.bodies:
            raise Refusal("credential_minting")
        sign = _sign_query if plan.presigned else _sign_headers
        return sign(head, plan, payload, binding=binding, key=_key(values), target=target)


def _plan(binding: Binding, head: Head, host: str) -> _Plan:
    raw = aws_wire.read_query(head.target.partition(b"?")[2])
    scope = aws_scope.scope(
        host,
        path=head.path,
        service=binding.service,
        region=binding.region,
        client_scope=aws_presigned.client_scope(raw) or _client_scope(head.headers),
    )
    path = aws_wire.write_path(head.path, scope.family)
    presigned = aws_presigned.read(raw, s3=scope.family == "s3")
    query = aws_presigned.strip(raw, presigned)
    payload = aws_body.payload(head, scope, presigned=query if presigned else None)
    bodies = None
    if MINTING_FLAG not in binding.flags:
        bodies = aws_minting.check(
            scope.service,
            method=head.method,
            path=path,
            query=query,
            headers=head.headers,
            body_possible=aws_body.follows(head) is not False,
        )
        if bodies is not None and payload is not None and payload not in bodies:
            raise Refusal("credential_minting")
    return _Plan(scope=scope, path=path, query=query, presigned=presigned, payload=payload, bodies=bodies)


def _client_scope(headers: Headers) -> tuple[str, str] | None:
    for name, value in headers:
        if name.lower() == b"authorization" and (stated := _CLIENT_SCOPE.search(value)):
            return stated[2].decode("latin-1"), stated[1].decode("latin-1")
    return None


def _sign_headers(head: Head, plan: _Plan, payload: str, *, binding: Binding, key: Key, target: Target) -> Head:
    stamp = _stamp(target.now)
    ours = [("X-Amz-Date", stamp), ("X-Amz-Content-SHA256", payload)]
    if key.token:
        ours.append(("X-Amz-Security-Token", key.token))
    written, signed = _headers(head.headers, binding, host=_authority(target), old=_OLD | {aws_body.HEADER})
    signed.update((name.lower(), value) for name, value in ours)
    query = aws_wire.write_query(plan.query)
    subject = Signable(
        method=head.method, path=plan.path, query=query, headers=signed, payload=payload, timestamp=stamp
    )
    ours.append(("Authorization", aws_signer.authorization(subject, key=key, scope=plan.scope)))
    return Head(
        head.method,
        _target(plan.path, query),
        (*written, *((name.encode(), value.encode()) for name, value in ours)),
    )


def _sign_query(head: Head, plan: _Plan, payload: str, *, binding: Binding, key: Key, target: Target) -> Head:
    if plan.presigned is None:
        raise Fault
    at, seconds = plan.presigned.life(now=target.now)
    written, signed = _headers(head.headers, binding, host=_authority(target), old=_OLD)
    subject = Signable(
        method=head.method, path=plan.path, query="", headers=signed, payload=payload, timestamp=_stamp(at)
    )
    ours = {
        "X-Amz-Algorithm": aws_signer.ALGORITHM,
        "X-Amz-Credential": aws_signer.credential(subject, key=key, scope=plan.scope),
        "X-Amz-Date": subject.timestamp,
        "X-Amz-Expires": str(seconds),
        "X-Amz-SignedHeaders": aws_signer.signed_headers(signed),
    }
    if key.token:
        ours["X-Amz-Security-Token"] = key.token
    pairs = plan.query + [Pair(name, equals=True, value=aws_wire.encode(value)) for name, value in ours.items()]
    subject = replace(subject, query=aws_wire.write_query(pairs))
    signature = aws_signer.sign(subject, key=key, scope=plan.scope).signature
    return Head(head.method, _target(plan.path, f"{subject.query}&X-Amz-Signature={signature}"), tuple(written))


def _headers(
    headers: Headers, binding: Binding, *, host: str, old: frozenset[bytes]
) -> tuple[list[tuple[bytes, bytes]], dict[str, str]]:
    """
    The headers to write and, among them, those to sign.

    `old` ones are gone; a repeated signed header is one line, because some verifiers take only the first. Host is the
    destination without its default port, whatever spelling the client used.
    """
    written: list[tuple[bytes, bytes]] = []
    places: dict[bytes, int] = {}
    for name, sent in placement.add_constants(headers, binding.constants):
        lower, value = name.lower(), sent
        if placement.canonical(name) in old:
            continue
        if lower == b"host":
            if lower in places:
                raise Refusal("authority_mismatch")
            value = host.encode()
        elif lower.startswith(b"x-amz-") or lower in (b"content-type", b"content-md5"):
            value = sent.replace(b"\t", b" ").strip(b" ")
            if (place := places.get(lower)) is not None:
                written[place] = (written[place][0], written[place][1] + b"," + value)
                continue
        else:
            written.append((name, value))
            continue
        places[lower] = len(written)
        written.append((name, value))
    signed = {name.decode("latin-1"): written[i][1].decode("utf-8", "surrogateescape") for name, i in places.items()}
    return written, {"host": host, **signed}


def _authority(target: Target) -> str:
    return target.host if target.port == 443 else f"{target.host}:{target.port}"


def _target(path: str, query: str) -> bytes:
    return (f"{path}?{query}" if query else path).encode("ascii")


def _stamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y%m%dT%H%M%SZ")


def _key(values: Values) -> Key:
    try:
        key = Key(values["access_key_id"], values["secret_access_key"], values.get("session_token"))
    except KeyError:
        raise Fault("fault", "a stored secret lacks a field") from None
    if any(_problem(name, value) for name, value in values.items()):
        raise Fault("fault", "a stored value cannot be written")
    return key


def _problem(name: str, value: str) -> str | None:
    if problem := placement.unwritable(value):
        return problem
    if name == "access_key_id" and not _KEY_ID.fullmatch(value):
        return "holds a blank, a comma, '=' or '/'"
    return None


KIND = SigV4()
