"""What a caller may write into its audit record, and what it may not."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addon import context
from addon.context import Context
from addon.errors import Refusal
from addon.model import Request


def request(*headers):
    return Request(
        id="r", scheme="https", host="api.test", port=443, method="GET", target=b"/", headers=headers, authorities=(),
        sni=None, client_ip="127.0.0.1",
    )  # fmt: skip


def read(*headers):
    return context.read(request(*headers))


def with_context(value):
    return (b"X-Alter-Context", value if isinstance(value, bytes) else json.dumps(value).encode())


def test_a_request_that_says_nothing_leaves_nothing():
    assert read((b"Host", b"api.test")) == Context()


def test_reason_context_and_trace_are_read():
    assert read(
        (b"x-alter-REASON", "refund für 7 €".encode()),
        with_context({"tool": "pay", "run": ""}),
        (b"traceparent", b"00-" + b"0af7651916cd43dd8448eb211c80319c" + b"-b7ad6b7169203331-01"),
    ) == Context("refund für 7 €", {"tool": "pay", "run": ""}, "0af7651916cd43dd8448eb211c80319c")


@pytest.mark.parametrize(
    "value",
    [
        b"", b"00", b"00-" + b"A" * 32 + b"-" + b"b" * 16 + b"-01", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01\n",
        b"00-" + b"a" * 31 + b"-" + b"b" * 16 + b"-01", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01-extra", b"\xff" * 55,
    ],
)  # fmt: skip
def test_a_trace_that_is_none_is_left_alone(value):
    assert read((b"traceparent", value)).trace_id == ""


def test_two_traces_are_none():
    trace = (b"traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01")
    assert read(trace, trace).trace_id == ""


ACCEPTED = {
    "the longest reason": (b"X-Alter-Reason", "ä".encode() * 512),
    "no pairs": with_context({}),
    "twenty pairs": with_context({str(n): "x" for n in range(20)}),
    "the longest key and value": with_context({"k" * 64: "v" * 512}),
    "white space around": with_context(b' \t{ "a" : "b" } '),
    "other languages": with_context('{"Werkzeug": "Säge", "道具": "鋸"}'.encode()),
}


@pytest.mark.parametrize("header", ACCEPTED.values(), ids=ACCEPTED)
def test_up_to_the_limits_it_is_accepted(header):
    read(header)


MALFORMED = {
    "a reason too long": [(b"X-Alter-Reason", b"a" * 513)],
    "a reason that is not UTF-8": [(b"X-Alter-Reason", b"\xff")],
    "a reason with an escape sequence": [(b"X-Alter-Reason", b"\x1b[31mred")],
    "a reason with a line separator": [(b"X-Alter-Reason", "a\u2028b".encode())],
    "a reason that turns the text around": [(b"X-Alter-Reason", "a\u202eb".encode())],
    "two reasons": [(b"X-Alter-Reason", b"a"), (b"x-alter-reason", b"a")],
    "two contexts": [with_context({}), with_context({})],
    "nothing": [with_context(b"")],
    "no JSON": [with_context(b"{tool: pay}")],
    "half of it": [with_context(b'{"a": "b"')],
    "more than one": [with_context(b"{}{}")],
    "a list": [with_context([])],
    "a list of pairs": [with_context([["a", "b"]])],
    "text": [with_context("text")],
    "a number": [with_context(1)],
    "null": [with_context(None)],
    "a number as value": [with_context({"a": 1})],
    "null as value": [with_context({"a": None})],
    "an object as value": [with_context({"a": {"b": "c"}})],
    "a list as value": [with_context({"a": ["b"]})],
    "an empty key": [with_context({"": "b"})],
    "a key too long": [with_context({"k" * 65: "v"})],
    "a value too long": [with_context({"k": "v" * 513})],
    "twenty-one pairs": [with_context({str(n): "x" for n in range(21)})],
    "a key twice": [with_context(b'{"a": "b", "a": "c"}')],
    "too large as a whole": [with_context(b'{"a": "b"}' + b" " * 4087)],
    "a control character": [with_context({"a": "b\nc"})],
    "half a character": [with_context(b'{"a": "\\ud800"}')],
    "not UTF-8": [with_context(b'{"a": "\xff"}')],
    "UTF-16": [with_context('{"a": "b"}'.encode("utf-16-le"))],
    "a byte order mark": [with_context('\ufeff{"a": "b"}'.encode())],
    "nested without end": [with_context(b'{"a":' * 800)],
    "lists without end": [with_context(b"[" * 4096)],
    "a number without end": [with_context(b'{"a": ' + b"9" * 4000 + b"}")],
}


@pytest.mark.parametrize("headers", MALFORMED.values(), ids=MALFORMED)
def test_anything_else_is_malformed(headers):
    with pytest.raises(Refusal) as refused:
        read(*headers)
    assert refused.value.code == "context_malformed"


@given(st.binary(max_size=60) | st.text(max_size=30).map(str.encode))
def test_whatever_comes_as_a_reason_fits_one_line_or_is_refused(value):
    try:
        reason = read((b"X-Alter-Reason", value)).reason
    except Refusal:
        return
    assert len(reason) <= 512
    assert reason.isprintable()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_whatever_comes_as_context_is_pairs_of_text_or_refused(value):
    try:
        pairs = read((b"X-Alter-Context", value)).pairs
    except Refusal:
        return
    assert pairs == json.loads(value)
    assert all(isinstance(text, str) and (key + text).isprintable() for key, text in pairs.items())
