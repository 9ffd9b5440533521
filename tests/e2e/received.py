"""What a test upstream remembers of one request."""

import hashlib
import time
from dataclasses import dataclass, field

KEEP = 1 << 20
"""How many bytes of a body are kept; all of it is counted and hashed."""


@dataclass
class Received:
    """One request. `raw` is the head as it came (HTTP/1.1 only); `complete` turns true when its body has ended."""

    version: str
    sni: str | None
    method: str
    target: bytes
    headers: list
    raw: bytes = b""
    body: bytes = b""
    size: int = 0
    trailers: list = field(default_factory=list)
    complete: bool = False
    at: float = field(default_factory=time.monotonic)
    _hash: object = field(default_factory=hashlib.sha256, repr=False)

    @property
    def host(self):
        """The host it names first, without a port."""
        return next(iter(self.values("host")), "").partition(":")[0]

    @property
    def path(self):
        return self.target.partition(b"?")[0].decode("latin-1")

    @property
    def sha256(self):
        return self._hash.hexdigest()

    def header(self, name):
        """The only value of a header, or None. Fails when there are several."""
        values = self.values(name)
        assert len(values) < 2, f"{name} came {len(values)} times"
        return values[0] if values else None

    def values(self, name):
        """Every value of a header, in order; `:authority` answers for `host`."""
        names = {name.lower().encode()} | ({b":authority"} if name.lower() == "host" else set())
        return [value.decode("latin-1") for key, value in self.headers if key.lower() in names]

    def add(self, piece):
        self.size += len(piece)
        self.body += piece[: KEEP - len(self.body)]
        self._hash.update(piece)
