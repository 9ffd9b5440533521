"""
Writes addon/credentials/aws_hosts.json and aws_minting.json from the installed botocore.

    python tools/build_aws_hosts.py [--check]      --check: exit 1 if the files are not what would be written

Hosts: every service, in every region, plain, FIPS, dual stack and both, with every static context parameter and host
prefix of its operations, is put to the endpoint rule set that botocore itself asks. Pseudo regions ("aws-global") count where they give a host of their own.
Minting: every operation whose answer has a member that is a credential.
"""

import itertools
import json
import os.path
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import botocore
import botocore.session
from botocore.client import ClientEndpointBridge
from botocore.endpoint_provider import EndpointProvider
from botocore.exceptions import BotoCoreError

from addon.credentials import aws_hosts

FOLDER = Path(__file__).parent.parent / "addon" / "credentials"
ACCOUNT = "123456789012"
BY_RESOURCE = ("s3", "s3control")  # their hosts carry names of buckets and accounts: rules, not rows
CREDENTIAL = re.compile(r"secretaccesskey|authorizationtoken", re.IGNORECASE)
SECRET_KEY, SESSION = re.compile(r"secretkey", re.IGNORECASE), re.compile(r"sessiontoken", re.IGNORECASE)


class Row(NamedTuple):
    """One answer of a rule set: where a service is, and the scope that botocore would sign in."""

    service: str
    region: str
    host: str
    path: str
    name: str
    signing_region: str


class Models:
    """botocore's data."""

    def __init__(self) -> None:
        session = botocore.session.get_session()
        self._loader = session.get_component("data_loader")
        self._resolver = session.get_component("endpoint_resolver")
        self.partitions = self._loader.load_data("partitions")
        self.services: list[str] = self._loader.list_available_services("service-2")

    def model(self, service: str) -> dict[str, Any]:
        """The service model."""
        model: dict[str, Any] = self._loader.load_service_model(service, "service-2")
        return model

    def rules(self, service: str) -> dict[str, Any]:
        """The endpoint rule set."""
        rules: dict[str, Any] = self._loader.load_service_model(service, "endpoint-rule-set-1")
        return rules

    def default_region(self, metadata: Mapping[str, Any], region: str) -> str:
        """The signing region where the rule set names none, as botocore finds it."""
        name = metadata.get("signingName")
        bridge: Any = ClientEndpointBridge(self._resolver, {}, None, None, service_signing_name=name)
        try:
            return str(bridge.resolve(metadata["endpointPrefix"], region_name=region)["signing_region"])
        except BotoCoreError:
            return region


def rows(models: Models, services: list[str] | None = None) -> Iterator[Row]:
    """The ground truth."""
    for service in services or models.services:
        rules = models.rules(service)
        provider = EndpointProvider(rules, models.partitions)
        operations = models.model(service)["operations"].values()
        metadata = models.model(service)["metadata"]
        statics = {()} if service in BY_RESOURCE else {(), *map(_static_parameters, operations)}
        prefixes = _prefixes(operations)
        for partition in models.partitions["partitions"]:
            for region in partition["regions"]:
                signed = models.default_region(metadata, region)
                for given in _parameters(rules["parameters"], region):
                    for static in sorted(statics):
                        try:
                            endpoint = provider.resolve_endpoint(**{**given, **dict(static)})
                        except BotoCoreError:
                            continue
                        name, signing_region = _scheme(endpoint, metadata, signed)
                        for host, path in _hosts(endpoint.url, prefixes):
                            if not region.endswith("-global") or region not in host:  # a name that nobody serves
                                yield Row(service, region, host, path, name, signing_region)


def _prefixes(operations: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Host prefix → what the paths of all operations under it begin with. Every host is also asked without a prefix."""
    paths: dict[str, list[str]] = {"": []}
    for operation in operations:
        static = operation["http"]["requestUri"].partition("{")[0]
        paths.setdefault((operation.get("endpoint") or {}).get("hostPrefix", ""), []).append(static)
    return {prefix: os.path.commonpath(starts or ["/"]).rstrip("/") for prefix, starts in paths.items()}


def _static_parameters(operation: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    given = operation.get("staticContextParams") or {}
    if any(isinstance(v["value"], list) for v in given.values()):
        return ()
    return tuple(sorted((name, v["value"]) for name, v in given.items()))


def _parameters(declared: Mapping[str, Any], region: str) -> Iterator[dict[str, Any]]:
    known = {v.get("builtIn"): name for name, v in declared.items()}
    defaults = {name: v["default"] for name, v in declared.items() if "default" in v}
    if "AWS::Region" in known:
        defaults[known["AWS::Region"]] = region
    switches = [known[name] for name in ("AWS::UseFIPS", "AWS::UseDualStack") if name in known]
    accounts: list[dict[str, Any]] = [{}]
    if "AWS::Auth::AccountId" in known:
        accounts.append(
            {known["AWS::Auth::AccountId"]: ACCOUNT, known["AWS::Auth::AccountIdEndpointMode"]: "preferred"}
        )
    for values in itertools.product((False, True), repeat=len(switches)):
        for account in accounts:
            yield {**defaults, **dict(zip(switches, values, strict=True)), **account}


def _scheme(endpoint: Any, metadata: Mapping[str, Any], default_region: str) -> tuple[str, str]:
    schemes = [s for s in endpoint.properties.get("authSchemes", []) if s["name"] in ("sigv4", "sigv4-s3express")]
    scheme = schemes[0] if schemes else {}
    name = scheme.get("signingName") or metadata.get("signingName") or metadata["endpointPrefix"]
    return name, scheme.get("signingRegion") or default_region


def _hosts(url: str, prefixes: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    host = re.sub(r"^https?://", "", url).partition("/")[0]
    for prefix, path in prefixes.items():
        yield re.sub(r"\{[^}]+\}", ACCOUNT, prefix) + host, path


def table(models: Models, truth: list[Row]) -> dict[str, Any]:
    """A table that, with the rules, answers as the truth does: a template where one fits, else the host itself."""
    partitions: list[dict[str, Any]] = []
    for p in models.partitions["partitions"]:
        suffixes = [p["outputs"]["dnsSuffix"], p["outputs"]["dualStackDnsSuffix"]]
        partitions.append({"id": p["id"], "suffixes": [*suffixes, "on.aws"], "region": p["regionRegex"].strip("^$")})
    document: dict[str, Any] = {
        "botocore": botocore.__version__,
        "partitions": partitions,
        "templates": {},
        "hosts": {},
    }
    bare = aws_hosts.read(document)
    votes: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
    for row in truth:
        parts = aws_hosts.split(row.host, bare.partitions)
        if parts and parts.region == row.signing_region and not agrees(row, aws_hosts.find(row.host, bare)):
            votes[parts.template.replace(ACCOUNT, "*")][row.name, row.path] += 1
    document["templates"] = {template: _choose(claims) for template, claims in sorted(votes.items())}
    told = aws_hosts.read(document)
    claims: dict[str, Counter[Row]] = defaultdict(Counter)
    for row in truth:
        claims[row.host][row._replace(service="", region="")] += 1
    for host, rival in sorted(claims.items()):
        (row, _), *_rest = rival.most_common(1)
        if not agrees(row, aws_hosts.find(host, told)):
            document["hosts"][host] = [row.name, row.signing_region]
    return document


def _choose(claims: Counter[tuple[str, str]]) -> str | dict[str, str]:
    """The service of a template. Where two claim it to the same extent, their paths tell them apart."""
    by_name: Counter[str] = Counter()
    for (name, _), count in claims.items():
        by_name[name] += count
    (first, most), *others = by_name.most_common()
    if not others or others[0][1] < most / 2:
        return first
    return {path: name for name, path in sorted(claims)}


def agrees(row: Row, found: aws_hosts.Found | None) -> bool:
    """Whether what the table says is what the rule set said."""
    if found is None:
        return False
    path = (row.path + "/").encode()
    return (found.service(path), found.region or found.default) == (row.name, row.signing_region)


def minting(models: Models) -> dict[str, Any]:
    """Per signing name: operations whose answer holds credentials, by name, and by route where the protocol is REST."""
    found: dict[str, dict[str, list[Any]]] = {}
    for service in models.services:
        model = models.model(service)
        metadata = model["metadata"]
        name = metadata.get("signingName") or metadata["endpointPrefix"]
        for operation, shape in model["operations"].items():
            if "output" not in shape or not _hands_out(model["shapes"], shape["output"]["shape"]):
                continue
            entry = found.setdefault(name, {"operations": [], "routes": []})
            entry["operations"].append(operation)
            if metadata["protocol"].startswith("rest-") and "?" not in shape["http"]["requestUri"]:
                entry["routes"].append([shape["http"]["method"], shape["http"]["requestUri"]])
    return {"botocore": botocore.__version__, "services": dict(sorted(found.items()))}


def _hands_out(shapes: Mapping[str, Any], output: str) -> bool:
    names = set(_members(shapes, output, set()))
    if any(CREDENTIAL.search(name) for name in names):
        return True
    return any(SECRET_KEY.search(n) for n in names) and any(SESSION.search(n) for n in names)


def _members(shapes: Mapping[str, Any], name: str, seen: set[str]) -> Iterator[str]:
    if name in seen:
        return
    seen.add(name)
    shape = shapes[name]
    for member, reference in shape.get("members", {}).items():
        if shapes[reference["shape"]]["type"] in ("string", "blob"):
            yield member
        yield from _members(shapes, reference["shape"], seen)
    for part in ("member", "value"):
        if part in shape:
            yield from _members(shapes, shape[part]["shape"], seen)


def documents() -> dict[str, bytes]:
    """File name → contents."""
    models = Models()
    made = {"aws_hosts.json": table(models, list(rows(models))), "aws_minting.json": minting(models)}
    return {name: render(document) for name, document in made.items()}


def render(document: Mapping[str, Any]) -> bytes:
    """A document as it lies in the repository: one entry a line, so that a new botocore makes a readable diff."""
    return (json.dumps(document, indent=0) + "\n").encode()


def main() -> int:
    """Write the files, or compare them."""
    stale = {
        n: data for n, data in documents().items() if not (FOLDER / n).exists() or (FOLDER / n).read_bytes() != data
    }
    for name, data in stale.items():
        if "--check" not in sys.argv:
            (FOLDER / name).write_bytes(data)
        print(f"{name}: {'differs' if '--check' in sys.argv else 'written'}, {len(data)} bytes")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
