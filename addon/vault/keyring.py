"""
The private keys that open secrets, and their public halves.

    suite 1   X25519, HKDF-SHA256, AES-256-GCM                      RFC 9180, base mode
    suite 2   X-Wing, HKDF-SHA256, AES-256-GCM                      draft-ietf-hpke-pq, KEM 0x647a
    seed      32 random bytes; suite 2 expands them by SHAKE256 to 64 for ML-KEM-768 and 32 for X25519
    public    suite 1: X25519 (32 bytes); suite 2: ML-KEM-768 (1184) ‖ X25519 (32)
    kid       SHA256(PAE("alter/kid/v1", suite, public))[:16], as 32 lower-case hex characters

A key file is text, so that it can be printed, compared and kept in a safe; blank lines and `#` lines are ignored:

    alter-egress keyring 1
    SUITE KID SEED            one line per key: decimal, hex, hex

The kid is derived again when a file is read, so a damaged or mistyped seed is noticed and never becomes another key.
"""

import functools
import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Self

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from addon import files
from addon.errors import Corrupt, Locked

_TITLE = b"alter-egress keyring "
_VERSION = b"1"
_NOTE = b"# Opens every secret of the vault. Keep it private, and apart from backups of the vault."
_LINE = re.compile(rb"([0-9]{1,3}) ([0-9a-f]{32}) ([0-9a-f]{64})")
_DAMAGED = "restore the key file from your own copy of it"


@functools.lru_cache(maxsize=1024)
def pae(*parts: bytes) -> bytes:
    """Pre-authentication encoding: count, then length and bytes of each part. Numbers are 8-byte little-endian."""
    return b"".join((_number(len(parts)), *(_number(len(part)) + part for part in parts)))


def _number(value: int) -> bytes:
    return value.to_bytes(8, "little")


class _X25519:
    hpke = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)

    @staticmethod
    def expand(seed: bytes) -> tuple[X25519PrivateKey, bytes]:
        """The private key of a seed, and its public bytes."""
        key = X25519PrivateKey.from_private_bytes(seed)
        return key, key.public_key().public_bytes_raw()

    @staticmethod
    def load(public: bytes) -> X25519PublicKey:
        """Raises ValueError for bytes that are no public key."""
        return X25519PublicKey.from_public_bytes(public)


class _XWing:
    hpke = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)

    @staticmethod
    def expand(seed: bytes) -> tuple[MLKEM768X25519PrivateKey, bytes]:
        """The private key of a seed, and its public bytes."""
        expanded = hashlib.shake_256(seed).digest(96)
        lattice = MLKEM768PrivateKey.from_seed_bytes(expanded[:64])
        curve = X25519PrivateKey.from_private_bytes(expanded[64:])
        public = lattice.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()
        return MLKEM768X25519PrivateKey(lattice, curve), public

    @staticmethod
    def load(public: bytes) -> MLKEM768X25519PublicKey:
        """Raises ValueError for bytes that are no public key."""
        lattice, curve = public[:1184], public[1184:]
        return MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(lattice), X25519PublicKey.from_public_bytes(curve)
        )


SUITES: dict[int, type[_X25519 | _XWing]] = {1: _X25519, 2: _XWing}
"""Every suite there is. A number that is not here refuses; nothing is negotiated."""


@dataclass(frozen=True, slots=True)
class Recipient:
    """
    Whom a secret is sealed to: a public key, free to be shown.

    Raises Locked for a suite this software does not know, Corrupt for bytes that are no public key of the suite.
    """

    suite: int
    public: bytes

    def __post_init__(self) -> None:
        if self.suite not in SUITES:
            raise Locked("a recipient uses a suite this software does not know", hint="upgrade alter-egress here")
        try:
            SUITES[self.suite].load(self.public)
        except ValueError:
            raise _malformed() from None

    @property
    def kid(self) -> str:
        """The id of the key: 32 hex characters that depend on suite and public key alone."""
        return hashlib.sha256(pae(b"alter/kid/v1", bytes([self.suite]), self.public)).hexdigest()[:32]

    def wrap(self, key: bytes, *, info: bytes) -> bytes:
        """`key`, encrypted so that only this recipient opens it, and only with the same `info` (RFC 9180 8.1)."""
        suite = SUITES[self.suite]
        try:
            return suite.hpke.encrypt(key, suite.load(self.public), info=info)
        except ValueError:  # a point of low order
            raise _malformed() from None


def _malformed() -> Corrupt:
    return Corrupt("the public key of a recipient is malformed", hint="`vaultctl doctor` compares it with the key file")


_REMEMBERED = 512
"""Data keys kept by a private key."""


class PrivateKey:
    """Opens what was wrapped to `recipient`. Never printed, compared by content, copied or pickled."""

    __slots__ = ("_key", "_seed", "_unwrapped", "recipient")

    def __init__(self, seed: bytes, *, suite: int) -> None:
        if suite not in SUITES:
            raise Locked("a key uses a suite this software does not know", hint="upgrade alter-egress here")
        if len(seed) != 32:
            raise Corrupt("the seed of a key does not have 32 bytes", hint=_DAMAGED)
        self._seed = seed
        # Built once and kept: building it for every use would double the price of opening, or worse.
        self._key: X25519PrivateKey | MLKEM768X25519PrivateKey
        self._key, public = SUITES[suite].expand(seed)
        self._unwrapped: dict[tuple[bytes, bytes], bytes] = {}
        self.recipient = Recipient(suite, public)

    @classmethod
    def generate(cls, suite: int = 1) -> Self:
        """A new key, from the operating system's random numbers."""
        return cls(secrets.token_bytes(32), suite=suite)

    def unwrap(self, wrapped: bytes, *, info: bytes) -> bytes:
        """
        What `Recipient.wrap` was given. Raises `cryptography.exceptions.InvalidTag` for anything else.

        Pure, so the last results are remembered: data keys, beside the key that opens them all; never a plaintext.
        """
        known = self._unwrapped.get((wrapped, info))
        if known is None:
            known = SUITES[self.recipient.suite].hpke.decrypt(wrapped, self._key, info=info)
            if len(self._unwrapped) >= _REMEMBERED:
                self._unwrapped.clear()
            self._unwrapped[wrapped, info] = known
        return known

    def line(self) -> bytes:
        """This key as a line of a key file. Holds the seed."""
        return f"{self.recipient.suite} {self.recipient.kid} {self._seed.hex()}".encode("ascii")

    def __repr__(self) -> str:
        return f"PrivateKey({self.recipient.kid})"

    def __reduce__(self) -> NoReturn:
        msg = "private keys are never serialised"
        raise TypeError(msg)


class Keyring:
    """The private keys of one proxy, at least one, each different. Raises Corrupt for none or a repeated one."""

    __slots__ = ("_keys",)

    def __init__(self, keys: Sequence[PrivateKey]) -> None:
        self._keys = {key.recipient.kid: key for key in keys}
        if not keys or len(self._keys) < len(keys):
            raise Corrupt("a keyring holds no key, or one key twice", hint=_DAMAGED)

    @classmethod
    def generate(cls, suite: int = 1) -> Self:
        """A ring of one new key."""
        return cls([PrivateKey.generate(suite)])

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """
        The ring that `dump` wrote.

        Raises Locked for a version or suite this software does not know, Corrupt for anything damaged.
        """
        first, *lines = data.splitlines() or [b""]
        if not first.startswith(_TITLE):
            raise Corrupt("the key file does not begin as one", hint=_DAMAGED)
        if first != _TITLE + _VERSION:
            raise Locked("the key file has a format this software does not know", hint="upgrade alter-egress here")
        return cls([_read(line) for line in lines if line and not line.startswith(b"#")])

    @classmethod
    def load(cls, path: Path) -> Self:
        """The ring in a key file. Raises Locked if others can read the file (`files.read_private`), or as `parse`."""
        return cls.parse(files.read_private(path))

    def dump(self) -> bytes:
        """The contents of a key file: every seed, in clear."""
        lines = (_TITLE + _VERSION, _NOTE, *(key.line() for key in self._keys.values()))
        return b"".join(line + b"\n" for line in lines)

    def key(self, kid: str) -> PrivateKey | None:
        """The key with this id, if it is here."""
        return self._keys.get(kid)

    def with_key(self, key: PrivateKey) -> "Keyring":
        """This ring and one more key, at its end."""
        return Keyring([*self._keys.values(), key])

    def without(self, kid: str) -> "Keyring":
        """This ring less one key. Raises Corrupt if it was the only one."""
        return Keyring([key for other, key in self._keys.items() if other != kid])

    @property
    def recipients(self) -> tuple[Recipient, ...]:
        """The public halves, in the order of the keys."""
        return tuple(key.recipient for key in self._keys.values())

    def __repr__(self) -> str:
        return f"Keyring({', '.join(self._keys)})"

    def __reduce__(self) -> NoReturn:
        msg = "private keys are never serialised"
        raise TypeError(msg)


def _read(line: bytes) -> PrivateKey:
    # A byte pattern, because the errors of decode() and fromhex() would carry the line along.
    match = _LINE.fullmatch(line)
    if not match:
        raise Corrupt("a line of the key file is malformed", hint=_DAMAGED)
    key = PrivateKey(bytes.fromhex(match[3].decode("ascii")), suite=int(match[1]))
    if key.recipient.kid.encode("ascii") != match[2]:
        raise Corrupt("a line of the key file is damaged: the key does not have its id", hint=_DAMAGED)
    return key
