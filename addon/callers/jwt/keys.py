"""
The keys of a provider: a JWK set (RFC 7517) reduced to public keys that are fit to verify, each with one algorithm.

A key whose algorithm the set does not state gets the first of the provider's algorithms that fits its type. What is
unfit (encryption keys, private or symmetric ones, short RSA keys, other curves, one `kid` for two keys) is left out and
named in `skipped`; a token that asks for it finds no key.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from addon.callers.idp import SHARED
from addon.callers.jwt.wire import Invalid, Object, parse

LIMIT = 256 * 1024
"""The largest key set, in bytes."""

SHORTEST_SECRET = 32
"""Bytes of a shared secret (RFC 7518 3.2)."""

_LONGEST_SET = 128
_KID = re.compile(r"[\x21-\x7e]{1,128}")
_CURVES = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512", "Ed25519": "EdDSA"}
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"})
_WORDS = re.compile(rb"secret|passw|change.?me|example|default|private|sample|token|qwerty|12345678|abcdefg", re.IGNORECASE)  # fmt: skip


class Unusable(ValueError):
    """Not a key set, or none of its keys can be used. The message is for operators."""


@dataclass(frozen=True, slots=True)
class Key:
    """
    One key and the one algorithm it verifies. `material` is a public key of `cryptography`, or a shared secret.

    `verified` remembers tokens (their SHA-256) whose signature is by this key: a user sends the same one many times. It is
    no answer to anything else, and is gone with the key.
    """

    algorithm: str
    material: Any = field(repr=False)
    verified: set[bytes] = field(default_factory=set, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class KeySet:
    """The keys of one provider: `named` by `kid`, or one `sole` key whose tokens need no `kid`."""

    named: Mapping[str, Key]
    sole: Key | None = None
    skipped: tuple[str, ...] = ()

    def find(self, kid: str | None) -> Key | None:
        """The key a token names. A token that names none means the only key there is, or none."""
        if kid is None:
            return self.sole or (next(iter(self.named.values())) if len(self.named) == 1 else None)
        if self.sole and self.sole.algorithm == SHARED:
            return self.sole
        return self.named.get(kid)


def parse_set(document: bytes, *, algorithms: tuple[str, ...]) -> KeySet:
    """The usable keys in a JWK set. Raises Unusable if there is none, or if it is anything else."""
    if len(document) > LIMIT:
        raise Unusable(f"the key set is larger than {LIMIT} bytes")
    try:
        entries = parse(document, check="keys").get("keys")
    except Invalid as problem:
        raise Unusable(f"the key set is {problem.detail}") from None
    if not isinstance(entries, list) or len(entries) > _LONGEST_SET:
        raise Unusable(f"the key set has no list `keys` of at most {_LONGEST_SET}")
    named: dict[str, Key] = {}
    nameless: list[Key] = []
    skipped: list[str] = []
    twice: set[str] = set()
    for number, entry in enumerate(entries, 1):
        try:
            key, kid = _key(entry, algorithms)
        except Unusable as problem:
            skipped.append(f"key {number}: {problem}")
            continue
        if kid is None:
            nameless.append(key)
        elif named.setdefault(kid, key) != key:
            twice.add(kid)
            skipped.append(f"key {number}: its kid stands for another key too")
    for kid in twice:
        del named[kid]
    sole = nameless[0] if len(nameless) == 1 and not named and not twice else None
    if not named and sole is None:
        raise Unusable("no key can be used" + (": " + "; ".join(skipped[:5]) if skipped else ""))
    return KeySet(named, sole, tuple(skipped))


def holds_private(document: bytes) -> bool:
    """Whether a key set gives away a private or symmetric key, which belongs nowhere near a verifier."""
    try:
        entries = parse(document, check="keys").get("keys")
    except Invalid:
        return False
    return isinstance(entries, list) and any(isinstance(e, dict) and not _PRIVATE.isdisjoint(e) for e in entries)


def shared(secret: bytes) -> KeySet:
    """The set of one shared secret. Raises Unusable for one that could be guessed."""
    if len(secret) < SHORTEST_SECRET:
        raise Unusable(f"a shared secret has at least {SHORTEST_SECRET} bytes")
    if len(set(secret)) < 12 or _WORDS.search(secret):
        raise Unusable("this shared secret is not random")
    return KeySet({}, Key(SHARED, secret))


def _key(entry: object, algorithms: tuple[str, ...]) -> tuple[Key, str | None]:
    """A key and its kid. Raises Unusable."""
    if not isinstance(entry, dict):
        raise Unusable("not an object")
    if not _PRIVATE.isdisjoint(entry):
        raise Unusable("private or symmetric")
    kid, operations = entry.get("kid"), entry.get("key_ops", ["verify"])
    if kid is not None and not (isinstance(kid, str) and _KID.fullmatch(kid)):
        raise Unusable("its kid is not 1 to 128 printable characters")
    if entry.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        raise Unusable("not meant for signatures")
    algorithm = _algorithm(entry, algorithms)
    return Key(algorithm, _material(entry, algorithm)), kid


def _algorithm(entry: Object, algorithms: tuple[str, ...]) -> str:
    kty = entry.get("kty")
    if kty == "RSA":
        fitting = [each for each in algorithms if each[:2] in {"RS", "PS"}]
    elif kty in {"EC", "OKP"}:
        curve = entry.get("crv")
        fitting = [each for each in algorithms if isinstance(curve, str) and _CURVES.get(curve) == each]
    else:
        fitting = []
    stated = entry.get("alg")
    if stated is not None:
        fitting = [each for each in fitting if each == stated]
    if not fitting:
        raise Unusable("not for an algorithm of this provider")
    return fitting[0]


def _material(entry: Object, algorithm: str) -> Any:
    import jwt  # noqa: PLC0415  80 ms, which commands that verify nothing should not wait for
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey  # noqa: PLC0415

    try:
        material = jwt.PyJWK(entry, algorithm=algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError, OverflowError):
        raise Unusable("its numbers are not a public key") from None
    if isinstance(material, RSAPublicKey):
        numbers = material.public_numbers()
        if not 2048 <= material.key_size <= 8192 or numbers.e.bit_length() > 32:
            raise Unusable("an RSA key has 2048 to 8192 bits and a small exponent")
    return material
