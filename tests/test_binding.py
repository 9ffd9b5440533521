"""A stored binding is read exactly, or not at all: an old reader must not ignore what a newer writer restricted."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addon import binding
from addon.binding import FLAGS, SAFE_METHODS, Binding, Placement, Role
from addon.errors import Fault

TEXT = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=20)
PORT = st.integers(1, 65535)
BINDING = st.builds(
    Binding,
    hosts=st.lists(st.tuples(TEXT, PORT), min_size=1, max_size=4).map(tuple),
    methods=st.lists(TEXT, min_size=1, max_size=4).map(tuple),
    paths=st.lists(TEXT, min_size=1, max_size=4).map(tuple),
    placements=st.lists(
        st.builds(Placement, where=st.sampled_from(["header", "query"]), name=TEXT, format=TEXT), max_size=4
    ).map(tuple),
    constants=st.lists(st.tuples(TEXT, TEXT), max_size=4).map(tuple),
    services=st.lists(TEXT, max_size=3).map(tuple),
    regions=st.lists(TEXT, max_size=3).map(tuple),
    role=st.none() | st.builds(Role, arn=TEXT, external_id=st.none() | TEXT, seconds=st.integers(1, 43200)),
    flags=st.frozensets(st.sampled_from(sorted(FLAGS))),
)

PLAIN = Binding(
    hosts=(("api.test", 443),),
    placements=(Placement("header", "Authorization", "Bearer {token}"),),
    constants=(("x-version", "1"),),
    flags=frozenset({"private"}),
)
STORED = json.loads(PLAIN.dump())
ROLE = {"arn": "arn:aws:iam::1:role/r", "external_id": None, "seconds": 900}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(BINDING)
def test_what_is_stored_is_what_is_read(bound):
    stored = bound.dump()
    assert binding.load(stored) == bound
    assert binding.load(stored).dump() == stored


@given(BINDING, BINDING)
def test_different_bindings_never_share_a_digest(one, other):
    assert (binding.digest(one.dump()) == binding.digest(other.dump())) == (one == other)


def test_a_binding_that_says_nothing_more_allows_the_safe_methods_on_every_path():
    assert binding.load(Binding(hosts=(("api.test", 443),)).dump()).methods == SAFE_METHODS
    assert not {"TRACE", "CONNECT", "TRACK"} & binding.REGISTERED_METHODS


def test_what_was_stored_before_there_were_several_services_is_read_as_it_was_meant():
    assert b"role" not in PLAIN.dump()
    one = binding.load(json.dumps(STORED | {"service": "s3", "region": None}).encode())
    assert (one.services, one.regions, one.role) == (("s3",), (), None)
    several = binding.load(json.dumps(STORED | {"service": ["s3", "sqs"], "role": ROLE}).encode())
    assert (several.services, several.role) == (("s3", "sqs"), Role(**ROLE))


def unreadable(**changes):
    return json.dumps(STORED | changes).encode()


@pytest.mark.parametrize("member", STORED)
def test_a_missing_member_is_a_fault(member):
    stored = json.dumps({name: value for name, value in STORED.items() if name != member}).encode()
    with pytest.raises(Fault, match="vault_unavailable"):
        binding.load(stored)


@pytest.mark.parametrize("member", STORED)
def test_a_member_given_twice_is_a_fault(member):
    twice = json.dumps(STORED)[:-1] + f", {json.dumps(member)}: {json.dumps(STORED[member])}}}"
    assert json.loads(twice) == STORED
    with pytest.raises(Fault, match="vault_unavailable"):
        binding.load(twice.encode())


@pytest.mark.parametrize(
    "changes",
    [
        {"expires": 1},
        {"Hosts": [["api.test", 443]]},
        {"": None},
        {"flags": ["private", "websockets"]},
        {"flags": [None]},
        {"flags": [["private"]]},
        {"scheme": "http"},
        {"scheme": "HTTPS"},
        {"scheme": None},
        {"scheme": ["https"]},
        {"hosts": []},
        {"methods": []},
        {"paths": []},
        {"hosts": [["api.test"]]},
        {"hosts": [["api.test", 443, 1]]},
        {"hosts": [["", 443]]},
        {"hosts": [["api.test", "443"]]},
        {"hosts": [["api.test", 443.0]]},
        {"hosts": [["api.test", True]]},
        {"hosts": [["api.test", 0]]},
        {"hosts": [["api.test", 65536]]},
        {"hosts": [["api.test", None]]},
        {"hosts": ["api.test"]},
        {"hosts": "api.test"},
        {"hosts": {"api.test": 443}},
        {"methods": "GET"},
        {"methods": {"GET": True}},
        {"methods": ["GET", ""]},
        {"methods": ["GET", 1]},
        {"methods": [["GET"]]},
        {"paths": "/v1/"},
        {"paths": {"/": "/"}},
        {"paths": ["/", None]},
        {"paths": ["/\ud800"]},
        {"placements": [["cookie", "a", "{b}"]]},
        {"placements": [["header", "a"]]},
        {"placements": ["abc"]},
        {"placements": [{"header": 1, "a": 2, "b": 3}]},
        {"constants": ["ab"]},
        {"constants": [["a"]]},
        {"constants": [["a", 1]]},
        {"constants": "ab"},
        {"service": ""},
        {"service": 1},
        {"service": ["s3"]},
        {"service": ["s3", None]},
        {"region": []},
        {"role": None},
        {"role": {}},
        {"role": "arn:aws:iam::1:role/r"},
        {"role": ROLE | {"arn": None}},
        {"role": ROLE | {"seconds": True}},
        {"role": ROLE | {"seconds": 0}},
        {"role": ROLE | {"external_id": ""}},
        {"role": ROLE | {"policy": "{}"}},
        {"flags": ""},
        {"flags": {}},
        {"flags": {"private": True}},
    ],
    ids=str,
)
def test_anything_unknown_or_of_another_type_is_a_fault(changes):
    with pytest.raises(Fault, match="vault_unavailable"):
        binding.load(unreadable(**changes))


@pytest.mark.parametrize(
    "stored",
    [b"", b"{}", b"[]", b"null", b"1", b'"text"', b"{", b"\xff", b"[" * 100_000, b'{"a":' * 100_000, PLAIN.dump()[:-1], PLAIN.dump() + b"{}"],
    ids=lambda stored: stored[:12],
)  # fmt: skip
def test_what_is_no_binding_at_all_is_a_fault(stored):
    with pytest.raises(Fault, match="vault_unavailable"):
        binding.load(stored)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_binding_or_a_fault(stored):
    with pytest.raises(Fault, match="vault_unavailable"):
        binding.load(stored)


@given(st.sampled_from(sorted(STORED)), JSON)
def test_any_member_may_be_anything_and_what_is_read_is_complete_and_typed(member, value):
    try:
        read = binding.load(unreadable(**{member: value}))
    except Fault:
        return
    assert read.scheme == "https"
    assert read.hosts
    assert read.methods
    assert read.paths
    assert json.loads(read.dump()) == STORED | {member: value}


@pytest.mark.parametrize(
    ("host", "port", "covered"),
    [
        ("api.test", 443, True),
        ("api.test", 8443, False),
        ("other.test", 8443, True),
        ("other.test", 443, False),
        ("a.wild.test", 443, True),
        ("wild.test", 443, False),
        ("a.b.wild.test", 443, False),
        ("evilapi.test", 443, False),
        ("api.test.evil", 443, False),
    ],
)
def test_host_and_port_are_covered_together(host, port, covered):
    bound = Binding(hosts=(("api.test", 443), ("other.test", 8443), ("*.wild.test", 443)))
    assert bound.covers(host, port) is covered


def oracle(hosts, host, port):
    """What a binding means, said again in other words."""
    labels = host.split(".")
    return any(
        port == p and (pattern.split(".") == labels or (pattern.split(".") == ["*", *labels[1:]] and labels[0] != ""))
        for pattern, p in hosts
    )  # fmt: skip


FEW = st.sampled_from(["a", "b", "a.b", "b.a", "a.b.a", "b.b.a", "aa.b", "a.bb"])
FEW_PORTS = st.sampled_from([1, 443, 8443])


@given(st.lists(st.tuples(FEW | FEW.map("*.".__add__), FEW_PORTS), min_size=1, max_size=3).map(tuple), FEW, FEW_PORTS)
def test_a_binding_covers_what_it_says_and_nothing_else(hosts, host, port):
    assert Binding(hosts=hosts).covers(host, port) == oracle(hosts, host, port)
