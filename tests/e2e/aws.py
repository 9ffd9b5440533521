"""Clients of AWS, as they come: SDKs with dummy keys, and uploads in signed chunks."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import venv
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import boto3
from botocore.config import Config

from tests.e2e.moto import POLICY, Moto
from tests.e2e.product import environment
from tests.e2e.s3server import S3Server
from tests.e2e.stage import AWS_ID, AWS_SECRET, Stage

BUCKET = "bucket"
AWSCLI = "1.46.3"
NODE_PACKAGES = ("@aws-sdk/client-s3@3", "@aws-sdk/client-dynamodb@3", "@aws-sdk/lib-storage@3", "hpagent@1")
PIECE = 1 << 16
UNSIGNED = "0" * 64
"""A signature that is worth nothing."""


class Unavailable(Exception):
    """A client cannot be installed here; the message says why."""


def make_role(moto, *, trust):
    """A role that may do everything; its ARN."""
    client = boto3.client(
        "iam", endpoint_url=f"https://127.0.0.1:{moto.port}", region_name=moto.region, verify=str(trust),
        aws_access_key_id=moto.key[0], aws_secret_access_key=moto.key[1], config=Config(proxies={}),
    )  # fmt: skip
    with contextlib.closing(client):
        # The server lives as long as the session, and each engine's vault asks for the role.
        with contextlib.suppress(client.exceptions.EntityAlreadyExistsException):
            client.create_role(RoleName="reports", AssumeRolePolicyDocument=POLICY)
        client.put_role_policy(RoleName="reports", PolicyName="all", PolicyDocument=POLICY)
        return client.get_role(RoleName="reports")["Role"]["Arn"]


def make_seed(seed, home, *, s3, moto, trust):
    """A vault with secrets for the S3 server and for moto, granted to `billing`; `grants` are ids by their names."""
    vaultctl = seed.copy(home)

    def put(name, server, key, *options):
        values = dict(zip(("access_key_id", "secret_access_key", "session_token"), key, strict=False))
        hosts = [part for host in server.hosts for part in ("--host", host)]
        vaultctl.secret(name, "--kind", "sigv4", *hosts, *options, **values)
        return name, vaultctl.grant(name, "system:billing")

    grants = dict(
        [
            put("s3", s3, s3.key),
            put("s3-temporary", s3, s3.temporary_key),
            put("moto", moto, moto.key),
            put("minting", moto, moto.key, "--allow-credential-minting"),
            put("role", moto, moto.key, "--assume-role", make_role(moto, trust=trust), "--external-id", "x1"),
            put("lost-role", moto, (moto.key[0], "wrong"), "--assume-role", "arn:aws:iam::123456789012:role/lost"),
            put("any", Any, (AWS_ID, AWS_SECRET)),
            put("own", Own, (AWS_ID, AWS_SECRET), "--service", "s3", "--region", "local", "--region", "remote"),
        ]
    )
    return replace(seed, home=home, grants=seed.grants | grants)


class Any:
    """Every service in two regions. Nobody answers for most of them."""

    hosts = (
        "iam.amazonaws.com",
        *(f"*.{prefix}eu-west-1.amazonaws.com" for prefix in ("", "ecr.", "sso.", "s3-control.")),
        *(f"*.{prefix}us-east-1.amazonaws.com" for prefix in ("", "s3.", "s3express-use1-az6.")),
    )


class Own:
    """A store of one's own, at the test upstream."""

    hosts = ("api.unbound.test",)


@dataclass(frozen=True)
class Cloud:
    """A running proxy with the secrets of `make_seed`, and the clients that use it."""

    stage: Stage

    @property
    def grants(self):
        return self.stage.grants

    @contextlib.contextmanager
    def sdk(self, service, *, grant=None, region=None, bare=False, **config):
        """A boto3 client whose access key id is the grant, and that knows nothing else."""
        name = grant or ("s3" if service == "s3" else "moto")
        client = boto3.client(
            service,
            region_name=region or (S3Server.region if service == "s3" else Moto.region),
            aws_access_key_id=("" if bare else "alter_grant_") + self.grants[name],
            aws_secret_access_key="dummy",
            verify=str(self.stage.proxy.ca),
            config=Config(proxies={"https": self.stage.proxy.url(*self.stage.caller)}, retries={"max_attempts": 0})
            .merge(Config(**config)),
        )  # fmt: skip
        with contextlib.closing(client):
            yield client

    @property
    def worker(self):
        """The process id of the one worker."""
        pid = self.stage.proxy.pid
        (worker,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(worker)


def run(stage, grants, *command, home, **environ):
    """
    What a program printed that must succeed, under `vaultctl run` with the grants of those names and nothing configured.

    `home` is the home of its user, and where it runs.
    """
    options = [part for name in grants.split() for part in ("--grant", stage.grants[name])]
    done = subprocess.run(
        [
            sys.executable, "-m", "vaultctl", "run", *options, "--proxy", stage.proxy.address, "--", *map(str, command),
        ],
        capture_output=True, text=True, timeout=60, check=False, cwd=home,
        env=environment(ALTER_HOME=str(stage.vaultctl.home), HOME=str(home), AWS_SESSION_TOKEN="stale", **environ),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


class Memory:
    """A context manager that watches the resident memory of a process: `growth` is its peak above the start, in MB."""

    def __init__(self, pid):
        self._path = Path(f"/proc/{pid}/statm")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory")

    def _now(self):
        return int(self._path.read_text().split()[1]) * 4096 / 1e6

    def _watch(self):
        while not self._stop.wait(0.01):
            self._peak = max(self._peak, self._now())

    def __enter__(self):
        self._start = self._peak = self._now()
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    @property
    def growth(self):
        return self._peak - self._start


class SignedChunks:
    """An upload in chunks of 64 KiB, signed by nobody: what a Java or MinIO SDK sends when its keys are dummies."""

    def __init__(self, size, *, trailer=False):
        self.size, self.trailer = size, trailer
        self.last = f"0;chunk-signature={UNSIGNED}\r\n"
        if trailer:
            self.last += f"x-amz-checksum-crc32:{crc32(size)}\r\nx-amz-trailer-signature:{UNSIGNED}\r\n"
        self.last = (self.last + "\r\n").encode()

    @property
    def headers(self):
        """What announces it."""
        lines = {
            "Content-Encoding": "aws-chunked",
            "Content-Length": str(self.length),
            "X-Amz-Decoded-Content-Length": str(self.size),
            "X-Amz-Content-SHA256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" + ("-TRAILER" if self.trailer else ""),
        }
        return lines | ({"X-Amz-Trailer": "x-amz-checksum-crc32"} if self.trailer else {})

    def _pieces(self):
        whole, rest = divmod(self.size, PIECE)
        return [PIECE] * whole + ([rest] if rest else [])

    @property
    def length(self):
        """The bytes of the whole body."""
        return len(self.last) + sum(len(f"{n:x};chunk-signature={UNSIGNED}\r\n\r\n") + n for n in self._pieces())

    def __iter__(self):
        for n in self._pieces():
            yield f"{n:x};chunk-signature={UNSIGNED}\r\n".encode() + b"a" * n + b"\r\n"
        yield self.last


def crc32(size):
    """Of so many letters a, as S3 writes it."""
    import base64  # noqa: PLC0415
    import zlib  # noqa: PLC0415

    value = 0
    for start in range(0, size, PIECE):
        value = zlib.crc32(b"a" * min(PIECE, size - start), value)
    return base64.b64encode(value.to_bytes(4, "big")).decode()


def awscli(cache):
    """The program `aws` (version 1) in a venv of its own, made under `cache` unless it is there already."""
    place = cache / f"awscli-{AWSCLI}-py{sys.version_info.major}{sys.version_info.minor}"
    program = place / "bin" / "aws"
    if program.exists():
        return program
    made = Path(tempfile.mkdtemp(dir=cache, prefix="making-"))
    try:
        venv.create(made, with_pip=True, symlinks=True)
        pip = [made / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        done = subprocess.run([*pip, f"awscli=={AWSCLI}"], capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            raise Unavailable(f"awscli cannot be installed: {done.stderr.strip().splitlines()[-1]}")
        # Its first line names the interpreter by the path that the folder is about to lose.
        script = made / "bin" / "aws"
        script.write_text(script.read_text().replace(str(made), str(place)))
        made.rename(place)
    except (OSError, subprocess.SubprocessError) as error:
        if not program.exists():
            raise Unavailable(f"awscli cannot be installed: {error}") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return program


def node_sdk(cache):
    """A folder with the AWS SDK for JavaScript, made under `cache` unless it is there already."""
    if not (npm := shutil.which("npm")):
        raise Unavailable("Node is not installed")
    if not (cache / "node_modules" / "hpagent").is_dir():
        options = ["--silent", "--no-audit", "--no-fund", "--prefix", cache]
        try:
            done = subprocess.run(
                [npm, "install", *options, *NODE_PACKAGES], capture_output=True, timeout=240, check=False
            )
        except subprocess.SubprocessError as error:
            raise Unavailable("the AWS SDK for JavaScript cannot be installed") from error
        if done.returncode:
            raise Unavailable("the AWS SDK for JavaScript cannot be installed")
    return cache


def go_program(cache, source):
    """The program that Go makes of `source` with Debian's AWS SDK for Go v2, made under `cache` unless it is there already."""
    go, library = shutil.which("go"), Path("/usr/share/gocode/src/github.com/aws/aws-sdk-go-v2")
    if not os.environ.get("ALTER_TEST_GO"):
        raise Unavailable("ALTER_TEST_GO is not set: building the AWS SDK for Go takes a while")
    if not go or not library.is_dir():
        raise Unavailable("golang-go and golang-github-aws-aws-sdk-go-v2-dev are not installed")
    program = cache / sha256(source.encode()).hexdigest()
    if not program.exists():
        main = program.with_suffix(".go")
        main.write_text(source)
        settings = environment(GO111MODULE="off", GOPATH="/usr/share/gocode", GOFLAGS="-p=2")
        done = subprocess.run(
            [go, "build", "-o", program, main], capture_output=True, text=True, timeout=500, check=False, env=settings
        )
        assert done.returncode == 0, done.stderr
    return program


def wait(until, *, seconds=5):
    """Whether something comes true in time."""
    deadline = time.monotonic() + seconds
    while not until():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
