"""What is changed in the head of an upstream's response: names that are ours to send, and what could split it in two."""

import re

from addon.model import Headers
from addon.tag import is_control

_BREAK = re.compile(rb"[\r\n\0]+[ \t]*")


def clean(headers: Headers) -> Headers:
    """
    Without `X-Alter-*`: only the proxy itself may say that it refused.

    A folded line becomes one (RFC 9112 5.2), and so does a value with a bare CR, LF or NUL.
    """
    kept = tuple([pair for pair in headers if pair[0][:1] not in b"xX" or not is_control(pair[0])])
    if not _BREAK.search(b"\t".join([value for _, value in kept])):
        return kept
    return tuple([(name, _BREAK.sub(b" ", value)) for name, value in kept])
