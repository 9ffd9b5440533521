"""How a server is verified that we ourselves connect to."""

import ssl


def verifying_context(ca_file: str) -> ssl.SSLContext:
    """For HTTP/1.1 over TLS 1.2 or later, by the CA certificates in a file (PEM)."""
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context
