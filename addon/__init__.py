"""The credential-injecting egress proxy: a pure kernel, and a thin mitmproxy shell around it."""
