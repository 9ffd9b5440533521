"""
The checks, in order. `verify` stops at the first that fails; `explain` runs all it can.

Every claim that counts is required and typed. `now` is the caller's: nothing here reads a clock.
"""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from addon.callers.idp import ASYMMETRIC, SHARED, Idp, find_claim
from addon.callers.jwt import wire
from addon.callers.jwt.keys import Key, KeySet
from addon.callers.jwt.wire import Invalid, Object
from addon.model import User

LEEWAY = 60
"""Seconds by which the provider's clock may differ from ours."""

MOST_GROUPS = 256

_REMEMBERED = 1024
"""Tokens kept by a key."""

_SUBJECT = re.compile(r"[\x21-\x7e]{1,256}")
_GROUP = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,254}[\x21-\x7e])?")
_ID_TOKEN = ("nonce", "at_hash", "c_hash")
_LATEST = 1 << 40


@dataclass(frozen=True, slots=True)
class Check:
    """One line of an explanation: `verdict` is `passed`, `failed` or `skipped`; `detail` is what was found."""

    name: str
    verdict: str
    detail: str


class Reading:
    """A token on its way to a user. What a check has found out is there for the later ones."""

    __slots__ = ("claims", "groups", "header", "idp", "key", "keys", "now", "parts", "subject", "text", "token_id")

    def __init__(self, text: str) -> None:
        self.text = text
        self.parts: tuple[bytes, bytes] | None = None
        self.header: Object | None = None
        self.claims: Object | None = None
        self.idp: Idp | None = None
        self.keys: KeySet | None = None
        self.key: Key | None = None
        self.now = 0.0
        self.subject: str | None = None
        self.groups: frozenset[str] = frozenset()
        self.token_id = ""

    @property
    def issuer(self) -> str:
        """The issuer the token claims, or nothing. Proves nothing: it only tells whose keys to take."""
        issuer = self.claims.get("iss") if self.claims else None
        return issuer if isinstance(issuer, str) else ""


def read(text: str) -> Reading:
    """The token taken apart, nothing about it proved. Raises Invalid."""
    reading = Reading(text)
    for _, check in _READ:
        check(reading)
    return reading


def verify(reading: Reading, *, idp: Idp, keys: KeySet, now: float) -> User:
    """Who the user is, at `now` (seconds since the epoch). Raises Invalid."""
    reading.idp, reading.keys, reading.now = idp, keys, now
    for _, check in _JUDGE:
        check(reading)
    return _user(reading)


def explain(text: str, *, idp: Idp, keys: KeySet | None, now: float) -> tuple[tuple[Check, ...], User | None]:
    """
    Every check with its verdict, and the user if all passed.

    A check that needs what an earlier one did not find, or `keys` that are not at hand, is skipped.
    """
    reading = Reading(text)
    reading.idp, reading.keys, reading.now = idp, keys, now
    found = []
    for name, check in (*_READ, *_JUDGE):
        try:
            found.append(Check(name, "passed", check(reading)))
        except Invalid as problem:
            found.append(Check(name, "failed", problem.detail))
        except _Unreached:
            found.append(Check(name, "skipped", "needs what was not found"))
    good = all(check.verdict == "passed" for check in found)
    return tuple(found), _user(reading) if good else None


class _Unreached(Exception):
    """A check needs what an earlier one did not find."""


def _need[T](value: T | None) -> T:
    if value is None:
        raise _Unreached
    return value


# ── taking apart ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _form(r: Reading) -> str:
    r.parts = wire.split(r.text)
    return f"{len(r.text)} characters in three parts"


def _header(r: Reading) -> str:
    r.header = wire.parse(_need(r.parts)[0], check="header")
    return ", ".join(sorted(r.header))


def _claims(r: Reading) -> str:
    r.claims = wire.parse(_need(r.parts)[1], check="claims")
    return ", ".join(sorted(r.claims))


# ── header ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _issuer(r: Reading) -> str:
    issuer = _need(r.claims).get("iss")
    if issuer != _need(r.idp).issuer:
        raise Invalid("issuer", f"iss is {_show(issuer)}, not {_need(r.idp).issuer}")
    return str(issuer)


def _parameters(r: Reading) -> str:
    header = _need(r.header)
    extra = header.keys() - {"alg", "kid", "typ"} - set(_need(r.idp).headers)
    if extra:
        raise Invalid("parameters", f"the header holds {', '.join(map(_show, sorted(extra)))}")
    return "alg, kid and typ at most"


def _type(r: Reading) -> str:
    found, allowed = _need(r.header).get("typ", ...), _need(r.idp).types
    if found is not ... and found not in allowed:
        raise Invalid("type", f"typ is {_show(found)}, not {' or '.join(allowed)}")
    return "none stated" if found is ... else str(found)


def _key(r: Reading) -> str:
    kid = _need(r.header).get("kid", ...)
    if kid is not ... and not isinstance(kid, str):
        raise Invalid("key", "kid is not text")
    r.key = _need(r.keys).find(None if kid is ... else kid)
    if r.key is None:
        raise Invalid("key", "kid is missing, and there are several keys" if kid is ... else f"the provider has no key {_show(kid)}")  # fmt: skip
    return "the only key" if kid is ... else str(kid)


def _algorithm(r: Reading) -> str:
    stated, key = _need(r.header).get("alg"), _need(r.key)
    if stated != key.algorithm:
        raise Invalid("algorithm", f"alg is {_show(stated)}, but the key is for {key.algorithm}")
    return key.algorithm


def _signature(r: Reading) -> str:
    import jwt  # noqa: PLC0415  see `keys`

    key, token = _need(r.key), sha256(r.text.encode()).digest()
    if token in key.verified:
        return "verified"
    try:
        _jws().decode_complete(r.text, key=key.material, algorithms=[key.algorithm])
    except (jwt.PyJWTError, ValueError, TypeError):
        raise Invalid("signature", "the signature is not that of this key") from None
    if len(key.verified) >= _REMEMBERED:
        key.verified.clear()
    key.verified.add(token)
    return "verified"


# ── claims ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _audience(r: Reading) -> str:
    idp = _need(r.idp)
    found = _need(r.claims).get(idp.audience_claim)
    if isinstance(found, list) and idp.audience_list:
        if all(isinstance(each, str) for each in found) and not set(found).isdisjoint(idp.audiences):
            return ", ".join(found)
    elif isinstance(found, str) and found in idp.audiences:
        return found
    raise Invalid("audience", f"{idp.audience_claim} is {_show(found)}, not {' or '.join(idp.audiences)}")


def _purpose(r: Reading) -> str:
    marks = [name for name in _ID_TOKEN if name in _need(r.claims)]
    if marks and not _need(r.idp).id_tokens:
        raise Invalid("purpose", f"{' and '.join(marks)}: the mark of an id token, not of an access token")
    return "no mark of an id token" if not marks else "an id token, which this provider may send"


def _required(r: Reading) -> str:
    claims, required = _need(r.claims), _need(r.idp).required
    for name, expected in required:
        found = find_claim(claims, name)
        text = found if isinstance(found, str) else {True: "true", False: "false"}.get(found) if isinstance(found, bool) else None  # fmt: skip
        if text != expected:
            raise Invalid("required", f"{name} is {_show(found)}, not {expected}")
    return ", ".join(name for name, _ in required) or "nothing further"


def _issued(r: Reading) -> str:
    at = _time(r, "iat", "issued")
    if at > r.now + LEEWAY:
        raise Invalid("issued", f"iat is {at - r.now:.0f} seconds ahead")
    return f"{r.now - at:.0f} seconds ago"


def _started(r: Reading) -> str:
    if "nbf" not in _need(r.claims):
        return "no nbf"
    at = _time(r, "nbf", "started")
    if at > r.now + LEEWAY:
        raise Invalid("started", f"nbf is {at - r.now:.0f} seconds ahead")
    return "nbf has passed"


def _expiry(r: Reading) -> str:
    at = _time(r, "exp", "expiry")
    if at <= r.now - LEEWAY:
        raise Invalid("expiry", f"expired {r.now - at:.0f} seconds ago")
    return f"in {at - r.now:.0f} seconds"


def _lifetime(r: Reading) -> str:
    seconds, most = _time(r, "exp", "lifetime") - _time(r, "iat", "lifetime"), _need(r.idp).max_ttl
    if not 0 < seconds <= most:
        raise Invalid("lifetime", f"{seconds} seconds from iat to exp, not 1 to {most}")
    return f"{seconds} seconds"


def _subject(r: Reading) -> str:
    idp = _need(r.idp)
    for name in {"sub", idp.user_claim}:
        found = find_claim(_need(r.claims), name)
        if not isinstance(found, str) or not _SUBJECT.fullmatch(found):
            raise Invalid("subject", f"{name} is {_show(found)}, not 1 to 256 printable characters without blanks")
        if name == idp.user_claim:
            r.subject = found
    return f"{idp.user_claim} is {r.subject}"


def _groups(r: Reading) -> str:
    name = _need(r.idp).group_claim
    if not name:
        return "no claim for groups is set"
    found = find_claim(_need(r.claims), name, [])
    if not isinstance(found, list) or len(found) > MOST_GROUPS:
        raise Invalid("groups", f"{name} is not a list of at most {MOST_GROUPS}")
    for each in found:
        if not isinstance(each, str) or not _GROUP.fullmatch(each):
            raise Invalid("groups", f"{name} holds {_show(each)}")
    r.groups = frozenset(found)
    return f"{len(r.groups)} in {name}"


def _identity(r: Reading) -> str:
    found = _need(r.claims).get("jti", "")
    if not isinstance(found, str) or len(found) > 256 or not found.isprintable():
        raise Invalid("identity", f"jti is {_show(found)}")
    r.token_id = found
    return found or "no jti"


@functools.cache
def _jws() -> Any:
    from jwt import PyJWS  # noqa: PLC0415  see `keys`

    return PyJWS(algorithms=[*ASYMMETRIC, SHARED], options={"enforce_minimum_key_length": True})


def _user(r: Reading) -> User:
    idp, claims = _need(r.idp), _need(r.claims)
    return User(
        idp=idp.name,
        subject=_need(r.subject),
        groups=r.groups,
        issuer=idp.issuer,
        token_id=r.token_id,
        issued_at=claims["iat"],
        expires_at=claims["exp"],
    )


def _time(r: Reading, name: str, check: str) -> int:
    value = _need(r.claims).get(name)
    if type(value) is not int or not 0 <= value < _LATEST:
        raise Invalid(check, f"{name} is {_show(value)}, not seconds since 1970")
    return value


def _show(value: object) -> str:
    """A claim in an explanation, cut short."""
    text = "missing" if value is None else repr(value) if isinstance(value, str) else f"{type(value).__name__} {value!r}"  # fmt: skip
    return text if len(text) <= 80 else text[:79] + "…"


Steps = tuple[tuple[str, Callable[[Reading], str]], ...]

_READ: Steps = (("form", _form), ("header", _header), ("claims", _claims))

_JUDGE: Steps = (
    ("issuer", _issuer),
    ("parameters", _parameters),
    ("type", _type),
    ("key", _key),
    ("algorithm", _algorithm),
    ("signature", _signature),
    ("audience", _audience),
    ("purpose", _purpose),
    ("required", _required),
    ("issued", _issued),
    ("started", _started),
    ("expiry", _expiry),
    ("lifetime", _lifetime),
    ("subject", _subject),
    ("groups", _groups),
    ("identity", _identity),
)
