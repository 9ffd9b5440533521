"""
The user's own token: `X-Alter-User-Token: <jwt>`, verified anew for each request that carries one.

It proves who sits before the app, beside the app's key and never instead of it.
"""

from typing import Protocol

from addon.callers import jwt
from addon.callers.idp import Registration
from addon.callers.jwt import Invalid, KeySet
from addon.errors import Fault, Refusal
from addon.model import Request, User


class Registry(Protocol):
    """Which providers there are (`vault.idps.Idps`)."""

    def find(self, issuer: str) -> Registration | None:
        """The one with this issuer, read now. Raises Fault."""


class KeySource(Protocol):
    """Their keys (`callers.key_sets.KeySets`)."""

    def get(self, registration: Registration, *, now: float) -> KeySet:
        """From memory. Raises Fault, Refusal."""

    def miss(self, registration: Registration) -> None:
        """A token named a key that is not there."""


def find_token(request: Request) -> str | None:
    """The token a request carries, unread, or None. Raises Refusal `user_token_invalid` for two of them."""
    values = request.values(b"x-alter-user-token")
    if not values:
        return None
    if len(values) > 1 or not values[0].isascii():
        raise Refusal("user_token_invalid")
    return values[0].decode("ascii").strip(" \t")


def recheck(user: User, *, idps: Registry, now: float) -> None:
    """Whether a user proved a while ago still is: raises Refusal when the token has expired, or nobody trusts its issuer."""
    if user.expires_at <= now - jwt.LEEWAY or idps.find(user.issuer) is None:
        raise Refusal("user_token_invalid")


def authenticate(token: str, *, idps: Registry, key_sets: KeySource | None, now: float) -> User:
    """
    Who the token proves, at `now`.

    Raises Refusal `user_token_invalid` without saying which check failed, Fault where the keys cannot be told.
    """
    if key_sets is None:
        raise Fault("fault", "no keys to verify a user token with")
    try:
        reading = jwt.read(token)
        registration = idps.find(reading.issuer) if reading.issuer else None
    except Invalid:
        registration = None
    if registration is None:
        raise Refusal("user_token_invalid")
    try:
        return jwt.verify(reading, idp=registration.idp, keys=key_sets.get(registration, now=now), now=now)
    except Invalid as problem:
        if problem.check == "key":
            key_sets.miss(registration)
        raise Refusal("user_token_invalid") from None
