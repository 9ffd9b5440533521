"""HOST [KEY]: one gRPC call. The proxy and the CA come from the environment."""

import sys

import grpc

host, *key = sys.argv[1:]
metadata = [("authorization", f"Bearer {word}") for word in key]
with grpc.secure_channel(f"{host}:443", grpc.ssl_channel_credentials()) as channel:
    print(channel.unary_unary("/test/Unary")(b"hello", metadata=metadata, timeout=20))
