"""Signed chunks: the documented uploads, in pieces of any size, and everything that is framed otherwise."""

import itertools
import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from addon.credentials import aws_chunks
from addon.errors import Refusal
from addon.model import Head

DOCS = Path(__file__).parent.parent / "vectors" / "sigv4" / "s3-docs"
PLAIN = json.loads((DOCS / "chunked-put.json").read_text())
TRAILER = json.loads((DOCS / "chunked-trailer-put.json").read_text())
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
DUMMY = [f"{i:064x}" for i in range(4)]
SIZES = (65536, 1024, 0)


def signer(example=PLAIN, payload=aws_chunks.CHUNKED):
    authorization = (
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, "
        f"SignedHeaders=host, Signature={example['seed_signature']}"
    )
    headers = {"Authorization": authorization, "X-Amz-Date": "20130524T000000Z", "X-Amz-Content-SHA256": payload}
    head = Head("PUT", b"/", tuple((n.encode(), v.encode()) for n, v in headers.items()))
    return aws_chunks.signer(head, secret_access_key=SECRET)


def with_trailer():
    return signer(TRAILER, aws_chunks.CHUNKED_TRAILER)


def plain(signatures, sizes=SIZES):
    chunks = [f"{n:x};chunk-signature={s}\r\n{'a' * n}\r\n" for n, s in zip(sizes, signatures, strict=False)]
    return "".join(chunks).encode()


def trailed(signatures, ending="\r\n"):
    *chunks, last = signatures
    return plain(chunks)[:-2] + f"{TRAILER['trailer']}{ending}x-amz-trailer-signature:{last}\r\n\r\n".encode()


def cut(body, places):
    marks = [0, *sorted({p % len(body) for p in places}), len(body)]
    return [body[a:b] for a, b in itertools.pairwise(marks)]


def passed(chunks, pieces):
    out = b"".join([chunks.feed(piece) for piece in pieces])
    return out + chunks.finish()


def code(chunks, body):
    with pytest.raises(Refusal) as refusal:
        passed(chunks, [body])
    return refusal.value.code


@settings(max_examples=40)
@given(st.lists(st.integers(0, 10**6), max_size=12))
def test_the_documented_upload_comes_out_signed_however_it_is_cut(places):
    body, expected = plain(DUMMY), plain(PLAIN["chunk_signatures"])
    assert passed(signer(), cut(body, places)) == expected
    assert len(expected) == len(body) == 66824


@settings(max_examples=40)
@given(st.lists(st.integers(0, 10**6), max_size=12), st.sampled_from(["\r\n", "\n\r\n"]))
def test_the_documented_upload_with_a_trailer_comes_out_signed_however_it_is_cut(places, ending):
    body, expected = trailed(DUMMY, ending), trailed(TRAILER["chunk_and_trailer_signatures"], ending)
    assert passed(with_trailer(), cut(body, places)) == expected
    assert len(expected) == len(body)


def test_byte_by_byte_is_the_same():
    body = plain(DUMMY, (3, 0))
    whole = passed(signer(), [body])
    assert passed(signer(), [body[i : i + 1] for i in range(len(body))]) == whole


def test_nothing_goes_out_before_its_signature_is_known():
    chunks = signer()
    assert chunks.feed(plain(DUMMY)[:65000]) == b""
    assert len(chunks.feed(plain(DUMMY)[65000:])) == 66824


@pytest.mark.parametrize(
    "body",
    [
        b"",
        plain(DUMMY)[:-1],
        plain(DUMMY, (5,)),
        plain(DUMMY) + b"x",
        plain(DUMMY).replace(b"10000;", b"0x10000;"),
        plain(DUMMY).replace(b";chunk-signature=", b"; chunk-signature="),
        plain(DUMMY).replace(DUMMY[0].encode(), b"short"),
        b"5\r\naaaaa\r\n0\r\n\r\n",
        b"3;chunk-signature=" + b"0" * 64 + b"\r\naaaaa\r\n",
        b"1000001;chunk-signature=" + b"0" * 64 + b"\r\n",
        b"fffffffff;chunk-signature=" + b"0" * 64 + b"\r\n",
        b"a" * 5000,
    ],
)
def test_a_body_that_is_framed_otherwise_is_refused(body):
    assert code(signer(), body) == "signing_unsupported"


@pytest.mark.parametrize(
    "body",
    [
        plain(DUMMY),
        trailed(DUMMY)[:-2],
        trailed(DUMMY).replace(b"x-amz-trailer-signature", b"x-amz-other"),
        trailed(DUMMY).replace(TRAILER["trailer"].encode(), b"no colon"),
        trailed(DUMMY)[:-4] + b"a" * 20000,
        trailed(DUMMY) + b"\r\n",
    ],
)
def test_a_trailer_that_is_framed_otherwise_is_refused(body):
    assert code(with_trailer(), body) == "signing_unsupported"


def test_other_bodies_need_no_signer():
    assert signer(payload="UNSIGNED-PAYLOAD") is None
    assert signer(payload="STREAMING-UNSIGNED-PAYLOAD-TRAILER") is None
    assert aws_chunks.signer(Head("GET", b"/", ()), secret_access_key=SECRET) is None


def test_an_upload_of_any_size_holds_one_chunk():
    chunk = f"{65536:x};chunk-signature={DUMMY[0]}\r\n".encode() + b"a" * 65536 + b"\r\n"
    chunks = signer()
    tracemalloc.start()
    for _ in range(400):
        chunks.feed(chunk)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000
