"""Programs and SDKs as they come, with nothing configured but what `vaultctl run` sets: each through a real proxy."""

import json
import os
import shutil
import subprocess

import pytest

from tests.e2e import aws
from tests.e2e.aws import BUCKET
from tests.e2e.product import environment

HOST = f"{BUCKET}.s3.us-east-1.amazonaws.com"
MB = 1 << 20
NAMES = ["plain", "a b+ä.bin", "dir/#?&=;,@$", "dir/%2F%zz", "dir/~!'()*[]", "日本/語 🎈"]


@pytest.fixture
def s3(cloud):
    with cloud.sdk("s3") as client:
        yield client


@pytest.fixture(scope="session")
def awscli(pytestconfig):
    return _made(aws.awscli, pytestconfig.cache.mkdir("awscli"))


@pytest.fixture(scope="session")
def node_sdk(pytestconfig):
    return _made(aws.node_sdk, pytestconfig.cache.mkdir("node-aws"))


@pytest.fixture(scope="session")
def go_sdk(pytestconfig):
    return _made(aws.go_program, pytestconfig.cache.mkdir("go-aws"), GO)


@pytest.fixture(scope="session")
def rclone():
    return shutil.which("rclone") or pytest.skip("rclone is not installed")


def _made(make, *arguments):
    try:
        return make(*arguments)
    except aws.Unavailable as reason:
        pytest.skip(str(reason))


def test_the_aws_cli(cloud, s3, awscli, tmp_path):
    def run(*words, grant="s3"):
        return aws.run(cloud.stage, grant, awscli, *words, home=tmp_path)

    assert BUCKET in run("s3", "ls")
    file = tmp_path / "a b+ä.bin"
    file.write_bytes(bytes(range(256)) * (10 * MB // 256))
    run("s3", "cp", file, f"s3://{BUCKET}/cli/")
    assert s3.head_object(Bucket=BUCKET, Key=f"cli/{file.name}")["ContentLength"] == 10 * MB
    run("s3", "cp", f"s3://{BUCKET}/cli/{file.name}", "back")
    assert (tmp_path / "back").read_bytes() == file.read_bytes()
    url = run("s3", "presign", f"s3://{BUCKET}/cli/{file.name}").strip()
    with cloud.stage.client() as client:
        assert client.get(url).content == file.read_bytes()
    run("s3", "rm", f"s3://{BUCKET}/cli/{file.name}")
    identity = json.loads(run("--region", "eu-west-1", "sts", "get-caller-identity", grant="moto"))
    assert identity["Arn"].endswith("user/tester")


def test_rclone(cloud, s3, rclone, tmp_path):
    """It hashes what it sends, states Content-MD5, and uploads in parts of 5 MiB."""
    remote = {"TYPE": "s3", "PROVIDER": "AWS", "ENV_AUTH": "true", "REGION": "us-east-1", "NO_CHECK_BUCKET": "true"}
    settings = {f"RCLONE_CONFIG_AWS_{name}": value for name, value in remote.items()}

    def run(*words):
        options = ["--s3-upload-cutoff", "5M", "--s3-chunk-size", "5M", "--retries", "1", "--low-level-retries", "1"]
        # It takes its CAs from SSL_CERT_FILE; with AWS_CA_BUNDLE, the SDK in it gives up.
        command = ["env", "-u", "AWS_CA_BUNDLE", rclone, *words, *options]
        return aws.run(cloud.stage, "s3", *command, home=tmp_path, **settings)

    for name in NAMES:
        (tmp_path / "here" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "here" / name).write_text(name)
    (tmp_path / "here" / "large").write_bytes(os.urandom(11 * MB))
    place = f"aws:{BUCKET}/rclone"
    run("copy", "here", place)
    assert s3.head_object(Bucket=BUCKET, Key="rclone/large")["ETag"].endswith('-3"')
    run("check", "here", place, "--download")
    run("copy", place, "back")
    for name in [*NAMES, "large"]:
        assert (tmp_path / "back" / name).read_bytes() == (tmp_path / "here" / name).read_bytes(), name
    run("purge", place)
    assert "Contents" not in s3.list_objects_v2(Bucket=BUCKET, Prefix="rclone/")


def test_curl_that_signs(cloud, s3, tmp_path):
    """With --aws-sigv4, and the grant for its key id."""
    file = tmp_path / "file"
    file.write_bytes(bytes(range(256)) * 5000)

    def curl(grant, scope, *words):
        user = ["--aws-sigv4", f"aws:amz:{scope}", "--user", f"alter_grant_{cloud.grants[grant]}:dummy"]
        done = cloud.stage.curl(*user, "--fail-with-body", *words)
        assert done.returncode == 0, (done.stdout, done.stderr)
        return done.stdout

    url = f"https://{HOST}/curl%20%C3%A4?x-id=PutObject"
    curl("s3", "us-east-1:s3", "-T", file, url)
    assert s3.get_object(Bucket=BUCKET, Key="curl ä")["Body"].read() == file.read_bytes()
    assert curl("s3", "us-east-1:s3", url) == file.read_bytes()
    target = ["-H", "X-Amz-Target: DynamoDB_20120810.ListTables", "-H", "Content-Type: application/x-amz-json-1.0"]
    said = curl("moto", "eu-west-1:dynamodb", *target, "--data", "{}", "https://dynamodb.eu-west-1.amazonaws.com/")
    assert "TableNames" in json.loads(said)


NODE = """
const { S3Client, PutObjectCommand, GetObjectCommand, DeleteObjectCommand } = require("@aws-sdk/client-s3");
const { DynamoDBClient, ListTablesCommand } = require("@aws-sdk/client-dynamodb");
const { Upload } = require("@aws-sdk/lib-storage");
const { NodeHttpHandler } = require("@smithy/node-http-handler");
const { HttpsProxyAgent } = require("hpagent");
const { Readable } = require("stream");
const [proxy, ca, s3grant, grant] = process.argv.slice(2);
const requestHandler = new NodeHttpHandler({
    httpsAgent: new HttpsProxyAgent({ proxy, keepAlive: true, ca: require("fs").readFileSync(ca) }) });
const settings = (id) => ({ requestHandler, maxAttempts: 1,
    credentials: { accessKeyId: "alter_grant_" + id, secretAccessKey: "dummy" } });
(async () => {
    const s3 = new S3Client({ ...settings(s3grant), region: "us-east-1" });
    for (const Key of ["node/plain", "node/a b+ä", "node/~!*'()"]) {
        await s3.send(new PutObjectCommand({ Bucket: "bucket", Key, Body: Buffer.from(Key) }));
        const found = await s3.send(new GetObjectCommand({ Bucket: "bucket", Key }));
        if (await found.Body.transformToString() !== Key) throw new Error(Key);
        await s3.send(new DeleteObjectCommand({ Bucket: "bucket", Key }));
    }
    const Body = Readable.from((function* () { for (let n = 0; n < 60; n++) yield Buffer.alloc(100000, n); })());
    await new Upload({ client: s3, params: { Bucket: "bucket", Key: "node/stream", Body } }).done();
    const back = await s3.send(new GetObjectCommand({ Bucket: "bucket", Key: "node/stream" }));
    const dynamo = new DynamoDBClient({ ...settings(grant), region: "eu-west-1" });
    const tables = await dynamo.send(new ListTablesCommand({}));
    console.log(JSON.stringify([(await back.Body.transformToByteArray()).length, Array.isArray(tables.TableNames)]));
})().catch((error) => { console.error(error); process.exit(1); });
"""


def test_the_javascript_sdk(cloud, node_sdk):
    stage = cloud.stage
    arguments = [stage.proxy.url(*stage.caller), stage.proxy.ca, cloud.grants["s3"], cloud.grants["moto"]]
    done = subprocess.run(
        ["node", "-e", NODE, "-", *arguments], cwd=node_sdk, capture_output=True, text=True, timeout=60, check=False,
        env=environment(),
    )  # fmt: skip
    assert done.stdout.strip() == "[6000000,true]", done.stderr


GO = """
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/feature/s3/manager"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func main() {
	ctx, bucket := context.Background(), aws.String("bucket")
	settings, err := config.LoadDefaultConfig(ctx, config.WithRegion("us-east-1"))
	must(err)
	client := s3.NewFromConfig(settings)
	for _, key := range []string{"go/plain", "go/a b+ä", "go/~!*'()", "go/a%2Fb"} {
		body := bytes.NewReader([]byte(key))
		_, err = client.PutObject(ctx, &s3.PutObjectInput{Bucket: bucket, Key: aws.String(key), Body: body})
		must(err)
		found, err := client.GetObject(ctx, &s3.GetObjectInput{Bucket: bucket, Key: aws.String(key)})
		must(err)
		if back, err := io.ReadAll(found.Body); err != nil || string(back) != key {
			log.Fatal(key)
		}
		_, err = client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: bucket, Key: aws.String(key)})
		must(err)
	}
	// A reader that cannot seek, in parts of 5 MiB.
	stream := io.LimitReader(zeros{}, 12<<20)
	upload := &s3.PutObjectInput{Bucket: bucket, Key: aws.String("go/stream"), Body: stream}
	_, err = manager.NewUploader(client).Upload(ctx, upload)
	must(err)
	head, err := client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: bucket, Key: aws.String("go/stream")})
	must(err)
	get := &s3.GetObjectInput{Bucket: bucket, Key: aws.String("go/stream")}
	url, err := s3.NewPresignClient(client).PresignGetObject(ctx, get)
	must(err)
	settings.Region = "eu-west-1"
	tables, err := dynamodb.NewFromConfig(settings).ListTables(ctx, &dynamodb.ListTablesInput{})
	must(err)
	fmt.Println(head.ContentLength, tables.TableNames != nil, url.URL)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }
"""


def test_the_go_sdk(cloud, go_sdk, tmp_path):
    """Under two grants: the destination says which is meant."""
    said = aws.run(cloud.stage, "s3 moto", go_sdk, home=tmp_path)
    size, tables, url = said.split()
    assert (size, tables) == (str(12 * MB), "true")
    with cloud.stage.client(headers=cloud.stage.tag("s3")) as client:
        assert client.get(url).content == bytes(12 * MB)
