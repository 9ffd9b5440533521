"""SDKs try again when AWS stumbles, and every attempt is a request of its own: decided, recorded and signed anew."""

import contextlib
import time
from dataclasses import replace

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.retries.standard import ExponentialBackoff

from tests.e2e import aws
from tests.e2e.behaviours import BEHAVIOURS
from tests.e2e.product import routes
from tests.e2e.stage import AWS_ID, AWS_SECRET, Stage
from tests.e2e.upstream import Upstream
from vaultctl.sigv4_check import verify

BUCKET, S3 = "shaky", "shaky.s3.eu-west-1.amazonaws.com"
API = "x.execute-api.eu-west-1.amazonaws.com"
KEY = {"access_key_id": AWS_ID, "secret_access_key": AWS_SECRET}
BODY = bytes(range(256)) * 1200
STUMBLES = {
    "503 twice": (503, 503),
    "500 and a closed connection": (500, "drop"),
    "a closed connection and 503": ("drop", 503),
    "a connection that closes before the body": ("drop early",),
    "half an answer": ("half",),
}


@pytest.fixture(scope="module")
def shaky(authority):
    with Upstream([S3, API], authority=authority) as upstream:
        yield upstream


@pytest.fixture
def upstream(shaky):
    shaky.reset()
    yield shaky
    assert not shaky.errors


@pytest.fixture(scope="module")
def stumbling(engine, seed, shaky, authority_file, tmp_path_factory):
    home = tmp_path_factory.mktemp(f"retries-{engine}")
    vaultctl = seed.copy(home / "seed")
    vaultctl.secret("shaky", "--kind", "sigv4", "--host", S3, "--host", API, **KEY)
    seed = replace(seed, home=home / "seed", grants={"shaky": vaultctl.grant("shaky", "system:billing")})
    options = ["--upstream-ca", authority_file, *routes(shaky)]
    with Stage.open(seed, home / "home", *options, engine=engine) as stage:
        yield stage


@pytest.fixture(scope="module")
def awscli(pytestconfig):
    try:
        return aws.awscli(pytestconfig.cache.mkdir("awscli"))
    except aws.Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture
def pause(monkeypatch):
    """`pause(seconds)` between the attempts of boto3, instead of up to 20 s."""

    def pause(seconds):
        monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda *_: seconds)

    pause(0.01)
    return pause


@contextlib.contextmanager
def sdk(stage, service="s3", **config):
    client = boto3.client(
        service, region_name="eu-west-1", aws_access_key_id=f"alter_grant_{stage.grants['shaky']}",
        aws_secret_access_key="dummy", verify=str(stage.proxy.ca),
        endpoint_url=None if service == "s3" else f"https://{API}/shaky",
        config=Config(
            proxies={"https": stage.proxy.url(*stage.caller)}, retries={"mode": "standard", "total_max_attempts": 3},
            **config,
        ),
    )  # fmt: skip
    with contextlib.closing(client):
        yield client


@pytest.fixture
def stumble(monkeypatch):
    """`stumble(*steps)`: answer `/shaky/…` with each of the steps, then with success."""

    def stumble(*steps):
        left = list(steps)

        async def play(exchange, rest, query):
            step = left.pop(0) if left else 200
            if step == "drop early":
                await exchange.cut()
            await exchange.drain()
            if step == "drop":
                await exchange.cut()
            if step == "half":
                await exchange.start(503, [(b"content-length", b"9")])
                await exchange.write(b"half")
                await exchange.cut()
            await exchange.start(step, [(b"content-length", b"0")])
            await exchange.end()

        monkeypatch.setitem(BEHAVIOURS, "shaky", play)

    return stumble


def check(attempts, *, count, service="s3"):
    """Every attempt arrived, and is signed."""
    found = [
        verify(
            seen.method, target=seen.target, headers=seen.headers, body=seen.body, keys={AWS_ID: AWS_SECRET},
            region="eu-west-1", service=service, now=time.time(),
        )
        for seen in attempts
        if seen.complete
    ]  # fmt: skip
    assert found == [None] * len(found)
    assert (len(attempts), attempts[-1].complete) == (count, True)


@pytest.mark.parametrize("steps", STUMBLES.values(), ids=STUMBLES)
@pytest.mark.parametrize("checksum", ["when_supported", "when_required"])
def test_boto3_uploads_again(stumbling, upstream, pause, stumble, steps, checksum):
    """In bare chunks with a trailer, and with a stated length: both after Expect: 100-continue."""
    stumble(*steps)
    with sdk(stumbling, request_checksum_calculation=checksum) as client:
        done = client.put_object(Bucket=BUCKET, Key="shaky/put", Body=BODY)
    attempts = upstream.seen(S3)
    assert done["ResponseMetadata"]["RetryAttempts"] == len(steps)
    check(attempts, count=len(steps) + 1)
    assert {one.header("transfer-encoding") for one in attempts} == {"chunked" if "supp" in checksum else None}
    assert all(BODY in one.body for one in attempts if one.complete)


@pytest.mark.parametrize("steps", STUMBLES.values(), ids=STUMBLES)
def test_boto3_asks_again(stumbling, upstream, pause, stumble, steps):
    stumble(*steps)
    with sdk(stumbling) as client:
        client.get_object(Bucket=BUCKET, Key="shaky/get")
    check(upstream.seen(S3), count=len(steps) + 1)


@pytest.mark.parametrize("steps", STUMBLES.values(), ids=STUMBLES)
def test_a_body_that_is_hashed_here_is_sent_again(stumbling, upstream, pause, stumble, steps):
    stumble(*steps)
    with sdk(stumbling, "apigatewaymanagementapi") as client:
        client.post_to_connection(ConnectionId="x", Data=BODY)
    check(upstream.seen(API), count=len(steps) + 1, service="execute-api")
    assert upstream.last.body == BODY


def test_each_attempt_is_a_request_of_its_own(stumbling, upstream, pause, stumble):
    pause(1.1)
    stumble(503)
    with sdk(stumbling) as client:
        client.put_object(Bucket=BUCKET, Key="shaky/own", Body=BODY)
    first, second = upstream.seen(S3)
    for name in ("x-amz-date", "authorization"):
        assert first.header(name) != second.header(name)

    def records(phase):
        return [row for row in stumbling.records() if (row["path"], row["phase"]) == ("/shaky/own", phase)]

    assert aws.wait(lambda: len(records("outcome")) == 2)
    assert [row["status"] for row in records("outcome")] == [503, 200]
    assert {row["decision"] for row in records("intent")} == {"authorized"}
    assert len({row["id"] for row in records("intent")}) == 2


def test_boto3_gives_up_with_the_answer_of_aws(stumbling, upstream, pause, stumble):
    stumble(503, 503, 503)
    with sdk(stumbling) as client, pytest.raises(ClientError, match="503"):
        client.put_object(Bucket=BUCKET, Key="shaky/lost", Body=BODY)
    check(upstream.seen(S3), count=3)


def test_the_aws_cli_tries_again(stumbling, upstream, stumble, awscli, tmp_path):
    stumble(503, "drop")
    (tmp_path / "file").write_bytes(BODY)
    command = [awscli, "--region", "eu-west-1", "s3", "cp", "file", f"s3://{BUCKET}/shaky/cli"]
    aws.run(stumbling, "shaky", *command, home=tmp_path, AWS_RETRY_MODE="standard", AWS_MAX_ATTEMPTS="3")
    check(upstream.seen(S3), count=3)
    assert BODY in upstream.last.body
