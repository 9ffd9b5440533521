"""SigV4a as its users meet it: boto3 with an access point in many regions, and an upstream that verifies the signature."""

import contextlib
import hashlib
import io
import re
import socket
import subprocess
import sys
from dataclasses import replace

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from addon.launcher import parse
from tests.credentials.sigv4a_verifier import verify
from tests.e2e.product import Control, Proxy, environment, routes
from tests.e2e.stage import AWS_ID, AWS_SECRET, Stage, refusal
from tests.e2e.upstream import Upstream

POINT = "mfzwi23gnjvgw.mrap.accesspoint.s3-global.amazonaws.com"
EVENTS = "abcde.veo.endpoint.events.amazonaws.com"
EUROPE = "s3.eu-west-1.amazonaws.com"
ARN = "arn:aws:s3::123456789012:accesspoint/mfzwi23gnjvgw.mrap"
KEY = {"access_key_id": AWS_ID, "secret_access_key": AWS_SECRET}
CLAIM = {
    "Authorization": "AWS4-ECDSA-P256-SHA256 Credential=x/20270101/s3/aws4_request, SignedHeaders=host, Signature=30",
    "X-Amz-Region-Set": "*",
}


@pytest.fixture(scope="module")
def point_upstream(authority):
    with Upstream([POINT, EVENTS, EUROPE], authority=authority) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def point_seed(seed, tmp_path_factory):
    home = tmp_path_factory.mktemp("point") / "home"
    vaultctl = seed.copy(home)
    hosts = ["--host", POINT, "--host", EVENTS, "--host", EUROPE]
    narrow = ["--host", POINT, "--region", "eu-west-1", "--region", "us-east-1"]
    vaultctl.secret("everywhere", "--kind", "sigv4", *hosts, **KEY)
    vaultctl.secret("temporary", "--kind", "sigv4", *hosts, **KEY, session_token="to/ken+==")
    vaultctl.secret("two-regions", "--kind", "sigv4", *narrow, **KEY)
    names = ("everywhere", "temporary", "two-regions")
    return replace(seed, home=home, grants={name: vaultctl.grant(name, "system:billing") for name in names})


@pytest.fixture(scope="module")
def point_stage(engine, point_seed, point_upstream, authority_file, tmp_path_factory):
    home = tmp_path_factory.mktemp(f"point-{engine}") / "home"
    with Stage.open(point_seed, home, "--upstream-ca", authority_file, *routes(point_upstream), engine=engine) as stage:
        yield stage


@pytest.fixture
def upstream(point_upstream):
    point_upstream.reset()
    point_upstream.scripts = {"put": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"}
    yield point_upstream
    assert not point_upstream.errors


@contextlib.contextmanager
def sdk(stage, grant="everywhere", **config):
    client = boto3.client(
        "s3", region_name="eu-west-1", aws_access_key_id=f"alter_grant_{stage.grants[grant]}",
        aws_secret_access_key="dummy", verify=str(stage.proxy.ca),
        config=Config(
            proxies={"https": stage.proxy.url(*stage.caller)}, retries={"max_attempts": 0}, **config
        ),
    )  # fmt: skip
    with contextlib.closing(client):
        yield client


def verified(seen, *, token=None):
    """What its signature says."""
    headers = [(b"host" if name == b":authority" else name, value) for name, value in seen.headers]
    headers = [pair for pair in headers if not pair[0].startswith(b":")]
    return verify(
        seen.method, target=seen.target, headers=headers, body=seen.body, key=(AWS_ID, AWS_SECRET), token=token
    )


def test_boto3_and_an_access_point_in_many_regions(point_stage, upstream):
    upstream.scripts["k%20%C3%A4"] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    with sdk(point_stage) as client:
        assert client.get_object(Bucket=ARN, Key="script/k ä")["Body"].read() == b"hello"
        said = verified(upstream.last)
        assert (upstream.last.host, said.service, said.region_set) == (POINT, "s3", "*")
    assert "dummy" not in str(upstream.last.headers)
    assert point_stage.grants["everywhere"] not in str(upstream.last.headers)


@pytest.mark.parametrize("size", [0, 5, 300_000])
def test_boto3_uploads_to_it(point_stage, upstream, size):
    """Over TLS: STREAMING-UNSIGNED-PAYLOAD-TRAILER, bare chunks, Expect: 100-continue."""
    with sdk(point_stage) as client:
        client.put_object(Bucket=ARN, Key="script/put", Body=io.BytesIO(b"x" * size))
    assert verified(upstream.last).payload == "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
    assert b"x" * size in upstream.last.body
    with sdk(point_stage, request_checksum_calculation="when_required") as client:
        client.put_object(Bucket=ARN, Key="script/put", Body=b"x" * size)
    assert upstream.last.body == b"x" * size
    verified(upstream.last)


def test_boto3_presigns_for_it(point_stage, upstream):
    with sdk(point_stage) as client:
        url = client.generate_presigned_url("get_object", Params={"Bucket": ARN, "Key": "echo"}, ExpiresIn=60)
    assert "AWS4-ECDSA-P256-SHA256" in url
    with point_stage.client() as client:
        assert client.get(url).status_code == 200
    said = verified(upstream.last)
    assert (said.region_set, said.seconds, said.payload) == ("*", 60, "UNSIGNED-PAYLOAD")


def test_a_session_token_goes_with_it(point_stage, upstream):
    with sdk(point_stage, "temporary") as client:
        client.put_object(Bucket=ARN, Key="script/put", Body=b"x")
    assert "x-amz-security-token" in verified(upstream.last, token="to/ken+==").names


@pytest.mark.parametrize("http2", [False, True], ids=["h1", "h2"])
def test_a_program_that_does_not_sign_at_all(point_stage, upstream, http2):
    with point_stage.client(http2=http2, headers=point_stage.tag("everywhere")) as client:
        assert client.get(f"https://{POINT}/echo").status_code == 200
        assert verified(upstream.last).region_set == "*"
        assert client.post(f"https://{EVENTS}/echo", content=b"{}").status_code == 200
        assert verified(upstream.last).payload == hashlib.sha256(b"{}").hexdigest()


def test_a_host_that_takes_both_gets_what_the_client_signed_with(point_stage, upstream):
    with point_stage.client(headers=point_stage.tag("everywhere")) as client:
        client.get(f"https://{EUROPE}/echo", headers=CLAIM)
        assert verified(upstream.last).region_set == "*"
        client.get(f"https://{EUROPE}/echo")
        assert upstream.last.header("authorization").startswith("AWS4-HMAC-SHA256 ")


def test_regions_beyond_the_binding_are_refused(point_stage, upstream):
    """As the SDK asks for all of them."""
    with sdk(point_stage, "two-regions") as client, pytest.raises(ClientError) as caught:
        client.get_object(Bucket=ARN, Key="echo")
    assert caught.value.response["ResponseMetadata"]["HTTPHeaders"]["x-alter-error"] == "signing_scope_not_bound"
    with point_stage.client(headers=point_stage.tag("two-regions")) as client:
        for regions in ("*", "eu-west-1,ap-south-1"):
            answer = client.get(f"https://{POINT}/echo", headers=CLAIM | {"X-Amz-Region-Set": regions})
            refusal(answer, "signing_scope_not_bound", status=422, stage=point_stage)
        assert upstream.untouched()
        client.get(f"https://{POINT}/echo", headers=CLAIM | {"X-Amz-Region-Set": "us-east-1"})
        assert verified(upstream.last).region_set == "us-east-1"
        client.get(f"https://{POINT}/echo")
        assert verified(upstream.last).region_set == "eu-west-1,us-east-1"


@pytest.mark.parametrize("algorithm", ["HMAC-SHA256", "ECDSA-P256-SHA256"])
def test_signed_chunks_are_refused(point_stage, upstream, algorithm):
    with point_stage.client(headers=point_stage.tag("everywhere")) as client:
        word = {"X-Amz-Content-SHA256": f"STREAMING-AWS4-{algorithm}-PAYLOAD"}
        answer = client.put(f"https://{POINT}/upload", headers=word, content=b"0;chunk-signature=0\r\n\r\n")
    refusal(answer, "signing_unsupported", status=422, stage=point_stage)
    assert upstream.untouched()


class WithoutExtra(Proxy):
    """A proxy in whose worker awscrt cannot be imported. No supervisor."""

    def __init__(self, home, *options):
        self.control = Control(home)
        program = "import sys; sys.modules['awscrt'] = None; from addon import worker; sys.exit(worker.main())"
        settings = parse(["--home", str(home), "--listen", "127.0.0.1:0", *map(str, options)])
        with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
            self.port = listener.getsockname()[1]
            self.address = f"http://127.0.0.1:{self.port}"
            command = [sys.executable, "-I", "-O", "-c", program, str(listener.fileno())]
            inherited = {"pass_fds": [listener.fileno()], "env": environment()}
            self._start(command, re.compile("ready"), say=settings.dump(), stdin=subprocess.PIPE, **inherited)

    def stop(self):
        super().stop()
        self.process.stdin.close()


def test_without_the_extra_it_is_refused_with_a_hint_that_names_it(
    engine, point_seed, upstream, authority_file, tmp_path
):
    home = tmp_path / "home"
    vaultctl = point_seed.copy(home)
    proxy = WithoutExtra(home, "--engine", engine, "--upstream-ca", authority_file, *routes(upstream))
    stage = Stage(engine, vaultctl, proxy, point_seed.key, point_seed.grants, point_seed.cast)
    with stage, stage.client(headers=stage.tag("everywhere")) as client:
        for host, headers in ((POINT, {}), (EUROPE, CLAIM)):
            answer = client.get(f"https://{host}/echo", headers=headers)
            body = refusal(answer, "signing_unsupported", status=422, stage=stage)
            assert "pip install 'alter-egress[sigv4a]'" in body["hint"]
        assert upstream.untouched()
        assert client.get(f"https://{EUROPE}/echo").status_code == 200
        assert upstream.last.header("authorization").startswith("AWS4-HMAC-SHA256 ")
