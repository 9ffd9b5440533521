"""Which grant a request asks for, and that nothing of ours goes out with it."""

import base64

import pytest
from hypothesis import assume, event, example, given
from hypothesis import strategies as st

from addon import tag
from addon.errors import Refusal
from addon.model import Head
from addon.tag import PLACEHOLDER, Tag

ID = "0b6f3c1e-9f53-4a53-9b36-6d0c9b6a8a51"
OTHER = "f" * 36
GRANT = (b"X-Alter-Grant", ID.encode())


def head(*headers, target=b"/"):
    return Head("GET", target, headers)


def placeholder(grant=ID):
    return PLACEHOLDER + grant.encode()


def basic(text):
    return b"Basic " + base64.b64encode(text)


def refusal(given_head):
    with pytest.raises(Refusal) as refused:
        tag.find(given_head)
    return refused.value.code


# ── finding ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_without_a_tag_there_is_none():
    assert tag.find(head((b"Host", b"api.test"), (b"Authorization", b"Bearer x"), target=b"/a?b=c")) is None


@pytest.mark.parametrize("name", [b"X-Alter-Grant", b"x-alter-grant", b"X-ALTER-GRANT"])
@pytest.mark.parametrize("value", [ID.encode(), b"  " + ID.encode() + b"\t", b"a" * 16, b"Z" * 64, b"_-" * 10])
def test_the_header_names_one_grant(name, value):
    assert tag.find(head((name, value))) == Tag(value.strip().decode())


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([(b"X-Alter-Grant", b"")], "tag_malformed"),
        ([(b"X-Alter-Grant", b"a" * 15)], "tag_malformed"),
        ([(b"X-Alter-Grant", b"a" * 65)], "tag_malformed"),
        ([(b"X-Alter-Grant", b"a" * 10_000)], "tag_malformed"),
        ([(b"X-Alter-Grant", b"a" * 20 + b" " + b"b" * 20)], "tag_malformed"),
        ([(b"X-Alter-Grant", b"a" * 20 + b"\x0b")], "tag_malformed"),
        ([(b"X-Alter-Grant", b"a" * 20 + b"/../x")], "tag_malformed"),
        ([(b"X-Alter-Grant", b"' OR 1=1 --" + b" " * 9)], "tag_malformed"),
        ([(b"X-Alter-Grant", b"\xef\xbc\x90" * 16)], "tag_malformed"),
        ([(b"X_Alter_Grant", ID.encode())], "tag_malformed"),
        ([(b"x-alter_grant", ID.encode())], "tag_malformed"),
        ([GRANT, GRANT], "tag_repeated"),
        ([GRANT, (b"x_alter_grant", ID.encode())], "tag_repeated"),
        ([GRANT, (b"x-ALTER-grant", b"")], "tag_repeated"),
        ([(b"X-Alter-Grant", ID.encode() + b"," + OTHER.encode())], "tag_repeated"),
        ([(b"X-Alter-Grant", ID.encode() + b",")], "tag_repeated"),
        ([(b"A", b"b\r\n X-Alter-Grant: c")], "header_forbidden"),
        ([GRANT, (b"A", b"b\nc")], "header_forbidden"),
        ([GRANT, (b"A", b"b\rc")], "header_forbidden"),
        ([GRANT, (b"A", b"b\0c")], "header_forbidden"),
        ([(b"A\r\nX-Alter-Grant", b"b")], "header_forbidden"),
    ],
)
def test_a_tag_that_is_not_plainly_one_id_is_refused(headers, code):
    assert refusal(head(*headers)) == code


PLACES = {
    "bearer": lambda p: head((b"Authorization", b"Bearer " + p)),
    "basic password": lambda p: head((b"AUTHORIZATION", basic(b"user:" + p))),
    "basic user": lambda p: head((b"authorization", basic(p + b":"))),
    "basic, more blanks": lambda p: head((b"Authorization", b"bAsIc   " + base64.b64encode(b":" + p) + b" ")),
    "aws credential": lambda p: head(
        (b"Authorization", b"AWS4-HMAC-SHA256 Credential=" + p + b"/20270101/eu-west-1/s3/aws4_request, Signature=0")
    ),
    "custom header": lambda p: head((b"X-Api-Key", p)),
    "cookie": lambda p: head((b"Cookie", b"a=b; key=" + p)),
    "query": lambda p: head(target=b"/a?b=c&key=" + p + b"&d=%20"),
    "presigned": lambda p: head(target=b"/a?X-Amz-Credential=" + p + b"%2F20270101&X-Amz-Date=0"),
}


LEFT = {
    "aws credential": (
        (b"Authorization", b"AWS4-HMAC-SHA256 Credential=/20270101/eu-west-1/s3/aws4_request, Signature=0"),
    )
}
"""The scope of a signature stays: it says which region is meant. The kind removes it."""


@pytest.mark.parametrize("place", PLACES)
def test_a_placeholder_names_the_grant_wherever_a_client_puts_its_key(place):
    assert tag.find(PLACES[place](placeholder())) == Tag(ID, placeholder=True)


@pytest.mark.parametrize("place", PLACES)
def test_a_placeholder_takes_its_credential_with_it(place):
    stripped = tag.strip(PLACES[place](placeholder()))
    assert stripped.headers == LEFT.get(place, ())
    assert stripped.target in {b"/", b"/a?b=c&d=%20", b"/a?X-Amz-Credential=%2F20270101&X-Amz-Date=0"}


@pytest.mark.parametrize("place", PLACES)
def test_a_placeholder_with_another_id_is_malformed(place):
    assert refusal(PLACES[place](PLACEHOLDER + b"short")) == "tag_malformed"


def test_the_header_wins_over_a_placeholder():
    both = head(GRANT, (b"Authorization", b"Bearer " + placeholder(OTHER)))
    assert tag.find(both) == Tag(ID)
    assert tag.strip(both).headers == ()


def test_one_grant_may_stand_in_two_places_but_two_grants_may_not():
    same = head((b"A", placeholder()), target=b"/?k=" + placeholder())
    assert tag.find(same) == Tag(ID, placeholder=True)
    assert refusal(head((b"A", placeholder()), target=b"/?k=" + placeholder(OTHER))) == "tag_repeated"
    assert refusal(head((b"A", placeholder() + b" " + placeholder(OTHER)))) == "tag_repeated"


ACCESS_KEY_IDS = {
    "header": (lambda k: head((b"authorization", b"AWS4-HMAC-SHA256 Credential=" + k + b"/2027/eu/s3/aws4_request,Signature=0"))),
    "header, version 4a": (lambda k: head((b"Authorization", b"AWS4-ECDSA-P256-SHA256 SignedHeaders=host, Credential=" + k + b"/2027/s3/aws4_request"))),
    "header, version 2": (lambda k: head((b"Authorization", b"AWS " + k + b":c2ln"))),
    "url": (lambda k: head(target=b"/a?X-Amz-Credential=" + k + b"%2f2027&X-Amz-Signature=0")),
    "url in lower case": (lambda k: head(target=b"/a?b&x-amz-credential=" + k + b"/2027")),
    "url, version 2": (lambda k: head(target=b"/a?AWSAccessKeyId=" + k + b"&Signature=c2ln&Expires=1")),
    "url, version 2, last": (lambda k: head(target=b"/a?Signature=c2ln&Expires=1&AWSAccessKeyId=" + k)),
}  # fmt: skip


@pytest.mark.parametrize("given", [ID.encode(), placeholder()], ids=["id", "placeholder"])
@pytest.mark.parametrize("place", ACCESS_KEY_IDS)
def test_an_access_key_id_of_aws_may_be_the_grant_itself_and_goes_alone(place, given):
    request = ACCESS_KEY_IDS[place](given)
    assert tag.find(request) == Tag(ID, placeholder=True)
    assert tag.strip(request) == ACCESS_KEY_IDS[place](b"")


@pytest.mark.parametrize(
    "request_head",
    [
        *(make(key) for make in ACCESS_KEY_IDS.values() for key in (b"AKIAIOSFODNN7EXAMPLE", b"dummy", ID.encode()[:-1])),
        head((b"Authorization", b"Bearer " + ID.encode())),
        head((b"X-Other", b"AWS4-HMAC-SHA256 Credential=" + ID.encode() + b"/2027/eu/s3/aws4_request")),
        head(target=b"/?id=" + ID.encode()),
        head(target=b"/?MyX-Amz-Credential=" + ID.encode()),
        head(target=b"/X-Amz-Credential=" + ID.encode() + b"/"),
    ],
    ids=lambda h: str(h.headers or h.target)[:60],
)  # fmt: skip
def test_ids_elsewhere_and_other_access_key_ids_are_no_tag(request_head):
    assert tag.find(request_head) is None
    assert tag.strip(request_head) == request_head


def test_two_access_key_ids_are_two_tags():
    other = ID.replace("0b", "1b").encode()
    request = ACCESS_KEY_IDS["header"](ID.encode())
    assert refusal(Head("GET", b"/?X-Amz-Credential=" + other + b"/", request.headers)) == "tag_repeated"


@pytest.mark.parametrize("headers", [(), (GRANT,)], ids=["alone", "beside a tag"])
def test_a_placeholder_in_the_path_is_refused_since_it_cannot_be_taken_out(headers):
    assert refusal(head(*headers, target=b"/bot" + placeholder() + b"/send?a=b")) == "tag_malformed"


# ── stripping ────────────────────────────────────────────────────────────────────────────────────────────────────────

OURS = [
    b"X-Alter-Grant", b"X-Alter-Key", b"x-alter-user-token", b"X-ALTER-REASON", b"X_Alter_Context", b"x-alter_grant",
    b"X_Alter-Key", b"X-Alter", b"x_alter", b"X-Alter-", b"X-Alter-Anything-New", b"x-alter--grant", b"X-Alter-\nGrant",
    b"Proxy-Authorization", b"PROXY-authorization", b"Proxy_Authorization", b"Proxy-Connection", b"proxy_connection",
]  # fmt: skip
NOT_OURS = [
    b"Host", b"Authorization", b"X-Api-Key", b"X-Alterations", b"X-Alternate", b"Alter-Grant", b"X--Alter-Grant",
    b"X-Amz-Date", b"Proxy-Status", b"traceparent", b"Connection", b"",
]  # fmt: skip


@pytest.mark.parametrize("name", OURS)
def test_our_headers_are_known_in_every_spelling(name):
    assert tag.is_control(name)
    assert tag.strip(head((name, b"x"))).headers == ()


@pytest.mark.parametrize("name", NOT_OURS)
def test_other_headers_are_not_ours(name):
    assert not tag.is_control(name)
    assert tag.strip(head((name, b"x"))).headers == ((name, b"x"),)


@pytest.mark.parametrize(
    ("target", "left"),
    [
        (b"/a", b"/a"),
        (b"/a?", b"/a?"),
        (b"/a?b", b"/a?b"),
        (b"/a?&&b=%zz&=", b"/a?&&b=%zz&="),
        (b"/a?k=" + placeholder(), b"/a"),
        (b"/a?k=" + placeholder() + b"&", b"/a?"),
        (b"/a?b=1&k=" + placeholder() + b"&b=1&c=a?b", b"/a?b=1&b=1&c=a?b"),
        (b"/a?b=1;k=" + placeholder() + b"&c=1", b"/a?c=1"),
    ],
)
def test_a_query_loses_the_parameter_of_the_placeholder_and_no_other_byte(target, left):
    assert tag.strip(head(target=target)).target == left


NAMES = st.sampled_from(OURS + NOT_OURS) | st.from_regex(rb"[A-Za-z_-]{1,12}", fullmatch=True)
PIECES = st.sampled_from(
    [PLACEHOLDER, placeholder(), b"alter_", b"grant_", b"Bearer ", b"Basic ", b"&", b"=", b"?", b"/", b"a"]
)
VALUES = st.lists(PIECES | st.binary(max_size=6), max_size=5).map(b"".join)
BASIC = VALUES.map(basic) | VALUES.map(lambda value: b"BASIC  " + base64.b64encode(value))
HEADS = st.builds(
    Head,
    method=st.just("GET"),
    target=VALUES.map(b"/".__add__),
    headers=st.lists(st.tuples(NAMES, VALUES | BASIC), max_size=6).map(tuple),
)


def readable(name, value):
    """What a server would read in a header."""
    if name.lower() == b"authorization" and value[:6].lower() == b"basic ":
        try:
            return base64.b64decode(value[6:].strip(), validate=True)
        except ValueError:
            return value
    return value


@given(HEADS)
@example(head((b"Authorization", basic(b"a:" + placeholder()))))
def test_nothing_of_ours_survives(before):
    after = tag.strip(before)
    assert not [
        name for name, _ in after.headers if name.lower().replace(b"_", b"-").startswith((b"x-alter-", b"proxy-auth"))
    ]
    assert not [value for name, value in after.headers if PLACEHOLDER in readable(name, value)]
    assert PLACEHOLDER not in after.target.partition(b"?")[2]


@given(HEADS)
def test_what_is_not_ours_keeps_its_bytes_and_its_order(before):
    after = tag.strip(before)
    kept = [
        (name, value)
        for name, value in before.headers
        if not tag.is_control(name) and PLACEHOLDER not in readable(name, value)
    ]
    assert list(after.headers) == kept
    assert after.method == before.method
    if PLACEHOLDER not in before.target:
        assert after.target == before.target


@given(HEADS)
def test_stripping_twice_changes_nothing_more(before):
    once = tag.strip(before)
    assert tag.strip(once) == once


@given(HEADS)
def test_what_has_been_stripped_asks_for_nothing(before):
    try:
        tag.find(before)
    except Refusal as refused:
        assume(refused.code == "tag_repeated")  # refused for good; what is stripped all the same must still be clean
    assert tag.find(tag.strip(before)) is None


@given(HEADS)
def test_every_request_has_one_tag_none_or_a_known_refusal(before):
    try:
        found = tag.find(before)
    except Refusal as refused:
        event(refused.code)
        found, codes = None, {refused.code}
    else:
        codes = set()
        if found is None:
            assert PLACEHOLDER not in before.target
            assert not [value for name, value in before.headers if not tag.is_control(name) and PLACEHOLDER in value]
    assert codes <= {"tag_repeated", "tag_malformed", "header_forbidden"}
    assert found is None or tag.ID.fullmatch(found.id.encode())
