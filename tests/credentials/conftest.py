"""Hand-made heads, and a verifier of SigV4 that shares no code with ours (aws-c-auth)."""

import hashlib
import re
from datetime import UTC, datetime
from urllib.parse import parse_qsl

import awscrt.auth
import awscrt.http
import pytest

from addon.binding import Binding
from addon.model import Head

NOW = 1_440_938_160.0  # 2015-08-30T12:36:00Z
ACCESS, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
S3_FAMILY = ("s3", "s3express", "s3-outposts", "s3-object-lambda")
OURS = ("x-amz-date", "x-amz-content-sha256", "x-amz-security-token", "authorization")


@pytest.fixture
def head():
    """`head("GET /v1 x", ("Name", "value"), …)`."""

    def make(line="GET /", *headers):
        method, target = line.split(" ", 1)
        pairs = tuple((_bytes(name), _bytes(value)) for name, value in headers)
        return Head(method, target.encode(), pairs)

    return make


@pytest.fixture
def binding():
    """A binding for one host; other members as given."""

    def make(host="api.example.com", **members):
        return Binding(hosts=((host, 443),), **members)

    return make


@pytest.fixture
def crt():
    """`crt(head, …)`: the scope that a written head is rightly signed in, or AssertionError saying what is wrong."""
    return verify


def verify(head, *, authority=None, body=b"", token=None):
    """`authority` is given for HTTP/2, where it stands in no header."""
    headers = [(n.decode().lower(), v.decode("utf-8")) for n, v in head.headers]
    headers += [("host", authority)] if authority else []
    fields = dict(headers)
    assert len([n for n, _ in headers if n == "authorization"]) == 1
    stated = re.fullmatch(
        r"AWS4-HMAC-SHA256 Credential=([^/,]+)/(\d{8})/([^/,]+)/([^/,]+)/aws4_request, "
        r"SignedHeaders=([^,]+), Signature=([0-9a-f]{64})",
        fields["authorization"],
    )
    access, day, region, service, names, signature = stated.groups()
    signed = names.split(";")
    assert access == ACCESS
    assert fields["x-amz-date"][:8] == day
    assert fields.get("x-amz-security-token") == token
    assert signed == sorted(n for n, _ in headers if re.match("x-amz-|content-type$|content-md5$|host$", n))
    claimed = fields["x-amz-content-sha256"]
    if re.fullmatch("[0-9a-f]{64}", claimed):
        assert claimed == hashlib.sha256(body).hexdigest()
    rest = [(n, v) for n, v in headers if n in signed and n not in OURS]
    answer = _sign(
        head,
        rest,
        when=fields["x-amz-date"],
        service=service,
        region=region,
        token=token,
        signed_body_value=claimed,
        signed_body_header_type=awscrt.auth.AwsSignedBodyHeaderType.X_AMZ_CONTENT_SHA_256,
    )
    made = answer.headers.get("Authorization")
    assert f"SignedHeaders={names}," in made
    assert made.endswith(f"Signature={signature}")
    return service, region


@pytest.fixture
def crt_presigned():
    """`crt_presigned(head, …)`: the parameters of a written URL that is rightly presigned, or AssertionError."""

    def verify_url(head, *, body=b"", token=None):
        path, _, query = head.target.decode().partition("?")
        given = dict(parse_qsl(query, keep_blank_values=True))
        _, _, region, service, _ = given["X-Amz-Credential"].split("/")
        rest = [
            p for p in query.split("&") if not re.match(r"X-Amz-(Algorithm|Credential|Date|Expires|Sig\w+|Security)", p)
        ]
        signed = given["X-Amz-SignedHeaders"].split(";")
        headers = [(n.decode().lower(), v.decode()) for n, v in head.headers]
        sent = given.get("X-Amz-Content-Sha256")
        unsigned = "UNSIGNED-PAYLOAD" if service == "s3" else hashlib.sha256(body).hexdigest()
        answer = _sign(
            Head(head.method, (path + ("?" + "&".join(rest) if rest else "")).encode(), ()),
            [(n, v) for n, v in headers if n in signed],
            when=given["X-Amz-Date"],
            service=service,
            region=region,
            token=token,
            signed_body_value=sent or unsigned,
            signature_type=awscrt.auth.AwsSignatureType.HTTP_REQUEST_QUERY_PARAMS,
            expiration_in_seconds=int(given["X-Amz-Expires"]),
        )
        made = dict(parse_qsl(answer.path.partition("?")[2], keep_blank_values=True))
        assert made["X-Amz-SignedHeaders"] == given["X-Amz-SignedHeaders"]
        assert made["X-Amz-Signature"] == given["X-Amz-Signature"]
        return given

    return verify_url


def _sign(head, headers, *, when, service, region, token, **options):
    s3 = service in S3_FAMILY
    config = awscrt.auth.AwsSigningConfig(
        algorithm=awscrt.auth.AwsSigningAlgorithm.V4,
        credentials_provider=awscrt.auth.AwsCredentialsProvider.new_static(ACCESS, SECRET, token),
        region=region,
        service=service,
        date=datetime.strptime(when, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC),
        use_double_uri_encode=not s3,
        should_normalize_uri_path=not s3,
        should_sign_header=lambda name, **_: True,
        **options,
    )
    request = awscrt.http.HttpRequest(head.method, head.target.decode(), awscrt.http.HttpHeaders(headers))
    return awscrt.auth.aws_sign_request(request, config).result(10)


def _bytes(text):
    return text if isinstance(text, bytes) else text.encode()
