"""The published examples, stage by stage: a failure names the stage."""

import hashlib
import json
import re
from pathlib import Path

import pytest

from addon.binding import Binding
from addon.credentials import aws_signer, aws_wire, sigv4
from addon.credentials.aws_scope import Scope
from addon.credentials.kind import Target
from addon.model import Head, Values

VECTORS = Path(__file__).parent.parent / "vectors" / "sigv4"
SUITE = sorted(p for p in (VECTORS / "botocore-aws4").iterdir() if p.is_dir())
EXAMPLES = {p.stem: json.loads(p.read_text()) for p in sorted((VECTORS / "s3-docs").glob("*.json"))}
HEADERS = ["get-bucket-lifecycle", "get-object-range", "list-objects", "put-object"]
S3_KEY = aws_signer.Key("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
S3 = Scope("s3", "us-east-1")
MAY_24 = 1_369_353_600.0  # 2013-05-24T00:00:00Z


def read_case(folder):
    """The request with every header signed, as the suite has it. Its paths are signed as they stand, not rewritten."""
    context = json.loads((folder / "context.json").read_text())
    given = context["credentials"]
    key = aws_signer.Key(given["access_key_id"], given["secret_access_key"], given.get("token"))
    head, _, body = (folder / "request.txt").read_bytes().partition(b"\n\n")
    first, *lines = re.sub(rb"\n[ \t]+", b" ", head).split(b"\n")
    method, target = first.decode().removesuffix(" HTTP/1.1").split(" ", 1)
    headers = {}
    for line in filter(None, lines):
        name, _, value = line.decode().partition(":")
        headers[name.lower()] = ",".join([*([headers[name.lower()]] if name.lower() in headers else []), value.strip()])
    path, _, query = target.encode().partition(b"?")
    timestamp = re.sub("[-:]", "", context["timestamp"])
    headers["x-amz-date"] = timestamp
    if key.token:
        headers["x-amz-security-token"] = key.token
    request = aws_signer.Signable(
        method=method,
        path=path.decode(),
        query=aws_wire.write_query(aws_wire.read_query(query)),
        headers=headers,
        payload=hashlib.sha256(body).hexdigest(),
        timestamp=timestamp,
    )
    return request, key, Scope(context["service"], context["region"])


@pytest.mark.parametrize("folder", SUITE, ids=[p.name for p in SUITE])
def test_each_stage_of_the_aws_test_suite_is_reproduced(folder):
    request, key, scope = read_case(folder)
    signed = aws_signer.sign(request, key=key, scope=scope)
    assert signed.canonical_request == (folder / "header-canonical-request.txt").read_text()
    assert signed.string_to_sign == (folder / "header-string-to-sign.txt").read_text()
    assert aws_signer.authorization(request, key=key, scope=scope) == (folder / "authorization.txt").read_text()


def test_the_suite_is_whole():
    assert len(SUITE) == 34
    assert len(EXAMPLES) == 7


@pytest.mark.parametrize("name", HEADERS)
def test_each_stage_of_the_s3_examples_is_reproduced(name):
    example = EXAMPLES[name]
    path, _, query = example["target"].encode().partition(b"?")
    headers = {n.lower(): v for n, v in example["headers"]}
    headers |= {"x-amz-date": "20130524T000000Z", "x-amz-content-sha256": example["payload_hash"]}
    request = aws_signer.Signable(
        method=example["method"],
        path=aws_wire.write_path(path, "s3"),
        query=aws_wire.write_query(aws_wire.read_query(query)),
        headers=headers,
        payload=example["payload_hash"],
        timestamp="20130524T000000Z",
    )
    assert aws_signer.sign(request, key=S3_KEY, scope=S3) == (
        example["canonical_request"],
        example["string_to_sign"],
        example["signature"],
    )


@pytest.mark.parametrize(("name", "word"), [("chunked-put", ""), ("chunked-trailer-put", "-TRAILER")])
def test_the_seed_signatures_of_chunked_uploads_are_reproduced(name, word):
    payload = f"STREAMING-AWS4-HMAC-SHA256-PAYLOAD{word}"
    headers = dict(EXAMPLES[name]["headers"])
    headers |= {"x-amz-date": "20130524T000000Z", "x-amz-content-sha256": payload}
    request = aws_signer.Signable(
        method="PUT",
        path="/examplebucket/chunkObject.txt",
        query="",
        headers=headers,
        payload=payload,
        timestamp="20130524T000000Z",
    )
    signed = aws_signer.sign(request, key=S3_KEY, scope=S3)
    assert signed.canonical_request == EXAMPLES[name]["canonical_request"]
    assert signed.signature == EXAMPLES[name]["seed_signature"]


def send(head):
    """What the kind itself makes of a request to the bucket of the examples."""
    host = "examplebucket.s3.amazonaws.com"
    plan = sigv4.KIND.plan(head, binding=Binding(hosts=((host, 443),)), host=host)
    values = Values({"access_key_id": S3_KEY.access_key, "secret_access_key": S3_KEY.secret_key})
    return plan.apply(values, target=Target(host=host, port=443, now=MAY_24), body_sha256=None).head


def test_the_presigned_example_comes_out_of_the_kind_itself():
    example = EXAMPLES["presigned-get"]
    dummy = (
        b"/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=dummy%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
    )
    dummy += b"&X-Amz-Date=20130524T000000Z&X-Amz-SignedHeaders=host&X-Amz-Expires=86400&X-Amz-Signature=00"
    sent = send(Head("GET", dummy, ((b"Host", b"examplebucket.s3.amazonaws.com"),)))
    assert sorted(sent.target.split(b"&")) == sorted(example["signed_target"].encode().split(b"&"))


def test_the_kind_signs_as_the_s3_example_does():
    example = EXAMPLES["list-objects"]
    sent = send(Head("GET", example["target"].encode(), ((b"Host", b"examplebucket.s3.amazonaws.com"),)))
    assert dict(sent.headers)[b"Authorization"].decode().endswith(f"Signature={example['signature']}")
