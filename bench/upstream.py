"""
The server behind both proxies: HTTP/1.1 over TLS on a free port of 127.0.0.1, with canned answers.

    python bench/upstream.py IDENTITY.pem       what it expects comes as one line of JSON on stdin; prints its port

    GET  /small         512 bytes, or 401 without the right bearer token
    POST /signed        the same, or 401 without a right AWS signature
    POST /plain         the same, whatever comes
    GET  /bytes/N       N bytes
    POST /sink          takes any body
    GET  /slow          an event at once and another after a second, in chunks

A request that still names a grant gets 418.
"""

import json
import re
import socket
import ssl
import sys
import time

from sockets import READ, Loop, handshake, receive, send

from vaultctl import sigv4_check

LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)

_PIECE = bytes(1 << 18)


def main():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1])
    context.set_alpn_protocols(["http/1.1"])
    server = Server(context, **json.loads(sys.stdin.readline()))
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listener.setblocking(False)
    print(listener.getsockname()[1], flush=True)
    server.serve(listener)


class Server:
    """Serves until its process ends."""

    def __init__(self, context, *, token, key_id, key, region, service):
        self._context = context
        self._bearer = f"\r\nauthorization: bearer {token}\r\n".encode()
        self._scope = {"keys": {key_id: key}, "region": region, "service": service}
        self._loop = Loop()

    def serve(self, listener):
        self._loop.spawn(listener, self._accept(listener))
        self._loop.finish()

    def _accept(self, listener):
        while True:
            try:
                raw, _ = listener.accept()
            except BlockingIOError:
                yield READ
                continue
            raw.setblocking(False)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            tls = self._context.wrap_socket(raw, server_side=True, do_handshake_on_connect=False)
            self._loop.spawn(tls, self._connection(tls))

    def _connection(self, tls):
        try:
            yield from handshake(tls)
            data = b""
            while True:
                while b"\r\n\r\n" not in data:
                    piece = yield from receive(tls)
                    if not piece:
                        return
                    data += piece
                head, _, data = data.partition(b"\r\n\r\n")
                data = yield from self._answer(tls, head + b"\r\n", data)
        except OSError:
            pass  # the proxy hung up in the middle; the client counts that
        finally:
            tls.close()

    def _answer(self, tls, head, body):
        """Answers one request; the bytes after it."""
        method, target, _ = head.split(b" ", 2)
        folded = head.lower()
        found = LENGTH.search(head)
        length = int(found[1]) if found else 0
        if b"\r\nx-alter-" in folded:
            yield from send(tls, _reply(418))
        elif target == b"/small":
            yield from send(tls, _reply(200 if self._bearer in folded else 401))
        elif target == b"/sink":
            left = length - len(body)
            while left > 0:
                left -= len((yield from receive(tls, 1 << 18)))
            yield from send(tls, _reply(200))
            return b""
        elif target.startswith(b"/bytes/"):
            left = int(target[7:])
            yield from send(tls, _head(200, left))
            while left > 0:
                yield from send(tls, _PIECE[:left])
                left -= len(_PIECE)
        elif target == b"/slow":
            yield from send(
                tls, b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            yield from send(tls, b"9\r\ndata: 1\n\n\r\n")
            time.sleep(1)  # nobody else is served now
            yield from send(tls, b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")
        else:
            while len(body) < length:
                body += yield from receive(tls)
            wrong = target == b"/signed" and self._unsigned(method, target, head, body[:length])
            yield from send(tls, _reply(401 if wrong else 200))
        return body[length:]

    def _unsigned(self, method, target, head, body):
        lines = (line.partition(b":") for line in head.split(b"\r\n")[1:-1])
        headers = [(name, value.strip()) for name, _, value in lines]
        return sigv4_check.verify(
            method.decode(), target=target, headers=headers, body=body, now=time.time(), **self._scope
        )


def _head(status, length):
    return b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, length)


def _reply(status):
    return _REPLIES[status]


_REPLIES = {status: _head(status, 512) + b"x" * 512 for status in (200, 401, 418)}


if __name__ == "__main__":
    main()
