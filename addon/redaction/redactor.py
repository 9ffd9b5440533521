"""A stream in which nothing of a needle stays readable, however it comes in pieces."""

from addon.redaction.needles import Needles


class Redactor:
    """
    Every byte of the stream that is part of a needle becomes a star, and no other is changed: lengths stay.

    What comes out does not depend on the pieces. An end that may be the beginning of a needle waits for what follows, so
    never more than the longest needle less one byte, and nothing at all that cannot become one. `count` is the number of
    places with stars, overlapping needles taken as one.
    """

    __slots__ = ("_held", "_needles", "_starred", "count")

    def __init__(self, needles: Needles) -> None:
        self._needles = needles
        self._held = b""
        self._starred = 0
        self.count = 0

    def feed(self, data: bytes) -> bytes:
        """What can go out now."""
        if not data:
            return b""
        if self._held:
            data = self._held + data
        return self._pass(data, self._needles.begun(data))

    def finish(self, data: bytes = b"") -> bytes:
        """The stream has ended with `data`: the rest of it. May be called again."""
        data = self._held + data
        return self._pass(data, len(data)) if data else b""

    def _pass(self, data: bytes, end: int) -> bytes:
        """`data` up to `end`; the rest is held."""
        self._held = data[end:]
        if not self._starred and not self._needles.among(data):
            return data[:end]
        out, starred = bytearray(data[:end]), self._starred
        out[:starred] = b"*" * min(starred, end)
        for first, last in self._needles.find(data):
            if first >= end:  # it is in what is held, and will be found again
                break
            self.count += first >= starred
            starred = max(starred, last)
            out[first:last] = b"*" * (min(last, end) - first)
        self._starred = max(starred - end, 0)
        return bytes(out)
