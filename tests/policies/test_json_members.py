"""`json`: what a body must say, in every parser's reading of it. What cannot be told refuses."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from addon import policies
from addon.errors import Fault, Refusal, Usage
from addon.policies import json_members
from addon.policies.policy import Look

JSON = (b"Content-Type", b"application/json")


def passes(rules, body):
    """Whether a body passes rules, written as one text each."""
    params = json_members.KIND.parse(tuple(rules))
    try:
        policies.examine([Look("grant.json", params)], body if isinstance(body, bytes) else body.encode())
    except Refusal as no:
        refused = no
    else:
        return True
    assert (refused.code, refused.policy) == ("policy_denied", "grant.json")
    assert refused.found
    assert refused.remedy
    return False


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        ('m = "a"', ['"a"', r'"\u0061"'], ['"A"', '"a "', '"b"', '["a"]', "1", "null", '""']),
        ('m in ["a", 1, null]', ['"a"', "1", "1.0", "1e0", "null"], ['"1"', "true", "2", "false", "[1]"]),
        ("m = 1", ["1", "1.0", "10e-1"], ["true", '"1"', "1.0000000000000000000001", "1e1"]),
        ("m = true", ["true"], ["1", '"true"', "false"]),
        ("m=false", ["false"], ["0", "null", '""']),
        ("m = 0.1", ["0.1", "0.10", "1e-1"], ["0.1000000000000000000001", "0"]),
        ("m <= 1000", ["1000", "0", "999.5", "1e3", "0.1e-9999"],
         ["1000.0000000000000001", "1001", "-1", "1e999999999999", "4294967297", '"5"', "true", "null", "[]", "{}"]),
        ("m<=0.5", ["0.5"], ["0.51"]),
        ('m.tier = "free"', ['{"tier": "free"}'], ['{"tier": "paid"}', '{"x": {"tier": "free"}}', '"free"', '[{"tier": "free"}]']),
    ],
)  # fmt: skip
def test_a_member_must_have_the_value_and_its_type(rule, good, bad):
    assert [value for value in good if not passes([rule], f'{{"m": {value}}}')] == []
    assert [value for value in bad if passes([rule], f'{{"m": {value}}}')] == []


def test_all_rules_must_hold():
    rules = ['model = "a"', "n <= 4"]
    assert passes(rules, '{"model": "a", "n": 4, "other": [1, {"n": 5}]}')
    assert not passes(rules, '{"model": "a", "n": 5}')
    assert not passes(rules, '{"model": "a"}')


@pytest.mark.parametrize(
    "body",
    [
        b"", b" ", b"null", b"[]", b'"m"', b"1", b"{}", b'{"m": 1', b'{"m": 1} x', b'{"m": 1}{"m": 2}', b"{'m': 1}", b'{"m": 1,}',
        b'{"m": 1 /* 2 */}', b'{"m": 01}', b'{"m": +1}', b'{"m": 0x1}',
        b'\xef\xbb\xbf{"m": 1}', '{"m": 1}'.encode("utf-16"), '{"m": 1}'.encode("utf-16-le"), b'{"m": 1, "x": "\xff"}',
        b'{"m": 1, "x": "\xed\xa0\x80"}', b'{"m": 2, "m": 1}', b'{"m": 1, "m": 1}', b'{"m": 1, "x": {"y": 1, "y": 1}}',
        b'{"m": 1, "x": [{"y": 1, "\\u0079": 1}]}', b'{"m": 1, "\\u006d": 2}', b'{"m": 1, "M": 2}', b'{"m": 1, "m_": 2}', b'{"m": 1, "-m": 2}',
        b'{"m": 1, "m\\u0000": 2}', b'{"m": 1, "m\\ud800": 2}', b'{"m": 1, "x": NaN}', b'{"m": 1, "x": [Infinity, -Infinity]}',
        b'{"m": 1, "x": ' + b"[" * 64 + b"]" * 64 + b"}", b'{"m": 1, "x": ' + b"[" * 100_000, b'{"m": 1, "x": 1e99999999999999999999}',
        b'{"m": 1}' + b" " * (1 << 20),
    ],
    ids=lambda body: repr(body[:32]),
)  # fmt: skip
def test_a_body_that_parsers_read_differently_or_that_is_none_is_refused(body):
    assert passes(["m = 1"], b'{"m": 1, "x": ' + b"[" * 63 + b"]" * 63 + b"}")
    assert not passes(["m = 1"], body)


def test_a_name_that_another_parser_takes_for_the_member_is_refused_on_the_way_only():
    assert not passes(["user.max_tokens <= 5"], '{"user": {"max_tokens": 1, "maxTokens": 9}}')
    assert not passes(["user.max_tokens <= 5"], '{"user": {"max_tokens": 1}, "User": {"max_tokens": 9}}')
    assert not passes(["kind = 1"], '{"kind": 1, "\u212aind": 2}')  # the Kelvin sign, which Go folds to k
    assert passes(["user.max_tokens <= 5"], '{"user": {"max_tokens": 1}, "headers": {"A": 1, "a": 2}}')


@pytest.mark.parametrize(
    ("headers", "good"),
    [
        ([JSON], True),
        ([(b"Content-Type", b" Application/JSON; charset=UTF-8 ")], True),
        ([(b"Content-Type", b'application/json;charset="utf-8"')], True),
        ([(b"Content-Type", b"application/vnd.api+json; ext=x")], True),
        ([(b"Content-Type", b"application/x-amz-json-1.0")], True),
        ([JSON, (b"Content-Encoding", b"identity")], True),
        ([], False),
        ([JSON, JSON], False),
        ([(b"Content-Type", b"application/json; charset=utf-16")], False),
        ([(b"Content-Type", b"application/json; charset=utf-8; charset=utf-7")], False),
        ([(b"Content-Type", b"application/json, text/plain")], False),
        ([(b"Content-Type", b"application/jsonx")], False),
        ([(b"Content-Type", b"text/json")], False),
        ([(b"Content-Type", b"multipart/form-data; x=application/json")], False),
        ([(b"Content-Type", b"application/x-www-form-urlencoded")], False),
        ([JSON, (b"Content-Encoding", b"gzip")], False),
        ([JSON, (b"Content-Encoding", b"identity"), (b"content-encoding", b"br")], False),
    ],
)
def test_the_head_must_say_that_the_body_is_plain_json(attempt, headers, good):
    params = json_members.KIND.parse(("m = 1",))
    assert (json_members.KIND.check(params, attempt(headers=headers)) is None) is good


def test_what_is_left_to_look_at_names_its_layer(attempt):
    rules = (("json", json_members.KIND.parse(("m = 1",))),)
    assert policies.check(rules, attempt(headers=[JSON]), layer="secret") == [Look("secret.json", {"rules": ["m = 1"]})]


def test_several_layers_look_and_the_first_that_denies_is_named():
    looks = [Look("vault.json", {"rules": ["m = 1"]}), Look("grant.json", {"rules": ["n = 1"]})]
    told = []
    with pytest.raises(Refusal) as no:
        policies.examine(looks, b'{"m": 1, "n": 2}', passed=lambda policy, _: told.append(policy))
    assert (no.value.policy, no.value.found, told) == ("grant.json", "it is 2: n = 1", ["vault.json"])
    policies.examine(looks, b'{"m": 1, "n": 1}')
    policies.examine([], b"anything")


@pytest.mark.parametrize(
    "params", [{}, {"rules": []}, {"rules": "m = 1"}, {"rules": [1]}, {"rules": ["m"]}, {"rules": ["m = 1"], "later": 1}, {"rules": ["m ~ 1"]}]
)  # fmt: skip
def test_stored_rules_that_cannot_be_read_are_a_fault(attempt, params):
    with pytest.raises(Fault, match="vault_unavailable"):
        policies.check((("json", params),), attempt(headers=[JSON]), layer="grant")
    with pytest.raises(Fault, match="vault_unavailable"):
        policies.examine([Look("grant.json", params)], b'{"m": 1}')


@pytest.mark.parametrize(
    "text",
    [
        "", "m", "m =", "= 1", "m = a", "m = 'a'", "m == 1", "m < 1", "m >= 1", "m = [1]", "m = {}", "m in 1", "m in []", "m in [[1]]", "min [1]",
        "m <= -1", 'm <= "1"', "m <= true", "m <= [1]", "m = 9007199254740993", "m = 0.1000000000000000000001", "m = 1e400", "m = NaN",
        ".m = 1", "m. = 1", "m..n = 1", "m n = 1", "m[0] = 1", "é = 1", 'm = "a" ,', "m = 1 2", f"{'m' * 65} = 1", 'm in ["a",]',
    ],
)  # fmt: skip
def test_a_rule_that_means_nothing_is_refused_when_typed(text):
    with pytest.raises(Usage, match="not a rule") as refused:
        json_members.KIND.parse((text,))
    assert "double quotes" in refused.value.hint


def test_no_rules_are_no_policy():
    with pytest.raises(Usage):
        json_members.KIND.parse(())


# ── what other parsers see ───────────────────────────────────────────────────────────────────────────────────────────


def first_wins(pairs):
    return dict(reversed(pairs))


def go_like(pairs):
    """Names in any case, the last one wins."""
    return {name.casefold(): value for name, value in pairs}


READERS = (
    json.loads,
    lambda text: json.loads(text, object_pairs_hook=first_wins),
    lambda text: json.loads(text, object_pairs_hook=go_like),
    lambda text: json.loads(text, parse_int=float),
)

VALUES = st.sampled_from(
    ['"a"', '"b"', '"A"', r'"\u0061"', "1", "1.0", "0", "5", "5.0000000000000000000000001", "6", "-1", "1e3", "1e400", "true", "false", "null",
     "NaN", "Infinity", "[]", "{}", "[1]", '{"n": 1}', '{"n": 9, "N": 1}', "9007199254740993", "4.999999999999999999999999"]
)  # fmt: skip
NAMES = st.sampled_from(["m", "M", "n", "N", r"\u006d", r"m\u0000", r"m\ud800", "o", "m_", "x"])
MEMBERS = st.lists(st.tuples(NAMES, VALUES), max_size=5).map(
    lambda pairs: "{" + ", ".join(f'"{name}": {value}' for name, value in pairs) + "}"
)
BODIES = st.one_of(
    MEMBERS,
    st.tuples(MEMBERS, MEMBERS).map(lambda two: f'{{"m": 1, "n": 5, "o": {two[0]}, "x": {two[1]}}}'),
    st.tuples(st.sampled_from(["\ufeff", "", " ", "//\n"]), MEMBERS, st.sampled_from(["", " ", "x", "\0"])).map(
        "".join
    ),
)


@given(body=BODIES)
@example('{"m": "a", "n": 5}')
@example('{"m": 1, "n": 5, "o": {"m": true}}')
def test_no_body_passes_that_breaks_the_rule_in_another_parsers_reading(body):
    cases = [
        (['m in ["a", 1]'], lambda m: type(m["m"]) in {str, int, float} and m["m"] in ("a", 1)),
        (["n <= 5"], lambda m: type(m["n"]) in {int, float} and 0 <= m["n"] <= 5),
        (["o.m = true"], lambda m: m["o"]["m"] is True),
    ]
    for rules, holds in cases:
        if passes(rules, body.encode("utf-8", "surrogatepass")):
            assert all(holds(read(body)) for read in READERS)


@given(raw=st.binary(max_size=40) | BODIES.map(str.encode))
def test_bytes_of_any_kind_pass_or_are_refused(raw):
    passes(["m = 1"], raw)


def test_a_large_body_is_read_only_once(monkeypatch):
    body = b'{"m": 1, "x": "' + b"x" * ((1 << 20) - 17) + b'"}'
    assert len(body) == 1 << 20
    looks = [Look("vault.json", {"rules": ["m = 1"]})] * 5
    read, reads = json_members.read, []
    monkeypatch.setattr(json_members, "read", lambda body: reads.append(1) or read(body))
    policies.examine(looks, body)
    assert reads == [1]
