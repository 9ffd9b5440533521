"""
The values of the vault, recognised in a request that a caller wrote itself: it should not have them.

Every stored version counts, the current and the retired ones. What is kept of a value is a digest, under a key that
each process makes for itself and never writes down, so neither the database nor a backup of it says more than before. A
value that has been destroyed is known until the process ends; one whose secret has been deleted is not.

To look for each value would take longer the more there are. So of every value the longest run of letters and digits is
noted, and where in the value it stands: a request has few runs of such a length, and a look-up for each tells whether
there is anything to compare.
"""

import hashlib
import re
import secrets
from base64 import b64decode
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple
from urllib.parse import unquote_to_bytes

from sqlite_utils import Database

from addon.errors import Fault
from addon.model import Head
from addon.vault.database import Unanswered, query

SHORTEST: Final = 16
"""The length in bytes from which a value is recognised: a shorter one may well be somebody's own word."""

_RUN = re.compile(rb"[A-Za-z0-9]{5,}")
_BASIC = re.compile(rb"basic ++((?:[A-Za-z0-9+/]{4})*+(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?)[ \t]*+", re.IGNORECASE)


class _Mark(NamedTuple):
    """One value: the digests of its run and of all of it, its length, and how much of it comes before the run."""

    secret: str
    run: bytes
    run_length: int
    whole: bytes
    length: int
    before: int


class Known:
    """`reveal(secret_id, version)` gives the name of a secret and the texts of a version that must not be seen, or raises Fault."""

    def __init__(self, data: Database, *, reveal: Callable[[str, int], tuple[str, Iterable[str]]]) -> None:
        self._database = data
        self._reveal = reveal
        self._key = secrets.token_bytes(32)
        self._marks: dict[tuple[str, int], tuple[_Mark, ...]] = {}
        self._by_run: dict[bytes, list[_Mark]] = {}
        self._lengths: frozenset[int] = frozenset()
        self._taken: list[tuple[Any, ...]] | None = None

    def refresh(self) -> None:
        """Take over what has been stored or deleted. Raises Fault when the vault cannot answer."""
        rows = query(self._database, "SELECT secret_id, version FROM versions ORDER BY secret_id, version", {})
        if rows != self._taken:  # most commits store and destroy nothing
            self._taken = rows if self._take(rows) else None

    def _take(self, rows: list[tuple[Any, ...]]) -> bool:
        """Whether all of them could be opened, and need not be looked at again."""
        stored = {secret_id for secret_id, _ in rows}
        kept = {key: marks for key, marks in self._marks.items() if key[0] in stored}
        whole = True
        for secret_id, version in rows:
            if (secret_id, version) in kept:
                continue
            try:
                kept[secret_id, version] = tuple(self._note(*self._reveal(secret_id, version)))
            except Unanswered:
                raise
            except Fault:  # what does not open cannot have come from here
                whole = False
        self._index(kept)
        return whole

    def _index(self, kept: dict[tuple[str, int], tuple[_Mark, ...]]) -> None:
        if kept.keys() == self._marks.keys():
            return
        self._marks, self._by_run = kept, {}
        for mark in (mark for marks in kept.values() for mark in marks):
            self._by_run.setdefault(mark.run, []).append(mark)
        self._lengths = frozenset(mark.run_length for marks in kept.values() for mark in marks)

    def find(self, head: Head) -> str | None:
        """
        The name of a secret with a value that a request holds in its target or a header, or None.

        As it is, percent-encoded (in a query with "+" for a blank, too), or in Basic credentials (RFC 7617).
        """
        if not self._lengths:
            return None
        parts = [head.target, *[value for _, value in head.headers]]
        parts += [unquote_to_bytes(part) for part in parts if b"%" in part]
        if b"+" in head.target:
            parts.append(unquote_to_bytes(head.target.replace(b"+", b" ")))
        text = b"\n".join(parts)
        if b"basic " in text.lower():
            text = b"\n".join([text, *[b64decode(match[1]) for part in parts if (match := _BASIC.fullmatch(part))]])
        for run in _RUN.finditer(text):
            first, last = run.span()
            if last - first in self._lengths:
                for mark in self._by_run.get(self._digest(run[0]), ()):
                    begin = first - mark.before
                    if begin >= 0 and self._digest(text[begin : begin + mark.length]) == mark.whole:
                        return mark.secret
        return None

    def _note(self, secret: str, texts: Iterable[str]) -> Iterable[_Mark]:
        for text in texts:
            value = text.encode()
            run = max(_RUN.finditer(value), key=lambda match: len(match[0]), default=None)
            if run is not None and len(value) >= SHORTEST:
                whole = self._digest(value)
                yield _Mark(secret, self._digest(run[0]), len(run[0]), whole, len(value), run.start())

    def _digest(self, value: bytes) -> bytes:
        return hashlib.blake2b(value, key=self._key, digest_size=16).digest()
