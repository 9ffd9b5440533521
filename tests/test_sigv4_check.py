"""The demo's SigV4 check against AWS's published examples and two signers it shares no code with."""

import hashlib
import time
from datetime import UTC, datetime
from urllib.parse import quote

import awscrt.auth
import awscrt.http
import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from vaultctl.sigv4_check import verify

ID, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
NOW = 1_440_938_160.0  # 2015-08-30T12:36:00Z
EMPTY = hashlib.sha256(b"").hexdigest()


def stamp(at):
    return datetime.fromtimestamp(at, UTC)


def crt(method, target, *, service, body=b"", headers=(), at=NOW, token=None, payload=None):
    """The headers of a request signed by aws-c-auth."""
    s3 = service == "s3"
    request = awscrt.http.HttpRequest(method, target, awscrt.http.HttpHeaders([("Host", f"{service}.test"), *headers]))
    config = awscrt.auth.AwsSigningConfig(
        credentials_provider=awscrt.auth.AwsCredentialsProvider.new_static(ID, SECRET, token),
        region="eu-west-1",
        service=service,
        date=stamp(at),
        use_double_uri_encode=not s3,
        should_normalize_uri_path=not s3,
        signed_body_value=payload or hashlib.sha256(body).hexdigest(),
        signed_body_header_type=awscrt.auth.AwsSignedBodyHeaderType.X_AMZ_CONTENT_SHA_256,
    )
    signed = awscrt.auth.aws_sign_request(request, config).result(5)
    return [(name.encode(), value.encode()) for name, value in signed.headers]


def botocore(method, target, *, service, body=b"", headers=()):
    """The headers of a request signed by botocore, at the present time."""
    request = AWSRequest(method, f"https://{service}.test{target}", headers=dict(headers), data=body)
    signer = S3SigV4Auth if service == "s3" else SigV4Auth
    signer(Credentials(ID, SECRET), service, "eu-west-1").add_auth(request)
    host = [] if "Host" in request.headers else [(b"Host", f"{service}.test".encode())]
    return host + [
        (name.encode(), value if isinstance(value, bytes) else value.encode())
        for name, value in request.headers.items()
    ]


def check(method, target, headers, *, service, body=b"", now=NOW, **options):
    options = {"keys": {ID: SECRET}, "region": "eu-west-1", **options}
    return verify(method, target=target.encode(), headers=headers, body=body, now=now, service=service, **options)


def swap(headers, name, value):
    """The same headers with one replaced, or removed."""
    kept = [(k, v) for k, v in headers if k.lower() != name.lower().encode()]
    return kept if value is None else [*kept, (name.encode(), value)]


PUBLISHED = {
    "IAM ListUsers, of the user guide": (
        "GET",
        "/?Action=ListUsers&Version=2010-05-08",
        "iam",
        b"",
        [
            ("Host", "iam.amazonaws.com"),
            ("Content-Type", "application/x-www-form-urlencoded; charset=utf-8"),
            ("X-Amz-Date", "20150830T123600Z"),
        ],
        "content-type;host;x-amz-date",
        "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7",
    ),
    "S3 GetObject with a range": (
        "GET",
        "/test.txt",
        "s3",
        b"",
        [
            ("Host", "examplebucket.s3.amazonaws.com"),
            ("Range", "bytes=0-9"),
            ("x-amz-content-sha256", EMPTY),
            ("x-amz-date", "20130524T000000Z"),
        ],
        "host;range;x-amz-content-sha256;x-amz-date",
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
    ),
    "S3 PutObject of a key with a dollar": (
        "PUT",
        "/test$file.text",
        "s3",
        b"Welcome to Amazon S3.",
        [
            ("Host", "examplebucket.s3.amazonaws.com"),
            ("Date", "Fri, 24 May 2013 00:00:00 GMT"),
            ("x-amz-content-sha256", "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072"),
            ("x-amz-date", "20130524T000000Z"),
            ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ],
        "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
        "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
    ),
    "S3 ListObjects": (
        "GET",
        "/?max-keys=2&prefix=J",
        "s3",
        b"",
        [
            ("Host", "examplebucket.s3.amazonaws.com"),
            ("x-amz-content-sha256", EMPTY),
            ("x-amz-date", "20130524T000000Z"),
        ],
        "host;x-amz-content-sha256;x-amz-date",
        "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
    ),
}


@pytest.mark.parametrize("case", PUBLISHED)
def test_the_examples_published_by_aws_verify(case):
    method, target, service, body, headers, names, signature = PUBLISHED[case]
    key_id = ID if service == "iam" else "AKIAIOSFODNN7EXAMPLE"
    secret = SECRET if service == "iam" else SECRET.replace("+", "/")
    day = dict(headers).get("X-Amz-Date", "20130524")[:8]
    credential = f"{key_id}/{day}/us-east-1/{service}/aws4_request"
    authorization = f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={signature}"
    pairs = [(n.encode(), v.encode()) for n, v in [*headers, ("Authorization", authorization)]]
    at = NOW if service == "iam" else 1_369_353_600.0
    assert (
        check(method, target, pairs, service=service, body=body, now=at, keys={key_id: secret}, region="us-east-1")
        is None
    )


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
segments = st.lists(texts.filter(lambda text: text not in {"", ".", ".."}), max_size=4)
pairs = st.lists(st.tuples(texts.filter(bool), texts), max_size=4)


def wire(segments, pairs):
    path = "/" + "/".join(quote(segment, safe="") for segment in segments)
    query = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in pairs)
    return f"{path}?{query}" if query else path


@given(segments=segments, pairs=pairs, body=st.binary(max_size=40), service=st.sampled_from(["s3", "dynamodb"]))
def test_whatever_aws_c_auth_signs_verifies(segments, pairs, body, service):
    target = wire(["bucket", *segments] if service == "s3" else segments, pairs)
    headers = crt(
        "PUT", target, service=service, body=body, headers=[("Content-Type", "a/b"), ("X-Amz-Meta-A", " a  b ")]
    )
    if service == "s3" and "%2F" in target.partition("?")[0]:
        return  # S3 reads it as a slash of the key, so nobody may sign it as it is
    assert check("PUT", target, headers, service=service, body=body) is None


@given(segments=segments, pairs=pairs, body=st.binary(max_size=40), service=st.sampled_from(["s3", "dynamodb"]))
def test_whatever_botocore_signs_verifies(segments, pairs, body, service):
    target = wire([part.replace("/", "") or "x" for part in ["bucket", *segments]], pairs)
    headers = botocore(
        "PUT", target, service=service, body=body, headers=[("Content-Type", "a/b"), ("X-Amz-Meta-A", "a")]
    )
    now = time.time()
    assert check("PUT", target, headers, service=service, body=body, now=now) is None


@pytest.mark.parametrize("target", ["/a//b", "/a/./b", "/a/../b/", "/a/b/..", "//", "/a/b/.", "/a:b", "/a%3Ab", "/ä"])
def test_other_services_sign_the_normalised_path_encoded_twice(target):
    target = quote(target, safe="/%:")
    assert check("GET", target, crt("GET", target, service="iot"), service="iot") is None


@pytest.mark.parametrize("target", ["/b/a//b", "/b/./c", "/b/../c", "/b/c%20d", "/b/c%2Bd", "/b/c%3Ad"])
def test_s3_signs_the_path_as_it_is(target):
    assert check("GET", target, crt("GET", target, service="s3"), service="s3") is None


def test_escapes_of_a_query_may_be_written_in_any_way():
    headers = crt("GET", "/?a%20b=c~%2F&z=1", service="iot")
    assert check("GET", "/?z=1&a+b=%63%7e/&", headers, service="iot") is None


def test_the_time_may_be_off_by_fifteen_minutes_and_no_more():
    headers = crt("GET", "/", service="iot")
    assert check("GET", "/", headers, service="iot", now=NOW + 900) is None
    assert check("GET", "/", headers, service="iot", now=NOW - 900) is None
    assert "15 minutes" in check("GET", "/", headers, service="iot", now=NOW + 901)
    assert "15 minutes" in check("GET", "/", headers, service="iot", now=NOW - 901)


def test_an_unsigned_payload_is_for_s3_only():
    for word in ("UNSIGNED-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"):
        headers = crt("PUT", "/b/k", service="s3", payload=word)
        assert check("PUT", "/b/k", headers, service="s3", body=b"anything") is None
        headers = crt("PUT", "/b/k", service="iot", payload=word)
        assert check("PUT", "/b/k", headers, service="iot", body=b"anything") == "only S3 takes an unsigned payload"


def test_a_session_token_belongs_to_its_key():
    headers = crt("GET", "/", service="iot", token="session")
    assert check("GET", "/", headers, service="iot", tokens={ID: "session"}) is None
    refused = "the session token is not the one of this access key id"
    assert check("GET", "/", headers, service="iot", tokens={ID: "other"}) == refused
    assert check("GET", "/", headers, service="iot") == refused
    assert check("GET", "/", crt("GET", "/", service="iot"), service="iot", tokens={ID: "session"}) == refused


def test_every_amz_header_must_be_signed():
    headers = [*crt("GET", "/", service="iot"), (b"X-Amz-Meta-Late", b"1")]
    assert check("GET", "/", headers, service="iot") == "x-amz-meta-late is not signed"


def test_headers_that_are_not_signed_may_change_on_the_way():
    headers = [*crt("GET", "/", service="iot"), (b"Accept-Encoding", b"identity"), (b"Via", b"1.1 x")]
    assert check("GET", "/", headers, service="iot") is None


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("Authorization", None, "there must be exactly one Authorization header"),
        ("Authorization", b"Bearer x", "the Authorization header is not of the form AWS4-HMAC-SHA256 Credential=…"),
        ("Host", b"elsewhere.test", "the signature does not match"),
        ("Host", None, "the signed header host is missing"),
        ("Content-Type", b"text/html", "the signature does not match"),
        ("X-Amz-Date", None, "the signed header x-amz-date is missing"),
        ("X-Amz-Date", b"20150830T123601Z", "the signature does not match"),
        ("X-Amz-Date", b"20150829T123600Z", "the scope is of another day than X-Amz-Date"),
        ("X-Amz-Date", b"20150830T12360Z", "X-Amz-Date is missing or malformed"),
        ("X-Amz-Date", b"Sun, 30 Aug 2015 12:36:00 GMT", "X-Amz-Date is missing or malformed"),
        ("X-Amz-Content-Sha256", EMPTY.encode(), "x-amz-content-sha256 is not the hash of the body"),
        ("X-Amz-Content-Sha256", b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "signed chunks are not supported here"),
        ("X-Amz-Content-Sha256", b"UNSIGNED-PAYLOAD", "the signature does not match"),
    ],
)
def test_a_header_changed_after_signing_is_told_apart(name, value, reason):
    headers = crt("POST", "/b/k", service="s3", body=b"{}", headers=[("Content-Type", "text/plain")])
    assert check("POST", "/b/k", headers, service="s3", body=b"{}") is None
    assert check("POST", "/b/k", swap(headers, name, value), service="s3", body=b"{}") == reason


def test_s3_insists_on_a_stated_payload_hash():
    headers = botocore("GET", "/b/k", service="iot")
    now = time.time()
    moved = [(name, value.replace(b"/iot/", b"/s3/")) for name, value in headers]
    assert check("GET", "/b/k", headers, service="iot", now=now) is None
    assert check("GET", "/b/k", moved, service="s3", now=now) == "x-amz-content-sha256 is missing"


def test_a_scope_is_for_one_region_and_one_service():
    headers = crt("GET", "/", service="iot")
    assert (
        check("GET", "/", headers, service="iot", region="eu-west-2") == "the scope is eu-west-1/iot, not eu-west-2/iot"
    )
    assert check("GET", "/", headers, service="s3") == "the scope is eu-west-1/iot, not eu-west-1/s3"


def test_a_key_that_was_rotated_away_does_not_verify():
    headers = crt("GET", "/", service="iot")
    assert check("GET", "/", headers, service="iot", keys={ID: "new"}) == "the signature does not match"
    assert check("GET", "/", headers, service="iot", keys={"OTHER": SECRET}) == "the access key id is unknown"


def test_two_authorization_headers_are_one_too_many():
    headers = crt("GET", "/", service="iot")
    extra = [*headers, (b"authorization", b"Bearer x")]
    assert check("GET", "/", extra, service="iot") == "there must be exactly one Authorization header"


@given(st.data())
def test_one_changed_byte_anywhere_breaks_it(data):
    body, target = b'{"a": 1}', "/b/k-e.y?list=2&x=y"
    headers = crt("POST", target, service="s3", body=body, headers=[("X-Amz-Meta-A", "abc"), ("Content-Type", "a/b")])
    index = data.draw(st.sampled_from([i for i, (name, _) in enumerate(headers) if name != b"Content-Length"]))
    part = data.draw(st.sampled_from(["body", "target", "header"]))
    change = st.sampled_from(b"0123456789abcdefghijklmnopqrstuvwxyzABC")

    def flip(raw, first=0):
        at = data.draw(st.integers(first, len(raw) - 1))
        new = data.draw(change.filter(lambda byte: byte != raw[at]))
        return raw[:at] + bytes([new]) + raw[at + 1 :]

    if part == "body":
        body = flip(body)
    elif part == "target":
        target = flip(target.encode(), 1).decode()
    else:
        headers[index] = (headers[index][0], flip(headers[index][1]))
    assert check("POST", target, headers, service="s3", body=body) is not None


@given(
    authorization=st.binary(max_size=200) | st.text(max_size=200).map(str.encode),
    date=st.binary(max_size=20),
    target=st.binary(max_size=40).map(lambda raw: "/" + raw.decode("latin-1")),
)
def test_no_input_makes_it_fail_in_another_way_than_saying_no(authorization, date, target):
    headers = swap(swap(crt("GET", "/", service="iot"), "Authorization", authorization), "X-Amz-Date", date)
    assert check("GET", target, headers, service="iot") is not None
