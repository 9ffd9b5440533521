"""TLS contexts for intercepted hosts, each with a certificate from the local CA, made when first needed."""

import os
import ssl
import tempfile
from collections import OrderedDict
from pathlib import Path

from addon import leaf
from addon.model import Clock

_KEPT = 2000
_FRESH = leaf.LIFETIME.total_seconds() / 2


class Leaves:
    """Contexts by host. `authority` is the CA's key and certificate, PEM."""

    def __init__(self, authority: bytes, *, clock: Clock) -> None:
        self._authority = authority
        self._clock = clock
        self._contexts: OrderedDict[str, tuple[float, ssl.SSLContext]] = OrderedDict()

    def take(self, authority: bytes) -> None:
        """Make what comes from now on with another CA; a context that is in use goes on as it is."""
        self._authority = authority
        self._contexts.clear()

    def context(self, host: str) -> ssl.SSLContext:
        """A server context that proves `host`, speaks HTTP/1.1, TLS 1.2 or later."""
        now = self._clock()
        made, context = self._contexts.get(host, (0.0, None))
        if context is None or now - made > _FRESH:
            context = _context(leaf.leaf(self._authority, names=[host], now=now))
            self._contexts[host] = (now, context)
            if len(self._contexts) > _KEPT:
                self._contexts.popitem(last=False)
        return context


def _context(pem: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.num_tickets = 1
    _load(context, pem)
    return context


def _load(context: ssl.SSLContext, pem: bytes) -> None:
    """`load_cert_chain` wants a path: memory that looks like a file where there is such a thing, else a private file."""
    if hasattr(os, "memfd_create"):
        with os.fdopen(os.memfd_create("leaf", os.MFD_CLOEXEC), "wb") as file:
            file.write(pem)
            file.flush()
            context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "leaf.pem"
        path.touch(mode=0o600)
        path.write_bytes(pem)
        context.load_cert_chain(path)
