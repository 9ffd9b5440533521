"""
What a host of AWS says by its name: the services behind it, and the region.

    1. hosts that say no region, and S3's own shapes       rules below
    2. hosts of botocore's endpoint rule sets              aws_hosts.json, written by tools/build_aws_hosts.py
    3. hosts of data planes, which carry a customer's name rules below
    4. PrivateLink                                         vpce-….SERVICE.REGION.vpce.SUFFIX → the inner host

A host becomes a template: the suffix of its partition taken off, and its right-most region label, which is the one
that counts (a bucket may be called "us-west-2"), written "{r}". Every rule must match a template from end to end, so a
look-alike such as `s3.us-east-1.amazonaws.com.evil.example` has no answer, and no answer is a refusal.
"""

import functools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

NOT_SIGV4: Final = "not signed with SigV4"
"""Stands for the service of a host that wants another signature."""

# Rules on the labels left of ".amazonaws.com", before a region is looked for: service, region, region if nobody says one.
_REGIONLESS = [
    (r"(?:.+\.)?s3", "s3", None, "us-east-1"),
    (r"(?:.+\.)?s3-external-1", "s3", "us-east-1", None),
    (r"(?:.+\.)?s3-accelerate(?:\.dualstack)?", "s3", None, None),
    (r"queue", "sqs", "us-east-1", None),
    (r"globalaccelerator", "globalaccelerator", "us-west-2", None),
    (r"(ec2|rds|autoscaling|elasticloadbalancing|elasticmapreduce|monitoring)", r"\1", "us-east-1", None),
]
# Rules on the same labels, for hosts that take only SigV4a: no region is theirs.
_ASYMMETRIC = [
    (re.compile(r".+\.accesspoint\.s3-global"), "s3"),
    (re.compile(r".+\.endpoint\.events"), "events"),
    (re.compile(r".+\.endpoints\.email(?:\.us-gov|\.global)?"), "ses"),
    (re.compile(r"[0-9]{12}\.cloudfront-kvs\.global"), "cloudfront-keyvaluestore"),
]
_DASHED_S3 = re.compile(r"(?:.+\.)?s3-(?:fips-)?([a-z]+(?:-[a-z]+)+-[0-9]+)")

# Rules on a whole template. ".on.aws" stays in the template: customers have names of their own under it.
_REGIONAL = [
    (r"(?:.+\.)?s3(?:-fips)?(?:\.dualstack)?\.{r}", "s3"),
    (r".+\.s3-accesspoint(?:-fips)?(?:\.dualstack)?\.{r}", "s3"),
    (r"(?:.+\.)?s3-control(?:-fips)?(?:\.dualstack)?\.{r}", "s3"),
    (r".+\.s3-object-lambda(?:-fips)?(?:\.dualstack)?\.{r}", "s3-object-lambda"),
    (r"(?:.+\.)?s3-outposts(?:-fips)?(?:\.dualstack)?\.{r}", "s3-outposts"),
    (r"s3express-control(?:-fips)?(?:\.dualstack)?\.{r}", "s3express"),
    (r"(?:.+\.)?s3express-[a-z0-9-]+(?:\.dualstack)?\.{r}", NOT_SIGV4),
    (r"[^.]+\.execute-api(?:-fips)?\.{r}", "execute-api"),
    (r"[^.]+\.lambda-url\.{r}\.on\.aws", "lambda"),
    (r"[^.]+\.{r}\.es|[^.]+\.aos\.{r}\.on\.aws", "es"),
    (r"[^.]+\.{r}\.aoss(?:-fips)?", "aoss"),
    (r"(?:doc|search)-[^.]+\.{r}\.cloudsearch", "cloudsearch"),
    (r"[^.]+\.{r}\.osis", "osis"),
    (r"[^.]+\.appsync(?:-realtime)?-api\.{r}", "appsync"),
    (r"[a-z0-9]+(?:-ats)?\.iot(?:-fips)?\.{r}", "iotdata"),
    (r"[^.]+\.jobs\.iot\.{r}", "iot-jobs-data"),
    (r"[^.]+\.kinesisvideo\.{r}", "kinesisvideo"),
    (r"[^.]+\.data\.mediastore\.{r}", "mediastore"),
    (r"[^.]+\.mediaconvert\.{r}", "mediaconvert"),
    (r"[^.]+\.egress\.[^.]+\.mediapackagev2\.{r}", "mediapackagev2"),
    (r".+\.{r}\.neptune", "neptune-db"),
    (r".+\.vpc-lattice-svcs\.{r}\.on\.aws", "vpc-lattice-svcs"),
    (r".+\.managedblockchain\.{r}", "managedblockchain"),
    (r"(?:query|ingest)-cell[0-9]+\.timestream\.{r}", "timestream"),
    (r"[^.]+\.gateway\.bedrock-agentcore\.{r}", "bedrock-agentcore"),
    (r"aps-workspaces(?:-fips)?\.{r}", "aps"),
    (r"transcribestreaming(?:-fips)?\.{r}", "transcribe"),
    (r"{r}\.queue", "sqs"),
    (r"{r}\.elasticmapreduce", "elasticmapreduce"),
]
_PRIVATE_LINK = re.compile(
    r"(?:(?P<prefix>.+)\.)?vpce-[0-9a-z]+-[0-9a-z]+(?:-[a-z0-9-]+)?\.(?P<inner>[a-z0-9.-]+\.\{r\})\.vpce"
)


class Partition(NamedTuple):
    """A set of regions that share DNS suffixes. Two may share a suffix: then the region tells them apart."""

    suffixes: tuple[str, ...]
    region: re.Pattern[str]


class Split(NamedTuple):
    """A host in parts: `left` is its labels before the suffix, `template` the same with the region as "{r}"."""

    left: str
    template: str
    suffix: str
    region: str | None
    owners: list[Partition]


class Table(NamedTuple):
    """What aws_hosts.json holds. A template has a service per prefix of the path; "*." at its front is any one label."""

    partitions: Sequence[Partition]
    templates: Mapping[str, Mapping[str, str]]
    hosts: Mapping[str, tuple[str, str]]


class Found(NamedTuple):
    """
    What an AWS host says.

    `default` is the region when neither host, binding nor client says one; `asymmetric`, that it takes only SigV4a.
    """

    services: Mapping[str, str]
    region: str | None
    default: str | None = None
    asymmetric: bool = False

    def service(self, path: bytes) -> str | None:
        """The service that answers on `path`."""
        fitting = [prefix for prefix in self.services if path.startswith(prefix.encode())]
        return self.services[max(fitting, key=len)] if fitting else None


@functools.lru_cache(maxsize=1024)
def lookup(host: str) -> Found | None:
    """What a normalised host says; None for a host that is not one of AWS."""
    return find(host, table())


def find(host: str, table: Table) -> Found | None:
    """What a normalised host says by the table and the rules; None for a host that is not one of AWS."""
    if host in table.hosts:
        service, region = table.hosts[host]
        return Found({"": service}, region)
    parts = split(host, table.partitions)
    return parts and (_regionless(parts) or _regional(parts, table) or _private_link(parts, table))


def split(host: str, partitions: Sequence[Partition]) -> Split | None:
    """The parts of a host under a suffix of AWS; None elsewhere."""
    labels = host.split(".")
    for start in range(1, len(labels)):
        suffix = ".".join(labels[start:])
        owners = [p for p in partitions if suffix in p.suffixes]
        if not owners:
            continue
        left = labels[:start]
        kept = ".on.aws" if suffix == "on.aws" else ""
        for i in reversed(range(start)):
            if any(owner.region.fullmatch(left[i]) for owner in owners):
                template = ".".join([*left[:i], "{r}", *left[i + 1 :]]) + kept
                return Split(".".join(left), template, suffix, left[i], owners)
        return Split(".".join(left), ".".join(left) + kept, suffix, None, owners)
    return None


def _regionless(parts: Split) -> Found | None:
    for asymmetric, service in _ASYMMETRIC:
        if asymmetric.fullmatch(parts.left):
            return Found({"": service}, None, asymmetric=True)
    dashed = _DASHED_S3.fullmatch(parts.left)
    if dashed and any(owner.region.fullmatch(dashed[1]) for owner in parts.owners):
        return Found({"": "s3"}, dashed[1])
    if parts.suffix != "amazonaws.com":
        return None
    for pattern, service, region, default in _REGIONLESS:
        if matched := re.fullmatch(pattern, parts.left):
            return Found({"": matched.expand(service)}, region, default)
    return None


def _regional(parts: Split, table: Table) -> Found | None:
    if parts.region is None:
        return None
    any_label = "*." + parts.template.partition(".")[2]
    if services := table.templates.get(parts.template) or table.templates.get(any_label):
        return Found(services, parts.region)
    for pattern, service in _compiled():
        if pattern.fullmatch(parts.template):
            return Found({"": service}, parts.region)
    return None


def _private_link(parts: Split, table: Table) -> Found | None:
    matched = _PRIVATE_LINK.fullmatch(parts.template)
    if not matched or parts.region is None or (matched["prefix"] and matched["inner"] != "s3.{r}"):
        return None
    return find(f"{matched['inner'].replace('{r}', parts.region)}.{parts.suffix}", table)


@functools.cache
def _compiled() -> list[tuple[re.Pattern[str], str]]:
    return [(re.compile(pattern.replace("{r}", r"\{r\}")), service) for pattern, service in _REGIONAL]


def read(raw: Mapping[str, Any]) -> Table:
    """The table in parsed JSON."""
    return Table(
        partitions=[Partition(tuple(p["suffixes"]), re.compile(p["region"])) for p in raw["partitions"]],
        templates={t: names if isinstance(names, dict) else {"": names} for t, names in raw["templates"].items()},
        hosts={host: (service, region) for host, (service, region) in raw["hosts"].items()},
    )


def load() -> None:
    """Read the table and compile the rules, once."""
    table()
    _compiled()


@functools.cache
def table() -> Table:
    """What was generated, read once."""
    return read(json.loads(Path(__file__).with_name("aws_hosts.json").read_bytes()))
