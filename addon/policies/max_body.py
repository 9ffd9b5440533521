"""
`max_body`: only requests whose body is stated to be no longer than this many bytes.

A body of unstated length is refused: by the time it turned out too long, most of it would have left.
"""

from typing import Any, ClassVar

from addon.errors import Usage
from addon.policies.policy import Attempt, PolicyKind


class MaxBody:
    """Passes without a body, or with a `Content-Length` within the limit."""

    tag: ClassVar[str] = "max_body"

    def parse(self, values: tuple[str, ...]) -> dict[str, Any]:
        """The stored parameters, from one number of bytes."""
        if len(values) != 1 or not values[0].isdecimal():
            raise Usage("not a number of bytes", hint="give one limit, such as 65536")
        return {"bytes": int(values[0])}

    def check(self, params: dict[str, Any], attempt: Attempt) -> str | None:
        """None, or what was compared."""
        limit = params["bytes"]
        if len(params) > 1 or not isinstance(limit, int) or isinstance(limit, bool):
            raise ValueError(self.tag)
        lengths = attempt.request.values(b"content-length")
        if attempt.request.values(b"transfer-encoding") or not all(length.isdigit() for length in lengths):
            return "the length of the body is not stated"
        longest = max((int(length) for length in lengths), default=0)
        return None if longest <= limit else f"{longest} bytes are more than {limit}"

    def describe(self, params: dict[str, Any]) -> str:
        """What passes."""
        return f"{params['bytes']} bytes"


KIND: PolicyKind = MaxBody()
