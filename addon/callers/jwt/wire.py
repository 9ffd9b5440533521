"""
The compact form of a token, under rules that leave one reading.

    token  = part "." part "." part     base64url (RFC 4648 5) without padding, in its one canonical spelling
    header = payload = object           JSON in UTF-8 without BOM, no member twice, no NaN, nested at most 8 deep

A token has at most 8 KiB. What two parsers could read differently is refused, whoever signed it.
"""

import base64
import binascii
import re
from typing import Any

from addon import strict_json

LIMIT = 8 * 1024
"""The longest token, in characters."""

DEPTH = 8
"""How deep objects and lists may nest, the outermost counted."""

Object = dict[str, Any]

_FORM = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


class Invalid(ValueError):
    """The token does not count. `check` is the check that failed; `detail` is for operators, and never the token."""

    def __init__(self, check: str, detail: str) -> None:
        super().__init__(f"{check}: {detail}")
        self.check = check
        self.detail = detail


def split(text: str) -> tuple[bytes, bytes]:
    """The decoded header and payload of a token. Raises Invalid `form`."""
    if len(text) > LIMIT:
        raise Invalid("form", f"longer than {LIMIT} characters")
    if not _FORM.fullmatch(text):
        raise Invalid("form", "not three base64url parts with a dot between")
    header, payload, signature = (_decode(part) for part in text.split("."))
    if not signature:
        raise Invalid("form", "no signature")
    return header, payload


def parse(raw: bytes, *, check: str) -> Object:
    """The JSON object in `raw`. Raises Invalid, naming `check`."""
    try:
        value = strict_json.parse(raw, depth=DEPTH)
    except strict_json.Ambiguous as problem:
        raise Invalid(check, str(problem)) from None
    if not isinstance(value, dict):
        raise Invalid(check, "not a JSON object")
    return value


def _decode(part: str) -> bytes:
    try:
        raw = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except binascii.Error:
        raise Invalid("form", "a part has an impossible length") from None
    if base64.urlsafe_b64encode(raw).rstrip(b"=") != part.encode("ascii"):
        raise Invalid("form", "a part is not in canonical base64url")
    return raw
