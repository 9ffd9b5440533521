"""How a request proves who is calling: by the key of an app or an agent, and beside it the token of a user."""

from addon.callers.identity import identify
from addon.callers.proof import find, parse_basic
from addon.callers.user import KeySource, authenticate, find_token, recheck

__all__ = ["KeySource", "authenticate", "find", "find_token", "identify", "parse_basic", "recheck"]
