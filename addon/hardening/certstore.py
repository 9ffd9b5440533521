"""Certificates for many hosts (P9)."""

from collections.abc import Callable
from typing import Any

from mitmproxy.certs import CertStore, CertStoreEntry

from addon.hardening import target

CAP = 10_000
"""Certificates kept per process: about 1 kB each."""


def keep_many_certificates() -> None:
    """
    P9: the certificates of 10,000 hosts are kept, and dropping the oldest costs the same however many there are.

    Plain mitmproxy keeps 100; above that each new host compares all of them field by field: 1 ms more per connection,
    against 0.05 ms for making the certificate.
    """

    def make(_original: Callable[..., None]) -> Callable[..., None]:
        def expire(store: CertStore, entry: CertStoreEntry) -> None:
            store.expire_queue.append(entry)
            if len(store.expire_queue) > store.STORE_CAP:
                oldest = store.expire_queue.pop(0)
                # A dict keeps the order of insertion, so this finds it among the first.
                key: Any = next(key for key, kept in store.certs.items() if kept is oldest)
                del store.certs[key]

        return expire

    target.replace(CertStore, "expire", make=make)
    target.replace(CertStore, "STORE_CAP", make=lambda _original: CAP)
