"""Kind sigv4: what comes off, what is signed, which bodies must be known, and what is refused."""

import concurrent.futures
import hashlib
import logging

import pytest

from addon.binding import Binding
from addon.credentials import aws_request, sigv4
from addon.credentials.kind import Target
from addon.errors import Fault, Refusal, Usage
from addon.model import Values

NOW = 1_440_938_160.0  # 2015-08-30T12:36:00Z
KEY = {"access_key_id": "AKIDEXAMPLE", "secret_access_key": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"}
S3 = "my-bucket.s3.eu-west-1.amazonaws.com"
DYNAMODB = "dynamodb.eu-west-1.amazonaws.com"
STS = "sts.eu-west-1.amazonaws.com"
IAM = "iam.amazonaws.com"
EMPTY = hashlib.sha256(b"").hexdigest()
JSON = ("Content-Type", "application/x-amz-json-1.0")
DUMMY = "AWS4-HMAC-SHA256 Credential=dummy/20100101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=00"


def plan(head, host, *, port=443, **members):
    return sigv4.KIND.plan(head, binding=Binding(hosts=((host, port),), **members), host=host)


def send(head, host, *, body=None, key=KEY, port=443, now=NOW, **members):
    made = plan(head, host, port=port, **members)
    assert made.needs_body is (body is not None)
    return made.apply(
        Values(key),
        target=Target(host=host, port=port, now=now),
        body_sha256=hashlib.sha256(body).hexdigest() if made.needs_body else None,
    )


def sign(head, host, **options):
    return send(head, host, **options).head


def code(head, host, body=None, **members):
    with pytest.raises(Refusal) as refusal:
        sign(head, host, body=body, **members)
    return refusal.value.code


def fields(head):
    return {n.decode().lower(): v.decode() for n, v in head.headers}


def test_whatever_signed_the_request_before_is_gone(head, crt):
    sent = sign(
        head(
            "GET /k?X-Amz-Date=1&x-amz-security-token=2&list-type=2&X-AMZ-EXPIRES=9",
            ("Host", S3),
            ("authorization", DUMMY),
            ("Authorization", "AWS dummy:sig"),
            ("Date", "Sun, 30 Aug 2015 12:36:00 GMT"),
            ("x_amz_date", "20100101T000000Z"),
            ("X-Amz-Security-Token", "stale"),
            ("X-Amz-S3session-Token", "stale"),
            ("X-Amz-Region-Set", "*"),
            ("X-Amz-Content-Sha256", EMPTY.upper()),
            ("Accept", "*/*"),
        ),
        S3,
    )
    assert crt(sent) == ("s3", "eu-west-1")
    assert sent.target == b"/k?list-type=2"
    assert [n for n, _ in sent.headers] == [
        b"Host",
        b"Accept",
        b"X-Amz-Date",
        b"X-Amz-Content-SHA256",
        b"Authorization",
    ]


def test_a_session_token_is_sent_and_signed(head, crt):
    sent = sign(head("GET /", ("Host", S3)), S3, key=KEY | {"session_token": "FwoG/token+=="})
    assert crt(sent, token="FwoG/token+==") == ("s3", "eu-west-1")


def test_the_time_is_the_argument_and_nothing_else(head):
    sent = fields(sign(head("GET /", ("Host", S3)), S3, now=NOW))
    assert sent["x-amz-date"] == "20150830T123600Z"
    assert "/20150830/eu-west-1/s3/" in sent["authorization"]


@pytest.mark.parametrize("spelling", ["MINIO.example.com", "minio.example.com.", "minio.example.com:443"])
def test_host_is_written_as_the_destination(head, crt, spelling):
    sent = sign(head("GET /", ("host", spelling)), "minio.example.com", services=("s3",), regions=("local",))
    assert sent.headers[0] == (b"host", b"minio.example.com")
    assert crt(sent) == ("s3", "local")


def test_a_port_of_its_own_stays_in_host(head, crt):
    sent = sign(
        head("GET /", ("Host", "minio.example.com:9000")),
        "minio.example.com",
        port=9000,
        services=("s3",),
        regions=("r",),
    )
    assert fields(sent)["host"] == "minio.example.com:9000"
    assert crt(sent) == ("s3", "r")


def test_over_http2_the_authority_is_signed_without_being_written(head, crt):
    sent = sign(head("GET /"), S3)
    assert "host" not in fields(sent)
    assert crt(sent, authority=S3) == ("s3", "eu-west-1")


def test_two_hosts_are_refused(head):
    assert code(head("GET /", ("Host", S3), ("host", S3)), S3) == "authority_mismatch"


def test_repeated_signed_headers_become_one_line_without_tabs(head, crt):
    sent = sign(
        head(
            "GET /",
            ("Host", S3),
            ("X-Amz-Meta-A", "1\t2"),
            ("Accept", "a"),
            ("x-amz-meta-a", " 3  4 "),
            ("Accept", "b"),
        ),
        S3,
    )
    assert fields(sent)["x-amz-meta-a"] == "1 2,3  4"
    assert [v for n, v in sent.headers if n == b"Accept"] == [b"a", b"b"]
    assert crt(sent) == ("s3", "eu-west-1")


def test_bytes_that_are_not_utf_8_are_signed_as_they_stand(head):
    sent = sign(head("GET /", ("Host", S3), ("X-Amz-Meta-A", b"caf\xe9 \xa0\x85")), S3)
    assert (b"X-Amz-Meta-A", b"caf\xe9 \xa0\x85") in sent.headers


def test_a_constant_is_signed_too(head, crt):
    sent = sign(head("GET /", ("Host", S3)), S3, constants=(("x-amz-request-payer", "requester"),))
    assert "x-amz-request-payer" in fields(sent)["authorization"]
    assert crt(sent) == ("s3", "eu-west-1")


# --- bodies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "line", "headers", "signed"),
    [
        (S3, "GET /", [], EMPTY),
        (S3, "PUT /k", [("Content-Length", "0")], EMPTY),
        (S3, "PUT /k", [("Content-Length", "5")], "UNSIGNED-PAYLOAD"),
        (S3, "PUT /k", [("Content-Length", "5"), ("x-amz-content-sha256", "A" * 64)], "a" * 64),
        (S3, "PUT /k", [("Content-Length", "5"), ("x-amz-content-sha256", "UNSIGNED-PAYLOAD")], "UNSIGNED-PAYLOAD"),
        (
            S3,
            "PUT /k",
            [("Content-Encoding", "aws-chunked"), ("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER")],
            "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        ),
        (
            S3,
            "PUT /k",
            [("Transfer-Encoding", "chunked"), ("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER")],
            "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        ),
        (DYNAMODB, "POST /", [JSON, ("Content-Length", "0")], EMPTY),
        (DYNAMODB, "POST /", [JSON, ("Content-Length", "2"), ("x-amz-content-sha256", "b" * 64)], "b" * 64),
        ("ebs.eu-west-1.amazonaws.com", "PUT /s", [("x-amz-content-sha256", "UNSIGNED-PAYLOAD")], "UNSIGNED-PAYLOAD"),
    ],
)
def test_these_bodies_stream(head, host, line, headers, signed):
    request = head(line, ("Host", host), *headers)
    sent = send(request, host)
    assert fields(sent.head)["x-amz-content-sha256"] == signed
    assert sent.rewriter is None


@pytest.mark.parametrize(
    "headers",
    [
        [("Content-Length", "2")],
        [("Transfer-Encoding", "chunked")],
        [],
        [("Content-Length", "2"), ("x-amz-content-sha256", "UNSIGNED-PAYLOAD")],
        [("Content-Length", "2"), ("x-amz-content-sha256", "")],
    ],
)
def test_the_bodies_of_other_services_are_hashed(head, crt, headers):
    request = head("POST /", ("Host", DYNAMODB), JSON, *headers)
    assert crt(sign(request, DYNAMODB, body=b"{}"), body=b"{}") == ("dynamodb", "eu-west-1")


CHUNKED = ("Transfer-Encoding", "chunked")


@pytest.mark.parametrize(
    ("line", "headers", "signed"),
    [
        ("PUT /k", [CHUNKED], hashlib.sha256(b"{}").hexdigest()),
        ("POST /k?uploads", [], hashlib.sha256(b"{}").hexdigest()),
        ("DELETE /k", [], hashlib.sha256(b"{}").hexdigest()),
        ("PUT /k", [CHUNKED, ("x-amz-content-sha256", "A" * 64)], "a" * 64),
        ("PUT /k", [CHUNKED, ("x-amz-content-sha256", "UNSIGNED-PAYLOAD")], "UNSIGNED-PAYLOAD"),
    ],
)
def test_s3_bodies_without_a_length_are_held_until_they_have_one(head, line, headers, signed):
    sent = sign(head(line, ("Host", S3), *headers), S3, body=b"{}")
    assert fields(sent)["x-amz-content-sha256"] == signed


@pytest.mark.parametrize("trailer", ["", "-TRAILER"])
@pytest.mark.parametrize("framing", [("Content-Length", "66824"), CHUNKED])
def test_signed_chunks_are_signed_again(head, crt, trailer, framing):
    word = f"STREAMING-AWS4-HMAC-SHA256-PAYLOAD{trailer}"
    headers = [("Content-Encoding", "aws-chunked"), ("x-amz-content-sha256", word), framing]
    sent = send(head("PUT /k", ("Host", S3), *headers), S3)
    assert crt(sent.head) == ("s3", "eu-west-1")
    assert fields(sent.head)["x-amz-content-sha256"] == word
    last = b"0;chunk-signature=" + b"0" * 64 + b"\r\n"
    if trailer:
        last += b"x-amz-checksum-crc32:AAAAAA==\r\nx-amz-trailer-signature:" + b"0" * 64 + b"\r\n"
    out = sent.rewriter.feed(last + b"\r\n") + sent.rewriter.finish()
    assert len(out) == len(last) + 2
    assert b"0" * 64 not in out


def test_the_key_of_an_upload_is_forgotten_with_its_end(head):
    word = ("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD")
    rewriter = send(head("PUT /k", ("Host", S3), ("Content-Length", "9"), word), S3).rewriter
    rewriter.feed(b"0;chunk-signature=" + b"0" * 64 + b"\r\n\r\n")
    rewriter.finish()
    assert not rewriter._key
    assert rewriter.finish() == b""


@pytest.mark.parametrize(
    ("line", "host"), [("PUT /k?{V4}", S3), ("POST /", DYNAMODB)], ids=["presigned", "another service"]
)
def test_signed_chunks_are_for_s3_and_for_headers(head, line, host):
    word = ("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD")
    assert code(head(line.format(V4=V4), ("Host", host), word), host) == "signing_unsupported"


def test_a_missing_hash_is_a_fault(head):
    made = plan(head("POST /", ("Host", DYNAMODB), JSON), DYNAMODB)
    with pytest.raises(Fault):
        made.apply(Values(KEY), target=Target(host=DYNAMODB, port=443, now=NOW), body_sha256=None)


@pytest.mark.parametrize(
    "headers",
    [
        [("x-amz-content-sha256", "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD")],
        [("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-EVENTS")],
        [("x-amz-content-sha256", "nonsense")],
        [("x-amz-content-sha256", "a" * 64), ("X-Amz-Content-Sha256", "b" * 64)],
        [("Content-Encoding", "aws-chunked"), ("Content-Length", "9")],
        [("Content-Encoding", "gzip, aws-chunked"), ("x-amz-content-sha256", "a" * 64)],
        [("Content-Type", "application/vnd.amazon.eventstream")],
    ],
)
def test_bodies_with_signatures_of_their_own_are_refused(head, headers):
    assert code(head("PUT /k", ("Host", S3), *headers), S3) == "signing_unsupported"


def test_a_post_policy_is_refused(head):
    form = head("POST /", ("Host", S3), ("Content-Type", "multipart/form-data; boundary=x"), ("Content-Length", "9"))
    assert code(form, S3) == "signing_unsupported"


def test_an_unsigned_trailer_is_for_s3(head):
    sent = head("POST /", ("Host", DYNAMODB), JSON, ("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"))
    assert code(sent, DYNAMODB) == "signing_unsupported"


# --- scope ----------------------------------------------------------------------------------------------------------


def test_the_scope_comes_from_the_host_not_from_the_caller(head, crt):
    assert crt(sign(head("GET /", ("Host", S3), ("Authorization", DUMMY)), S3)) == ("s3", "eu-west-1")


def test_the_caller_is_asked_where_the_host_does_not_say_the_region(head, crt):
    fast = "my-bucket.s3-accelerate.amazonaws.com"
    header = head("GET /", ("Host", fast), ("Authorization", DUMMY.replace("us-east-1", "ap-south-1")))
    assert crt(sign(header, fast)) == ("s3", "ap-south-1")
    assert code(head("GET /", ("Host", fast)), fast) == "signing_scope_unknown"


def test_the_caller_is_asked_though_its_access_key_id_was_taken_for_the_tag(head, crt, crt_presigned):
    fast = "my-bucket.s3-accelerate.amazonaws.com"
    blank = DUMMY.replace("dummy", "").replace("us-east-1", "ap-south-1")
    assert crt(sign(head("GET /", ("Host", fast), ("Authorization", blank)), fast)) == ("s3", "ap-south-1")
    url = V4.replace("=dummy", "=").replace("eu-west-1", "ap-south-1")
    given = crt_presigned(sign(head(f"GET /?{url}", ("Host", fast)), fast))
    assert given["X-Amz-Credential"] == "AKIDEXAMPLE/20150830/ap-south-1/s3/aws4_request"


@pytest.mark.parametrize("known", [{"services": ("s3",)}, {"services": ("s3",), "regions": ("eu-west-1", "local")}])
def test_a_host_of_ones_own_is_signed_for_what_the_caller_says_within_the_binding(head, crt, known):
    stated = DUMMY.replace("us-east-1", "local")
    request = head("GET /", ("Host", "minio.example.com"), ("Authorization", stated))
    assert crt(sign(request, "minio.example.com", **known)) == ("s3", "local")


@pytest.mark.parametrize(
    ("host", "members", "refused"),
    [
        ("minio.example.com", {}, "signing_scope_unknown"),
        (S3, {"services": ("dynamodb",)}, "signing_scope_not_bound"),
        (S3, {"regions": ("us-east-1",)}, "signing_scope_not_bound"),
        (S3, {"services": ("sqs", "sns"), "regions": ("eu-west-1",)}, "signing_scope_not_bound"),
        ("b--use1-az6--x-s3.s3express-use1-az6.us-east-1.amazonaws.com", {}, "signing_unsupported"),
    ],
)
def test_a_scope_that_is_unknown_unbound_or_unsupported_is_refused(head, host, members, refused):
    assert code(head("GET /", ("Host", host)), host, **members) == refused


# --- presigned ------------------------------------------------------------------------------------------------------

V4 = (
    "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=dummy%2F20150830%2Feu-west-1%2Fs3%2Faws4_request"
    "&X-Amz-Date=20150830T123000Z&X-Amz-Expires=600&X-Amz-SignedHeaders=host&X-Amz-Signature=00"
)


def test_a_presigned_url_is_signed_again_where_it_stands(head, crt_presigned):
    sent = sign(head(f"GET /a%20b?versionId=3&{V4}&response-content-type=text/plain&acl", ("Host", S3)), S3)
    assert sent.target.startswith(b"/a%20b?versionId=3&response-content-type=text%2Fplain&acl&X-Amz-Algorithm=")
    given = crt_presigned(sent)
    assert given["X-Amz-Credential"] == "AKIDEXAMPLE/20150830/eu-west-1/s3/aws4_request"
    assert (given["X-Amz-Date"], given["X-Amz-Expires"]) == ("20150830T123600Z", "600")
    assert fields(sent) == {"host": S3}


def test_everything_that_may_be_signed_in_a_presigned_request_is(head, crt_presigned):
    sent = sign(
        head(
            f"PUT /k?{V4}",
            ("Host", S3),
            ("Content-Type", "text/plain"),
            ("X-Amz-Acl", "private"),
            ("Authorization", "x"),
        ),
        S3,
        body=b"",
        key=KEY | {"session_token": "to/ken"},
    )
    assert crt_presigned(sent, token="to/ken")["X-Amz-SignedHeaders"] == "content-type;host;x-amz-acl"
    assert "authorization" not in fields(sent)


def test_a_hash_in_the_query_of_a_presigned_url_stays(head, crt_presigned):
    sent = sign(head(f"PUT /k?X-Amz-Content-Sha256=UNSIGNED-PAYLOAD&{V4}", ("Host", S3)), S3, body=b"")
    assert crt_presigned(sent)["X-Amz-Content-Sha256"] == "UNSIGNED-PAYLOAD"


def test_a_hash_in_a_header_of_a_presigned_request_is_signed_as_it_stands(head):
    sent = sign(head(f"PUT /k?{V4}", ("Host", S3), ("x-amz-content-sha256", EMPTY)), S3, body=b"")
    assert fields(sent) == {"host": S3, "x-amz-content-sha256": EMPTY}
    assert b"X-Amz-SignedHeaders=host%3Bx-amz-content-sha256&" in sent.target


def test_a_presigned_url_that_has_run_out_stays_run_out(head, crt_presigned):
    given = crt_presigned(sign(head(f"GET /k?{V4}", ("Host", S3)), S3, now=NOW + 3600))
    assert (given["X-Amz-Date"], given["X-Amz-Expires"]) == ("20150830T123000Z", "600")


@pytest.mark.parametrize(
    ("deadline", "date", "expires"),
    [
        (NOW + 900, "20150830T123600Z", "900"),
        (NOW + 10**7, "20150830T123600Z", "604800"),
        (NOW - 60, "20150830T123459Z", "1"),
    ],
)
@pytest.mark.parametrize("access", ["AWSAccessKeyId=dummy&", "AWSAccessKeyId=&"], ids=["whole", "taken for the tag"])
def test_a_version_2_url_becomes_version_4(head, crt_presigned, access, deadline, date, expires):
    old = f"{access}Signature=vjbyPxybdZaNmGa%2ByT272YEAiv4%3D&Expires={int(deadline)}"
    sent = sign(head(f"GET /k?versionId=3&{old}&x-id=1", ("Host", S3)), S3)
    given = crt_presigned(sent)
    assert (given["X-Amz-Date"], given["X-Amz-Expires"]) == (date, expires)
    assert sent.target.startswith(b"/k?versionId=3&x-id=1&X-Amz-Algorithm")
    assert b"AWSAccessKeyId" not in sent.target
    assert b"&Signature" not in sent.target


@pytest.mark.parametrize(
    "query",
    [
        V4.replace("HMAC-SHA256", "HMAC-SHA512"),
        V4.replace("X-Amz-Expires=600", "X-Amz-Expires=604801"),
        V4.replace("X-Amz-Expires=600", "X-Amz-Expires=0"),
        V4.replace("X-Amz-Expires=600&", ""),
        V4 + "&X-Amz-Signature=11",
        V4 + "&x-amz-expires=700",
        "AWSAccessKeyId=d&Signature=s&Expires=soon",
        "AWSAccessKeyId=d&Signature=s",
        "AWSAccessKeyId=d&Signature=s&Expires=1&Expires=2",
    ],
)
def test_a_presigned_url_that_cannot_be_signed_again_is_refused(head, query):
    assert code(head(f"GET /k?{query}", ("Host", S3)), S3) == "signing_unsupported"


def test_version_2_of_the_query_protocol_is_refused(head):
    old = "Action=ListQueues&AWSAccessKeyId=d&SignatureVersion=2&Signature=s"
    assert code(head(f"GET /?{old}", ("Host", "sqs.eu-west-1.amazonaws.com")), "sqs.eu-west-1.amazonaws.com") == (
        "signing_unsupported"
    )


def test_a_presigned_request_of_another_service_has_its_body_hashed(head, crt_presigned):
    request = head(
        f"POST /2015-03-31/functions?{V4}", ("Host", "lambda.eu-west-1.amazonaws.com"), ("Content-Length", "2")
    )
    crt_presigned(sign(request, "lambda.eu-west-1.amazonaws.com", body=b"{}"), body=b"{}")


# --- credential minting ---------------------------------------------------------------------------------------------

ECR = "api.ecr.eu-west-1.amazonaws.com"
TARGET = "AmazonEC2ContainerRegistry_V20150921"
FORM = ("Content-Type", "application/x-www-form-urlencoded")
CODEARTIFACT = "codeartifact.eu-west-1.amazonaws.com"
MINTING = [
    ("POST /", STS, [FORM, ("x-amz-content-sha256", "a" * 64)]),
    ("POST /?Action=GetCallerIdentity", STS, [FORM, ("Content-Length", "9")]),
    ("GET /?Action=AssumeRole", STS, []),
    ("GET /?Action=GetCallerIdentity&action=AssumeRole", STS, []),
    ("GET /?%41ction=GetSessionToken", STS, []),
    ("GET /?Action=BrandNewThing", STS, []),
    ("GET /", STS, []),
    ("POST /", IAM, [FORM]),
    ("GET /?Action=CreateAccessKey", IAM, []),
    (f"GET /?Action=AssumeRole&{V4.replace('s3', 'sts')}", STS, []),
    ("POST /", ECR, [("X-Amz-Target", f"{TARGET}.GetAuthorizationToken")]),
    ("POST /", ECR, [("X-Amz-Target", f"{TARGET}.ListImages"), ("x-amz-target", f"{TARGET}.GetAuthorizationToken")]),
    (
        "POST /service/EC2ContainerRegistry/operation/GetAuthorizationToken",
        ECR,
        [("x-amz-target", f"{TARGET}.ListImages")],
    ),
    ("POST /", ECR, []),
    ("POST /", ECR, [("X-Amz-Target", f"{TARGET}.getauthorizationtoken")]),
    ("POST /", ECR, [("X-Amz-Target", f"{TARGET}.ListImages#GetAuthorizationToken")]),
    ("POST /v1/authorization-token?domain=d", CODEARTIFACT, []),
    ("POST //v1/./authorization-token/", CODEARTIFACT, []),
    ("POST /v1/%61uthorization-token", CODEARTIFACT, []),
    ("POST /", "cognito-identity.eu-west-1.amazonaws.com", [("X-Amz-Target", "A.GetCredentialsForIdentity")]),
    ("POST /", "cognito-idp.eu-west-1.amazonaws.com", [("X-Amz-Target", "A.AdminInitiateAuth")]),
    ("GET /federation/credentials?role_name=a", "portal.sso.eu-west-1.amazonaws.com", []),
    ("GET /?session", S3, []),
    ("GET /v20180820/accessgrantsinstance/dataaccess", "123456789012.s3-control.eu-west-1.amazonaws.com", []),
    ("POST /keys-and-certificate?setAsActive=true", "iot.eu-west-1.amazonaws.com", []),
]
HARMLESS = [
    ("GET /?Action=GetCallerIdentity&Version=2011-06-15", STS, []),
    ("GET /?Action=ListUsers&Version=2010-05-08", IAM, []),
    ("POST /", ECR, [("X-Amz-Target", f"{TARGET}.ListImages"), ("Content-Length", "0")]),
    ("GET /v1/domain?domain=d", CODEARTIFACT, []),
    ("GET /session?prefix=session", S3, []),
]


@pytest.mark.parametrize(("line", "host", "headers"), MINTING, ids=[f"{m[1]} {m[0][:40]}" for m in MINTING])
def test_an_operation_that_hands_out_credentials_is_refused(head, line, host, headers):
    request = head(line, ("Host", host), *headers)
    with pytest.raises(Refusal) as refusal:
        plan(request, host)
    assert refusal.value.code == "credential_minting"


@pytest.mark.parametrize(("line", "host", "headers"), MINTING, ids=[f"{m[1]} {m[0][:40]}" for m in MINTING])
def test_the_binding_may_allow_it(head, line, host, headers):
    request = head(line, ("Host", host), *headers)
    allowed = {"flags": frozenset({"allow-credential-minting"})}
    needed = plan(request, host, **allowed).needs_body
    assert sign(request, host, body=b"" if needed else None, **allowed)


@pytest.mark.parametrize(("line", "host", "headers"), HARMLESS)
def test_the_rest_of_those_services_works(head, line, host, headers):
    assert sign(head(line, ("Host", host), *headers), host)


def test_who_am_i_is_allowed_where_the_body_is_known_to_ask_nothing_else(head, crt):
    request = head("POST /", ("Host", STS), FORM, ("Content-Length", "43"))
    body = b"Action=GetCallerIdentity&Version=2011-06-15"
    assert crt(sign(request, STS, body=body), body=body) == ("sts", "eu-west-1")
    assert code(request, STS, body=b"Action=GetSessionToken&Version=2011-06-15") == "credential_minting"


# --- bindings and values --------------------------------------------------------------------------------------------


def test_the_fields_are_those_of_an_access_key():
    found = sigv4.KIND.fields(Binding(hosts=((S3, 443),)))
    assert [(f.name, f.secret, f.required) for f in found] == [
        ("access_key_id", False, True),
        ("secret_access_key", True, True),
        ("session_token", True, False),
    ]


@pytest.mark.parametrize(
    ("host", "members", "problem"),
    [
        ("minio.example.com", {}, "does not say the service"),
        (S3, {"services": ("sqs",)}, "belongs to the service s3"),
        (S3, {"services": ("s3/x",)}, "not an AWS service"),
        (S3, {"regions": ("eu west",)}, "not an AWS region"),
        (S3, {"constants": (("X-Amz-Date", "1"),)}, "part of the signature"),
        (S3, {"constants": (("x_amz_content_sha256", "1"),)}, "part of the signature"),
        ("b--use1-az6--x-s3.s3express-use1-az6.us-east-1.amazonaws.com", {}, "not signed with SigV4"),
        ("x.mrap.accesspoint.s3-global.amazonaws.com", {"services": ("sqs",)}, "belongs to the service s3"),
    ],
)
def test_a_binding_that_could_never_be_signed_is_refused_when_written(host, members, problem):
    with pytest.raises(Usage, match=problem):
        sigv4.KIND.check_binding(Binding(hosts=((host, 443),), **members))


def test_a_binding_that_can_be_signed_is_taken_as_it_is():
    for host, members in (
        (S3, {}),
        ("minio.example.com", {"services": ("s3",), "regions": ("local",)}),
        ("*.example.com", {}),
        ("x.mrap.accesspoint.s3-global.amazonaws.com", {}),
        ("x.mrap.accesspoint.s3-global.amazonaws.com", {"regions": ("eu-west-1", "us-east-1")}),
    ):
        binding = Binding(hosts=((host, 443),), **members)
        assert sigv4.KIND.check_binding(binding) == binding


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"access_key_id": "AK"}, "secret_access_key is missing"),
        (KEY | {"region": "x"}, "no field 'region'"),
        (KEY | {"access_key_id": "AK/ID"}, "access_key_id holds a"),
        (KEY | {"access_key_id": "AK,Signature=x"}, "access_key_id holds a"),
        (KEY | {"access_key_id": "AK ID"}, "access_key_id holds a"),
        (KEY | {"secret_access_key": "hush\n"}, "secret_access_key holds a control"),
        (KEY | {"session_token": ""}, "session_token is empty"),
        (KEY | {"session_token": "a\r\nb"}, "session_token holds a control"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_when_stored_and_when_injected(head, values, problem):
    binding = Binding(hosts=((S3, 443),))
    with pytest.raises(Usage, match=problem) as refusal:
        sigv4.KIND.check_values(binding, values)
    assert "hush" not in str(refusal.value)
    if values.keys() <= {"access_key_id", "secret_access_key", "session_token"}:
        with pytest.raises(Fault):
            sign(head("GET /", ("Host", S3)), S3, key=values)


def test_a_key_id_of_any_other_store_is_taken():
    for access in ("minioadmin", "GOOG1EXAMPLE", "test:tester", "key-1.2_3@x"):
        sigv4.KIND.check_values(Binding(hosts=((S3, 443),)), KEY | {"access_key_id": access})


def test_a_key_does_not_print(head):
    assert KEY["secret_access_key"] not in repr(aws_request.read_key(Values(KEY)))


def test_nothing_is_logged_however_loud_the_loggers_are(head, caplog):
    with caplog.at_level(logging.DEBUG):
        sign(head("GET /", ("Host", S3)), S3, key=KEY | {"session_token": "hush"})
    assert not caplog.records


def test_many_threads_sign_at_once(head, crt):
    def one(i):
        sent = sign(head(f"GET /{i}", ("Host", S3)), S3, now=NOW + 86400 * i)
        return crt(sent), fields(sent)["x-amz-date"]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(one, range(200)))
    assert {scope for scope, _ in answers} == {("s3", "eu-west-1")}
    assert len({date for _, date in answers}) == 200
