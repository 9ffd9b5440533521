"""Names, formats and values: what may be written, what is taken off first, and what keeps its bytes."""

import re
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addon.binding import Binding, Placement
from addon.credentials import header, placement, query
from addon.credentials.kind import Target
from addon.errors import Fault, Usage
from addon.model import Head, Values

BAD_VALUES = {
    "CR LF and a second header": "x\r\nEvil: 1",
    "LF and a second header": "x\nEvil: 1",
    "CR and a second header": "x\rEvil: 1",
    "NUL": "x\0y",
    "0x01": "x\x01y",
    "DEL": "x\x7fy",
    "VT": "x\x0by",
    "FF": "x\x0cy",
    "a bare CR": "\r",
    "a bare LF": "\n",
    "a leading blank": " x",
    "a trailing blank": "x ",
    "a leading TAB": "\tx",
    "e acute": "é",
    "U+0100": "\u0100",
    "an astral character": "\U0001f511",
    "9,000 characters": "x" * 9000,
    "nothing": "",
    "U+2028": "x\u2028y",
    "U+0085": "x\u0085y",
}
BAD_NAMES = [
    "Host", "Content-Length", "Transfer-Encoding", "Connection", "Upgrade", "TE", "Trailer", "Keep-Alive",
    "Proxy-Authorization", "Proxy-Connection", ":authority", "Expect", "Content-Encoding", "X-Alter-Grant", "x-alter-key",
    "X_Alter_Grant", "content_length", "X-HTTP-Method-Override", "", "X Key", "X:Key", "X\r\nY", "X\0", "Schlüssel",
]  # fmt: skip
HEADER = placement.parse_header("X-Api-Key")
HOSTS = (("api.example.com", 443),)
TARGET = Target(host="api.example.com", port=443, now=0.0)


def write(head, *placements, constants=(), **values):
    return placement.write(head, Binding(hosts=HOSTS, placements=placements, constants=constants), values)


@pytest.mark.parametrize("value", BAD_VALUES.values(), ids=BAD_VALUES)
def test_an_unsafe_value_is_refused_when_stored_and_again_when_injected(value):
    binding = Binding(hosts=HOSTS, placements=(HEADER,))
    with pytest.raises(Usage, match="field token") as refusal:
        header.KIND.check_values(binding, {"token": value})
    assert not value or value not in refusal.value.message + refusal.value.hint
    plan = header.KIND.plan(Head("GET", b"/", ()), binding=binding, host="api.example.com")
    with pytest.raises(Fault):
        plan.apply(Values({"token": value}), target=TARGET, body_sha256=None)


@pytest.mark.parametrize("value", ["a,b", '"q"', "a b", "~", "x" * 8192, "{token}"])
def test_an_odd_but_printable_value_is_written_as_it_is(value):
    binding = Binding(hosts=HOSTS, placements=(HEADER,))
    header.KIND.check_values(binding, {"token": value})
    assert write(Head("GET", b"/", ()), HEADER, token=value).headers == ((b"X-Api-Key", value.encode()),)


def test_a_value_that_only_its_format_makes_too_long_is_refused_when_stored():
    binding = Binding(hosts=HOSTS, placements=(placement.parse_header("Authorization", "Token {token}"),))
    with pytest.raises(Usage, match="field token is longer than 8192"):
        header.KIND.check_values(binding, {"token": "x" * 8190})


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_header_that_frames_steers_or_belongs_to_the_proxy_carries_no_credential(name):
    with pytest.raises(Usage):
        placement.parse_header(name)
    with pytest.raises(Usage):
        placement.check_constant(name, "value")
    with pytest.raises(Usage):
        header.KIND.check_binding(Binding(hosts=HOSTS, placements=(Placement("header", name, "{token}"),)))


@pytest.mark.parametrize("name", ["Authorization", "X-Api-Key", "api-key", "Cookie", "X_Key", "x-amz-alter"])
def test_other_headers_may(name):
    assert placement.parse_header(name) == Placement("header", name, "{token}")


@pytest.mark.parametrize(
    "text",
    ["", "token", "{}", "{token", "token}", "{{token}}", "{token}}", "{Token}", "{to-ken}", "{1}", "{token!r}",
     "{token.x}", "{token}\n", "\x7f{token}", "é{token}", " {token}", "{token} ", "x" * 9000 + "{token}"],
)  # fmt: skip
def test_a_format_is_plain_text_with_at_least_one_marker(text):
    with pytest.raises(Usage, match="not a format"):
        placement.parse_header("X-Key", text)


@pytest.mark.parametrize("name", ["", "a b", "a&b", "a=b", "a#b", "a?b", "a%b", "é", "a\nb"])
def test_a_query_parameter_has_a_plain_name(name):
    with pytest.raises(Usage, match="not a query parameter"):
        placement.parse_query(name)


@pytest.mark.parametrize(
    "text", ["NoColon", "Authorization: Bearer x", "Cookie: a=b", "X-A:", "X-A: é", "X-A: a\nB: c"]
)
def test_a_constant_is_a_header_that_is_no_credential(text):
    with pytest.raises(Usage):
        placement.parse_constant(text)


def test_a_constant_is_added_only_if_the_caller_sent_none():
    pair = placement.parse_constant("anthropic-version:  2023-06-01 ")
    assert pair == ("anthropic-version", "2023-06-01")
    added = write(Head("GET", b"/", ()), HEADER, constants=[pair], token="t")
    assert (b"anthropic-version", b"2023-06-01") in added.headers
    sent = write(Head("GET", b"/", ((b"Anthropic-Version", b"2024-01-01"),)), HEADER, constants=[pair], token="t")
    assert [v for n, v in sent.headers if n.lower() == b"anthropic-version"] == [b"2024-01-01"]


@pytest.mark.parametrize(
    ("placements", "constants"),
    [
        ((HEADER, placement.parse_header("x_api-key", "Key {token}")), ()),
        ((placement.parse_query("key"), placement.parse_query("key", "{other}")), ()),
        ((HEADER,), (("X-API-KEY", "v"),)),
        ((HEADER,), (("A", "1"), ("a", "2"))),
    ],
)
def test_nothing_is_written_twice(placements, constants):
    with pytest.raises(Usage, match="written twice"):
        query.KIND.check_binding(
            Binding(hosts=HOSTS, placements=(*placements, placement.parse_query("k")), constants=constants)
        )


def test_fields_come_from_the_markers_each_once_and_in_order():
    placements = [placement.parse_header("A", "{b} {user}"), placement.parse_header("C", "{a}{b}")]
    assert [(f.name, f.secret) for f in placement.fields(placements)] == [("b", True), ("user", False), ("a", True)]


def test_a_missing_field_refuses():
    with pytest.raises(Fault, match="lacks a field"):
        write(Head("GET", b"/", ()), HEADER)
    with pytest.raises(Usage, match="field token is missing"):
        header.KIND.check_values(Binding(hosts=HOSTS, placements=(HEADER,)), {})
    with pytest.raises(Usage, match="no field 'tokn'"):
        header.KIND.check_values(Binding(hosts=HOSTS, placements=(HEADER,)), {"tokn": "secret"})


def test_a_binding_that_says_nowhere_to_write_refuses():
    with pytest.raises(Fault):
        write(Head("GET", b"/", ()), token="t")


def test_every_spelling_and_copy_of_the_header_goes_and_so_does_authorization():
    sent = Head(
        "GET",
        b"/",
        (
            (b"X-API-Key", b"1"), (b"Accept", b"*/*"), (b"x_api_key", b"2"), (b"X-Api_KEY", b"3"), (b"x-api-key ", b"4"),
            (b"AUTHORIZATION", b"Basic x"), (b"authorization", b"y"), (b"X-Api-Key-2", b"kept"), (b"Accept", b"text/html"),
        ),
    )  # fmt: skip
    assert write(sent, HEADER, token="ours").headers == (
        (b"Accept", b"*/*"),
        (b"X-Api-Key-2", b"kept"),
        (b"Accept", b"text/html"),
        (b"X-Api-Key", b"ours"),
    )


@pytest.mark.parametrize(
    ("target", "written"),
    [
        (b"/", b"/?key=a%20b%26"),
        (b"/p?", b"/p?key=a%20b%26"),
        (b"/p?x=1", b"/p?x=1&key=a%20b%26"),
        (b"/p?key=old&x=1", b"/p?key=a%20b%26&x=1"),
        (b"/p?x=1&%6bey=old&y&key&k%65y=", b"/p?x=1&key=a%20b%26&y"),
        (b"/p?x=%7e+%2B&&=&Key=1&keys=2&mykey=3&x=1", b"/p?x=%7e+%2B&&=&Key=1&keys=2&mykey=3&x=1&key=a%20b%26"),
        (b"/key?q=key=1", b"/key?q=key=1&key=a%20b%26"),
    ],
)
def test_a_query_parameter_is_merged(target, written):
    assert write(Head("GET", target, ()), placement.parse_query("key"), token="a b&").target == written


names = st.sampled_from([b"key", b"k%65y", b"%6B%65%79", b"Key", b"keys", b"a", b"b+c", b"%zz", b""])
pairs = st.lists(st.tuples(names, st.one_of(st.none(), st.binary(max_size=6))), max_size=8)


@given(pairs, st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=20))
def test_other_parameters_keep_bytes_and_order_and_one_credential_remains(pairs, value):
    value = value.strip() or "x"
    raw = [n if v is None else n + b"=" + re.sub(rb"[&#? \x00-\x1f]", b"_", v) for n, v in pairs]
    after = write(Head("GET", b"/p?" + b"&".join(raw), ()), placement.parse_query("key"), token=value).target
    path, _, query_string = after.partition(b"?")
    parts = query_string.split(b"&")
    ours = [p for p in parts if unquote_to_bytes(p.partition(b"=")[0]) == b"key"]
    assert path == b"/p"
    assert [unquote_to_bytes(p.partition(b"=")[2]).decode() for p in ours] == [value]
    others = [p for p in raw if unquote_to_bytes(p.partition(b"=")[0]) != b"key"]
    assert [p for p in parts if p not in ours] == (others if b"&".join(raw) else [])


header_names = st.sampled_from(
    [b"X-Api-Key", b"x_api_key", b"X-API-KEY", b"Authorization", b"Accept", b"X-Other", b"Cookie"]
)


@given(st.lists(st.tuples(header_names, st.binary(max_size=8)), max_size=8), st.text(max_size=30))
def test_no_control_byte_is_ever_written_and_other_headers_keep_bytes_and_order(sent, value):
    try:
        after = write(Head("GET", b"/", tuple(sent)), HEADER, token=value)
    except Fault:
        assert placement.unwritable(value)
        return
    assert [v for n, v in after.headers if placement.canonical(n) in (b"x-api-key", b"authorization")] == [
        value.encode()
    ]
    assert re.fullmatch(rb"[!-~]([ -~]*[!-~])?", after.headers[-1][1])
    assert list(after.headers[:-1]) == [
        pair for pair in sent if placement.canonical(pair[0]) not in (b"x-api-key", b"authorization")
    ]
