"""
Where a request carries the key of its caller.

`Proxy-Authorization: Basic <caller:key>` comes by itself from `HTTPS_PROXY=http://NAME:KEY@HOST:PORT`: on the CONNECT,
where it holds for the tunnel, or on a plain request. `X-Alter-Key` is for clients that cannot send it.
"""

import base64
import binascii

from addon.callers.key import Mistyped, parse
from addon.errors import Refusal
from addon.model import Proof, Request


def find(request: Request) -> Proof | None:
    """
    The proof a request carries, or None.

    Raises Refusal `caller_invalid` for anything malformed, repeated, or two proofs that disagree.
    """
    own = [parse_basic(value) for value in request.values(b"proxy-authorization")]
    if request.tunnel_key is not None:
        own.append(request.tunnel_key)
    found = own + [_parse_key(value) for value in request.values(b"x-alter-key")]
    for name in (b"proxy-authorization", b"x-alter-key"):
        if len(request.values(name)) > 1:
            raise Refusal("caller_invalid")
    if len({proof.key.digest for proof in found}) > 1 or len({proof.name for proof in own}) > 1:
        # All must name the same caller, and only the vault could tell of two different keys: equal keys are enough.
        raise Refusal("caller_invalid")
    return found[0] if found else None


def parse_basic(value: bytes) -> Proof:
    """`Basic <base64 name:key>` (RFC 7617). Raises Refusal `caller_invalid`."""
    scheme, _, encoded = value.partition(b" ")
    if scheme.lower() != b"basic":
        raise Refusal("caller_invalid")
    try:
        name, colon, key = base64.b64decode(encoded.strip(), validate=True).decode("utf-8").partition(":")
        return Proof(parse(key if colon else ""), name)
    except (binascii.Error, ValueError):
        raise Refusal("caller_invalid") from None


def _parse_key(value: bytes) -> Proof:
    try:
        return Proof(parse(value.decode("ascii").strip()), None)
    except (Mistyped, UnicodeDecodeError):
        raise Refusal("caller_invalid") from None
