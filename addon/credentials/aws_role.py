"""
A role that is assumed with a stored key: which request to STS does it, and what its answer gives.

https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html
"""

import calendar
import re
import time
from dataclasses import dataclass
from hashlib import sha256
from typing import Final
from urllib.parse import urlencode

from addon.binding import Binding, Role
from addon.credentials import aws_request, aws_scope
from addon.credentials.kind import Target
from addon.errors import Refusal, Usage
from addon.model import Head, Values

SHORTEST, LONGEST = 900, 43_200
"""Seconds that a session may live, as STS has it."""

_ARN = re.compile(r"arn:(aws|aws-cn|aws-us-gov):iam::[0-9]{12}:role/[\w+=,.@/-]{1,576}", re.ASCII)
_EXTERNAL_ID = re.compile(r"[\w+=,.@:/-]{2,1224}", re.ASCII)
_HOMES: Final = {
    "aws": ("us-east-1", "amazonaws.com"),
    "aws-cn": ("cn-north-1", "amazonaws.com.cn"),
    "aws-us-gov": ("us-gov-west-1", "amazonaws.com"),
}
_FORM = b"application/x-www-form-urlencoded; charset=utf-8"
_MEMBERS = ("AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration")
_CODE = re.compile(rb"<Code>([A-Za-z.]{1,64})</Code>")


class NotAssumed(Exception):
    """STS gave no session. The message is for operators."""


@dataclass(frozen=True, slots=True)
class Session:
    """Temporary credentials, good until `expires_at` (seconds since the epoch)."""

    values: Values
    expires_at: float


def check(role: Role) -> None:
    """Raises Usage for a role that STS would not take."""
    if not _ARN.fullmatch(role.arn):
        raise Usage(
            f"not the ARN of a role: {role.arn!r}", hint="as in --assume-role arn:aws:iam::123456789012:role/reports"
        )
    if role.external_id is not None and not _EXTERNAL_ID.fullmatch(role.external_id):
        raise Usage("not an external id", hint="2 to 1224 letters, digits and +=,.@:/-_")
    if not SHORTEST <= role.seconds <= LONGEST:
        raise Usage("a session lives for 15 minutes to 12 hours", hint="as in --duration 1h")


def endpoint(binding: Binding, role: Role) -> str:
    """The host of STS: in the first region that the binding is about, else the one where the partition is at home."""
    home, suffix = _HOMES[role.arn.split(":")[1]]
    for region in (*binding.regions, *(aws_scope.region_of(pattern) for pattern, _ in binding.hosts)):
        host = f"sts.{region}.{suffix}"
        try:
            if aws_scope.scope(host) == aws_scope.Scope("sts", region or ""):
                return host
        except Refusal:  # a region of one's own, such as MinIO's
            continue
    return f"sts.{home}.{suffix}"


def request(role: Role, *, values: Values, host: str, name: str, now: float) -> tuple[Head, bytes]:
    """The signed head, and the body, that assume a role; `name` tells in CloudTrail who did. Raises Fault."""
    fields = {
        "Action": "AssumeRole",
        "Version": "2011-06-15",
        "RoleArn": role.arn,
        "RoleSessionName": re.sub(r"[^\w+=,.@-]", "-", f"alter-egress-{name}", flags=re.ASCII)[:64],
        "DurationSeconds": str(role.seconds),
    }
    if role.external_id:
        fields["ExternalId"] = role.external_id
    body = urlencode(fields).encode()
    headers = ((b"Host", host.encode()), (b"Content-Type", _FORM), (b"Accept", b"text/xml"))
    binding = Binding(hosts=((host, 443),), flags=frozenset({aws_request.MINTING_FLAG}))
    plan = aws_request.read(Head("POST", b"/", headers), binding=binding, host=host)
    target = Target(host=host, port=443, now=now)
    return plan.apply(values, target=target, body_sha256=sha256(body).hexdigest()).head, body


def read(status: int, body: bytes, *, now: float, seconds: int) -> Session:
    """The session in the answer of STS. Raises NotAssumed."""
    if status != 200:
        code = _CODE.search(body)
        raise NotAssumed(f"STS answered {status} {code[1].decode() if code else ''}".rstrip())
    found = {name: _member(name, body) for name in _MEMBERS}
    try:
        expires = calendar.timegm(time.strptime(re.sub(r"\.[0-9]+", "", found["Expiration"]), "%Y-%m-%dT%H:%M:%SZ"))
    except ValueError:
        raise NotAssumed("the answer of STS has no date") from None
    key_id, secret, token, _ = found.values()
    values = Values({"access_key_id": key_id, "secret_access_key": secret, "session_token": token})
    # By the clock here, whatever that of STS says.
    return Session(values, min(float(expires), now + seconds))


def _member(name: str, body: bytes) -> str:
    found = re.findall(rb"<%b>([!-;=?-~]{1,8192})</%b>" % (name.encode(), name.encode()), body)
    if len(found) != 1 or b"&" in found[0]:
        raise NotAssumed(f"the answer of STS has no {name}")
    return str(found[0], "ascii")
