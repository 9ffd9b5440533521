"""
The target of a request to AWS, in the one spelling that every verifier reads the same way.

What is signed is computed from what is written, so the request is rewritten first. Services differ in one point: S3 and
its family read a path as a key (any byte, slashes and dots included); all others read it as segments.

    path   unreserved characters literal, all other bytes as %XX in upper case. S3: "%2F" becomes "/", "+" becomes "%2B".
           Others: "%2F" stays inside its segment, and an encoded dot segment stays encoded, so that it does not become one
    query  the same, pair by pair; "+" becomes "%20", empty pairs go; order, repetition and a bare name ("?acl") stay

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

_UNRESERVED = "-_.~"
_DOTS = {".": "%2E", "..": "%2E%2E"}


class Pair(NamedTuple):
    """One query parameter, encoded. `equals` is whether it was written with "="."""

    name: str
    equals: bool
    value: str

    def __str__(self) -> str:
        return f"{self.name}={self.value}" if self.equals else self.name


def write_path(path: bytes, family: str) -> str:
    """The path as it is sent; `family` is `s3` or `aws`."""
    if family == "s3":
        return quote(unquote_to_bytes(path), safe="/" + _UNRESERVED) or "/"
    return "/".join(map(_write_segment, path.split(b"/"))) or "/"


def _write_segment(segment: bytes) -> str:
    text = quote(unquote_to_bytes(segment), safe=_UNRESERVED)
    return _DOTS.get(text, text) if b"%" in segment else text


def encode(text: str | bytes) -> str:
    """Text as it stands in a query."""
    return quote(text, safe=_UNRESERVED)


def read_query(query: bytes) -> list[Pair]:
    """The pairs of a raw query, in order."""
    return [_read_pair(pair) for pair in query.split(b"&") if pair]


def _read_pair(pair: bytes) -> Pair:
    name, equals, value = pair.replace(b"+", b" ").partition(b"=")
    return Pair(encode(unquote_to_bytes(name)), bool(equals), encode(unquote_to_bytes(value)))


def write_query(pairs: Iterable[Pair]) -> str:
    """The query as it is sent."""
    return "&".join(map(str, pairs))
