"""
Keys of callers.

    key      = "alter_" type "_" random "_" checksum
    type     = "app" / "agt" / "run"
    random   = 52 base32 characters (256 random bits, lower case, no padding)
    checksum = 7 base32 characters, CRC-32 of everything before it

The checksum catches a typo without asking the vault, and the fixed shape lets secret scanners find a leaked key. The
vault keeps the SHA-256 of the whole key: 256 random bits need no salt and no slow hash.
"""

import base64
import binascii
import hashlib
import re
import secrets
from typing import Literal

from addon.model import Key

KeyType = Literal["app", "agt", "run"]

CALLER_TYPES: dict[str, KeyType] = {"app": "app", "agent": "agt"}
"""The key type of each caller type. A `run` key may stand for either."""

_SHAPE = re.compile(r"(alter_(app|agt|run)_[a-z2-7]{52})_([a-z2-7]{7})")


class Mistyped(ValueError):
    """Not a key, or a key with a typo."""


def mint(key_type: KeyType) -> tuple[str, Key]:
    """A new key: the text to show once, and what the vault keeps."""
    stem = f"alter_{key_type}_{_base32(secrets.token_bytes(32))}"
    text = f"{stem}_{_checksum(stem)}"
    return text, parse(text)


def parse(text: str) -> Key:
    """Raises Mistyped unless shape and checksum are right. Proves nothing: the vault must know the digest."""
    match = _SHAPE.fullmatch(text)
    if not match or _checksum(match[1]) != match[3]:
        raise Mistyped
    return Key(match[2], hashlib.sha256(text.encode("ascii")).digest())


def _checksum(stem: str) -> str:
    return _base32(binascii.crc32(stem.encode("ascii")).to_bytes(4, "big"))


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode("ascii").rstrip("=").lower()
