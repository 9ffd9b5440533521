"""
AWS Signature Version 4 (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html).

    signed      Host, X-Amz-*, Content-Type, Content-MD5: what no honest hop changes
    body        the client's hash where it sent one, UNSIGNED-PAYLOAD for S3, else the hash of the body, which is held;
                signed chunks are signed again as they pass
    presigned   signed again where it stands; Version 2 becomes 4
    SigV4a      for hosts that take nothing else and clients that signed with it, where awscrt is installed
    refused     event streams, POST policies, S3 Express: `signing_unsupported`
"""

import re
from typing import ClassVar

from addon.binding import Binding
from addon.credentials import aws_body, aws_hosts, aws_minting, aws_request, aws_role, aws_scope, aws_signer, placement
from addon.credentials.aws_request import AwsRequest
from addon.credentials.kind import Field
from addon.errors import Usage
from addon.model import Head, Values

_FIELDS = (
    Field("access_key_id", "access key id", secret=False),
    Field("secret_access_key", "secret access key"),
    Field("session_token", "session token, for temporary credentials", required=False),
)
_NAME = re.compile(r"[A-Za-z0-9-]{1,64}")
_EXAMPLES = {"service": "s3", "region": "us-east-1"}


class SigV4:
    """The fields of an access key. The binding may name service and region; else the host says them."""

    tag: ClassVar[str] = "sigv4"
    sent: ClassVar[bool] = False

    def fields(self, binding: Binding) -> tuple[Field, ...]:  # noqa: ARG002
        return _FIELDS

    def check_binding(self, binding: Binding) -> Binding:
        if binding.placements or "websocket" in binding.flags:
            raise Usage(
                "sigv4 has no placements and signs no WebSockets",
                hint="leave out --header, --format, --query-param and --websocket",
            )
        for option, names in (("service", binding.services), ("region", binding.regions)):
            for name in names:
                if not _NAME.fullmatch(name):
                    raise Usage(f"not an AWS {option}: {name!r}", hint=f"as in --{option} {_EXAMPLES[option]}")
        if binding.role:
            aws_role.check(binding.role)
        for name, _ in binding.constants:
            if placement.canonical(name.encode()) in aws_request.OLD | {aws_body.HEADER}:
                raise Usage(f"{name} is part of the signature", hint="leave it out; it is written for every request")
        for pattern, _ in binding.hosts:
            if problem := aws_scope.conflict(pattern, services=binding.services, regions=binding.regions):
                raise Usage(f"{pattern} {problem}", hint="check --host, --service and --region")
        return placement.check_binding(binding)

    def check_values(self, binding: Binding, values: dict[str, str]) -> None:  # noqa: ARG002
        placement.check_fields(_FIELDS, values)
        for name, value in values.items():
            placement.check_value(name, aws_signer.problem(name, value))

    def hidden(self, values: Values, *, binding: Binding) -> tuple[str, ...]:  # noqa: ARG002
        return tuple(values[field.name] for field in _FIELDS if field.secret and field.name in values)

    def plan(self, head: Head, *, binding: Binding, host: str) -> AwsRequest:
        return aws_request.read(head, binding=binding, host=host)


KIND = SigV4()


def load() -> None:
    """Read the tables and import the signers now: the first request would wait half a second for them."""
    aws_hosts.load()
    aws_minting.load()
    aws_signer.load()
