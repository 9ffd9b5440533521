"""
What stands for the body in a signature: its hash, or one of the words of the specification.

    X-Amz-Content-SHA256 of the client       in the signature
    64 hex digits                            the same; the service compares it with the body, so it needs no trust
    UNSIGNED-PAYLOAD                         the same where the service takes it, else as if nothing had been sent
    STREAMING-UNSIGNED-PAYLOAD-TRAILER       the same
    STREAMING-AWS4-HMAC-SHA256-PAYLOAD, and  the same, for S3: the chunks are signed again as they pass (aws_chunks).
      the same with -TRAILER                 Refused under SigV4a, whose chunks we cannot sign
    any other                                refused: events, and chunks signed otherwise
    none, and no body                        the hash of nothing
    none, and a body                         UNSIGNED-PAYLOAD for S3, whose connection is TLS; else the body's hash

S3 wants to know how long a body is: one that comes in bare chunks is held until its length can be stated.

https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-auth-using-authorization-header.html
"""

import re
from collections.abc import Iterable
from typing import Final

from addon.credentials import aws_chunks
from addon.credentials.aws_scope import Scope
from addon.credentials.aws_wire import Pair
from addon.errors import Refusal
from addon.model import Head, Headers

HEADER: Final = b"x-amz-content-sha256"

_EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
_UNSIGNED = "UNSIGNED-PAYLOAD"
_UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
_CHUNKED = aws_chunks.SIGNED | {_UNSIGNED_TRAILER}
_TAKE_UNSIGNED = frozenset({"ebs", "lex", "mediastore", "omics"})
"""Services, beside S3's, with operations for which botocore itself does not hash the body."""

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


def payload(head: Head, scope: Scope, *, presigned: Iterable[Pair] | None) -> str | None:
    """
    What to sign for the body; None where its SHA-256 must be computed.

    `presigned` is the rest of the query of a presigned URL, where the hash may stand as well. Raises Refusal
    `signing_unsupported`.
    """
    sent = _sent(head.headers) or {p.value for p in presigned or () if p.name.lower() == HEADER.decode()}
    _check_framing(head, scope, sent, presigned=presigned is not None)
    takes_unsigned = scope.family == "s3" or scope.service in _TAKE_UNSIGNED
    claimed = sent.pop() if len(sent) == 1 else ""
    if _SHA256.fullmatch(claimed):
        return claimed.lower()
    if claimed in (_UNSIGNED, _UNSIGNED_TRAILER) and takes_unsigned:
        return claimed
    if claimed in aws_chunks.SIGNED and scope.family == "s3" and not scope.asymmetric and presigned is None:
        return claimed
    if sent or claimed not in ("", _UNSIGNED):
        raise Refusal("signing_unsupported")
    if presigned is not None and scope.family == "s3":
        return _UNSIGNED
    if follows(head) is False:
        return _EMPTY
    return _UNSIGNED if scope.family == "s3" and _is_sized(head) else None


def is_unsized(head: Head, scope: Scope, payload: str | None) -> bool:
    """Whether a body may follow whose length S3 wants, and nobody has stated."""
    return scope.family == "s3" and payload not in _CHUNKED and follows(head) is not False and not _is_sized(head)


def follows(head: Head) -> bool | None:
    """Whether a body follows; None if the head does not tell, as over HTTP/2, where a body needs no length."""
    lengths = [v.strip() for n, v in head.headers if n.lower() == b"content-length"]
    if any(n.lower() == b"transfer-encoding" for n, _ in head.headers) or any(set(v) - set(b"0") for v in lengths):
        return True
    return False if lengths or head.method in ("GET", "HEAD") else None


def _is_sized(head: Head) -> bool:
    return any(name.lower() == b"content-length" for name, _ in head.headers)


def _sent(headers: Headers) -> set[str]:
    return {v.strip().decode("latin-1") for n, v in headers if n.lower() == HEADER} - {""}


def _check_framing(head: Head, scope: Scope, sent: set[str], *, presigned: bool) -> None:
    """Raises Refusal for a body whose signatures we cannot make, and for chunks that would be stored as they are."""
    for name, value in head.headers:
        lower, text = name.lower(), value.lower()
        if lower == HEADER and scope.asymmetric and presigned:
            raise Refusal("signing_unsupported")  # awscrt cannot sign it there
        if lower == b"content-encoding" and b"aws-chunked" in text and not (len(sent) == 1 and sent <= _CHUNKED):
            raise Refusal("signing_unsupported")
        if lower == b"content-type" and b"application/vnd.amazon.eventstream" in text:
            raise Refusal("signing_unsupported")
        form = lower == b"content-type" and b"multipart/form-data" in text
        if form and scope.family == "s3" and head.method == "POST":
            raise Refusal("signing_unsupported")
