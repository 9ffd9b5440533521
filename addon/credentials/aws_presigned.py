"""
Presigned URLs: a signature in the query, with a life time.

A URL that a client made with dummy credentials is signed again where it stands. Its other parameters keep their order;
Version 2 (S3's old form, still what SDKs emit in us-east-1 by default) becomes Version 4. Life times are the client's: a
URL that has run out is signed as of when it was made, so that the service itself says that it has expired.
"""

import calendar
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from addon.credentials import aws_signer, aws_sigv4a
from addon.credentials.aws_wire import Pair
from addon.errors import Refusal

LONGEST: Final = 604_800
"""Seconds that a Version 4 URL may live."""

_V4 = frozenset({
    "x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-expires", "x-amz-region-set", "x-amz-security-token",
    "x-amz-signature", "x-amz-signedheaders",
})  # fmt: skip
_V2 = frozenset({"AWSAccessKeyId", "Expires", "Signature"})
_ALGORITHMS = frozenset({aws_signer.ALGORITHM, aws_sigv4a.ALGORITHM})
_SECONDS = re.compile(r"[1-9][0-9]{0,5}")
_DEADLINE = re.compile(r"[0-9]{1,11}")
_DATE = re.compile(r"[0-9]{8}T[0-9]{6}Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Presigned:
    """`deadline` is when the client's URL runs out, if it says so; `seconds` is its life time, if it is Version 4."""

    deadline: float | None
    seconds: int | None

    def life(self, *, now: float) -> tuple[float, int]:
        """When the URL is signed as of (seconds since the epoch), and for how many seconds."""
        if self.deadline is None or self.deadline > now:
            return now, self.seconds or min(max(int((self.deadline or now) - now), 1), LONGEST)
        seconds = self.seconds or 1
        return self.deadline - seconds, seconds


def read(query: Iterable[Pair], *, s3: bool) -> Presigned | None:
    """What is presigned in a query; None without a signature in it. Raises Refusal `signing_unsupported`."""
    query = list(query)
    v4 = _values(query, _V4, fold=True)
    if "x-amz-signature" in v4:
        return _read_v4(v4)
    v2 = _values(query, _V2, fold=False)
    if not ("Signature" in v2 and "AWSAccessKeyId" in v2):
        return None
    deadline = v2.get("Expires", [])
    if not s3 or len(deadline) != 1 or not _DEADLINE.fullmatch(deadline[0]):
        raise Refusal("signing_unsupported")
    return Presigned(deadline=float(deadline[0]), seconds=None)


def _read_v4(sent: dict[str, list[str]]) -> Presigned:
    algorithm = sent.get("x-amz-algorithm", [aws_signer.ALGORITHM])[0]
    if any(len(values) > 1 for values in sent.values()) or algorithm not in _ALGORITHMS:
        raise Refusal("signing_unsupported")
    expires, date = sent.get("x-amz-expires", [""])[0], sent.get("x-amz-date", [""])[0]
    if not _SECONDS.fullmatch(expires) or int(expires) > LONGEST:
        raise Refusal("signing_unsupported")
    return Presigned(deadline=_read_date(date, after=int(expires)), seconds=int(expires))


def _read_date(date: str, *, after: int) -> float | None:
    if not _DATE.fullmatch(date):
        return None
    try:
        return calendar.timegm(time.strptime(date, "%Y%m%dT%H%M%SZ")) + after
    except ValueError:
        return None


def _values(query: Iterable[Pair], names: frozenset[str], *, fold: bool) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for pair in query:
        name = unquote(pair.name).lower() if fold else unquote(pair.name)
        if name in names:
            found.setdefault(name, []).append(unquote(pair.value))
    return found


def strip(query: Iterable[Pair], presigned: Presigned | None) -> list[Pair]:
    """The query without what signs it."""
    old = _V2 if presigned and presigned.seconds is None else frozenset[str]()
    return [p for p in query if unquote(p.name).lower() not in _V4 and unquote(p.name) not in old]
