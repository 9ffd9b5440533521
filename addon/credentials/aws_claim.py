"""
What a client's own signature says it is for. It is worth nothing as a signature, and a hint where a host says no scope.

    Version 4     Credential=KEY/DATE/REGION/SERVICE/aws4_request
    Version 4a    Credential=KEY/DATE/SERVICE/aws4_request, and the regions in X-Amz-Region-Set

In `Authorization`, or in the query of a presigned URL, which goes first.
"""

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote

from addon.credentials import aws_sigv4a
from addon.credentials.aws_scope import Scope
from addon.credentials.aws_wire import Pair
from addon.model import Headers

REGION_SET: Final = "x-amz-region-set"

_CREDENTIAL = r"[^/,=]*/[0-9]{8}/(?:(?P<region>[^/,]+)/)?(?P<service>[^/,]+)/aws4_request"
_IN_HEADER, _IN_QUERY = re.compile(f"Credential={_CREDENTIAL}"), re.compile(_CREDENTIAL)


def read(headers: Headers, query: Iterable[Pair]) -> Scope | None:
    """The scope that the client claims; None without a signature that states one."""
    given = {unquote(p.name).lower(): unquote(p.value) for p in reversed(list(query))}
    stated = _IN_QUERY.fullmatch(given.get("x-amz-credential", ""))
    if stated:
        return _scope(stated, given.get("x-amz-algorithm", ""), given.get(REGION_SET, ""))
    sent = [(name.lower(), value.decode("latin-1").strip()) for name, value in headers]
    for name, value in sent:
        if name == b"authorization" and (stated := _IN_HEADER.search(value)):
            return _scope(stated, value.partition(" ")[0], ",".join(v for n, v in sent if n == REGION_SET.encode()))
    return None


def _scope(stated: re.Match[str], algorithm: str, region_set: str) -> Scope | None:
    if algorithm == aws_sigv4a.ALGORITHM:
        return Scope(stated["service"], region_set, asymmetric=True)
    return Scope(stated["service"], stated["region"]) if stated["region"] else None
