"""
One request to AWS: what its head decides, and the head and body that go out.

The client may have signed with any key, or not at all: its signature is taken off, the target is written in normal form,
and the result is signed. A presigned URL is signed again where it stands, with its own life time.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from addon.binding import Binding
from addon.credentials import (
    aws_body,
    aws_chunks,
    aws_claim,
    aws_minting,
    aws_presigned,
    aws_scope,
    aws_signer,
    aws_sigv4a,
    aws_wire,
)
from addon.credentials.aws_presigned import Presigned
from addon.credentials.aws_scope import Scope
from addon.credentials.aws_signer import Key, Signable
from addon.credentials.aws_wire import Pair
from addon.credentials.kind import Target
from addon.credentials.placement import add_constants, canonical
from addon.errors import Fault, Refusal
from addon.model import Head, Outgoing, Values

MINTING_FLAG: Final = "allow-credential-minting"

OLD: Final = frozenset({
    b"authorization", b"date", b"x-amz-date", b"x-amz-security-token", b"x-amz-s3session-token", b"x-amz-region-set",
})  # fmt: skip
"""Headers (canonical names) that belong to an earlier signature."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsRequest:
    """
    The plan for one request.

    `payload` stands for the body in the signature; None: its hash, when it is known. `bodies` are the only hashes that
    may go out, if not all. `unsized`: the body has no length yet, and the service wants one.
    """

    head: Head
    constants: tuple[tuple[str, str], ...]
    scope: Scope
    path: str
    query: list[Pair]
    presigned: Presigned | None
    payload: str | None
    bodies: frozenset[str] | None
    unsized: bool

    @property
    def needs_body(self) -> bool:
        return self.payload is None or self.unsized

    def apply(self, values: Values, *, target: Target, body_sha256: str | None) -> Outgoing:
        payload = self.payload or body_sha256
        if payload is None:
            raise Fault("fault", "the hash of the body is missing")
        if self.bodies is not None and payload not in self.bodies:
            raise Refusal("credential_minting")
        key = read_key(values)
        if self.presigned is not None:
            at, seconds = self.presigned.life(now=target.now)
            return Outgoing(self._presign(payload, key=key, host=target.authority, at=at, seconds=seconds))
        head = self._sign(payload, key=key, host=target.authority, at=target.now)
        if payload not in aws_chunks.SIGNED:
            return Outgoing(head)
        return Outgoing(head, aws_chunks.signer(head, secret_access_key=key.secret_key))

    def _sign(self, payload: str, *, key: Key, host: str, at: float) -> Head:
        """The head with its signature in `Authorization`."""
        signer = aws_sigv4a if self.scope.asymmetric else aws_signer
        stamp = _stamp(at)
        ours = [("X-Amz-Date", stamp), ("X-Amz-Content-SHA256", payload)]
        if self.scope.asymmetric:
            ours.append(("X-Amz-Region-Set", self.scope.region))
        if key.token:
            ours.append(("X-Amz-Security-Token", key.token))
        written, signed = self._headers(host=host, old=OLD | {aws_body.HEADER})
        signed |= {name.lower(): value for name, value in ours}
        query = aws_wire.write_query(self.query)
        subject = Signable(
            method=self.head.method, path=self.path, query=query, headers=signed, payload=payload, timestamp=stamp
        )
        ours.append(("Authorization", signer.authorization(subject, key=key, scope=self.scope)))
        written += [(name.encode(), value.encode()) for name, value in ours]
        return Head(self.head.method, self._target(query), tuple(written))

    def _presign(self, payload: str, *, key: Key, host: str, at: float, seconds: int) -> Head:
        """The head with its signature in the query."""
        signer = aws_sigv4a if self.scope.asymmetric else aws_signer
        written, signed = self._headers(host=host, old=OLD)
        query = aws_wire.write_query(self.query)
        subject = Signable(
            method=self.head.method, path=self.path, query=query, headers=signed, payload=payload, timestamp=_stamp(at)
        )
        query = signer.presign(subject, key=key, scope=self.scope, seconds=seconds)
        return Head(self.head.method, self._target(query), tuple(written))

    def _headers(self, *, host: str, old: frozenset[bytes]) -> tuple[list[tuple[bytes, bytes]], dict[str, str]]:
        """
        The headers to write and, among them, those to sign.

        `old` ones are gone; a repeated signed header is one line, because some verifiers take only the first. Host is
        the destination without its default port, whatever spelling the client used.
        """
        written: list[tuple[bytes, bytes]] = []
        places: dict[bytes, int] = {}
        for name, sent in add_constants(self.head.headers, self.constants):
            lower, value = name.lower(), sent
            if canonical(name) in old:
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
        signed = {
            name.decode("latin-1"): written[i][1].decode("utf-8", "surrogateescape") for name, i in places.items()
        }
        return written, {"host": host, **signed}

    def _target(self, query: str) -> bytes:
        return (f"{self.path}?{query}" if query else self.path).encode("ascii")


def read(head: Head, *, binding: Binding, host: str) -> AwsRequest:
    """The plan for a request to `host`. Raises Refusal."""
    raw = aws_wire.read_query(head.target.partition(b"?")[2])
    scope = aws_scope.scope(
        host,
        path=head.path,
        services=binding.services,
        regions=binding.regions,
        client_scope=aws_claim.read(head.headers, raw),
    )
    if scope.asymmetric:
        aws_sigv4a.check()
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
    return AwsRequest(
        head=head,
        constants=binding.constants,
        scope=scope,
        path=path,
        query=query,
        presigned=presigned,
        payload=payload,
        bodies=bodies,
        unsized=aws_body.is_unsized(head, scope, payload),
    )


def _stamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y%m%dT%H%M%SZ")


def read_key(values: Values) -> Key:
    """The access key in opened values. Raises Fault for one that cannot be written."""
    try:
        key = Key(values["access_key_id"], values["secret_access_key"], values.get("session_token"))
    except KeyError:
        raise Fault("fault", "a stored secret lacks a field") from None
    if any(aws_signer.problem(name, value) for name, value in values.items()):
        raise Fault("fault", "a stored value cannot be written")
    return key
