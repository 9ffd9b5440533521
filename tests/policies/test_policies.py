"""Policies as they are stored: all must pass, and what cannot be read decides nothing."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addon import policies
from addon.errors import Fault, Refusal, Usage

TYPED = {
    "methods": ("get", "POST"),
    "paths": ("/v1", "/v2/"),
    "cidr": ("10.0.0.0/8", "::1/128"),
    "hours": ("Mon-Fri 09:00-18:00 Europe/Berlin",),
    "period": ("10", "20"),
    "max_body": ("1000",),
    "content_type": ("application/json",),
    "json": ('model in ["a", "b"]', "max_tokens <= 1000"),
    "reason": ("5",),
    "rate": ("60/minute", "1000/day"),
    "quota": ("100", "10/hour"),
    "approval": ("600",),
}


def test_every_kind_in_the_folder_is_registered():
    folder = Path(policies.__file__).parent
    files = {path.stem for path in folder.glob("*.py")} - {"__init__", "policy"}
    assert files == {type(kind).__module__.rpartition(".")[2] for kind in policies.KINDS.values()}
    assert all(kind.tag == tag for tag, kind in policies.KINDS.items())


@pytest.mark.parametrize("tag", policies.KINDS)
def test_what_a_kind_parses_is_stored_and_read_again(tag):
    rule = (tag, policies.KINDS[tag].parse(TYPED[tag]))
    assert policies.load(policies.dump((rule,))) == (rule,)


def test_no_policies_allow(attempt):
    assert policies.load(policies.dump(())) == ()
    policies.check((), attempt(), layer="grant")


def test_all_must_pass_and_the_first_that_does_not_is_named(attempt):
    rules = (
        ("methods", {"methods": ["GET"]}),
        ("paths", {"paths": ["/v1"]}),
        ("cidr", {"networks": ["127.0.0.0/8"]}),
    )
    policies.check(rules, attempt(), layer="grant")
    for changes, named in (
        ({"method": "POST"}, "grant.methods"),
        ({"target": b"/v2"}, "grant.paths"),
        ({"client_ip": "10.0.0.1"}, "grant.cidr"),
        ({"method": "POST", "client_ip": "10.0.0.1"}, "grant.methods"),
    ):
        with pytest.raises(Refusal) as refused:
            policies.check(rules, attempt(**changes), layer="grant")
        assert (refused.value.code, refused.value.policy) == ("policy_denied", named)


@pytest.mark.parametrize(
    "stored",
    [
        "", "nonsense", "null", "1", "true", '""', '"[]"', "{}", '{"methods": {"methods": ["GET"]}}', "[1]", "[[]]",
        '[["methods"]]', '[["methods", {"methods": ["GET"]}, 1]]', "[[1, {}]]", "[[null, {}]]", '[[["methods"], {}]]',
        '[["methods", null]]', '[["methods", ["GET"]]]', '[["methods", [["methods", ["GET"]]]]]', '[["unknown", {}]]',
        '[["METHODS", {"methods": ["GET"]}]]', '["ab"]', '[{"a": 1, "b": 2}]', "[" * 100_000,
        '[["methods", {"methods": ["GET"]}], ["later", {}]]',
    ],
    ids=lambda stored: stored[:40],
)  # fmt: skip
def test_stored_text_of_any_other_shape_is_a_fault(stored):
    with pytest.raises(Fault, match="vault_unavailable"):
        policies.load(stored)


@pytest.mark.parametrize("member", ["methods", "paths", "cidr"])
@pytest.mark.parametrize("value", [None, 1, True, "GET", "/v1/things", "127.0.0.0/8", {"GET": 1, "/": 1}, [1], ["GET", None], [["GET"]]], ids=repr)  # fmt: skip
def test_parameters_of_another_type_are_a_fault_and_not_a_guess(attempt, member, value):
    name = {"cidr": "networks"}.get(member, member)
    rules = policies.load(json.dumps([[member, {name: value}]]))
    with pytest.raises(Fault, match="vault_unavailable"):
        policies.check(rules, attempt(), layer="grant")


@pytest.mark.parametrize("params", [{}, {"method": ["GET"]}, {"methods": ["GET"], "except": ["GET"]}])
def test_parameters_with_another_member_are_a_fault(attempt, params):
    with pytest.raises(Fault, match="vault_unavailable"):
        policies.check((("methods", params),), attempt(), layer="grant")


@pytest.mark.parametrize("rule", [("methods", {"methods": []}), ("paths", {"paths": []}), ("cidr", {"networks": []})])
def test_an_empty_list_allows_nothing(attempt, rule):
    with pytest.raises(Refusal):
        policies.check((rule,), attempt(), layer="grant")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["GET", "/", "127.0.0.0/8"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5) | st.sampled_from(["methods", "paths", "networks"]), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(tag=st.sampled_from([*policies.KINDS, "later"]), params=JSON)
def test_whatever_is_stored_is_judged_or_a_fault_and_passes_only_when_well_formed(attempt, tag, params):
    try:
        policies.check(policies.load(json.dumps([[tag, params]])), attempt(), layer="grant")
    except (Fault, Refusal):
        return
    (name,) = params
    assert policies.KINDS[tag].parse(tuple(params[name])) == params


@pytest.mark.parametrize(
    ("tag", "typed"),
    [("methods", ("TRACE",)), ("paths", ("v1",)), ("cidr", ("10.0.0.1/8",))],
)
def test_what_an_operator_types_wrongly_is_refused_with_a_hint(tag, typed):
    with pytest.raises(Usage) as refused:
        policies.KINDS[tag].parse(typed)
    assert refused.value.hint
