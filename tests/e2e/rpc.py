"""A gRPC service by the real server, whose messages are bytes."""

import threading
from concurrent import futures

import grpc


class Service(grpc.GenericRpcHandler):
    """
    Speaks for `hosts` on `ports`; a context manager. Whoever has not the key is UNAUTHENTICATED, and whoever has it is
    told it, in messages, in the details of a status and in trailers. `calls` holds the metadata of each call.
    """

    def __init__(self, host, *, authority, key):
        self.key, self.calls, self.cancelled = key, [], threading.Event()
        self._methods = {
            "/test/Unary": grpc.unary_unary_rpc_method_handler(self._unary),
            "/test/Down": grpc.unary_stream_rpc_method_handler(self._down),
            "/test/Up": grpc.stream_unary_rpc_method_handler(self._up),
            "/test/Both": grpc.stream_stream_rpc_method_handler(self._both),
        }
        self._server = grpc.server(futures.ThreadPoolExecutor(8), handlers=(self,))
        identity = authority.issue_cert(host)
        chain = b"".join(blob.bytes() for blob in identity.cert_chain_pems)
        credentials = grpc.ssl_server_credentials([(identity.private_key_pem.bytes(), chain)])
        self.hosts, self.ports = [host], {443: self._server.add_secure_port("127.0.0.1:0", credentials)}

    def __enter__(self):
        self._server.start()
        return self

    def __exit__(self, *_):
        self._server.stop(None).wait()

    def service(self, details):
        """The handler of one call."""
        self.calls.append(details.invocation_metadata)
        return self._methods.get(details.method)

    def _begin(self, context):
        shown = [value for name, value in context.invocation_metadata() if name == "authorization"]
        if shown != [f"Bearer {self.key}"]:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "no such key")
        context.send_initial_metadata([("x-first", "1")])
        context.set_trailing_metadata([("x-last", "2"), ("x-key", self.key)])

    def _unary(self, request, context):
        self._begin(context)
        if request == b"fail":
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"not with {self.key}")
        return b"<" + request + self.key.encode() + b">"

    def _down(self, request, context):
        """So many messages; then, for a caller that wants more, nothing until it has gone."""
        self._begin(context)
        for number in range(int(request)):
            yield b"%d " % number * 1000
        if request == b"0":
            yield b"first"
            context.add_callback(self.cancelled.set)
            self.cancelled.wait(30)

    def _up(self, requests, context):
        self._begin(context)
        return b"%d" % sum(len(request) for request in requests)

    def _both(self, requests, context):
        """Each message as it comes, backwards."""
        self._begin(context)
        for request in requests:
            yield request[::-1]
