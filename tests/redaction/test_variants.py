"""The spellings in which software gives a value back: each is compared with what that software really does."""

import base64
import html
import json
import urllib.parse
from xml.sax import saxutils

import pytest

from addon.redaction import Needles, Redactor, variants

TOKEN = "sk_live_51H8xJ2eZvKYlo2C0aBc"
AWKWARD = "pä\"s+s/w'ö<r>d&1 2~3%!(x)*"
AWS = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"


def redacted(text, shown):
    redactor = Redactor(Needles([text]))
    return redactor.feed(shown.encode()) + redactor.finish()


def in_java_script(text):
    """encodeURIComponent"""
    return urllib.parse.quote(text, safe="-_.!~*'()")


def in_go(text):
    """json.Marshal escapes for HTML."""
    return json.dumps(text, ensure_ascii=False)[1:-1].translate(
        {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}
    )


def in_php(text):
    """json_encode"""
    return json.dumps(text)[1:-1].replace("/", "\\/")


SPELLINGS = {
    "as it is": str,
    "backwards": lambda text: text[::-1],
    "hex": lambda text: text.encode().hex(),
    "HEX": lambda text: text.encode().hex().upper(),
    "quote": urllib.parse.quote,
    "quote of all": lambda text: urllib.parse.quote(text, safe=""),
    "quote in lower case": lambda text: urllib.parse.quote(text, safe="").replace("%C3%A4", "%c3%a4").replace("%2B", "%2b").replace("%2F", "%2f").replace("%3C", "%3c").replace("%3E", "%3e").replace("%C3%B6", "%c3%b6").replace("%2A", "%2a"),
    "quote_plus": urllib.parse.quote_plus,
    "urlencode": lambda text: urllib.parse.urlencode({"k": text})[2:],
    "a form in a browser": lambda text: urllib.parse.quote_plus(text, safe="*").replace("~", "%7E"),
    "encodeURIComponent": in_java_script,
    "JSON": lambda text: json.dumps(text)[1:-1],
    "JSON in UTF-8": lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    "JSON in Go": in_go,
    "JSON in PHP": in_php,
    "html.escape": html.escape,
    "html.escape without quotes": lambda text: html.escape(text, quote=False),
    "an element of XML": saxutils.escape,
    "htmlspecialchars": lambda text: html.escape(text).replace("&#x27;", "&#039;"),
    "markupsafe": lambda text: html.escape(text).replace("&#x27;", "&#39;").replace("&quot;", "&#34;"),
}  # fmt: skip


@pytest.mark.parametrize("text", [TOKEN, AWKWARD, AWS], ids=["token", "awkward", "aws"])
@pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS)
def test_a_value_is_found_in_each_spelling(spell, text):
    shown = spell(text)
    assert redacted(text, f"a {shown} z") == b"a " + b"*" * len(shown.encode()) + b" z"


@pytest.mark.parametrize("text", [TOKEN, TOKEN[1:], TOKEN[2:], AWKWARD, AWS], ids=["28", "27", "26", "awkward", "aws"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode], ids=["base64", "base64url"])
@pytest.mark.parametrize("before", range(6))
@pytest.mark.parametrize("after", range(6))
@pytest.mark.parametrize("padded", [True, False])
def test_base64_is_found_between_any_neighbours(text, encode, before, after, padded):
    """What stays holds bits of a neighbour too, so at most four bits at either end are the secret's."""
    whole = encode(b"\xff" * before + text.encode() + b"\xff" * after)
    whole = whole if padded else whole.rstrip(b"=")
    seen = redacted(text, whole.decode())
    first, last = -(-before * 8 // 6), (before + len(text.encode())) * 8 // 6
    assert seen[first:last] == b"*" * (last - first)
    if not after:
        assert set(seen[first:]) <= set(b"*=")
    assert seen[: before * 8 // 6] == whole[: before * 8 // 6]
    assert seen.count(b"*") <= last - first + 2


@pytest.mark.parametrize("again", [
    lambda text: text.replace("/", "\\/"),
    lambda text: urllib.parse.quote(text, safe=""),
    lambda text: urllib.parse.quote(text, safe="").replace("%2F", "%2f").replace("%2B", "%2b"),
], ids=["PHP", "percent", "percent in lower case"])  # fmt: skip
def test_base64_is_found_where_its_own_characters_are_escaped(again):
    text = "~~~???>>>>secret~~~"
    shown = base64.b64encode(text.encode()).decode().rstrip("=")
    assert "+" in shown
    assert "/" in shown
    assert set(redacted(text, again(shown))) == {ord("*")}


def test_a_plain_token_has_few_spellings():
    assert len(variants([TOKEN])) < 11


def test_a_spelling_that_two_texts_share_is_looked_for_once():
    assert variants([TOKEN, TOKEN]) == variants([TOKEN])
