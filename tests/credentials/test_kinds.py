"""bearer, header, query, basic: their fields, their bindings, and what they write."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addon import credentials
from addon.binding import Binding, Placement
from addon.credentials import placement
from addon.credentials.kind import Target
from addon.errors import Fault, Usage
from addon.model import Head, Values

TARGET = Target(host="api.example.com", port=443, now=0.0)
HOSTS = (("api.example.com", 443),)
CALLER = Head(
    "POST", b"/v1?a=1", ((b"Host", b"api.example.com"), (b"authorization", b"Basic YWxpY2U6eA=="), (b"Accept", b"*/*"))
)


def apply(tag, values, head=CALLER, **members):
    kind = credentials.kind(tag)
    binding = kind.check_binding(Binding(hosts=HOSTS, **members))
    kind.check_values(binding, values)
    plan = kind.plan(head, binding=binding, host="api.example.com")
    assert not plan.needs_body
    sent = plan.apply(Values(values), target=TARGET, body_sha256=None)
    assert sent.rewriter is None
    return sent.head


def basic(**values):
    sent = apply("basic", values).headers[-1]
    assert sent[0] == b"Authorization"
    return base64.b64decode(sent[1].removeprefix(b"Basic "))


def test_an_unknown_kind_is_a_fault():
    with pytest.raises(Fault):
        credentials.kind("oauth")


def test_every_kind_is_listed_under_its_own_tag():
    assert {tag: kind.tag for tag, kind in credentials.KINDS.items()} == {
        tag: tag for tag in ("bearer", "header", "query", "basic", "sigv4")
    }


def test_bearer_takes_the_place_of_what_the_caller_sent():
    sent = apply("bearer", {"token": "sk_1"})
    assert sent == Head("POST", b"/v1?a=1", (CALLER.headers[0], CALLER.headers[2], (b"Authorization", b"Bearer sk_1")))


def test_bearer_has_one_place():
    binding = credentials.kind("bearer").check_binding(Binding(hosts=HOSTS))
    assert credentials.kind("bearer").check_binding(binding) == binding
    assert [f.name for f in credentials.kind("bearer").fields(Binding(hosts=HOSTS))] == ["token"]
    with pytest.raises(Usage, match="own place") as refusal:
        credentials.kind("bearer").check_binding(Binding(hosts=HOSTS, placements=(placement.parse_header("X-Key"),)))
    assert "--kind header" in refusal.value.hint


def test_header_writes_several_at_once():
    sent = apply(
        "header",
        {"api_key": "k", "app_key": "a"},
        placements=(
            placement.parse_header("DD-API-KEY", "{api_key}"),
            placement.parse_header("DD-APPLICATION-KEY", "{app_key}"),
        ),
        constants=(("X-Version", "1"),),
    )
    assert sent.headers[2:] == ((b"X-Version", b"1"), (b"DD-API-KEY", b"k"), (b"DD-APPLICATION-KEY", b"a"))


def test_one_field_may_stand_in_two_places():
    placements = (placement.parse_header("apikey"), placement.parse_header("Authorization", "Bearer {token}"))
    assert apply("header", {"token": "t"}, placements=placements).headers[-2:] == (
        (b"apikey", b"t"),
        (b"Authorization", b"Bearer t"),
    )


@pytest.mark.parametrize(
    ("tag", "placements"),
    [
        ("header", ()),
        ("header", (placement.parse_query("key"),)),
        ("query", ()),
        ("query", (placement.parse_header("X-Key"),)),
        ("basic", (placement.parse_header("X-Key", "{user}:{password}"),)),
        ("basic", (placement.parse_query("key", "{user}:{password}"),)),
        ("basic", (placement.parse_header("Authorization", "{token}"),)),
        ("sigv4", (placement.parse_header("X-Key"),)),
    ],
)
def test_a_kind_refuses_a_binding_it_cannot_serve(tag, placements):
    with pytest.raises(Usage):
        credentials.kind(tag).check_binding(Binding(hosts=HOSTS, placements=placements))


def test_query_may_write_a_header_as_well():
    placements = (placement.parse_query("key", "{key}"), placement.parse_header("X-Token", "{token}"))
    sent = apply("query", {"key": "k", "token": "t"}, placements=placements)
    assert sent.target == b"/v1?a=1&key=k"
    assert sent.headers[-1] == (b"X-Token", b"t")
    assert b"authorization" not in [n.lower() for n, _ in sent.headers]


def test_basic_encodes_for_the_operator_in_utf_8():
    assert basic(user="Aladdin", password="open sesame") == b"Aladdin:open sesame"
    assert basic(user="ünïcode", password="pass:with:colons £") == "ünïcode:pass:with:colons £".encode()


def test_basic_shows_its_user_and_hides_its_password():
    fields = credentials.kind("basic").fields(Binding(hosts=HOSTS))
    assert [(f.name, f.secret) for f in fields] == [("user", False), ("password", True)]


@pytest.mark.parametrize(("pair", "written"), [("{token}:", b"k:"), ("api:{token}", b"api:k"), (":{token}", b":k")])
def test_an_empty_or_fixed_half_of_basic_is_part_of_the_format(pair, written):
    binding = {"placements": (Placement("header", "Authorization", pair),)}
    assert base64.b64decode(apply("basic", {"token": "k"}, **binding).headers[-1][1].removeprefix(b"Basic ")) == written
    with pytest.raises(Usage, match="is empty"):
        apply("basic", {"token": ""}, **binding)


@pytest.mark.parametrize(
    ("user", "password", "reason"),
    [
        ("a:b", "x", "field user holds a colon"),
        ("a", "x\ny", "field password holds a control"),
        ("a\0", "x", "field user holds a control"),
        ("a", "x\x85", "field password holds a control"),
        ("a", "\ud800", "field password holds a control"),
        ("", "x", "field user is empty"),
        ("a", "x" * 9000, "field password is longer"),
        ("a" * 4000, "x" * 4000, "too long together"),
    ],
)
def test_basic_refuses_what_would_not_arrive_as_it_was_typed(user, password, reason):
    values = {"user": user, "password": password}
    with pytest.raises(Usage, match=reason) as refusal:
        apply("basic", values)
    assert password == "x" or password not in refusal.value.message
    binding = credentials.kind("basic").check_binding(Binding(hosts=HOSTS))
    plan = credentials.kind("basic").plan(CALLER, binding=binding, host="api.example.com")
    with pytest.raises(Fault):
        plan.apply(Values(values), target=TARGET, body_sha256=None)


@given(st.text(max_size=40), st.text(max_size=40))
def test_basic_writes_exactly_what_was_stored_or_refuses(user, password):
    try:
        assert basic(user=user, password=password) == f"{user}:{password}".encode()
    except Usage:
        assert not user or not password or ":" in user or not f"{user}{password}".isprintable()


@pytest.mark.parametrize("tag", ["bearer", "header", "query", "basic", "sigv4"])
def test_no_constant_may_break_the_request(tag):
    with pytest.raises(Usage):
        credentials.kind(tag).check_binding(
            Binding(
                hosts=HOSTS,
                placements=(placement.parse_query("k"),) if tag == "query" else (),
                constants=(("Host", "evil.test"),),
            )
        )


@pytest.mark.parametrize(
    ("tag", "values", "placements", "hidden"),
    [
        ("bearer", {"token": "t"}, (), ("t",)),
        ("header", {"user": "u", "token": "t"}, (placement.parse_header("X", "{user} {token}"),), ("t",)),
        ("query", {"a": "1", "b": "2"}, (placement.parse_query("k", "{a}{b}"),), ("1", "2")),
        ("basic", {"user": "u", "password": "p:w"}, (), ("p:w", "u:p:w")),
        ("basic", {"token": "t"}, (placement.parse_header("Authorization", "{token}:"),), ("t", "t:")),
        ("sigv4", {"access_key_id": "AKIA", "secret_access_key": "s"}, (), ("s",)),
        ("sigv4", {"access_key_id": "AKIA", "secret_access_key": "s", "session_token": "t"}, (), ("s", "t")),
    ],
)
def test_no_response_may_show_the_secret_fields_and_what_basic_makes_of_them(tag, values, placements, hidden):
    kind = credentials.kind(tag)
    aws = {"services": ("s3",), "regions": ("eu-west-1",)} if tag == "sigv4" else {}
    binding = kind.check_binding(Binding(hosts=HOSTS, placements=placements, **aws))
    assert kind.hidden(Values(values), binding=binding) == hidden


def test_only_a_signature_keeps_the_secret_from_the_upstream():
    assert {tag for tag, kind in credentials.KINDS.items() if not kind.sent} == {"sigv4"}
