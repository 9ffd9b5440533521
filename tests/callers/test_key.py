"""Keys of callers: their shape, and the checksum that catches a typo before anybody is asked."""

import hashlib
import itertools
import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addon.callers import key as keys
from addon.callers.key import CALLER_TYPES, Key, Mistyped

TYPES = ["app", "agt", "run"]
ALPHABET = string.ascii_lowercase + "234567"


@pytest.mark.parametrize("key_type", TYPES)
def test_a_key_has_the_shape_that_secret_scanners_look_for(key_type):
    text, key = keys.mint(key_type)
    assert re.fullmatch(rf"alter_{key_type}_[a-z2-7]{{52}}_[a-z2-7]{{7}}", text)
    assert key == keys.parse(text) == Key(key_type, hashlib.sha256(text.encode()).digest())


def test_every_type_of_caller_has_its_own_type_of_key():
    assert CALLER_TYPES == {"app": "app", "agent": "agt"}


def test_what_is_kept_of_a_key_says_nothing_about_it():
    text, key = keys.mint("app")
    assert text[10:40] not in repr(key)
    assert len(key.digest) == 32


def test_no_two_keys_are_alike():
    assert len({keys.mint("app")[0] for _ in range(1000)}) == 1000


@pytest.mark.parametrize("key_type", TYPES)
def test_a_wrong_character_anywhere_is_noticed(key_type):
    text, _ = keys.mint(key_type)
    for place, wrong in itertools.product(range(len(text)), ALPHABET + "_-A018 "):
        if text[place] != wrong:
            with pytest.raises(Mistyped):
                keys.parse(text[:place] + wrong + text[place + 1 :])


@pytest.mark.parametrize("key_type", TYPES)
def test_two_characters_exchanged_anywhere_are_noticed(key_type):
    text, _ = keys.mint(key_type)
    for first, second in itertools.combinations(range(len(text)), 2):
        if text[first] != text[second]:
            typed = list(text)
            typed[first], typed[second] = typed[second], typed[first]
            with pytest.raises(Mistyped):
                keys.parse("".join(typed))


def test_a_missing_or_an_additional_character_is_noticed():
    text, _ = keys.mint("app")
    for place in range(len(text) + 1):
        for typed in (text[:place] + text[place + 1 :], text[:place] + "a" + text[place:]):
            if typed != text:
                with pytest.raises(Mistyped):
                    keys.parse(typed)


def test_a_key_of_one_type_is_none_of_another():
    text, _ = keys.mint("app")
    for other in ("agt", "run", "adm"):
        with pytest.raises(Mistyped):
            keys.parse(text.replace("_app_", f"_{other}_"))


@pytest.mark.parametrize(
    "spoil",
    [
        str.upper,
        lambda t: t + "\n",
        lambda t: " " + t,
        lambda t: t + "\0",
        lambda t: t.replace("a", "\uff41"),
        lambda t: t + t,
    ],
)
def test_only_the_exact_text_is_the_key(spoil):
    text = next(text for text, _ in (keys.mint("app") for _ in itertools.count()) if "a" in text[10:])
    with pytest.raises(Mistyped):
        keys.parse(spoil(text))


@given(st.text(max_size=80) | st.from_regex(r"alter_(app|agt|run)_[a-z2-7]{52}_[a-z2-7]{7}", fullmatch=True))
def test_no_invented_key_has_the_right_checksum(text):
    with pytest.raises(Mistyped):
        keys.parse(text)


def test_the_complaint_about_a_mistyped_key_does_not_repeat_it():
    text, _ = keys.mint("app")
    with pytest.raises(Mistyped) as refused:
        keys.parse(text[:-1] + "!")
    assert str(refused.value) == ""
