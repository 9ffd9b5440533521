"""Kind sigv4 with the extra `sigv4a`: for whom the asymmetric signature is made, for which regions, and what is refused."""

import hashlib
import subprocess
import sys
from concurrent.futures import Future

import pytest
from cryptography.exceptions import InvalidSignature

from addon.binding import Binding
from addon.credentials import aws_scope, aws_sigv4a, sigv4
from addon.credentials.aws_scope import Scope
from addon.credentials.kind import Target
from addon.errors import Fault, Refusal
from addon.model import Values
from tests.credentials.sigv4a_verifier import private_key, verify

NOW = 1_440_938_160.0  # 2015-08-30T12:36:00Z
KEY = ("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
POINT = "mfzwi23gnjvgw.mrap.accesspoint.s3-global.amazonaws.com"
S3 = "my-bucket.s3.eu-west-1.amazonaws.com"
EVENTS = "abcde.veo.endpoint.events.amazonaws.com"
EMPTY = hashlib.sha256(b"").hexdigest()
CLAIM = "AWS4-ECDSA-P256-SHA256 Credential=dummy/20150830/{}/aws4_request, SignedHeaders=host, Signature=3045"
SIGV4A = ("Authorization", CLAIM.format("s3"))
ALL = ("X-Amz-Region-Set", "*")
PRESIGNED = (
    "X-Amz-Algorithm=AWS4-ECDSA-P256-SHA256&X-Amz-Credential=dummy%2F20150830%2Fs3%2Faws4_request"
    "&X-Amz-Date=20150830T123000Z&X-Amz-Region-Set={}&X-Amz-Expires=600&X-Amz-SignedHeaders=host&X-Amz-Signature=3045"
)


def send(head, host, *, body=None, token=None, **members):
    made = sigv4.KIND.plan(head, binding=Binding(hosts=((host, 443),), **members), host=host)
    assert made.needs_body is (body is not None)
    values = {"access_key_id": KEY[0], "secret_access_key": KEY[1]} | ({"session_token": token} if token else {})
    digest = hashlib.sha256(body).hexdigest() if made.needs_body else None
    return made.apply(Values(values), target=Target(host=host, port=443, now=NOW), body_sha256=digest)


def sign(head, host, **options):
    """What the signature says, and the head."""
    sent = send(head, host, **options).head
    given = {name: options[name] for name in ("body", "token") if options.get(name) is not None}
    return verify(head.method, target=sent.target, headers=sent.headers, key=KEY, **given), sent


def code(head, host, **members):
    """What the head alone is refused with, before any key is opened."""
    with pytest.raises(Refusal) as refusal:
        sigv4.KIND.plan(head, binding=Binding(hosts=((host, 443),), **members), host=host)
    return refusal.value.code


# --- the key ----------------------------------------------------------------------------------------------------------


def test_the_verifier_derives_the_keys_that_aws_publishes():
    """The known answers of AWS's own implementation."""
    one = private_key("AKISORANDOMAASORANDOM", "q+jcrXGc+0zWN6uzclKVhvMmUsIfRPa4rlRandom").private_numbers()
    assert one.private_value == 0x7FD3BD010C0D9C292141C2B77BFBDE1042C92E6836FFF749D1269EC890FCA1BD
    two = private_key(*KEY).public_key().public_numbers()
    assert two.x == 0xB6618F6A65740A99E650B33B6B4B5BD0D43B176D721A3EDFEA7E7D2D56D936B1
    assert two.y == 0x865ED22A7EADC9C5CB9D2CBACA1B3699139FEDC5043DC6661864218330C8E518


def test_the_verifier_refuses_what_was_changed_after_signing(head):
    _, sent = sign(head("GET /a?b=c", ("Host", POINT)), POINT)
    given = {"target": sent.target, "headers": sent.headers, "key": KEY}
    for change in (
        {"target": b"/b?b=c"},
        {"target": b"/a?b=d"},
        {"key": (KEY[0], "other")},
        {"headers": [(n, b"us-east-1" if n == b"X-Amz-Region-Set" else v) for n, v in sent.headers]},
        {"headers": [(n, b"evil.example" if n == b"Host" else v) for n, v in sent.headers]},
    ):
        with pytest.raises(InvalidSignature):
            verify("GET", **(given | change))


# --- for whom ---------------------------------------------------------------------------------------------------------

HOSTS = """
mfzwi23gnjvgw.mrap.accesspoint.s3-global.amazonaws.com s3
mfzwi23gnjvgw.mrap.accesspoint.s3-global.amazonaws.com.cn s3
abcde.veo.endpoint.events.amazonaws.com events
abcde.veo.endpoint.events.api.aws events
abcdef.g3h.endpoints.email.amazonaws.com ses
abcdef.g3h.endpoints.email.global.api.aws ses
abcdef.g3h.endpoints.email.us-gov.amazonaws.com ses
123456789012.cloudfront-kvs.global.api.aws cloudfront-keyvaluestore
"""


@pytest.mark.parametrize("line", HOSTS.split("\n")[1:-1])
def test_hosts_that_take_nothing_else_get_it_whatever_the_client_did(head, line):
    host, service = line.split()
    old = "AWS4-HMAC-SHA256 Credential=dummy/20150830/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=00"
    for headers in ([], [("Authorization", old), ("X-Amz-Date", "20100101T000000Z")]):
        said, _ = sign(head("GET /", ("Host", host), *headers), host)
        assert (said.service, said.region_set, said.payload) == (service, "*", EMPTY)


@pytest.mark.parametrize(
    "host",
    [
        "x.mrap.accesspoint.s3-global.amazonaws.com.evil.example",
        "accesspoint.s3-global.amazonaws.com",
        "x.accesspoint.s3-globalxamazonaws.com",
        "1234.cloudfront-kvs.global.api.aws",
    ],
)
def test_a_look_alike_gets_nothing(host):
    with pytest.raises(Refusal) as refusal:
        aws_scope.scope(host, client_scope=Scope("s3", "*", asymmetric=True))
    assert refusal.value.code == "signing_scope_unknown"


@pytest.mark.parametrize("host", [POINT, S3, "s3.amazonaws.com"])
def test_a_client_that_signed_so_is_signed_for_so(head, host):
    said, sent = sign(head("GET /a%20b?x=%2f&acl", ("Host", host), SIGV4A, ALL, ("x-amz-meta-a", "é  \t b")), host)
    assert (said.service, said.region_set) == ("s3", "*")
    assert said.names == ("host", "x-amz-content-sha256", "x-amz-date", "x-amz-meta-a", "x-amz-region-set")
    assert sent.target == b"/a%20b?x=%2F&acl"
    assert [n for n, _ in sent.headers].count(b"X-Amz-Region-Set") == 1


def test_a_store_of_ones_own_may_take_it_too(head):
    request = head("GET /", ("Host", "store.example.com"), SIGV4A, ALL)
    said, _ = sign(request, "store.example.com", services=("s3",))
    assert (said.service, said.region_set) == ("s3", "*")
    assert code(request, "store.example.com") == "signing_scope_unknown"
    assert code(request, "store.example.com", services=("sqs", "sns")) == "signing_scope_not_bound"


def test_a_session_token_is_sent_and_signed(head):
    said, sent = sign(head("GET /", ("Host", POINT)), POINT, token="FwoG/token+==")
    assert "x-amz-security-token" in said.names
    assert (b"X-Amz-Security-Token", b"FwoG/token+==") in sent.headers


def test_paths_of_services_that_are_not_s3_are_read_as_segments(head):
    said, sent = sign(head("POST /a/../b%2Fc//d:e/?x=1&x=0", ("Host", EVENTS), ("Content-Length", "0")), EVENTS)
    assert said.service == "events"
    assert sent.target == b"/a/../b%2Fc//d%3Ae/?x=1&x=0"


# --- for which regions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stated", "regions", "signed"),
    [
        (None, (), "*"),
        (None, ("eu-west-1",), "eu-west-1"),
        (None, ("eu-west-1", "us-east-1"), "eu-west-1,us-east-1"),
        ("*", (), "*"),
        ("eu-*", (), "eu-*"),
        ("eu-west-1, us-east-1", (), "eu-west-1,us-east-1"),
        ("us-east-1", ("eu-west-1", "us-east-1"), "us-east-1"),
    ],
)
def test_the_regions_are_those_stated_then_those_bound_then_all(head, stated, regions, signed):
    headers = [SIGV4A, ("X-Amz-Region-Set", stated)] if stated else []
    said, _ = sign(head("GET /", ("Host", POINT), *headers), POINT, regions=regions)
    assert said.region_set == signed


def test_a_host_that_says_its_region_is_signed_for_in_it(head):
    said, _ = sign(head("GET /", ("Host", S3), SIGV4A), S3)
    assert said.region_set == "eu-west-1"


@pytest.mark.parametrize("stated", ["*", "eu-*", "us-east-1", "eu-west-1,us-east-1", "eu-west-1,*"])
def test_a_region_that_is_not_bound_is_refused_and_so_are_all_of_them(head, stated):
    request = head("GET /", ("Host", POINT), SIGV4A, ("X-Amz-Region-Set", stated))
    assert code(request, POINT, regions=("eu-west-1", "eu-west-2")) == "signing_scope_not_bound"
    presigned = head(f"GET /?{PRESIGNED.format(stated)}", ("Host", POINT))
    assert code(presigned, POINT, regions=("eu-west-1", "eu-west-2")) == "signing_scope_not_bound"


def test_several_lines_are_one_set(head):
    request = head("GET /", ("Host", POINT), SIGV4A, ("X-Amz-Region-Set", "eu-west-1"), ALL)
    assert code(request, POINT, regions=("eu-west-1",)) == "signing_scope_not_bound"


def test_the_region_of_the_host_must_be_bound_whatever_the_client_states(head):
    request = head("GET /", ("Host", S3), SIGV4A, ("X-Amz-Region-Set", "us-east-1"))
    assert code(request, S3, regions=("us-east-1",)) == "signing_scope_not_bound"


@pytest.mark.parametrize("stated", ["eu west", "EU-WEST-1", "a,,b", "*x", "é", "a" * 65])
def test_what_is_no_name_of_a_region_is_refused(head, stated):
    assert code(head("GET /", ("Host", POINT), SIGV4A, ("X-Amz-Region-Set", stated)), POINT) == "signing_scope_unknown"


# --- bodies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "payload"),
    [
        ([("Content-Length", "5")], "UNSIGNED-PAYLOAD"),
        ([("Content-Length", "5"), ("x-amz-content-sha256", "UNSIGNED-PAYLOAD")], "UNSIGNED-PAYLOAD"),
        ([("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER")], "STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
        ([("Content-Length", "0")], EMPTY),
    ],
)
def test_these_bodies_stream(head, headers, payload):
    said, _ = sign(head("PUT /k", ("Host", POINT), *headers), POINT)
    assert said.payload == payload


def test_a_hash_of_the_client_is_signed_as_it_stands(head):
    stated = hashlib.sha256(b"hello").hexdigest()
    sent = send(head("PUT /k", ("Host", POINT), ("Content-Length", "5"), ("x-amz-content-sha256", stated)), POINT).head
    assert verify("PUT", target=sent.target, headers=sent.headers, key=KEY, body=b"hello").payload == stated


def test_the_body_of_another_service_is_hashed(head):
    said, _ = sign(head("POST /", ("Host", EVENTS), ("Content-Length", "2")), EVENTS, body=b"{}")
    assert said.payload == hashlib.sha256(b"{}").hexdigest()


@pytest.mark.parametrize("algorithm", ["HMAC-SHA256", "ECDSA-P256-SHA256"])
@pytest.mark.parametrize("trailer", ["", "-TRAILER"])
def test_signed_chunks_are_refused(head, algorithm, trailer):
    word = f"STREAMING-AWS4-{algorithm}-PAYLOAD{trailer}"
    request = head("PUT /k", ("Host", POINT), ("x-amz-content-sha256", word), ("Content-Length", "9"))
    assert code(request, POINT) == "signing_unsupported"


def test_a_header_that_is_not_utf_8_is_refused(head):
    """awscrt takes text; what it would sign is not what would be sent."""
    with pytest.raises(Refusal, match="signing_unsupported"):
        send(head("GET /", ("Host", POINT), ("X-Amz-Meta-A", b"\xff")), POINT)


def test_an_operation_that_hands_out_credentials_is_refused(head):
    claim = ("Authorization", CLAIM.format("sts"))
    request = head("GET /?Action=GetSessionToken", ("Host", "sts.eu-west-1.amazonaws.com"), claim, ALL)
    assert code(request, "sts.eu-west-1.amazonaws.com") == "credential_minting"


# --- presigned --------------------------------------------------------------------------------------------------------


def test_a_presigned_url_is_signed_again_with_its_own_life_time(head):
    said, sent = sign(head(f"GET /a%20b?versionId=3&{PRESIGNED.format('%2A')}&acl", ("Host", POINT)), POINT)
    assert (said.service, said.region_set, said.payload) == ("s3", "*", "UNSIGNED-PAYLOAD")
    assert (said.stamp, said.seconds) == ("20150830T123600Z", 600)
    assert sent.target.startswith(b"/a%20b?versionId=3&acl")
    assert sent.target.count(b"X-Amz-Region-Set") == 1
    assert b"dummy" not in sent.target
    assert sent.headers == ((b"Host", POINT.encode()),)


def test_a_token_is_part_of_a_presigned_url(head):
    said, sent = sign(
        head(f"GET /k?{PRESIGNED.format('eu-west-1')}", ("Host", POINT), ("X-Amz-Acl", "private")),
        POINT, token="to/ken", regions=("eu-west-1",),
    )  # fmt: skip
    assert (said.region_set, said.names) == ("eu-west-1", ("host", "x-amz-acl"))
    assert b"X-Amz-Security-Token=to%2Fken" in sent.target


def test_a_hash_in_the_query_of_a_presigned_url_stays_and_one_in_a_header_is_refused(head):
    request = head(f"GET /k?X-Amz-Content-Sha256=UNSIGNED-PAYLOAD&{PRESIGNED.format('*')}", ("Host", POINT))
    said, sent = sign(request, POINT)
    assert (said.payload, sent.target.count(b"UNSIGNED-PAYLOAD")) == ("UNSIGNED-PAYLOAD", 1)
    for stated in ("UNSIGNED-PAYLOAD", EMPTY, ""):
        request = head(f"GET /k?{PRESIGNED.format('*')}", ("Host", POINT), ("x-amz-content-sha256", stated))
        assert code(request, POINT) == "signing_unsupported"


def test_a_url_presigned_with_version_4_becomes_4a_where_nothing_else_is_taken(head):
    old = PRESIGNED.format("*").replace("ECDSA-P256-SHA256", "HMAC-SHA256").replace("%2Fs3", "%2Fus-east-1%2Fs3")
    said, _ = sign(head(f"GET /k?{old}", ("Host", POINT)), POINT)
    assert (said.region_set, said.seconds) == ("*", 600)


def test_two_region_sets_in_a_presigned_url_are_refused(head):
    url = f"GET /k?{PRESIGNED.format('*')}&x-amz-region-set=eu-west-1"
    assert code(head(url, ("Host", POINT)), POINT) == "signing_unsupported"


# --- the extra --------------------------------------------------------------------------------------------------------


WITHOUT = """
import sys
sys.modules["awscrt"] = None
from addon.binding import Binding
from addon.credentials import sigv4
from addon.credentials.kind import Target
from addon.errors import Refusal
from addon.model import Head, Values

def plan(host, *headers, target=b"/"):
    head = Head("GET", target, ((b"Host", host.encode()), *headers))
    return sigv4.KIND.plan(head, binding=Binding(hosts=((host, 443),)), host=host)

sigv4.load()
values, target = Values({"access_key_id": "a", "secret_access_key": "b"}), Target(host="h", port=443, now=0)
sent = plan("s3.eu-west-1.amazonaws.com").apply(values, target=target, body_sha256=None).head
assert b"AWS4-HMAC-SHA256" in dict(sent.headers)[b"Authorization"]
claim = b"AWS4-ECDSA-P256-SHA256 Credential=x/20150830/s3/aws4_request, SignedHeaders=host, Signature=0"
for host, headers, target in [
    ("x.mrap.accesspoint.s3-global.amazonaws.com", [], b"/"),
    ("s3.eu-west-1.amazonaws.com", [(b"Authorization", claim)], b"/"),
    ("s3.eu-west-1.amazonaws.com", [], b"/?PRESIGNED"),
]:
    try:
        plan(host, *headers, target=target)
    except Refusal as refusal:
        print(refusal.code)
"""


def test_without_the_extra_all_of_it_is_refused_and_the_rest_works():
    script = WITHOUT.replace("PRESIGNED", PRESIGNED.format("*"))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == ["signing_unsupported"] * 3, done.stderr


def test_nothing_of_ours_imports_awscrt_before_it_is_needed(head):
    script = """
import sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "awscrt":
            caller, frame = "", sys._getframe(1)
            while frame:
                caller += frame.f_globals.get("__name__", "") + " "
                frame = frame.f_back
            if "botocore." not in caller:  # which uses it where it finds it
                print(caller)
            raise ImportError(name)

sys.meta_path.insert(0, Watch())
import addon.pipeline, addon.worker
from addon.credentials import sigv4
sigv4.load()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_what_awscrt_does_not_sign_at_once_is_not_sent(head, monkeypatch):
    failed = Future()
    failed.set_exception(RuntimeError("no"))
    for answer in (Future(), failed):
        monkeypatch.setattr(aws_sigv4a._awscrt().auth, "aws_sign_request", lambda *_, answer=answer: answer)
        with pytest.raises(Fault, match="awscrt has not signed"):
            send(head("GET /", ("Host", POINT)), POINT)
