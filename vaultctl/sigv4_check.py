"""
Does a request carry a right AWS Signature Version 4? The check of the demo's upstream, and of our own tests.

Written from the AWS documentation "Create a signed AWS API request" (IAM User Guide) and "Authenticating Requests:
Using the Authorization Header" (S3 API reference), with the standard library only. It shares nothing with the signer,
so that the two can disagree: that is the whole point of it.

    canonical request = method \n path \n query \n header lines \n\n signed names \n payload hash
    string to sign    = AWS4-HMAC-SHA256 \n time \n scope \n sha256(canonical request)
    signing key       = hmac chain over "AWS4" + secret: day, region, service, "aws4_request"

Header signatures only: presigned URLs, signed chunks and SigV4a are not judged here and never verify.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from urllib.parse import quote, unquote_to_bytes

MAX_SKEW = 15 * 60
"""Seconds that the signing time may be off."""

# These take the path as the client means it, encoded once. All others normalise it and encode it twice.
_S3_FAMILY = {"s3", "s3-outposts", "s3-object-lambda", "s3express"}
_UNHASHED = {b"UNSIGNED-PAYLOAD", b"STREAMING-UNSIGNED-PAYLOAD-TRAILER"}

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 +"
    r"Credential=(?P<id>[^/, ]+)/(?P<day>\d{8})/(?P<region>[^/, ]+)/(?P<service>[^/, ]+)/aws4_request, *"
    r"SignedHeaders=(?P<names>[^, ]+), *"
    r"Signature=(?P<signature>[0-9a-f]{64})"
)


def verify(
    method: str,
    *,
    target: bytes,
    headers: Sequence[tuple[bytes, bytes]],
    body: bytes,
    keys: Mapping[str, str],
    now: float,
    region: str,
    service: str,
    tokens: Mapping[str, str] | None = None,
) -> str | None:
    """
    None if the request is signed right, else one line that says what is wrong and holds no secret.

    `target` and `headers` are as received; HTTP/2 callers pass `:authority` as `host`. `keys` maps access key ids to
    secret keys, `tokens` access key ids to the session token that must come with them; an id without one must not send
    one. `now` is seconds since the epoch (UTC). The body is hashed unless the request says, under the signature, that
    it is not.
    """
    sent = _fold(headers)
    s3 = service in _S3_FAMILY
    try:
        claim = _read_claim(headers)
        _check_scope(claim, region=region, service=service)
        _check_key(claim["id"], sent.get("x-amz-security-token", b""), keys=keys, tokens=tokens or {})
        names = claim["names"].split(";")
        _check_names(names, sent)
        stamp = _check_time(sent.get("x-amz-date", b""), day=claim["day"], now=now)
        payload = _check_payload(sent.get("x-amz-content-sha256", b""), body=body, s3=s3)
    except _WrongError as wrong:
        return str(wrong)
    canonical = b"\n".join(
        (
            method.encode(),
            _path(target, s3=s3),
            _query(target),
            *(name.encode() + b":" + sent[name] for name in names),
            b"",
            claim["names"].encode(),
            payload,
        )
    )
    scope = f"{claim['day']}/{region}/{service}/aws4_request"
    to_sign = "\n".join(("AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical).hexdigest()))
    key = b"AWS4" + keys[claim["id"]].encode()
    for part in (*scope.split("/"), to_sign):
        key = hmac.digest(key, part.encode(), "sha256")
    return None if hmac.compare_digest(key.hex(), claim["signature"]) else "the signature does not match"


class _WrongError(Exception):
    """The reason, in words."""


def _fold(headers: Sequence[tuple[bytes, bytes]]) -> dict[str, bytes]:
    """Lower-case name → value: trimmed, runs of white space made one, repeated headers joined with a comma."""
    folded: dict[str, bytes] = {}
    for name, value in headers:
        key, text = name.decode("latin-1").lower(), re.sub(rb"[ \t\r\n]+", b" ", value).strip(b" ")
        folded[key] = folded[key] + b"," + text if key in folded else text
    return folded


def _read_claim(headers: Sequence[tuple[bytes, bytes]]) -> re.Match[str]:
    values = [value for name, value in headers if name.lower() == b"authorization"]
    if len(values) != 1:
        raise _WrongError("there must be exactly one Authorization header")
    claim = _AUTHORIZATION.fullmatch(values[0].decode("latin-1"))
    if claim is None:
        raise _WrongError("the Authorization header is not of the form AWS4-HMAC-SHA256 Credential=…")
    return claim


def _check_scope(claim: re.Match[str], *, region: str, service: str) -> None:
    if (claim["region"], claim["service"]) != (region, service):
        raise _WrongError(f"the scope is {claim['region']}/{claim['service']}, not {region}/{service}")


def _check_key(key_id: str, token: bytes, *, keys: Mapping[str, str], tokens: Mapping[str, str]) -> None:
    if key_id not in keys:
        raise _WrongError("the access key id is unknown")
    if token != tokens.get(key_id, "").encode():
        raise _WrongError("the session token is not the one of this access key id")


def _check_names(names: Sequence[str], sent: Mapping[str, bytes]) -> None:
    if list(names) != sorted(set(names)):
        raise _WrongError("SignedHeaders is not sorted, or repeats a name")
    if "host" not in names:
        raise _WrongError("host is not signed")
    for name in names:
        if name not in sent:
            raise _WrongError(f"the signed header {name} is missing")
    for name in sent:
        if name.startswith("x-amz-") and name not in names:
            raise _WrongError(f"{name} is not signed")


def _check_time(stamp: bytes, *, day: str, now: float) -> str:
    try:
        text = stamp.decode("ascii")
        signed_at = datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        text = ""
    if len(text) != len("20150830T123600Z"):
        raise _WrongError("X-Amz-Date is missing or malformed")
    if text[:8] != day:
        raise _WrongError("the scope is of another day than X-Amz-Date")
    if abs(signed_at - now) > MAX_SKEW:
        raise _WrongError("X-Amz-Date is more than 15 minutes off")
    return text


def _check_payload(stated: bytes, *, body: bytes, s3: bool) -> bytes:
    """The last line of the canonical request: a hash that is right, or (S3 only) a word saying that none was made."""
    if stated in _UNHASHED:
        if not s3:
            raise _WrongError("only S3 takes an unsigned payload")
        return stated
    if stated.startswith(b"STREAMING-"):
        raise _WrongError("signed chunks are not supported here")
    if s3 and not stated:
        raise _WrongError("x-amz-content-sha256 is missing")
    actual = hashlib.sha256(body).hexdigest().encode()
    if stated not in (b"", actual):
        raise _WrongError("x-amz-content-sha256 is not the hash of the body")
    return actual


def _path(target: bytes, *, s3: bool) -> bytes:
    """S3: the decoded key, encoded once. Others: without empty and dot segments, encoded once more."""
    path = target.partition(b"?")[0] or b"/"
    if s3:
        return quote(unquote_to_bytes(path), safe="/").encode()
    kept: list[bytes] = []
    for segment in path.split(b"/"):
        if segment == b"..":
            del kept[-1:]
        elif segment not in (b"", b"."):
            kept.append(segment)
    tail = b"/" if kept and path.endswith(b"/") else b""
    return quote(b"/" + b"/".join(kept) + tail, safe="/").encode()


def _query(target: bytes) -> bytes:
    """Names and values decoded, encoded again, sorted by name and then by value."""
    pairs = []
    for part in target.partition(b"?")[2].split(b"&"):
        if part:
            name, _, value = part.replace(b"+", b" ").partition(b"=")
            pairs.append((quote(unquote_to_bytes(name), safe=""), quote(unquote_to_bytes(value), safe="")))
    return "&".join(f"{name}={value}" for name, value in sorted(pairs)).encode()
