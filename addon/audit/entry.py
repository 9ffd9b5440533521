"""
One line of a stream: what it may hold, and how it is chained to the line before.

    header  {"format":1,"stream":HEX,"slot":0,"prev":null,"at":TIME,"seq":0,"hash":HEX}    first line of a segment
    record  {"id":TEXT,"at":TIME,"phase":"intent", … ,"seq":1,"hash":HEX}                  members: FIELDS, empty ones left out
    note    {"note":"recovered","at":TIME, … ,"seq":2,"hash":HEX}                          what happened to the stream itself

    hash = SHA-256(hash of the line before ‖ the bytes of this line before `,"hash":`)

The bytes are what is authenticated, so nothing is ever serialised a second time to check it. `seq` counts every line
of a stream, across its segments. `prev` of a later segment is the hash the segment before ended with; before the first
line of all stand 32 zero bytes. Lines are ASCII: control characters and everything beyond are escaped.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice
from typing import Any

from addon.model import Record

FORMAT = 1

GENESIS = bytes(32)
"""What the first header of a stream is chained to."""

Row = dict[str, object]
"""A record as readers get it: every name of FIELDS, in that order. What was not recorded is "", or None for a number."""

FIELDS = (
    "id", "at", "phase", "caller", "user", "principal", "grant_id", "delegation_id", "secret", "version", "host", "port", "method",
    "path", "client_ip", "decision", "code", "policy", "approval_id", "approved_by", "status", "duration_ms", "redactions", "reason", "context", "trace_id",
)  # fmt: skip
"""The members a record may have. A field added to `model.Record` stays out of the log until it is written here."""

_NUMBERS = frozenset({"version", "port", "status", "duration_ms", "redactions"})
_TEXTS = tuple(
    (f',"{name}":', Record._fields.index(name))
    for name in FIELDS
    if name not in _NUMBERS | {"id", "at", "path", "context"}
)
"""How each member that is plain text begins, and where a record has it."""
_EMPTY: Row = {name: None if name in _NUMBERS else "" for name in FIELDS}

_PATH_LIMIT = 2048
_TEXT_LIMIT = 512
_CONTEXT_LIMITS = (20, 64, 512)

_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False, allow_nan=False).encode
_text = json.encoder.encode_basestring_ascii

_HASH = b',"hash":"%s"}\n'
_HASH_SIZE = len(_HASH % (b"0" * 64))


def record(entry: Record) -> bytes:
    """The members of a record's line, still open for `link`. Overlong texts end in `…`; a query never gets through."""
    members = [f'{{"id":{_text(_cap(entry.id))},"at":"{timestamp(entry.at)}"']
    for opening, place in _TEXTS:
        value: Any = entry[place]
        if value:
            members.append(opening + _text(_cap(value)))
    if path := entry.path.partition("?")[0]:
        members.append(f',"path":{_text(_cap(path, _PATH_LIMIT))}')
    if entry.version is not None:
        members.append(f',"version":{entry.version}')
    if entry.port:
        members.append(f',"port":{entry.port}')
    if entry.status is not None:
        members.append(f',"status":{entry.status}')
    if entry.duration_ms is not None:
        members.append(f',"duration_ms":{_encode(round(entry.duration_ms, 3))}')
    if entry.redactions is not None:
        members.append(f',"redactions":{entry.redactions}')
    if entry.context:
        pairs, key_limit, value_limit = _CONTEXT_LIMITS
        context = islice(entry.context.items(), pairs)
        short = {_cap(key, key_limit): _cap(value, value_limit) for key, value in context}
        members.append(f',"context":{_encode(short)}')
    return "".join(members).encode("ascii")


def note(what: str, *, now: float, **members: object) -> bytes:
    """The members of a note's line, still open for `link`."""
    return _open({"note": what, "at": timestamp(now), **members})


def header(stream: str, *, slot: int, previous: bytes, now: float) -> bytes:
    """The members of a header, still open for `link`. `previous` is the hash it is chained to."""
    prev = None if previous == GENESIS else previous.hex()
    return _open({"format": FORMAT, "stream": stream, "slot": slot, "prev": prev, "at": timestamp(now)})


def link(members: bytes, *, seq: int, previous: bytes) -> tuple[bytes, bytes]:
    """The finished line, newline included, and its hash."""
    line = b'%s,"seq":%d' % (members, seq)
    digest = hashlib.sha256(previous + line)
    return line + _HASH % digest.hexdigest().encode(), digest.digest()


def check(line: bytes, *, seq: int, previous: bytes) -> bytes | None:
    """The hash of a line that is intact and comes after `previous` as number `seq`; None for any other."""
    members, ending = line[:-_HASH_SIZE], line[-_HASH_SIZE:]
    digest = hashlib.sha256(previous + members)
    if ending != _HASH % digest.hexdigest().encode() or not members.endswith(b',"seq":%d' % seq):
        return None
    return digest.digest()


def is_record(line: bytes) -> bool:
    """Whether the line is a record, not a header or a note."""
    return line.startswith(b'{"id":')


def time_of(line: bytes) -> bytes:
    """The time of any line, as `timestamp` wrote it; no member that a stranger chose comes before it."""
    start = line.find(b'"at":"') + 6
    return line[start : start + 27]


def parse(line: bytes) -> Row:
    """The members of a line of any sort; empty if it is not one of ours."""
    try:
        members = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return members if isinstance(members, dict) else {}


def row(line: bytes) -> Row | None:
    """The record in a line, every member of FIELDS present; None for a header, a note or a line that cannot be read."""
    members = parse(line) if is_record(line) else {}
    if not members:
        return None
    return _EMPTY | {"context": {}} | {name: value for name, value in members.items() if name in _EMPTY}


def fragment(name: str, value: str) -> bytes:
    """The bytes that the line of a record has in it when its member `name` is `value`."""
    return b"%s:%s" % (_encode(name).encode(), _encode(value).encode())


def timestamp(seconds: float) -> str:
    """RFC 3339 in UTC, always with six decimals, so that times sort as text."""
    fraction, whole = math.modf(seconds)
    more, micros = divmod(round(fraction * 1e6), 1_000_000)
    return f"{_to_the_second(int(whole) + more)}.{micros:06d}Z"


@lru_cache(maxsize=4)
def _to_the_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:-6]


def seconds(timestamp: str) -> float:
    """The inverse of `timestamp`. Raises ValueError."""
    return datetime.fromisoformat(timestamp).timestamp()


def _open(members: Mapping[str, object]) -> bytes:
    return _encode(members)[:-1].encode("ascii")


def _cap(text: str, limit: int = _TEXT_LIMIT) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
