"""
Signature Version 4a: with a key pair that follows from the secret key, for a set of regions instead of one.

    algorithm     AWS4-ECDSA-P256-SHA256
    credential    KEY/DATE/SERVICE/aws4_request
    region set    X-Amz-Region-Set, signed: "*", or names with a comma between them

Made by awscrt, which is AWS's own implementation and comes with the extra `sigv4a`. It is imported for the first request
that needs it; without it those are refused.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

import functools
import importlib
from datetime import UTC, datetime
from types import ModuleType
from typing import Any, Final

from addon.credentials.aws_scope import Scope
from addon.credentials.aws_signer import Key, Signable
from addon.errors import Fault, Refusal

ALGORITHM: Final = "AWS4-ECDSA-P256-SHA256"

_MADE_BY_AWSCRT = {"x-amz-date", "x-amz-content-sha256", "x-amz-security-token", "x-amz-region-set"}
"""Headers that awscrt adds, as it is told to, and will not be given."""


def check() -> None:
    """Raises Refusal `signing_unsupported` where awscrt is not installed."""
    _awscrt()


def authorization(request: Signable, *, key: Key, scope: Scope) -> str:
    """The value of `Authorization`. Date, hash, token and region set are among the headers of the request already."""
    auth = _awscrt().auth
    made = _sign(
        request,
        key=key,
        scope=scope,
        signature_type=auth.AwsSignatureType.HTTP_REQUEST_HEADERS,
        signed_body_header_type=auth.AwsSignedBodyHeaderType.X_AMZ_CONTENT_SHA_256,
    )
    return str(made.headers.get("Authorization"))


def presign(request: Signable, *, key: Key, scope: Scope, seconds: int) -> str:
    """The query of a presigned URL that lives for so many seconds, its signature at the end."""
    kind = _awscrt().auth.AwsSignatureType.HTTP_REQUEST_QUERY_PARAMS
    made = _sign(request, key=key, scope=scope, signature_type=kind, expiration_in_seconds=seconds)
    return str(made.path).partition("?")[2]


def _sign(request: Signable, *, key: Key, scope: Scope, **options: Any) -> Any:
    """The request as awscrt has signed it. Its path is normalised and encoded again only where the service does so."""
    crt = _awscrt()
    encode_again = scope.family != "s3"
    headers = [(name, value) for name, value in request.headers.items() if name not in _MADE_BY_AWSCRT]
    config = crt.auth.AwsSigningConfig(
        algorithm=crt.auth.AwsSigningAlgorithm.V4_ASYMMETRIC,
        credentials_provider=crt.auth.AwsCredentialsProvider.new_static(key.access_key, key.secret_key, key.token),
        region=scope.region,
        service=scope.service,
        date=datetime.strptime(request.timestamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC),
        use_double_uri_encode=encode_again,
        should_normalize_uri_path=encode_again,
        signed_body_value=request.payload,
        **options,
    )
    target = f"{request.path}?{request.query}" if request.query else request.path
    try:
        subject = crt.http.HttpRequest(request.method, target, crt.http.HttpHeaders(headers))
    except TypeError:  # a header whose bytes are not UTF-8, which awscrt cannot be given
        raise Refusal("signing_unsupported") from None
    signing = crt.auth.aws_sign_request(subject, config)
    if not signing.done() or signing.exception():  # with a key at hand it is done by the caller's own thread
        raise Fault("fault", "awscrt has not signed")
    return signing.result()


def _awscrt() -> ModuleType:
    if (found := _import()) is None:
        raise Refusal("signing_unsupported")
    return found


@functools.cache
def _import() -> ModuleType | None:
    try:
        importlib.import_module("awscrt.auth")
        importlib.import_module("awscrt.http")
        return importlib.import_module("awscrt")
    except ImportError:
        return None
