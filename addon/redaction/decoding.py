"""
Compressed bodies (RFC 9110 8.4), decoded as they come, within bounds.

At most FREE bytes, and beyond them RATIO bytes for each one that came: a few hundred bytes can be made to unfold into
gigabytes. Nothing that stands behind the end of a compressed body is passed on.
"""

import sys
import zlib
from collections.abc import Callable
from typing import Any, Final, Protocol

import brotli

from addon.errors import Refusal

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

FREE: Final = 8 << 20
RATIO: Final = 100

_STEP = 1 << 18
_GZIP = 31
_ZSTD_WINDOW = 23
"""As its logarithm: what RFC 9659 3 lets a sender use, 8 MiB."""


class _Engine(Protocol):
    @property
    def ended(self) -> bool:
        """Whether the body is complete."""

    def step(self, data: bytes) -> bytes:
        """Take `data` as well, and decode at most `_STEP` bytes of what was taken; nothing: there is no more in it."""


class Decoder:
    """One body in one coding: `gzip`, `deflate`, `br` or `zstd`. All raise Refusal(`response_undecodable`)."""

    def __init__(self, coding: bytes) -> None:
        make = _ENGINES.get(coding)
        if make is None:
            raise Refusal("response_undecodable")
        self._engine = make()
        self._room = FREE
        self._begun = False

    def feed(self, data: bytes) -> bytes:
        """What `data` adds to the body."""
        self._begun = self._begun or bool(data)
        self._room += RATIO * len(data)
        parts = []
        try:
            while part := self._engine.step(data):
                self._room -= len(part)
                if self._room < 0:
                    raise Refusal("response_undecodable")
                parts.append(part)
                data = b""
        except (zlib.error, brotli.error, zstd.ZstdError):
            raise Refusal("response_undecodable") from None
        return b"".join(parts)

    def finish(self) -> None:
        """The body has ended: it must be complete, or empty from the start."""
        if self._begun and not self._engine.ended:
            raise Refusal("response_undecodable")


class _Zlib:
    """RFC 1952 with any number of members, or with another `wbits` RFC 1950 or 1951."""

    def __init__(self, wbits: int) -> None:
        self._wbits = wbits
        self._object = zlib.decompressobj(wbits)
        self._waiting = b""

    @property
    def ended(self) -> bool:
        return self._object.eof

    def step(self, data: bytes) -> bytes:
        self._waiting += data
        while self._waiting:
            if self._object.eof:
                if self._wbits != _GZIP or not self._waiting.startswith(b"\x1f"):
                    self._waiting = b""
                    break
                self._object = zlib.decompressobj(self._wbits)
            part = self._object.decompress(self._waiting, _STEP)
            self._waiting = self._object.unused_data if self._object.eof else self._object.unconsumed_tail
            if part:
                return part
        return b"" if self._object.eof else self._object.decompress(b"", _STEP)


class _Deflate:
    """RFC 1950, or the bare RFC 1951 that some servers send in its place."""

    def __init__(self) -> None:
        self._start = b""
        self._inner: _Zlib | None = None

    @property
    def ended(self) -> bool:
        return self._inner is not None and self._inner.ended

    def step(self, data: bytes) -> bytes:
        if self._inner is None:
            self._start += data
            if len(self._start) < 2:
                return b""
            wrapped = self._start[0] & 0x0F == 8 and int.from_bytes(self._start[:2]) % 31 == 0
            self._inner = _Zlib(15 if wrapped else -15)
            data = self._start
        return self._inner.step(data)


class _Brotli:
    def __init__(self) -> None:
        self._object = brotli.Decompressor()

    @property
    def ended(self) -> bool:
        return bool(self._object.is_finished())

    def step(self, data: bytes) -> bytes:
        if self.ended:
            return b""
        part: bytes = self._object.process(data, output_buffer_limit=_STEP)
        return part


class _Zstd:
    """Any number of frames (RFC 8878 3)."""

    def __init__(self) -> None:
        self._object = _zstd()
        self._waiting = b""

    @property
    def ended(self) -> bool:
        return bool(self._object.eof)

    def step(self, data: bytes) -> bytes:
        self._waiting += data
        while True:
            if self._object.eof:
                if not self._waiting:
                    return b""
                self._object = _zstd()
            given, self._waiting = self._waiting, b""
            part: bytes = self._object.decompress(given, max_length=_STEP)
            if self._object.eof:
                self._waiting = self._object.unused_data
            if part or not self._waiting:
                return part


def _zstd() -> Any:
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW})


_ENGINES: dict[bytes, Callable[[], _Engine]] = {
    b"gzip": lambda: _Zlib(_GZIP),
    b"x-gzip": lambda: _Zlib(_GZIP),
    b"deflate": _Deflate,
    b"br": _Brotli,
    b"zstd": _Zstd,
}
