"""What is changed in the head of an upstream's response: nothing but names that are ours to send."""

from addon.model import Headers
from addon.tag import is_control


def clean(headers: Headers) -> Headers:
    """Without `X-Alter-*`: only the proxy itself may say that it refused."""
    return tuple((name, value) for name, value in headers if name[:1] not in b"xX" or not is_control(name))
