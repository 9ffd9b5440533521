"""
Does a request carry a right AWS Signature Version 4a? With nothing but `cryptography`, so that it can disagree with awscrt.

Written from "Create a signed AWS API request" (IAM User Guide) and NIST SP 800-108, whose counter mode makes the key pair:

    input     00000001 ‖ algorithm ‖ 00 ‖ access key id ‖ counter (one byte, from 1) ‖ 00000100
    private   1 + HMAC-SHA256("AWS4A" + secret, input), with the next counter while that is over the order of P-256 - 2
"""

import hashlib
import hmac
import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote_to_bytes

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

ALGORITHM = "AWS4-ECDSA-P256-SHA256"
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
MUST_BE_SIGNED = re.compile(r"x-amz-.*|content-type|content-md5|host")
S3_FAMILY = {"s3", "s3-outposts", "s3-object-lambda"}
_AUTHORIZATION = re.compile(
    ALGORITHM + r" Credential=([^/, ]+)/(\d{8})/([^/, ]+)/aws4_request, SignedHeaders=([^, ]+), Signature=([0-9a-f]+)"
)


@dataclass(frozen=True)
class Signed:
    """What a right signature says."""

    service: str
    region_set: str
    payload: str
    stamp: str
    names: tuple
    seconds: int | None = None


def private_key(access_key, secret_key):
    """The key pair that follows from an access key."""
    for counter in range(1, 255):
        text = b"\0\0\0\1" + ALGORITHM.encode() + b"\0" + access_key.encode() + bytes([counter]) + b"\0\0\1\0"
        candidate = int.from_bytes(hmac.digest(b"AWS4A" + secret_key.encode(), text, "sha256"))
        if candidate <= ORDER - 2:
            return ec.derive_private_key(candidate + 1, ec.SECP256R1())
    raise AssertionError("no key")


def verify(method, *, target, headers, key, body=b"", token=None):
    """What was signed. `key` is (access key id, secret). Raises AssertionError, or InvalidSignature."""
    fields = {}
    for name, value in headers:
        text = re.sub(r"[ \t]+", " ", value.decode()).strip(" ")
        lower = name.decode().lower()
        fields[lower] = f"{fields[lower]},{text}" if lower in fields else text
    path, _, query = target.decode("ascii").partition("?")
    in_query = {n: v for n, v in parse_qsl(query, keep_blank_values=True) if n.startswith("X-Amz-")}
    if "X-Amz-Signature" in in_query:
        assert "authorization" not in fields
        assert in_query["X-Amz-Algorithm"] == ALGORITHM
        access, day, service, terminator = in_query["X-Amz-Credential"].split("/")
        assert terminator == "aws4_request"
        names, signature = in_query["X-Amz-SignedHeaders"], in_query["X-Amz-Signature"]
        stamp, regions, sent_token = (in_query.get(f"X-Amz-{n}") for n in ("Date", "Region-Set", "Security-Token"))
        unsigned = "UNSIGNED-PAYLOAD" if service in S3_FAMILY else hashlib.sha256(body).hexdigest()
        payload = in_query.get("X-Amz-Content-Sha256") or fields.get("x-amz-content-sha256") or unsigned
        query = "&".join(pair for pair in query.split("&") if not pair.startswith("X-Amz-Signature="))
        seconds = int(in_query["X-Amz-Expires"])
    else:
        access, day, service, names, signature = _AUTHORIZATION.fullmatch(fields["authorization"]).groups()
        stamp, regions, sent_token = (fields.get(f"x-amz-{n}") for n in ("date", "region-set", "security-token"))
        payload, seconds = fields["x-amz-content-sha256"], None
    assert (access, stamp[:8], sent_token) == (key[0], day, token)
    signed = names.split(";")
    assert signed == sorted(name for name in fields if MUST_BE_SIGNED.fullmatch(name))
    if re.fullmatch("[0-9a-f]{64}", payload):
        assert payload == hashlib.sha256(body).hexdigest()
    lines = [f"{name}:{fields[name]}" for name in signed]
    canonical = [method, _path(path, service), _query(query), *lines, "", names, payload]
    digest = hashlib.sha256("\n".join(canonical).encode()).hexdigest()
    to_sign = f"{ALGORITHM}\n{stamp}\n{day}/{service}/aws4_request\n{digest}"
    public = private_key(*key).public_key()
    public.verify(bytes.fromhex(signature), to_sign.encode(), ec.ECDSA(hashes.SHA256()))
    return Signed(service, regions, payload, stamp, tuple(signed), seconds)


def _path(path, service):
    if service in S3_FAMILY:
        return quote(unquote_to_bytes(path), safe="/-_.~")
    kept = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in ("", "."):
            kept.append(segment)
    return quote("/" + "/".join(kept) + ("/" if kept and path.endswith("/") else ""), safe="/-_.~")


def _query(query):
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    written = sorted(tuple(quote(unquote_to_bytes(part), safe="-_.~") for part in (n, v)) for n, _, v in pairs)
    return "&".join(f"{name}={value}" for name, value in written)
