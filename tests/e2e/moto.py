"""Many AWS services at once, by moto: not strict about signatures, but it knows its keys and speaks every protocol."""

import re
import subprocess
import sys
import threading

import boto3
from botocore.config import Config

from tests.e2e.product import environment

POLICY = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}'
RUNNING = re.compile(r"Running on https://127\.0\.0\.1:(\d+)")


class Moto:
    """A running server on https://127.0.0.1:port; a context manager. `key` is the only key it takes."""

    region = "eu-west-1"
    services = ("dynamodb", "sqs", "sns", "sts", "kms", "lambda")
    hosts = (*(f"{service}.eu-west-1.amazonaws.com" for service in services), "iam.amazonaws.com")

    def __init__(self, *, identity, trust):
        # The first three calls make the key; from then on every call must be signed with it.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0", "-s", "-c", identity, "-k", identity],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(INITIAL_NO_AUTH_ACTION_COUNT="3"),
        )
        found = None
        for line in self.process.stderr:
            if found := RUNNING.search(line):
                break
        assert found, "moto did not start"
        self.port = int(found[1])
        self.ports = {443: self.port}
        self._drain = threading.Thread(target=self._discard, name="moto-log")
        self._drain.start()
        iam = boto3.client(
            "iam",
            endpoint_url=f"https://127.0.0.1:{self.port}",
            region_name=self.region,
            aws_access_key_id="none",
            aws_secret_access_key="none",
            verify=str(trust),
            config=Config(retries={"max_attempts": 0}, proxies={}),
        )
        iam.create_user(UserName="tester")
        iam.put_user_policy(UserName="tester", PolicyName="all", PolicyDocument=POLICY)
        key = iam.create_access_key(UserName="tester")["AccessKey"]
        iam.close()
        self.key = key["AccessKeyId"], key["SecretAccessKey"]

    def _discard(self):
        for _ in self.process.stderr:
            pass
        self.process.stderr.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self._drain.join(10)
