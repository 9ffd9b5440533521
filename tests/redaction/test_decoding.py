"""Compressed bodies come out as they went in, whatever the pieces; what cannot be decoded within bounds is refused."""

import contextlib
import gzip
import random
import tracemalloc
import zlib

import brotli
import pytest
from hypothesis import given
from hypothesis import strategies as st

from addon.errors import Refusal
from addon.redaction import decoding
from addon.redaction.decoding import FREE, Decoder, zstd

BODY = b"".join(b"line %d of a body that can be made smaller\n" % number for number in range(3000))


def raw_deflate(data):
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


CODINGS = {
    "gzip": (b"gzip", gzip.compress),
    "x-gzip": (b"x-gzip", gzip.compress),
    "zlib": (b"deflate", zlib.compress),
    "bare deflate": (b"deflate", raw_deflate),
    "br": (b"br", lambda data: brotli.compress(data, quality=4)),
    "zstd": (b"zstd", zstd.compress),
}

coded = pytest.mark.parametrize(("coding", "encode"), CODINGS.values(), ids=CODINGS)


def decode(coding, *pieces):
    decoder = Decoder(coding)
    body = b"".join(map(decoder.feed, pieces))
    decoder.finish()
    return body


def in_pieces(data, size):
    return [data[at : at + size] for at in range(0, len(data), size)]


@coded
@pytest.mark.parametrize("size", [1, 7, 100, 1 << 20])
def test_a_body_comes_out_whatever_the_pieces(coding, encode, size):
    assert decode(coding, *in_pieces(encode(BODY), size)) == BODY


@coded
def test_an_empty_body_comes_out(coding, encode):
    assert decode(coding, encode(b"")) == b""


@pytest.mark.parametrize("coding", {coding for coding, _ in CODINGS.values()})
def test_a_body_of_nothing_at_all_is_empty(coding):
    assert decode(coding) == b""
    assert decode(coding, b"") == b""


@pytest.mark.parametrize(("coding", "encode"), [CODINGS["gzip"], CODINGS["zstd"]], ids=["gzip", "zstd"])
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_several_members_are_one_body(coding, encode, size):
    assert decode(coding, *in_pieces(encode(b"one") + encode(b"two") + encode(BODY), size)) == b"onetwo" + BODY


@pytest.mark.parametrize("size", [1, 1 << 20])
@pytest.mark.parametrize("kind", ["gzip", "zlib", "bare deflate"])
def test_what_stands_behind_the_end_is_dropped(kind, size):
    coding, encode = CODINGS[kind]
    assert decode(coding, *in_pieces(encode(BODY) + b"sk_live_behind", size)) == BODY


@coded
def test_a_body_that_is_cut_short_is_refused(coding, encode):
    whole = encode(BODY)
    for end in (1, len(whole) // 2, len(whole) - 1):
        with pytest.raises(Refusal, match="response_undecodable"):
            decode(coding, whole[:end])


@pytest.mark.parametrize("coding", {coding for coding, _ in CODINGS.values()})
@given(noise=st.binary(min_size=1, max_size=200))
def test_noise_is_refused_or_decoded_and_nothing_else(coding, noise):
    with contextlib.suppress(Refusal):
        decode(coding, noise)


@pytest.mark.parametrize("coding", [b"", b"compress", b"aws-chunked", b"gzip,br", b"GZIP", b"dcb"])
def test_no_other_coding_is_known(coding):
    with pytest.raises(Refusal, match="response_undecodable"):
        Decoder(coding)


@coded
def test_what_unfolds_without_measure_is_refused_before_it_fills_the_memory(coding, encode):
    bomb = encode(bytes(256 << 20))
    decoder, out = Decoder(coding), 0
    tracemalloc.start()
    try:
        with pytest.raises(Refusal, match="response_undecodable"):
            for piece in in_pieces(bomb, 1 << 14):
                out += len(decoder.feed(piece))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert out <= FREE + decoding.RATIO * len(bomb)
    assert peak < 48 << 20


@coded
def test_an_ordinary_ratio_passes_at_any_size(coding, encode):
    body = random.Random(7).randbytes(1 << 16) * 160
    lines = b"".join(random.Random(number).randbytes(20).hex().encode() + b" x" * 200 for number in range(30_000))
    assert decode(coding, *in_pieces(encode(body), 1 << 16)) == body
    assert decode(coding, *in_pieces(encode(lines), 1 << 16)) == lines


def test_a_window_larger_than_the_standard_allows_is_refused():
    options = {zstd.CompressionParameter.window_log: 27, zstd.CompressionParameter.content_size_flag: 0}
    packer = zstd.ZstdCompressor(options=options)
    with pytest.raises(Refusal, match="response_undecodable"):
        decode(b"zstd", packer.compress(random.Random(1).randbytes(1 << 12)), packer.flush())
