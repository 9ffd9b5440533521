"""`methods`: only these request methods. Methods are case-sensitive (RFC 9110 9.1)."""

import re
from typing import Any, ClassVar

from addon.errors import Usage
from addon.policies.policy import Attempt, PolicyKind, listed

_TOKEN = re.compile(r"[A-Z][A-Z0-9-]{0,31}")
_NEVER = frozenset({"CONNECT", "TRACE", "TRACK"})


def parse_methods(values: tuple[str, ...]) -> tuple[str, ...]:
    """Methods as stored: upper case, each once. Raises Usage for one that may never carry a credential."""
    found = tuple(dict.fromkeys(value.upper() for value in values))
    for method in found:
        if not _TOKEN.fullmatch(method) or method in _NEVER:
            raise Usage(f"not a method that can be allowed: {method!r}", hint="use GET, POST, PUT, PATCH, DELETE …")
    return found


class Methods:
    """Passes when the request's method is listed."""

    tag: ClassVar[str] = "methods"

    def parse(self, values: tuple[str, ...]) -> dict[str, Any]:
        """The stored parameters."""
        return {"methods": list(parse_methods(values))}

    def check(self, params: dict[str, Any], attempt: Attempt) -> str | None:
        """None, or what was compared."""
        allowed = listed(params, "methods")
        return None if attempt.request.method in allowed else f"{attempt.request.method} is not one of {allowed}"

    def describe(self, params: dict[str, Any]) -> str:
        """What passes."""
        return ", ".join(listed(params, "methods"))


KIND: PolicyKind = Methods()
