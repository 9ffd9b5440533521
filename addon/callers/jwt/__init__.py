"""
A user's token (JWS compact form, RFC 7515; JWT, RFC 7519), verified as RFC 8725 advises.

    read    the text, taken apart under strict rules; proves nothing, but tells the issuer to look up
    verify  who the user is, given the provider's record, its keys and the time; or Invalid
    explain the same checks, each with its verdict, for an operator

PyJWT computes the signature. Everything around it is decided here: the algorithm comes from our record of the key, the
header may say nothing else, and no claim has a default.
"""

from addon.callers.jwt.keys import Key, KeySet, Unusable
from addon.callers.jwt.verification import LEEWAY, Check, explain, read, verify
from addon.callers.jwt.wire import Invalid

__all__ = ["LEEWAY", "Check", "Invalid", "Key", "KeySet", "Unusable", "explain", "read", "verify"]
