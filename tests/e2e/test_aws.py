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

from tests.e2e.aws import Cloud, Memory, SignedChunks, make_seed
from tests.e2e.product import routes
from tests.e2e.stage import Stage, refusal

BUCKET = "bucket"
HOST = "bucket.s3.us-east-1.amazonaws.com"
AWKWARD = [
    "plain.txt", "a b", "a+b", "a%2Fb", "a%20b", "//a//b", "ä~é", "日本/語", "emoji 🎈", "a=b&c=d", "q?x=1#frag", ".", "a/../b",
    "./a", "!*'();:@,$[]", "~-_.", " lead and trail ", "\"quoted\"", "%zz", "a\\b",
]  # fmt: skip
MB = 1 << 20


@pytest.fixture(scope="module")
def cloud_seed(seed, s3server, moto, tmp_path_factory):
    return make_seed(seed, tmp_path_factory.mktemp("cloud") / "home", s3=s3server, moto=moto)


@pytest.fixture(scope="module")
def options(s3server, moto, _upstream, authority_file):
    """What leads the hosts of AWS to the servers here."""
    return ["--upstream-ca", authority_file, *routes(s3server, moto, _upstream)]


@pytest.fixture(scope="module")
def cloud(engine, cloud_seed, options, tmp_path_factory):
    """A proxy for AWS with a small limit for what must be held, once for each engine. There is a bucket."""
    home = tmp_path_factory.mktemp(f"cloud-{engine}") / "home"
    with Stage.open(cloud_seed, home, *options, "--max-signed-body", "8MiB", engine=engine) as stage:
        cloud = Cloud(stage)
        with cloud.sdk("s3") as client:
            if BUCKET not in [b["Name"] for b in client.list_buckets()["Buckets"]]:
                client.create_bucket(Bucket=BUCKET)
        yield cloud


@pytest.fixture
def fresh(cloud, engine, cloud_seed, options, tmp_path):
    """Another one, that has not done anything yet."""
    with Stage.open(cloud_seed, tmp_path / "fresh", *options, engine=engine) as stage:
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
            refusal(answer, "signing_unsupported", status=422, stage=cloud.stage)
        assert raw.head("/broken").status_code == 404
    codes = [row["code"] for row in cloud.stage.records() if row["path"] == "/broken" and row["phase"] == "outcome"]
    assert codes.count("signing_unsupported") == 2


def test_a_body_of_unknown_length_is_held_until_it_has_one(cloud, raw):
    pieces = [b"%05d" % n * 1000 for n in range(1000)]
    assert raw.put("/held", content=iter(pieces)).status_code == 200
    assert raw.get("/held").content == b"".join(pieces)
    with Memory(cloud.worker) as memory:
        answer = raw.put("/held", content=iter([b"x" * MB] * 20), timeout=30)
    refusal(answer, "body_too_large", status=413, stage=cloud.stage)
    assert memory.growth < (10 if cloud.stage.engine == "auto" else 60)
