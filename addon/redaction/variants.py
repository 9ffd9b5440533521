"""
The spellings in which software gives a secret value back.

    raw        as it is, and backwards
    Base64     RFC 4648 4 and 5, at each of the three places a value can have between others: without the characters that
               hold bits of a neighbour, and with the last one where nothing follows
    hex        lower and upper
    percent    what forms, encodeURIComponent and path segments leave alone; "+" for a blank, hex in both cases
    JSON       as ASCII or not, "/" and the characters of HTML escaped or not
    HTML       quotes named, decimal, padded or hex, or left alone

Nothing else that an upstream may make of a value is found: line breaks in the midst of Base64, two of these one after the
other (but for Base64 that is then percent-encoded or put into JSON), or any cipher at all.
"""

import html
import json
import re
from binascii import b2a_base64
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import quote, quote_plus

MINIMUM: Final = 8
"""
The length in bytes from which a value is looked for.

A shorter one turns up by chance, and stars in its place would ruin what has nothing to do with it.
"""

_BASE64 = 4
"""The first form that is Base64."""

_PLAIN = re.compile(r"[A-Za-z0-9_.-]*")
_URL = bytes.maketrans(b"+/", b"-_")
_PERCENT = re.compile(r"%[0-9A-F]{2}")
_UNICODE = re.compile(r"\\u[0-9a-f]{4}")
_LEFT_ALONE = ("", "~", "~!'()*", "~!$&'()*+,;=:@", "~/", "*")
_QUOTES = (("&quot;", "&#x27;"), ("&#34;", "&#39;"), ("&quot;", "&#39;"), ("&quot;", "&#039;"), ("&quot;", "&apos;"))
_IN_HTML = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


def variants(texts: Iterable[str]) -> tuple[bytes, ...]:
    """Every spelling of each text, once; none of texts shorter than MINIMUM bytes."""
    return tuple(dict.fromkeys(each for text in texts for form in forms(text) for each in spellings(text, form)))


def forms(text: str) -> tuple[bytes, ...]:
    """
    The encodings that the spellings of a text come down to; none of a text shorter than MINIMUM bytes.

    Whatever a spelling escapes, it leaves the letters, digits, "_", "." and "-" of its form as they are, in a row.
    """
    raw = text.encode()
    if len(raw) < MINIMUM:
        return ()
    lower, size = raw.hex(), len(raw)
    return (
        raw,
        text[::-1].encode(),
        lower.encode(),
        lower.upper().encode(),
        b2a_base64(raw, newline=False)[: size * 4 // 3],
        b2a_base64(b"." + raw, newline=False)[2 : (size + 1) * 4 // 3],
        b2a_base64(b".." + raw, newline=False)[3 : (size + 2) * 4 // 3],
    )


def spellings(text: str, form: bytes) -> Iterator[bytes]:
    """The spellings of a text that come down to one of its forms."""
    number = forms(text).index(form)
    if number == 0:
        yield from _escape(text, form)
    elif number < _BASE64:
        yield form
    else:
        yield from _place(form, text.encode(), before=number - _BASE64)


def _place(inner: bytes, raw: bytes, *, before: int) -> Iterator[bytes]:
    """Base64 of a value that `before` bytes precede; something follows, or nothing."""
    last = b2a_base64(b".."[:before] + raw, newline=False).rstrip(b"=")[(0, 2, 3)[before] :]
    for each in (inner,) if last == inner else (inner, last):
        yield each
        if b"+" in each or b"/" in each:
            yield each.translate(_URL)
            yield each.replace(b"/", b"\\/")
            yield each.replace(b"+", b"%2B").replace(b"/", b"%2F")
            yield each.replace(b"+", b"%2b").replace(b"/", b"%2f")


def _escape(text: str, raw: bytes) -> Iterator[bytes]:
    """The text as it is, and as it is where some of its characters must be escaped."""
    yield raw
    if not _PLAIN.fullmatch(text):
        yield from (spelling.encode() for form in (_percent, _json, _html) for spelling in form(text))


def _percent(text: str) -> Iterator[str]:
    for safe in _LEFT_ALONE:
        for encoded in (quote(text, safe=safe), quote_plus(text, safe=safe)):
            spelled = encoded if "~" in safe else encoded.replace("~", "%7E")
            yield spelled
            yield _PERCENT.sub(lambda escape: escape[0].lower(), spelled)


def _json(text: str) -> Iterator[str]:
    for ascii_only in (True, False):
        plain = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        guarded = "".join(_IN_HTML.get(character, character) for character in plain)
        for escaped in (plain, guarded):
            for spelled in (escaped, escaped.replace("/", "\\/")):
                yield spelled
                yield _UNICODE.sub(lambda escape: escape[0][:2] + escape[0][2:].upper(), spelled)


def _html(text: str) -> Iterator[str]:
    escaped = html.escape(text, quote=False)
    yield escaped
    yield escaped.replace('"', "&quot;")
    for double, single in _QUOTES:
        yield escaped.replace('"', double).replace("'", single)
