"""What is refused of AWS, by a real proxy: each with its code and a hint, and before anything is connected to."""

import pytest

from tests.e2e.stage import refusal

S3 = "bucket.s3.us-east-1.amazonaws.com"
EXPRESS = "data--use1-az6--x-s3.s3express-use1-az6.us-east-1.amazonaws.com"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
JSON = {"Content-Type": "application/x-amz-json-1.1"}
EVENTS = {"Content-Type": "application/vnd.amazon.eventstream"}
SIGNED_EVENTS = {"X-Amz-Content-SHA256": "STREAMING-AWS4-HMAC-SHA256-EVENTS"}
SIGNED_CHUNKS = {"X-Amz-Content-SHA256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"}

UNSUPPORTED = {
    "transcribe": ("POST", "transcribestreaming.eu-west-1.amazonaws.com", "/stream-transcription", EVENTS),
    "transcribe, signed": ("POST", "transcribestreaming.eu-west-1.amazonaws.com", "/x", SIGNED_EVENTS),
    "bedrock": ("POST", "bedrock-runtime.us-east-1.amazonaws.com", "/model/m/invoke-with-bidirectional-stream", EVENTS),
    "lex": ("POST", "runtime-v2-lex.eu-west-1.amazonaws.com", "/bots/b/conversation", EVENTS),
    "s3 express": ("GET", EXPRESS, "/key", {}),
    "s3 express, signed": ("PUT", EXPRESS, "/key", {"X-Amz-S3session-Token": "x"}),
    "s3 express, a new session": ("GET", EXPRESS, "/?session", {}),
    "a form with a policy": ("POST", S3, "/", {"Content-Type": "multipart/form-data; boundary=x"}),
    "chunks where S3 is not": ("POST", "dynamodb.eu-west-1.amazonaws.com", "/", JSON | SIGNED_CHUNKS),
    "version 2 of the query protocol": (
        "GET", "sqs.eu-west-1.amazonaws.com", "/?Action=ListQueues&AWSAccessKeyId=x&Signature=y", {},
    ),
}  # fmt: skip

MINTING = {
    "sts": ("POST", "sts.eu-west-1.amazonaws.com", "/", FORM, b"Action=AssumeRole&Version=2011-06-15"),
    "sts, a token": ("GET", "sts.eu-west-1.amazonaws.com", "/?Action=GetSessionToken", {}, b""),
    "sts, federation": ("GET", "sts.eu-west-1.amazonaws.com", "/?Action=GetFederationToken", {}, b""),
    "iam": ("POST", "iam.amazonaws.com", "/", FORM, b"Action=CreateAccessKey&Version=2010-05-08"),
    "ecr": (
        "POST", "api.ecr.eu-west-1.amazonaws.com", "/",
        JSON | {"X-Amz-Target": "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken"}, b"{}",
    ),
    "codeartifact": ("POST", "codeartifact.eu-west-1.amazonaws.com", "/v1/authorization-token?domain=d", {}, b""),
    "cognito": (
        "POST", "cognito-identity.eu-west-1.amazonaws.com", "/",
        JSON | {"X-Amz-Target": "AWSCognitoIdentityService.GetCredentialsForIdentity"}, b"{}",
    ),
    "sso": ("GET", "portal.sso.eu-west-1.amazonaws.com", "/federation/credentials?role_name=a", {}, b""),
    "s3, a session": ("GET", S3, "/?session", {}, b""),
    "s3, access grants": (
        "GET", "123456789012.s3-control.eu-west-1.amazonaws.com", "/v20180820/accessgrantsinstance/dataaccess", {}, b"",
    ),
}  # fmt: skip


@pytest.fixture
def client(cloud):
    with cloud.stage.client(headers=cloud.stage.tag("any")) as client:
        yield client


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_cannot_be_signed(cloud, client, name):
    method, host, target, headers = UNSUPPORTED[name]
    answer = client.request(
        method, f"https://{host}{target}", headers=headers, content=b"x" if method != "GET" else b""
    )
    hint = refusal(answer, "signing_unsupported", status=422, stage=cloud.stage)["hint"]
    for word in ("event streams", "S3 Express", "POST policies", "alter-egress[sigv4a]"):
        assert word in hint


@pytest.mark.parametrize("name", MINTING)
def test_what_would_hand_out_credentials(cloud, client, name):
    method, host, target, headers, body = MINTING[name]
    answer = client.request(method, f"https://{host}{target}", headers=headers, content=body)
    hint = refusal(answer, "credential_minting", status=403, stage=cloud.stage)["hint"]
    assert "--allow-credential-minting" in hint


def test_directory_buckets_cannot_be_bound_by_their_name(cloud):
    options = ["--kind", "sigv4", "--host", EXPRESS, "--fields-from", "-"]
    key = '{"access_key_id": "a", "secret_access_key": "b"}'
    done = cloud.stage.vaultctl("secret", "set", "express", *options, input=key)
    assert done.returncode == 2
    assert "is not signed with SigV4" in done.stderr
