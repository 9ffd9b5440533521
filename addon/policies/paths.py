"""
`paths`: only paths under these prefixes, compared with the bytes that will be sent. A segment `*` stands for any one.

An upstream may decode, merge or drop parts of a path before it routes. So a path that any common server could read as
another one (encoded slash, backslash, dot, percent sign or control character, a percent sign that encodes nothing, an
overlong encoding, dot segment, empty segment, `;` parameter, control or non-ASCII byte) matches no prefix, except the
prefix `/`, which allows everything.
"""

import re
from typing import Any, ClassVar

from addon.errors import Usage
from addon.policies.policy import Attempt, PolicyKind, listed

_AMBIGUOUS = re.compile(
    rb"//|\\|;|%(?![0-9a-f]{2})|%(?:2f|5c|2e|25|3b|3f|23|[01][0-9a-f]|7f|c[01])|/\.{1,2}(?:/|$)|[^\x21-\x7e]",
    re.IGNORECASE,
)
_PREFIX = re.compile(r"/[A-Za-z0-9._~!$&'()*+,=:@/-]*")


def parse_paths(values: tuple[str, ...]) -> tuple[str, ...]:
    """Prefixes as stored. Raises Usage for one that could not be compared byte by byte."""
    for prefix in values:
        part = any("*" in segment != "*" for segment in prefix.split("/"))
        if part or not _PREFIX.fullmatch(prefix) or _AMBIGUOUS.search(prefix.encode()):
            raise Usage(
                f"not a path prefix: {prefix!r}",
                hint="start with '/', use plain characters or '*' for a whole segment, no '//', '.' or '..' segments, '%', ';' or '?'",
            )
    return tuple(dict.fromkeys(values))


def prefix_of(path: str) -> str:
    """The prefix that is this path of a request, and nothing wider. Raises Usage where none could be."""
    if "*" in path:
        raise Usage(
            f"{path!r} is no prefix of its own: '*' would stand for any segment", hint="name a prefix with --path"
        )
    return parse_paths((path,))[0]


def covers(prefixes: tuple[str, ...] | list[str], path: bytes) -> bool:
    """Whether a path lies under one of the prefixes. `/v1` covers `/v1` and `/v1/x`, not `/v10`."""
    if "/" in prefixes:
        return True
    if _AMBIGUOUS.search(path):
        return False
    return any(_under(prefix.encode(), path) for prefix in prefixes)


def _under(prefix: bytes, path: bytes) -> bool:
    if b"/*" in prefix:
        wanted, found = prefix.split(b"/"), path.split(b"/")
        if len(found) < len(wanted):
            return False
        if not wanted[-1]:
            wanted.pop()
        return all(one == other or (one == b"*" and other) for one, other in zip(wanted, found, strict=False))
    if not path.startswith(prefix):
        return False
    return prefix.endswith(b"/") or path[len(prefix) : len(prefix) + 1] in {b"", b"/"}


class Paths:
    """Passes when the path lies under a listed prefix."""

    tag: ClassVar[str] = "paths"

    def parse(self, values: tuple[str, ...]) -> dict[str, Any]:
        """The stored parameters."""
        return {"paths": list(parse_paths(values))}

    def check(self, params: dict[str, Any], attempt: Attempt) -> str | None:
        """None, or what was compared."""
        allowed = listed(params, "paths")
        return None if covers(allowed, attempt.request.path) else f"the path is not under {allowed}"

    def describe(self, params: dict[str, Any]) -> str:
        """What passes."""
        return ", ".join(listed(params, "paths"))


KIND: PolicyKind = Paths()
