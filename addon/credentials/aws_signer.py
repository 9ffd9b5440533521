"""
Signature Version 4 by botocore's own signers, over exactly what will be written.

botocore keeps canonicalisation of path and query, the string to sign, the key and the signature. Taken from it are the
clock (the time is an argument), the choice of headers (ours), and its way with header values, which loses bytes that
are not UTF-8 and treats Unicode blanks as blanks. `add_auth` is never called: it reads the clock, and logs what it signs.
"""

import functools
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from addon.credentials import aws_wire, placement
from addon.credentials.aws_scope import Scope

if TYPE_CHECKING:
    from botocore.auth import SigV4Auth

ALGORITHM = "AWS4-HMAC-SHA256"

_KEY_ID = re.compile(r"[!-+.0-<>-~-]+")


@dataclass(frozen=True, slots=True, repr=False)
class Key:
    """An access key. `token` makes it a temporary one."""

    access_key: str
    secret_key: str
    token: str | None = None


def problem(field: str, value: str) -> str | None:
    """What is wrong with the value of a field of a key, in words; None if it can be written."""
    if found := placement.unwritable(value):
        return found
    if field == "access_key_id" and not _KEY_ID.fullmatch(value):
        return "holds a blank, a comma, '=' or '/'"
    return None


@dataclass(slots=True, kw_only=True)
class Signable:
    """
    A request as the signers read it.

    `path` and `query` are as written; `headers` are the ones to sign: lower-case name → value, repeated ones joined with
    a comma, bytes that are not UTF-8 as surrogates; `payload` is the hash, or the word that stands for it.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    payload: str
    timestamp: str
    params: None = None
    context: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.context = {"timestamp": self.timestamp}

    @property
    def url(self) -> str:
        """What botocore takes path and query from."""
        return f"https://signed{self.path}?{self.query}"


class Signed(NamedTuple):
    """The stages of a signature, named as in its specification."""

    canonical_request: str
    string_to_sign: str
    signature: str


def sign(request: Signable, *, key: Key, scope: Scope) -> Signed:
    """The signature of a request."""
    signer = _signers()[scope.family](cast("Any", key), scope.service, scope.region)
    subject = cast("Any", request)
    canonical_request = signer.canonical_request(subject)
    string_to_sign = signer.string_to_sign(subject, canonical_request)
    return Signed(canonical_request, string_to_sign, signer.signature(string_to_sign, subject))


def credential(request: Signable, *, key: Key, scope: Scope) -> str:
    """`KEY/DATE/REGION/SERVICE/aws4_request`, as a signature states it."""
    return f"{key.access_key}/{request.timestamp[:8]}/{scope.region}/{scope.service}/aws4_request"


def signed_headers(headers: Mapping[str, str]) -> str:
    """The names of the headers to sign, as a signature states them."""
    return ";".join(sorted(headers))


def authorization(request: Signable, *, key: Key, scope: Scope) -> str:
    """The value of `Authorization`."""
    return (
        f"{ALGORITHM} Credential={credential(request, key=key, scope=scope)}, "
        f"SignedHeaders={signed_headers(request.headers)}, Signature={sign(request, key=key, scope=scope).signature}"
    )


def presign(request: Signable, *, key: Key, scope: Scope, seconds: int) -> str:
    """The query of a presigned URL that lives for so many seconds, its signature at the end."""
    ours = {
        "X-Amz-Algorithm": ALGORITHM,
        "X-Amz-Credential": credential(request, key=key, scope=scope),
        "X-Amz-Date": request.timestamp,
        "X-Amz-Expires": str(seconds),
        "X-Amz-SignedHeaders": signed_headers(request.headers),
    }
    if key.token:
        ours["X-Amz-Security-Token"] = key.token
    query = "&".join([*filter(None, [request.query]), *(f"{n}={aws_wire.encode(v)}" for n, v in ours.items())])
    return f"{query}&X-Amz-Signature={sign(replace(request, query=query), key=key, scope=scope).signature}"


def load() -> None:
    """Import botocore's signers, once."""
    _signers()


@functools.cache
def _signers() -> "dict[str, type[SigV4Auth]]":
    from botocore.auth import S3SigV4Auth, SigV4Auth  # noqa: PLC0415  takes 0.3 s and 36 MB, only where AWS is used

    logging.getLogger("botocore").setLevel(logging.INFO)

    class Exact(SigV4Auth):
        def headers_to_sign(self, request: Any) -> Any:
            return request.headers

        def canonical_headers(self, headers_to_sign: Any) -> str:
            return "\n".join(f"{name}:{_trim(headers_to_sign[name])}" for name in sorted(headers_to_sign))

        def signed_headers(self, headers_to_sign: Any) -> str:
            return signed_headers(headers_to_sign)

        def payload(self, request: Any) -> str:
            return cast("str", request.payload)

        def string_to_sign(self, request: Any, canonical_request: str) -> str:
            digest = sha256(canonical_request.encode("utf-8", "surrogateescape")).hexdigest()
            return "\n".join([ALGORITHM, request.timestamp, self.credential_scope(request), digest])

    class ExactS3(Exact, S3SigV4Auth):
        pass

    return {"aws": Exact, "s3": ExactS3}


def _trim(value: str) -> str:
    return " ".join(filter(None, value.replace("\t", " ").split(" ")))
