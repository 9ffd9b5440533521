"""
AWS as its users meet it: unchanged SDKs with dummy keys, against servers that verify what the proxy signed.

S3 is Swift, which refuses every signature that is not right in all its parts; the other services are moto, which knows
one key. What neither can show goes to the test upstream, and is verified by code that shares nothing with the signer.
"""

import hashlib
import io
import time

import httpx
import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

from addon.credentials import aws_chunks
from addon.model import Head
from tests.e2e.aws import BUCKET, Cloud, Memory, Own, SignedChunks, wait
from tests.e2e.stage import AWS_ID, AWS_SECRET, HOSTS, Stage, refusal
from vaultctl.sigv4_check import verify

HOST = "bucket.s3.us-east-1.amazonaws.com"
AWKWARD = [
    "plain.txt", "a b", "a+b", "a%2Fb", "a%20b", "//a//b", "ä~é", "日本/語", "emoji 🎈", "a=b&c=d", "q?x=1#frag", ".", "a/../b",
    "./a", "!*'();:@,$[]", "~-_.", " lead and trail ", '"quoted"', "%zz", "a\\b",
]  # fmt: skip
MB = 1 << 20


@pytest.fixture
def fresh(cloud, engine, cloud_seed, cloud_options, tmp_path):
    """Another one, that has not done anything yet."""
    with Stage.open(cloud_seed, tmp_path / "fresh", *cloud_options, engine=engine) as stage:
        yield Cloud(stage)


@pytest.fixture
def s3(cloud):
    with cloud.sdk("s3") as client:
        yield client


@pytest.fixture
def raw(cloud):
    """A client that says what a test wants said, to the bucket, under the tag."""
    with cloud.stage.client(base_url=f"https://{HOST}", headers=cloud.stage.tag("s3")) as client:
        yield client


# ── S3 ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("style", ["virtual", "path"])
def test_every_key_that_a_name_can_have(cloud, style):
    with cloud.sdk("s3", s3={"addressing_style": style}) as client:
        for key in AWKWARD:
            body = f"{style} {key}".encode()
            client.put_object(Bucket=BUCKET, Key=key, Body=body, Metadata={"note": "a  b"})
            found = client.get_object(Bucket=BUCKET, Key=key)
            assert (found["Body"].read(), found["Metadata"]) == (body, {"note": "a  b"}), key
            listed = client.list_objects_v2(Bucket=BUCKET, Prefix=key)
            assert key in [one["Key"] for one in listed["Contents"]], key
            client.delete_object(Bucket=BUCKET, Key=key)


def test_a_multipart_upload(s3):
    body = b"0123456789abcdef" * (12 * MB // 16)
    parts = TransferConfig(multipart_threshold=5 * MB, multipart_chunksize=5 * MB)
    s3.upload_fileobj(io.BytesIO(body), BUCKET, "multi part", Config=parts)
    found = s3.get_object(Bucket=BUCKET, Key="multi part")
    assert found["ETag"].strip('"').endswith("-3")
    assert found["Body"].read() == body


def test_a_copy_of_an_awkward_key(s3):
    s3.put_object(Bucket=BUCKET, Key="a b/ä+c", Body=b"copied")
    s3.copy_object(Bucket=BUCKET, Key="copy", CopySource={"Bucket": BUCKET, "Key": "a b/ä+c"})
    assert s3.get_object(Bucket=BUCKET, Key="copy")["Body"].read() == b"copied"


def test_a_trailer_with_a_checksum(cloud, s3, raw):
    """What boto3 sends over TLS: STREAMING-UNSIGNED-PAYLOAD-TRAILER, bare chunks, Expect: 100-continue."""
    s3.put_object(Bucket=BUCKET, Key="trailer", Body=b"x" * MB, ChecksumAlgorithm="CRC32")
    assert raw.get("/trailer").content == b"x" * MB
    with cloud.sdk("s3", request_checksum_calculation="when_required") as plain:
        plain.put_object(Bucket=BUCKET, Key="trailer", Body=b"y" * MB)
    assert raw.get("/trailer").content == b"y" * MB


def test_temporary_credentials(cloud, s3):
    s3.put_object(Bucket=BUCKET, Key="temporary", Body=b"x")
    with cloud.sdk("s3", grant="s3-temporary") as client:
        assert client.get_object(Bucket=BUCKET, Key="temporary")["Body"].read() == b"x"


def test_the_bare_grant_id_is_an_access_key_id_too(cloud):
    with cloud.sdk("s3", bare=True) as client:
        client.put_object(Bucket=BUCKET, Key="bare", Body=b"x")
        url = client.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": "bare"})
    with cloud.stage.client() as plain:
        assert plain.get(url).content == b"x"


@pytest.mark.parametrize("version", ["s3", "s3v4"])
def test_presigned_urls(cloud, version):
    """boto3 makes Version 2 in us-east-1 unless told otherwise; both come out as Version 4."""
    with cloud.sdk("s3", signature_version=version) as client:
        params = {"Bucket": BUCKET, "Key": f"presigned ä {version}"}
        put = client.generate_presigned_url("put_object", Params=params, ExpiresIn=60)
        get = client.generate_presigned_url("get_object", Params=params, ExpiresIn=60)
        late = client.generate_presigned_url("get_object", Params=params, ExpiresIn=1)
    assert ("AWSAccessKeyId=alter_grant_" if version == "s3" else "X-Amz-Credential=alter_grant_") in put
    with cloud.stage.client() as client:
        assert client.put(put, content=b"by url").status_code == 200
        assert client.get(get).content == b"by url"
        assert client.put(put, content=iter([b"by ", b"pieces"])).status_code == 200
        assert client.get(get).content == b"by pieces"
        time.sleep(2.1)
        answer = client.get(late)
        assert (answer.status_code, "Request has expired" in answer.text) == (403, True)


def test_clients_that_know_nothing_of_signatures(cloud, raw, tmp_path):
    body = bytes(range(256)) * 5000
    assert raw.put("/raw", content=body).status_code == 200
    assert raw.get("/raw").content == body
    tag = f"X-Alter-Grant: {cloud.grants['s3']}"
    file = tmp_path / "file"
    file.write_bytes(body)
    for arguments in (["-T", str(file)], ["-T", "-"]):
        done = cloud.stage.curl("-H", tag, *arguments, "-w", "%{http_code}", f"https://{HOST}/curl", input=body)
        assert done.stdout == b"200", done.stderr
        assert raw.get("/curl").content == body
    assert raw.delete("/curl").status_code == 204
    assert raw.head("/curl").status_code == 404


def test_a_hash_that_the_client_states_is_for_the_server_to_check(raw):
    stated = {"X-Amz-Content-SHA256": hashlib.sha256(b"right").hexdigest()}
    assert raw.put("/hash", headers=stated, content=b"right").status_code == 200
    answer = raw.put("/hash", headers=stated, content=b"wrong")
    assert (answer.status_code, "XAmzContentSHA256Mismatch" in answer.text) == (400, True)


# ── uploads ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("trailer", [False, True], ids=["plain", "trailer"])
@pytest.mark.parametrize("size", [0, 1, 65536, 200_000])
def test_signed_chunks_are_signed_again(raw, size, trailer):
    upload = SignedChunks(size, trailer=trailer)
    answer = raw.put("/chunks", headers=upload.headers, content=iter(upload))
    assert answer.status_code == 200, answer.text
    assert raw.get("/chunks").content == b"a" * size


@pytest.mark.parametrize("trailer", [False, True], ids=["plain", "trailer"])
def test_300_mb_of_signed_chunks_take_no_memory(fresh, raw, trailer):
    upload, small = SignedChunks(300_000_000, trailer=trailer), SignedChunks(1000)
    with fresh.stage.client(base_url=f"https://{HOST}", headers=fresh.stage.tag("s3"), timeout=120) as client:
        assert client.put("/small", headers=small.headers, content=iter(small)).status_code == 200
        began = time.monotonic()
        with Memory(fresh.worker) as memory:
            answer = client.put("/huge", headers=upload.headers, content=iter(upload))
    print(f"300 MB of signed chunks: +{memory.growth:.1f} MB, {300 / (time.monotonic() - began):.0f} MB/s")
    assert answer.status_code == 200, answer.text
    assert int(raw.head("/huge").headers["content-length"]) == 300_000_000
    assert memory.growth < 30
    raw.delete("/huge")


def test_a_chunk_that_is_framed_otherwise_breaks_the_upload_off(cloud, raw):
    good = SignedChunks(100_000)
    body = b"".join(good)
    wrong = body.replace(b"chunk-signature", b"chunk-sign4ture")
    later = body[:70_000] + body[70_000:].replace(b"chunk-signature", b"chunk-sign4ture")
    for content in (wrong, later):
        try:
            answer = raw.put("/broken", headers=good.headers, content=content)
        except httpx.RemoteProtocolError:
            assert cloud.stage.engine == "stock"  # mitmproxy has no answer once a body is under way
        else:
            refusal(answer, "signing_unsupported", status=422)
        assert raw.head("/broken").status_code == 404
    rows = [row for row in cloud.stage.records() if row["path"] == "/broken" and row["phase"] == "outcome"]
    # A part of it did go out.
    assert [row["decision"] for row in rows if row["code"] == "signing_unsupported"] == ["authorized"] * 2


def test_a_body_of_unknown_length_is_held_until_it_has_one(cloud, raw):
    pieces = [b"%05d" % n * 1000 for n in range(1000)]
    assert raw.put("/held", content=iter(pieces)).status_code == 200
    assert raw.get("/held").content == b"".join(pieces)
    with Memory(cloud.worker) as memory:
        answer = raw.put("/held", content=iter([b"x" * MB] * 9), timeout=30)
    refusal(answer, "body_too_large", status=413, stage=cloud.stage)
    assert memory.growth < (10 if cloud.stage.engine == "auto" else 60)


def verified(seen, body=b"", *, region="eu-west-1", service="iot"):
    """What is wrong with the signature, or None."""
    headers = [(b"host" if name == b":authority" else name, value) for name, value in seen.headers]
    return verify(
        seen.method, target=seen.target, headers=[pair for pair in headers if not pair[0].startswith(b":")], body=body,
        keys={AWS_ID: AWS_SECRET}, region=region, service=service, now=time.time(),
    )  # fmt: skip


LOCAL = {"Authorization": "AWS4-HMAC-SHA256 Credential=x/20270101/local/s3/aws4_request, Signature=0"}


def test_uploads_over_http2(cloud, upstream):
    url = f"https://{Own.hosts[0]}/upload"
    with cloud.stage.client(http2=True, headers=cloud.stage.tag("own") | LOCAL) as client:
        for trailer in (False, True):
            upload = SignedChunks(300_000, trailer=trailer)
            answer = client.put(url, headers=upload.headers, content=iter(upload))
            assert (answer.http_version, answer.json()["size"]) == ("HTTP/2", upload.length)
            seen = upstream.last
            head = Head(seen.method, seen.target, tuple(seen.headers))
            again = aws_chunks.signer(head, secret_access_key=AWS_SECRET)
            assert again.feed(seen.body) + again.finish() == seen.body != b"".join(upload)
        for content in (b"of known length", iter([b"of unknown ", b"length"])):
            assert client.put(url, content=content).status_code == 200
            assert verified(upstream.last, upstream.last.body, region="local", service="s3") is None
            assert upstream.last.values("content-length") == [str(upstream.last.size)]
        assert client.delete(url).status_code == 200
        answer = client.put(url, content=iter([b"x" * MB] * 9))
        refusal(answer, "body_too_large", status=413, stage=cloud.stage)
        assert client.get(url).status_code == 200
        broken = SignedChunks(300_000)
        with pytest.raises(httpx.RemoteProtocolError):
            client.put(url, headers=broken.headers, content=b"x" * broken.length)
    assert verified(upstream.seen()[-2], region="local", service="s3") is None


# ── other services ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_dynamodb(cloud):
    with cloud.sdk("dynamodb") as client:
        name = f"table-{cloud.stage.engine}"
        client.create_table(
            TableName=name, BillingMode="PAY_PER_REQUEST", KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        )  # fmt: skip
        client.put_item(TableName=name, Item={"id": {"S": "ä"}, "blob": {"B": bytes(range(256)) * 400}})
        assert client.get_item(TableName=name, Key={"id": {"S": "ä"}})["Item"]["blob"]["B"] == bytes(range(256)) * 400


def test_sqs_and_sns(cloud):
    with cloud.sdk("sqs") as queues, cloud.sdk("sns") as topics:
        url = queues.create_queue(QueueName=f"queue-{cloud.stage.engine}")["QueueUrl"]
        queues.send_message(QueueUrl=url, MessageBody="hello ä+%2F")
        assert queues.receive_message(QueueUrl=url)["Messages"][0]["Body"] == "hello ä+%2F"
        topic = topics.create_topic(Name=f"topic-{cloud.stage.engine}")["TopicArn"]
        assert topics.publish(TopicArn=topic, Message="hello")["MessageId"]


def test_kms_and_lambda(cloud):
    with cloud.sdk("kms") as keys, cloud.sdk("lambda") as functions:
        key = keys.create_key(Description="of a test")["KeyMetadata"]["KeyId"]
        sealed = keys.encrypt(KeyId=key, Plaintext=b"hello")["CiphertextBlob"]
        assert keys.decrypt(CiphertextBlob=sealed)["Plaintext"] == b"hello"
        assert functions.list_functions()["Functions"] == []
        with pytest.raises(ClientError, match="ResourceNotFound"):
            functions.get_function(FunctionName="none:such")


def test_sts_and_iam(cloud):
    with cloud.sdk("sts") as client:
        assert client.get_caller_identity()["Arn"].endswith("user/tester")
        with pytest.raises(ResponseParserError, match="credential_minting"):  # they expect XML
            client.get_session_token()
    with cloud.sdk("iam", region="us-east-1") as client, pytest.raises(ResponseParserError, match="credential_minting"):
        client.create_access_key(UserName="tester")


def test_a_binding_may_let_credentials_be_minted(cloud):
    with cloud.sdk("sts", grant="minting") as client:
        assert client.get_session_token()["Credentials"]["AccessKeyId"]
    with cloud.sdk("iam", grant="minting", region="us-east-1") as client:
        assert [user["UserName"] for user in client.list_users()["Users"]] == ["tester"]


def test_a_role_is_assumed_by_the_proxy_itself(cloud):
    with cloud.sdk("sts", grant="role") as client:
        assert client.get_caller_identity()["Arn"].endswith(":assumed-role/reports/alter-egress-role")
    with cloud.sdk("dynamodb", grant="role") as client:
        assert isinstance(client.list_tables()["TableNames"], list)
    with cloud.sdk("sts", grant="moto") as client:
        assert client.get_caller_identity()["Arn"].endswith(":user/tester")


def test_without_a_session_of_the_role_nothing_goes_out(cloud):
    host = "dynamodb.eu-west-1.amazonaws.com"
    with cloud.stage.client() as client:
        answer = client.post(f"https://{host}/", headers=cloud.stage.tag("lost-role"), content=b"{}")
    refusal(answer, "session_unavailable", status=503, stage=cloud.stage)
    assert wait(lambda: "the role of the secret lost-role cannot be assumed (STS answered 403" in cloud.stage.proxy.log)


# ── what is signed, seen by a verifier of its own ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("framing", ["stated", "chunked"])
@pytest.mark.parametrize("size", [0, 5, 3 * MB])
def test_a_body_that_no_one_has_hashed_is_hashed_here(cloud, upstream, size, framing):
    body = b"x" * size
    pieces = (body[start : start + 100_000] for start in range(0, size, 100_000))
    with cloud.stage.client() as client, Memory(cloud.worker) as memory:
        answer = client.post(
            f"https://{HOSTS['sigv4']}/upload", headers=cloud.stage.tag("sigv4"),
            content=body if framing == "stated" else pieces,
        )  # fmt: skip
    assert (answer.status_code, answer.json()["size"]) == (200, size)
    (seen,) = upstream.seen()
    assert verified(seen, body) is None
    assert seen.values("content-length") == [str(size)]
    assert seen.values("transfer-encoding") == []
    assert seen.values("x-amz-content-sha256") == [hashlib.sha256(body).hexdigest()]
    assert cloud.stage.engine == "stock" or memory.growth < 8


def test_a_large_body_lies_in_a_file_without_a_name(fresh, upstream):
    body = b"x" * (60 * MB)
    before = set(fresh.stage.vaultctl.home.rglob("*"))
    with fresh.stage.client(timeout=60) as client:
        with Memory(fresh.worker) as memory:
            answer = client.post(f"https://{HOSTS['sigv4']}/upload", headers=fresh.stage.tag("sigv4"), content=body)
        assert (answer.status_code, answer.json()["size"]) == (200, len(body))
        print(f"60 MiB held: +{memory.growth:.1f} MB")
        if fresh.stage.engine == "auto":
            assert memory.growth < 20
        assert verified(upstream.last, body) is None
    made = set(fresh.stage.vaultctl.home.rglob("*")) - before
    assert all(path.name.startswith(("vault.db-", "limits.db-")) or "audit" in path.parts for path in made), made


def test_the_authority_of_http2_is_the_one_that_was_signed(cloud, upstream):
    """In no other spelling: `:authority` is part of the signature."""
    host = HOSTS["sigv4"]
    for authority in (host, f"{host}:443", host.upper(), f"{host}."):
        with cloud.stage.h2wire() as wire:
            wire.tunnel(host)
            tag = [(name.lower(), value) for name, value in cloud.stage.tag("sigv4").items()]
            assert wire.ask("GET", "/echo", tag, pseudo={":authority": authority}).status == 200
        assert upstream.last.version == "HTTP/2"
        assert upstream.last.host == host
        assert verified(upstream.last) is None, authority


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("method", "target", "headers"),
    [
        ("PUT", "/k", {"X-Amz-Content-SHA256": "STREAMING-AWS4-HMAC-SHA256-EVENTS"}),
        ("PUT", "/k", {"X-Amz-Content-SHA256": "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"}),
        ("PUT", "/k", {"X-Amz-Content-SHA256": "nonsense"}),
        ("PUT", "/k", {"Content-Encoding": "aws-chunked"}),
        ("POST", "/k", {"Content-Type": "application/vnd.amazon.eventstream"}),
        ("POST", "/", {"Content-Type": "multipart/form-data; boundary=x"}),
        ("PUT", "/k?X-Amz-Algorithm=AWS4-HMAC-SHA512&X-Amz-Expires=9&X-Amz-Signature=0", {}),
        ("PUT", "/k?AWSAccessKeyId=x&Signature=y&Expires=soon", {}),
    ],
)
def test_what_cannot_be_signed_honestly_is_refused(cloud, raw, method, target, headers):
    answer = raw.request(method, target, headers=headers, content=b"x")
    refusal(answer, "signing_unsupported", status=422, stage=cloud.stage)


@pytest.mark.parametrize(
    ("claim", "code"),
    [
        (None, "signing_scope_unknown"),
        ("local/s3", None),
        ("remote/s3", None),
        ("us-east-1/s3", "signing_scope_not_bound"),
    ],
)
def test_of_several_regions_the_client_chooses_and_no_other(cloud, upstream, claim, code):
    stated = {"Authorization": f"AWS4-HMAC-SHA256 Credential=x/20270101/{claim}/aws4_request, Signature=0"}
    with cloud.stage.client(headers=cloud.stage.tag("own")) as client:
        answer = client.get(f"https://{Own.hosts[0]}/echo", headers=stated if claim else {})
    if code:
        refusal(answer, code, status=422, stage=cloud.stage)
        assert upstream.untouched()
    else:
        assert verified(upstream.last, region=claim.partition("/")[0], service="s3") is None


def test_a_body_that_is_stated_to_be_too_large_is_not_asked_for(cloud):
    """`Expect: 100-continue` is answered with the refusal."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in cloud.stage.tag("sigv4").items())
    with cloud.stage.wire() as wire:
        wire.tunnel(HOSTS["sigv4"]).send(
            f"POST /upload HTTP/1.1\r\nHost: {HOSTS['sigv4']}\r\n{lines}Content-Length: {9 * MB}\r\n"
            "Expect: 100-continue\r\n\r\n"
        )
        assert wire.interim().status == 413
