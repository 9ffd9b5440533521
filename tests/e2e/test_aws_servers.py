"""The AWS servers themselves: Swift takes right signatures and no others, moto takes its key and no other."""

import ssl

import boto3
import httpx
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError


@pytest.fixture
def connect(authority_file):
    """A boto3 client that talks to a server directly."""
    clients = []

    def connect(service, server, key_id, secret, token=None):
        client = boto3.client(
            service,
            endpoint_url=f"https://127.0.0.1:{server.port}",
            verify=str(authority_file),
            aws_access_key_id=key_id,
            aws_secret_access_key=secret,
            aws_session_token=token,
            region_name=server.region,
            config=Config(retries={"max_attempts": 0}, s3={"addressing_style": "path"}),
        )
        clients.append(client)
        return client

    yield connect
    for client in clients:
        client.close()


def test_swift_serves_its_keys(connect, s3server):
    client = connect("s3", s3server, *s3server.key)
    client.create_bucket(Bucket="its-keys")
    client.put_object(Bucket="its-keys", Key="a b/c+d=ä~é.txt", Body=b"hello")
    assert client.get_object(Bucket="its-keys", Key="a b/c+d=ä~é.txt")["Body"].read() == b"hello"
    temporary = connect("s3", s3server, *s3server.temporary_key)
    assert temporary.list_objects_v2(Bucket="its-keys")["KeyCount"] == 1


def test_swift_serves_nobody_else(connect, s3server):
    key_id, secret, token = s3server.temporary_key
    for wrong in [(key_id, "x", token), (key_id, secret), (key_id, secret, "x"), ("AKIAUNKNOWN", secret)]:
        with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
            connect("s3", s3server, *wrong).list_buckets()


@pytest.mark.parametrize("change", ["nothing", "query", "body", "late amz header", "date"])
def test_swift_refuses_what_was_changed_after_signing(connect, s3server, authority_file, change):
    bucket = "changed-" + change.replace(" ", "-")
    connect("s3", s3server, *s3server.key).create_bucket(Bucket=bucket)
    url = f"https://127.0.0.1:{s3server.port}/{bucket}/key?x=1"
    signed = AWSRequest("PUT", url, data=b"body")
    S3SigV4Auth(Credentials(*s3server.key), "s3", s3server.region).add_auth(signed)
    headers = dict(signed.headers.items())
    if change == "late amz header":
        headers["X-Amz-Meta-Late"] = "1"
    if change == "date":
        headers["X-Amz-Date"] = headers["X-Amz-Date"][:-2] + ("0Z" if headers["X-Amz-Date"][-2] != "0" else "1Z")
    with httpx.Client(verify=ssl.create_default_context(cafile=authority_file), trust_env=False) as client:
        answer = client.put(
            url.replace("x=1", "x=2") if change == "query" else url,
            content=b"BODY" if change == "body" else b"body",
            headers=headers,
        )
    assert answer.status_code in ({200} if change == "nothing" else {400, 403})


def test_moto_knows_its_key(connect, moto):
    client = connect("dynamodb", moto, *moto.key)
    assert "its-key" not in client.list_tables()["TableNames"]
    with pytest.raises(ClientError, match=r"signature we calculated|InvalidSignature"):
        connect("dynamodb", moto, moto.key[0], "wrong").list_tables()
    with pytest.raises(ClientError, match="security token"):
        connect("dynamodb", moto, "AKIAUNKNOWN", "wrong").list_tables()
