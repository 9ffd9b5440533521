"""`content_type`: only bodies of these media types. Parameters such as `charset` are not compared (RFC 9110 8.3.1)."""

import re
from typing import Any, ClassVar

from addon.errors import Usage
from addon.policies.policy import Attempt, PolicyKind, listed

_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]{1,63}/[a-z0-9!#$&^_.+-]{1,63}")


class ContentType:
    """Passes without a body, or with exactly one `Content-Type` that is listed."""

    tag: ClassVar[str] = "content_type"

    def parse(self, values: tuple[str, ...]) -> dict[str, Any]:
        """The stored parameters."""
        types = [value.strip().lower() for value in values]
        for text in types:
            if not _TYPE.fullmatch(text):
                raise Usage(f"not a media type: {text!r}", hint="write e.g. application/json")
        return {"types": types}

    def check(self, params: dict[str, Any], attempt: Attempt) -> str | None:
        """None, or what was compared."""
        allowed = listed(params, "types")
        request = attempt.request
        sent = request.values(b"content-type")
        if not sent and request.values(b"content-length") in ([], [b"0"]) and not request.values(b"transfer-encoding"):
            return None
        if len(sent) != 1:
            return "the request does not have exactly one Content-Type"
        media = sent[0].partition(b";")[0].strip().lower().decode("latin-1")
        return None if media in allowed else f"{media[:64]!r} is not one of {', '.join(allowed)}"

    def describe(self, params: dict[str, Any]) -> str:
        """What passes."""
        return ", ".join(listed(params, "types"))


KIND: PolicyKind = ContentType()
