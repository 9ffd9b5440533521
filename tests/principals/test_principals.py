"""Whom a grant names, and that names of different kinds never meet."""

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addon import principals
from addon.errors import Usage
from addon.model import Caller
from addon.principals.principal import parse_name

APP = Caller(type="app", name="billing", key_id="k")
AGENT = Caller(type="agent", name="billing", key_id="k")


def test_every_kind_in_the_folder_is_registered():
    folder = Path(principals.__file__).parent
    files = {path.stem for path in folder.glob("*.py")} - {"__init__", "principal"}
    assert files == set(principals.KINDS)
    assert all(kind.tag == tag for tag, kind in principals.KINDS.items())


def test_every_kind_that_names_a_caller_names_another_type():
    types = [kind.caller_type for kind in principals.KINDS.values() if kind.caller_type]
    assert len(types) == len(set(types))


@pytest.mark.parametrize(
    ("principal", "caller", "named"),
    [
        ("system:billing", APP, True),
        ("agent:billing", AGENT, True),
        ("system:billing", AGENT, False),
        ("agent:billing", APP, False),
        ("system:other", APP, False),
        ("system:Billing", APP, False),
        ("system:billing ", APP, False),
        ("system:bill", APP, False),
        ("system:", Caller(type="app", name="", key_id="k"), False),
        ("app:billing", APP, False),
        ("SYSTEM:billing", APP, False),
        ("billing", APP, False),
        (":billing", APP, False),
        ("", APP, False),
        ("*", APP, False),
        ("system:*", APP, False),
        ("later:billing", APP, False),
    ],
)
def test_a_principal_names_one_caller_of_its_kind(principal, caller, named):
    assert principals.matches(principal, caller) is named


NAME = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,10}", fullmatch=True)


@given(NAME, NAME)
def test_of_two_names_each_names_itself_alone(one, other):
    for tag, kind in principals.KINDS.items():
        if kind.caller_type:
            for name, called in itertools.product({one, other}, repeat=2):
                caller = Caller(type=kind.caller_type, name=called, key_id="k")
                assert principals.matches(principals.parse(f"{tag}:{name}"), caller) is (name == called)


@given(NAME)
def test_what_is_parsed_is_stored_and_read_alike(name):
    assert principals.parse(f"system:{name}") == f"system:{name}"
    assert principals.named_caller(f"system:{name}") == ("app", name)
    assert principals.named_caller(f"agent:{name}") == ("agent", name)


def test_a_principal_of_no_known_kind_names_no_caller():
    assert principals.named_caller("later:billing") is None


@pytest.mark.parametrize(
    "text", ["", "billing", "system", "system:", "app:billing", "System:billing", "system billing", ":x"]
)
def test_what_is_no_principal_is_refused_with_the_forms_there_are(text):
    with pytest.raises(Usage) as refused:
        principals.parse(text)
    assert refused.value.hint


@pytest.mark.parametrize(
    "name",
    [
        "",
        "-a",
        ".a",
        "_a",
        "a b",
        "a/b",
        "a:b",
        "a\n",
        "a\0",
        "\u00e4",
        "a" * 65,
        "a\u202eb",
        "../x",
        "$(x)",
        "'; DROP TABLE",
        "\uff41",
    ],
)
def test_a_name_is_plain_ascii(name):
    with pytest.raises(Usage, match="not a name for a thing"):
        parse_name(name, what="a thing")
    with pytest.raises(Usage):
        principals.parse(f"system:{name}")


@pytest.mark.parametrize("name", ["a", "0", "A.b_c-d", "a" * 64])
def test_a_plain_name_is_taken(name):
    assert parse_name(name, what="a thing") == name
