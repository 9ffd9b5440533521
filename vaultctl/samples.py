"""The APIs of the demo: real hosts, real ways to authenticate, and credentials invented for one run."""

from collections.abc import Mapping
from dataclasses import dataclass
from secrets import token_hex
from urllib.parse import urlsplit

from addon.binding import Placement
from vaultctl import upstream
from vaultctl.client import Call
from vaultctl.upstream import Check


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """A secret, and the call that needs it. `shows` names the headers it arrives in; empty: it is in the query."""

    secret: str
    kind: str
    call: Call
    values: Mapping[str, str]
    check: Check
    placements: tuple[Placement, ...] = ()
    shows: tuple[str, ...] = ("Authorization",)

    @property
    def host(self) -> str:
        """The one host it is bound to."""
        return urlsplit(self.call.url).hostname or ""


def invent() -> list[Api]:
    """One secret per kind, with new values."""
    stripe, datadog, application = stripe_key(), token_hex(16), token_hex(20)
    maps, account, password = f"AIza{token_hex(16)}", f"AC{token_hex(16)}", token_hex(16)
    key_id, key = f"AKIA{token_hex(8).upper()}", token_hex(20)
    return [
        Api(
            secret="stripe",
            kind="bearer",
            call=Call("GET", "https://api.stripe.com/v1/balance"),
            values={"token": stripe},
            check=upstream.bearer(stripe),
        ),
        Api(
            secret="datadog",
            kind="header",
            call=Call("POST", "https://api.datadoghq.com/api/v2/series", body=b'{"series": []}'),
            placements=(
                Placement("header", "DD-API-KEY", "{api_key}"),
                Placement("header", "DD-APPLICATION-KEY", "{application_key}"),
            ),
            values={"api_key": datadog, "application_key": application},
            check=upstream.headers({"DD-API-KEY": datadog, "DD-APPLICATION-KEY": application}),
            shows=("DD-API-KEY", "DD-APPLICATION-KEY"),
        ),
        Api(
            secret="maps",
            kind="query",
            call=Call("GET", "https://maps.googleapis.com/maps/api/geocode/json?address=Berlin"),
            placements=(Placement("query", "key", "{token}"),),
            values={"token": maps},
            check=upstream.query("key", maps),
            shows=(),
        ),
        Api(
            secret="twilio",
            kind="basic",
            call=Call("GET", "https://api.twilio.com/2010-04-01/Accounts.json"),
            values={"user": account, "password": password},
            check=upstream.basic(account, password),
        ),
        Api(
            secret="aws",
            kind="sigv4",
            call=Call("POST", "https://sqs.eu-west-1.amazonaws.com/", headers=(_DUMMY,), body=b"Action=ListQueues"),
            values={"access_key_id": key_id, "secret_access_key": key},
            check=upstream.sigv4({key_id: key}, region="eu-west-1", service="sqs"),
        ),
    ]


_DUMMY = (
    "Authorization",
    (
        "AWS4-HMAC-SHA256 Credential=dummy/20260101/eu-west-1/sqs/aws4_request, "
        f"SignedHeaders=host;x-amz-date, Signature={'0' * 64}"
    ),
)
"""What an AWS SDK makes of dummy keys: it always signs, and this signature is worth nothing."""


def stripe_key() -> str:
    """A new one, for the first run and for the rotation."""
    return f"sk_test_{token_hex(12)}"
