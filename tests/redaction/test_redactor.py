"""A stream of bytes: whatever the pieces, no spelling of a secret gets through, and nothing else is touched."""

import itertools
import random
import string
from unittest import mock

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from addon.redaction import Needles, Redactor, variants

TOKEN = "sk_live_51H8xJ2eZvKYlo2C0aBc"
AWKWARD = "pä\"s+s/w'ö<r>d&1 2~3%"
PAIR = ("canary:basic:pass/word+95", "AC-user:canary:basic:pass/word+95")

secrets = st.lists(
    st.text(st.sampled_from(string.ascii_letters + string.digits + "+/=&<>'\"\\ %~ä€"), min_size=8, max_size=24)
    | st.text("ab", min_size=8, max_size=20),
    min_size=1,
    max_size=3,
)


@st.composite
def streams(draw):
    """Some secrets, and a stream of their spellings, whole and in part, and of other bytes; and where it is cut."""
    texts = draw(secrets)
    needles = variants(texts)
    part = st.sampled_from(needles)
    piece = part | st.binary(max_size=6) | st.builds(lambda n, i, j: n[i % len(n) : j], part, st.integers(0, 99), st.none() | st.integers(0, 99))  # fmt: skip
    data = b"".join(draw(st.lists(piece, max_size=8)))
    cuts = draw(st.lists(st.integers(0, len(data)), max_size=8))
    return texts, data, sorted(cuts)


def redact(texts, *pieces):
    redactor = Redactor(Needles(texts))
    return b"".join([*map(redactor.feed, pieces), redactor.finish()]), redactor.count


def cut(data, places):
    edges = [0, *places, len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


def expected(texts, data):
    """By definition: every byte of every occurrence is a star. And in how many places."""
    covered = [None] * len(data)
    spans = sorted(
        (at, at + len(needle)) for needle in variants(texts) for at in range(len(data)) if data.startswith(needle, at)
    )
    places, end = 0, 0
    for first, last in spans:
        places += first >= end
        end = max(end, last)
        covered[first:last] = [True] * (last - first)
    return bytes(42 if star else byte for star, byte in zip(covered, data, strict=True)), places


@given(streams())
@example((["aaaaaaaab"], b"aaaaaaaaaaaaaab", [3, 9]))
@example((["abababab"], b"ababababababab", [1, 2, 3, 4, 5, 6, 7, 8, 9]))
def test_every_byte_of_every_spelling_becomes_a_star_and_no_other_whatever_the_pieces(case):
    texts, data, places = case
    assert redact(texts, *cut(data, places)) == expected(texts, data)


@given(streams())
def test_and_the_same_where_bodies_are_so_large_that_samples_are_taken(case):
    texts, data, places = case
    with mock.patch("addon.redaction.needles._LARGE", 0):
        assert redact(texts, *cut(data, places)) == expected(texts, data)


@pytest.mark.parametrize("text", [TOKEN, TOKEN * 3, AWKWARD], ids=["token", "long", "awkward"])
@pytest.mark.parametrize("noise", [random.Random(1).randbytes(20_000), b"\n" * 20_000, b"{ } " * 5000])
def test_a_secret_anywhere_in_a_large_body_does_not_survive(text, noise):
    redactor = Redactor(Needles([text]))
    for needle in variants([text]):
        for at in [*range(9_990, 10_000 + len(needle), 7), 0, len(noise)]:
            whole = redactor.feed(noise[:at] + needle + noise[at:] + b"\n")
            assert whole == noise[:at] + b"*" * len(needle) + noise[at:] + b"\n"


@pytest.mark.parametrize(
    "texts", [(TOKEN,), (AWKWARD,), PAIR, (TOKEN, AWKWARD)], ids=["token", "awkward", "basic", "two"]
)
def test_a_secret_split_at_any_offset_in_any_spelling_does_not_survive(texts):
    for needle in variants(texts):
        for at in range(len(needle) + 1):
            whole, count = redact(texts, b"x=" + needle[:at], needle[at:] + b" y")
            assert whole == b"x=" + b"*" * len(needle) + b" y"
            assert count == 1


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16, 64])
def test_a_secret_in_pieces_of_any_size_does_not_survive(size):
    for needle in variants([AWKWARD]):
        data = b"<p>" + needle + b"</p>" + needle
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        assert redact([AWKWARD], *pieces) == (b"<p>" + b"*" * len(needle) + b"</p>" + b"*" * len(needle), 2)


@given(secrets, st.lists(st.binary(max_size=40)))
def test_what_holds_no_secret_is_not_changed(texts, pieces):
    data = b"".join(pieces)
    if not any(needle in data for needle in variants(texts)):
        assert redact(texts, *pieces) == (data, 0)


@given(streams())
def test_what_waits_is_the_beginning_of_a_spelling_and_so_shorter_than_one(case):
    texts, data, places = case
    redactor, needles, came, gone = Redactor(Needles(texts)), variants(texts), b"", 0
    for piece in cut(data, places):
        came += piece
        gone += len(redactor.feed(piece))
        waiting = came[gone:]
        assert len(waiting) < max(map(len, needles))
        assert not waiting or any(needle.startswith(waiting) and needle != waiting for needle in needles)


def test_an_event_is_let_go_at_once_unless_its_end_could_be_the_beginning_of_a_secret():
    redactor = Redactor(Needles([TOKEN]))
    assert redactor.feed(b"data: sk_live_\n\n") == b"data: sk_live_\n\n"
    assert redactor.feed(b"data: sk_live_") == b"data: "
    assert redactor.feed(b"\n\n") == b"sk_live_\n\n"
    assert redactor.feed(b"") == b""
    assert redactor.feed(b"s") == b""
    assert redactor.finish() == b"s"
    assert redactor.finish() == b""


def test_the_end_of_the_stream_lets_the_rest_go():
    assert redact([TOKEN], TOKEN.encode()[:-1]) == (TOKEN.encode()[:-1], 0)


@given(secrets)
def test_every_spelling_is_found(texts):
    needles = Needles(texts)
    for needle in variants(texts):
        assert needles.among(needle)
        assert (0, len(needle)) in needles.find(needle)


@pytest.mark.parametrize("texts", [[], [""], ["short"], ["1234567", "s"]])
def test_values_too_short_to_be_told_from_chance_are_not_looked_for(texts):
    assert not Needles(texts)
    assert variants(texts) == ()


def test_a_large_binary_body_costs_no_memory_of_its_own():
    """What passes unchanged is not even copied."""
    piece = bytes(range(256)) * 1000 + b"\n"
    assert Redactor(Needles([TOKEN])).feed(piece) is piece
