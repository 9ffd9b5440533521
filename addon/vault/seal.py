"""
One version of a secret at rest: encrypted once, its key wrapped to each recipient.

    context     = PAE("alter/secret/v1", vault id, secret id, version, kind, SHA256(binding))
    dek         = 32 random bytes, used for exactly one payload
    ek ‖ commit = HKDF-Expand-SHA256(dek, "alter/dek/v1", 64)
    payload     = 0x01 ‖ commit (32) ‖ nonce (12) ‖ AES-256-GCM(ek, nonce, plaintext, aad = context ‖ commit)
    wrap        = HPKE(recipient, dek, info = PAE("alter/wrap/v1", kid, context, commit))
    PAE         = count ‖ (length ‖ bytes)*         these numbers, and `version`, are 8-byte little-endian

The binding is in `context`, so whoever edits where a secret may go makes it unopenable. `commit` is there because GCM
alone can be made to open under two keys. Wraps stand beside the payload and are not covered by it: adding or retiring
a recipient (`rewrap`) leaves the payload, and anything signed over it, untouched. The first byte is the format, a wrap
carries its suite; an unknown one of either refuses.
"""

import functools
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from addon.binding import digest
from addon.errors import Fault, Locked, Usage
from addon.vault.keyring import SUITES, Keyring, Recipient, pae

__all__ = ["LIMIT", "Place", "Sealed", "Wrap", "open_sealed", "pae", "rewrap", "seal"]

LIMIT = 64 * 1024
"""The longest plaintext, in bytes."""

_FORMAT = b"\x01"
_HEAD = 1 + 32 + 12
_TAG = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a sealed value belongs. `binding` is the stored bytes. A value opens at its own place and at no other."""

    vault_id: str
    secret_id: str
    version: int
    kind: str
    binding: bytes

    def context(self) -> bytes:
        """The bytes that tie a payload and its wraps to this place."""
        return pae(
            b"alter/secret/v1",
            self.vault_id.encode(),
            self.secret_id.encode(),
            self.version.to_bytes(8, "little"),
            self.kind.encode(),
            digest(self.binding),
        )


@dataclass(frozen=True, slots=True)
class Wrap:
    """The key of one payload, for one recipient."""

    kid: str
    suite: int
    wrapped: bytes


@dataclass(frozen=True, slots=True)
class Sealed:
    """What the vault stores of one version: ciphertext only."""

    payload: bytes
    wraps: tuple[Wrap, ...]


def seal(plaintext: bytes, *, place: Place, recipients: Sequence[Recipient]) -> Sealed:
    """
    `plaintext` (1 byte to LIMIT), readable by any of `recipients` (at least one) at `place`. Needs no private key.

    Raises Usage for a plaintext of another size, Locked without a recipient.
    """
    if not 0 < len(plaintext) <= LIMIT:
        raise Usage("a value is empty or too large", hint=f"a value has 1 to {LIMIT} bytes")
    dek, nonce, context = secrets.token_bytes(32), secrets.token_bytes(12), place.context()
    key, commit = _derive(dek)
    ciphertext = AESGCM(key).encrypt(nonce, plaintext, context + commit)
    return Sealed(_FORMAT + commit + nonce + ciphertext, _wrap(dek, context, commit, recipients))


def open_sealed(sealed: Sealed, *, place: Place, keyring: Keyring) -> bytes:
    """
    The plaintext, opened for every use and never kept. About 50 µs with suite 1 the first time, then 7 µs.

    Raises Fault(`vault_unavailable`) for everything else: no key here, another place, another format, one bit changed.
    """
    try:
        context = place.context()
        commit, nonce, ciphertext = _split(sealed.payload)
        _, key = _unwrap(sealed.wraps, context, commit, keyring)
        return _cipher(key).decrypt(nonce, ciphertext, context + commit)
    except _UNVERIFIED as error:
        raise _refuse("a sealed value does not verify") from error


def rewrap(sealed: Sealed, *, place: Place, keyring: Keyring, recipients: Sequence[Recipient]) -> Sealed:
    """
    The same payload, byte for byte and never opened, for other recipients.

    Raises Fault(`vault_unavailable`) as `open_sealed`, Locked without a recipient.
    """
    try:
        context = place.context()
        commit, _, _ = _split(sealed.payload)
        dek, _ = _unwrap(sealed.wraps, context, commit, keyring)
    except _UNVERIFIED as error:
        raise _refuse("a sealed value does not verify") from error
    return Sealed(sealed.payload, _wrap(dek, context, commit, recipients))


_UNVERIFIED = (InvalidTag, ValueError, TypeError, OverflowError)
"""What the primitives and encodings raise over a row that is not what we wrote; the vault file is not trusted."""


def _refuse(detail: str) -> Fault:
    return Fault("vault_unavailable", detail)


def _derive(dek: bytes) -> tuple[bytes, bytes]:
    both = HKDFExpand(SHA256(), 64, b"alter/dek/v1").derive(dek)
    return both[:32], both[32:]


_derive_again = functools.lru_cache(maxsize=512)(_derive)
"""For opening, which remembers data keys (see `PrivateKey.unwrap`), and never a plaintext."""


@functools.lru_cache(maxsize=512)
def _cipher(key: bytes) -> AESGCM:
    return AESGCM(key)


def _split(payload: bytes) -> tuple[bytes, bytes, bytes]:
    if payload[:1] != _FORMAT:
        raise _refuse("a sealed value has a format this software does not know")
    if not _HEAD + _TAG < len(payload) <= _HEAD + LIMIT + _TAG:
        raise _refuse("a sealed value has an impossible length")
    return payload[1:33], payload[33:_HEAD], payload[_HEAD:]


def _info(kid: str, context: bytes, commit: bytes) -> bytes:
    return pae(b"alter/wrap/v1", kid.encode("ascii"), context, commit)


def _wrap(dek: bytes, context: bytes, commit: bytes, recipients: Sequence[Recipient]) -> tuple[Wrap, ...]:
    if not recipients:
        raise Locked("there is no key to seal to", hint="`vaultctl doctor` says what is missing")
    return tuple(Wrap(r.kid, r.suite, r.wrap(dek, info=_info(r.kid, context, commit))) for r in recipients)


def _unwrap(wraps: Sequence[Wrap], context: bytes, commit: bytes, keyring: Keyring) -> tuple[bytes, bytes]:
    """The dek and the key derived from it, once the commitment is known to be to them."""
    if any(wrap.suite not in SUITES for wrap in wraps):
        raise _refuse("a sealed value uses a suite this software does not know")
    for wrap in wraps:
        private = keyring.key(wrap.kid)
        if private and private.recipient.suite == wrap.suite:
            dek = private.unwrap(wrap.wrapped, info=_info(wrap.kid, context, commit))
            key, expected = _derive_again(dek)
            if not hmac.compare_digest(expected, commit):
                raise _refuse("a sealed value does not verify")
            return dek, key
    raise _refuse("no key here opens a sealed value")
