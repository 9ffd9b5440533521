"""aws_hosts.json and aws_minting.json against the botocore that is installed."""

import contextlib
import importlib.util
import itertools
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
from botocore.endpoint_provider import EndpointProvider
from botocore.exceptions import BotoCoreError

from addon.credentials import aws_scope
from addon.errors import Refusal


class Row(NamedTuple):
    """As much of a row as `answer` reads."""

    host: str
    path: str


ROOT = Path(__file__).parent.parent.parent
TOOL = ROOT / "tools" / "build_aws_hosts.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("build_aws_hosts", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def models(tool):
    return tool.Models()


@pytest.fixture(scope="module")
def truth(tool, models):
    return list(tool.rows(models))


def answer(row):
    try:
        scope = aws_scope.scope(row.host, path=f"{row.path}/".encode())
    except Refusal as refusal:
        return refusal.code
    return scope.service, scope.region


def test_the_table_answers_as_the_rule_sets_do(truth, capsys):
    misses = [(row.host, answer(row), row) for row in truth if answer(row) != (row.name, row.signing_region)]
    right = 1 - len(misses) / len(truth)
    claimed = defaultdict(set)
    for host, got, row in misses:
        claimed[f"{host} {'/'.join(got)}"].add(f"{row.name}/{row.signing_region}")
    with capsys.disabled():
        print(f"\n{len(truth)} answers of the rule sets, {100 * right:.3f} % the same. Hosts with more than one claim:")
        for host, others in claimed.items():
            print(f"    {host}, elsewhere {', '.join(sorted(others))}")
    assert right >= 0.999


def test_the_files_are_what_the_tool_makes_of_this_botocore(tool, models, truth):
    hint = "run `python tools/build_aws_hosts.py`"
    assert tool.render(tool.table(models, truth)) == (tool.FOLDER / "aws_hosts.json").read_bytes(), hint
    assert tool.render(tool.minting(models)) == (tool.FOLDER / "aws_minting.json").read_bytes(), hint


S3_SHAPES = {
    "virtual host": {"Bucket": "my-bucket"},
    "path": {"Bucket": "my-bucket", "ForcePathStyle": True},
    "dots": {"Bucket": "my.bucket.name"},
    "a region as name": {"Bucket": "us-west-2"},
    "a service as name": {"Bucket": "dynamodb"},
    "no bucket": {},
    "access point": {"Bucket": "arn:{p}:s3:{r}:123456789012:accesspoint/myap"},
    "object lambda": {"Bucket": "arn:{p}:s3-object-lambda:{r}:123456789012:accesspoint/banner"},
    "outpost": {"Bucket": "arn:{p}:s3-outposts:{r}:123456789012:outpost/op-01234567890123456/accesspoint/reports"},
    "express control": {"Bucket": "mybucket--use1-az6--x-s3", "UseS3ExpressControlEndpoint": True},
    "express": {"Bucket": "mybucket--use1-az6--x-s3"},
    "many regions": {"Bucket": "arn:{p}:s3::123456789012:accesspoint/mfzwi23gnjvgw.mrap"},
}


def s3_hosts(models, shape):
    """(host, scope) of every region, plain, FIPS, dual stack and both, where S3's rule set has an endpoint."""
    provider = EndpointProvider(models.rules("s3"), models.partitions)
    for partition in models.partitions["partitions"]:
        for region in (r for r in partition["regions"] if not r.endswith("-global")):
            for fips, dual in itertools.product((False, True), repeat=2):
                bucket = {k: v.format(p=partition["id"], r=region) if k == "Bucket" else v for k, v in shape.items()}
                given = {"Region": region, "UseFIPS": fips, "UseDualStack": dual, "Accelerate": False} | bucket
                with contextlib.suppress(BotoCoreError):
                    endpoint = provider.resolve_endpoint(**({"UseGlobalEndpoint": False} | given))
                    scheme = endpoint.properties["authSchemes"][-1]
                    yield (
                        urlsplit(endpoint.url).netloc,
                        scheme["name"],
                        (scheme["signingName"], scheme.get("signingRegion")),
                    )


@pytest.mark.parametrize("name", S3_SHAPES)
def test_every_shape_of_an_s3_host_is_known_or_refused_for_what_it_is(models, name):
    found = list(s3_hosts(models, S3_SHAPES[name]))
    assert len(found) > 30
    for host, scheme, scope in found:
        expected = {"sigv4": scope, "sigv4a": (scope[0], "*")}.get(scheme, "signing_unsupported")
        assert answer(Row(host, "")) == expected, host


ASKED = {
    "events": {"EndpointId": "abcde.veo"},
    "sesv2": {"EndpointId": "abcdef.g3h"},
    "cloudfront-keyvaluestore": {"KvsARN": "arn:aws:cloudfront::123456789012:key-value-store/x"},
}


@pytest.mark.parametrize("service", ASKED)
def test_hosts_for_which_a_rule_set_names_only_sigv4a_are_signed_with_it(models, service):
    provider = EndpointProvider(models.rules(service), models.partitions)
    declared = models.rules(service)["parameters"]
    hosts = {}
    for partition in models.partitions["partitions"]:
        for region in partition["regions"]:
            for fips, dual in itertools.product((False, True), repeat=2):
                given = {"Region": region, "UseFIPS": fips, "UseDualStack": dual} | ASKED[service]
                with contextlib.suppress(BotoCoreError):
                    endpoint = provider.resolve_endpoint(**{n: v for n, v in given.items() if n in declared})
                    schemes = endpoint.properties.get("authSchemes", [])
                    if [scheme["name"] for scheme in schemes] == ["sigv4a"]:
                        hosts[urlsplit(endpoint.url).netloc] = schemes[0]["signingName"]
    assert hosts
    for host, name in hosts.items():
        assert answer(Row(host, "")) == (name, "*"), host
