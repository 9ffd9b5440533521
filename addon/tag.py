"""
The tag: which grant a request asks for, and everything of ours that must come off before it leaves.

    X-Alter-Grant: <id>                    wins over both others
    alter_grant_<id> as a placeholder      in Authorization, any other header, or a query parameter
    <id> as the access key id of AWS       in a signature, of a header or a presigned URL
    a session                              (callers of type `run`; see pipeline)

Removed from every request, tagged or not: all names that begin `X-Alter-`, and Proxy-Authorization and
Proxy-Connection, in any case and with `_` for `-` too.
"""

import base64
import binascii
import re
from dataclasses import dataclass

from addon.errors import Refusal
from addon.model import Head, Headers

ID = re.compile(rb"[A-Za-z0-9_-]{16,64}")
PLACEHOLDER = b"alter_grant_"

_CONTROL = re.compile(rb"x[-_]alter([-_].*)?", re.IGNORECASE | re.DOTALL)
_GRANT = re.compile(rb"x[-_]alter[-_]grant", re.IGNORECASE)
_PROXY = frozenset({b"proxy-authorization", b"proxy-connection"})
_AUTHORIZATION = re.compile(rb"(?:authorization|proxy-authorization)", re.IGNORECASE)
_PLACEHOLDER = re.compile(rb"alter_grant_([A-Za-z0-9_-]*)")
_UNSAFE = re.compile(rb"[\r\n\0]")

# An access key id of AWS goes alone, without what surrounds it: that says which service and region the client means.
_ID_OR_PLACEHOLDER = rb"(?:alter_grant_[A-Za-z0-9_-]*|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"
_AWS_HEADER = re.compile(rb"((?:^AWS +|\bCredential=))(" + _ID_OR_PLACEHOLDER + rb")(?=[:/])")
_AWS_QUERY = re.compile(
    rb"((?:^|[?&])(?i:X-Amz-Credential|AWSAccessKeyId)=)(" + _ID_OR_PLACEHOLDER + rb")(?=%2[Ff]|/|&|$)"
)


@dataclass(frozen=True, slots=True)
class Tag:
    """A grant id as the request names it, and whether it stood in for a credential."""

    id: str
    placeholder: bool = False


def is_control(name: bytes) -> bool:
    """Whether a header is ours and never leaves."""
    if name.startswith((b"x", b"X")):
        return _CONTROL.fullmatch(name) is not None
    return name.lower().replace(b"_", b"-") in _PROXY


def strip(head: Head) -> Head:
    """
    The head without anything of ours: control headers, and headers or parameters that hold a placeholder.

    Of a signature of AWS, only the access key id goes.
    """
    kept = tuple([pair for pair in head.headers if not is_control(pair[0])])
    if _may_name_a_grant(kept):
        own = ((name, _without_key_id(name, value)) for name, value in kept)
        kept = tuple((name, value) for name, value in own if not _holds(name, value))
    target = _AWS_QUERY.sub(rb"\1", head.target) if b"?" in head.target else head.target
    target = _strip_query(target) if PLACEHOLDER in target else target
    return Head(head.method, target, kept)


def find(head: Head) -> Tag | None:
    """
    The tag of a request, or None.

    Raises Refusal: `tag_repeated` for more than one grant, `tag_malformed` for anything that is not an id and for a
    placeholder in the path, and `header_forbidden` for a header with CR, LF or NUL, in which a tag could be folded away.
    """
    if _UNSAFE.search(b"".join([part for pair in head.headers for part in pair])):
        raise Refusal("header_forbidden")
    if PLACEHOLDER in head.path:
        raise Refusal("tag_malformed")  # a path cannot do without one of its parts, and the placeholder must not leave
    explicit = [(name, value.strip(b" \t")) for name, value in head.headers if _GRANT.fullmatch(name)]
    if len(explicit) > 1 or (explicit and b"," in explicit[0][1]):
        raise Refusal("tag_repeated")
    if explicit:
        name, value = explicit[0]
        if b"_" in name or not ID.fullmatch(value):
            raise Refusal("tag_malformed")
        return Tag(value.decode("ascii"))
    found = set(_placeholders(head))
    if not found:
        return None
    if len(found) > 1:
        raise Refusal("tag_repeated")
    value = found.pop()
    if not ID.fullmatch(value):
        raise Refusal("tag_malformed")
    return Tag(value.decode("ascii"), placeholder=True)


def _placeholders(head: Head) -> list[bytes]:
    """Every id behind a placeholder, in headers, inside Basic credentials, and in the query."""
    found: list[bytes] = []
    for name, value in head.headers:
        if not is_control(name):
            found += _PLACEHOLDER.findall(_readable(name, value))
            if _is_aws(name, value):
                found += _key_ids(_AWS_HEADER, value)
    query = head.target.partition(b"?")[2]
    if not query:
        return found
    found += _key_ids(_AWS_QUERY, query)
    return found + _PLACEHOLDER.findall(query) if PLACEHOLDER in query else found


def _may_name_a_grant(headers: Headers) -> bool:
    """False for most requests, after one look at all values together: none of them need be read any closer."""
    text = b"\n".join([value for _, value in headers])
    return max(text.find(PLACEHOLDER), text.find(b"AWS"), text.lower().find(b"basic ")) >= 0


def _is_aws(name: bytes, value: bytes) -> bool:
    return value[:3] == b"AWS" and _AUTHORIZATION.fullmatch(name) is not None


def _key_ids(pattern: re.Pattern[bytes], text: bytes) -> list[bytes]:
    return [key_id.removeprefix(PLACEHOLDER) for _, key_id in pattern.findall(text)]


def _without_key_id(name: bytes, value: bytes) -> bytes:
    return _AWS_HEADER.sub(rb"\1", value) if _is_aws(name, value) else value


def _holds(name: bytes, value: bytes) -> bool:
    return PLACEHOLDER in _readable(name, value)


def _readable(name: bytes, value: bytes) -> bytes:
    """The value, with Basic credentials decoded. What does not decode holds no placeholder."""
    if value[:6].lower() != b"basic " or not _AUTHORIZATION.fullmatch(name):
        return value
    try:
        return base64.b64decode(value[6:].strip(), validate=True)
    except binascii.Error:
        return value


def _strip_query(target: bytes) -> bytes:
    path, mark, query = target.partition(b"?")
    kept = [pair for pair in query.split(b"&") if PLACEHOLDER not in pair]
    return path + (mark + b"&".join(kept) if kept else b"")


def headers_named(headers: Headers, name: bytes) -> list[bytes]:
    """Every value of a header (lower-case name), in order."""
    return [value for key, value in headers if key.lower() == name]
