"""Thousands of requests that no SDK would send, signed by us and verified by code that shares nothing with ours."""

import hashlib
import random

import pytest

from addon.binding import Binding
from addon.credentials import sigv4
from addon.credentials.kind import Target
from addon.model import Head, Values
from tests.credentials.sigv4a_verifier import verify

NOW = 1_440_938_160.0
VALUES = Values({"access_key_id": "AKIDEXAMPLE", "secret_access_key": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"})
HOSTS = {
    "bucket.s3.eu-west-1.amazonaws.com": ("s3", "eu-west-1"),
    "dynamodb.us-east-1.amazonaws.com": ("dynamodb", "us-east-1"),
    "abc.execute-api.ap-south-1.amazonaws.com": ("execute-api", "ap-south-1"),
    "minio.example.com": ("s3", "local"),
}
ASYMMETRIC = {
    "x.mrap.accesspoint.s3-global.amazonaws.com": "s3",
    "abcde.veo.endpoint.events.amazonaws.com": "events",
}
PIECES = [
    b"a", b"Z", b"0", b"-", b"_", b".", b"~", b"%20", b"%2F", b"%2f", b"%41", b"%zz", b"%", b"%2", b"+", b"%2B", b"//",
    b"/./", b"/../", b"..", b"%2e%2e", b"/%2E/", b":", b"%3A", b"@", b"!", b"$", b"'", b"(", b")", b"*", b",", b";", b"|",
    b"[", b"]", b"{", b"}", b"\\", b"^", b"`", b'"', b"<", b">", "é".encode(), "ሴ".encode(), b"%E1%88%B4", b"\xff", b"%00",
    b"%0D%0A", b"=", b"%3D", b"&", b"%26", b"#", b"%23", b"/",
]  # fmt: skip
QUERY_PIECES = [*PIECES, b"?", b"=", b"&", b"&&", b"acl", b"prefix=", b"x-amz-checksum-mode=ENABLED"]
TEXT = ["a", "B", " ", "  ", "\t", "é", "\u00a0", "\u2003", "ሴ", ",", ";", '"', "=", "/", "1"]


def some(rng, pieces, most):
    return [rng.choice(pieces) for _ in range(rng.randint(0, most))]


def requests(seed, count, *, hosts=HOSTS):
    rng = random.Random(seed)
    for _ in range(count):
        host = rng.choice(list(hosts))
        target = b"/" + b"".join(p for p in some(rng, PIECES, 9) if p != b"?")
        if rng.random() < 0.7:
            target += b"?" + b"".join(some(rng, QUERY_PIECES, 9))
        headers = [(rng.choice([b"Host", b"host"]), host.encode())] if rng.random() < 0.9 else []
        for _ in range(rng.randint(0, 5)):
            name = rng.choice(
                [b"X-Amz-Meta-A", b"x-amz-meta-b", b"Content-Type", b"Accept", b"Range", b"X-Forwarded-For"]
            )
            headers.append((name, "".join(some(rng, TEXT, 8)).strip(" \t").encode()))
        body = bytes(some(rng, range(256), 20))
        headers.append((b"Content-Length", str(len(body)).encode()))
        if rng.random() < 0.3:
            headers.append((b"X-Amz-Content-Sha256", hashlib.sha256(body).hexdigest().encode()))
        if rng.random() < 0.3:
            headers += [
                (b"Authorization", b"AWS4-HMAC-SHA256 Credential=X/20200101/r/s/aws4_request"),
                (b"X-Amz-Date", b"X"),
            ]
        rng.shuffle(headers)
        yield host, Head(rng.choice(["GET", "PUT", "POST", "DELETE"]), target, tuple(headers)), body


@pytest.mark.parametrize("seed", range(10))
def test_an_independent_signer_agrees_with_every_request(seed, crt):
    for host, head, body in requests(seed, 2000):
        named = {"services": ("s3",), "regions": ("local",)} if host.startswith("minio") else {}
        binding = Binding(hosts=((host, 443),), **named)
        plan = sigv4.KIND.plan(head, binding=binding, host=host)
        sent = plan.apply(
            VALUES,
            target=Target(host=host, port=443, now=NOW),
            body_sha256=hashlib.sha256(body).hexdigest() if plan.needs_body else None,
        ).head
        authority = None if b"host" in [name.lower() for name, _ in head.headers] else host
        assert crt(sent, authority=authority, body=body) == HOSTS[host], head
        assert sent.target.isascii()
        kept = [(n, v) for n, v in head.headers if n in (b"Accept", b"Range", b"X-Forwarded-For", b"Content-Length")]
        assert [pair for pair in sent.headers if pair in kept] == kept


@pytest.mark.parametrize("seed", range(2))
def test_the_asymmetric_signature_verifies_for_every_request(seed):
    key = (VALUES["access_key_id"], VALUES["secret_access_key"])
    for host, head, body in requests(seed, 1000, hosts=ASYMMETRIC):
        plan = sigv4.KIND.plan(head, binding=Binding(hosts=((host, 443),)), host=host)
        sent = plan.apply(
            VALUES,
            target=Target(host=host, port=443, now=NOW),
            body_sha256=hashlib.sha256(body).hexdigest() if plan.needs_body else None,
        ).head
        named = b"host" in [name.lower() for name, _ in head.headers]
        headers = sent.headers if named else (*sent.headers, (b"host", host.encode()))
        said = verify(head.method, target=sent.target, headers=headers, key=key, body=body)
        assert (said.service, said.region_set) == (ASYMMETRIC[host], "*"), head
