"""
The client in front of both proxies: tunnels by CONNECT, TLS in them, in each tunnel one request after the other.

    python bench/load.py       a plan as one line of JSON on stdin; `ready`, and after another line what was found, as JSON

    kept        `concurrency` tunnels, each asked again as soon as it has answered, for `seconds`
    new         the same, with a new tunnel for every request
    fresh       one client after the other, from its connection to its answer; without a `connect`, straight there
    transfer    one request, whose body or answer is long

Before the line that lets it go, and after what it prints then, nothing is in flight: whoever measures looks at the proxy
there. Any answer but 200 ends it, since a number that was not earned is none.
"""

import json
import socket
import ssl
import statistics
import sys
import time

from sockets import Loop, handshake, receive, send
from upstream import LENGTH

WARM_UP = 3
"""Requests in each kept tunnel before anything counts."""

_PIECE = bytes(1 << 18)


def main():
    plan = json.loads(sys.stdin.readline())
    try:
        found = getattr(Client(plan), plan["mode"])()
    except WrongAnswer as answer:
        sys.exit(f"error: {answer}")
    print(json.dumps(found), flush=True)
    sys.stdin.readline()


class WrongAnswer(Exception):
    """The proxy or the upstream did not do its job."""


class Client:
    """Carries out one plan."""

    def __init__(self, plan):
        self._plan = plan
        self._context = ssl.create_default_context(cafile=plan["ca_file"])
        self._context.set_alpn_protocols(["http/1.1"])
        self._connect = plan["connect"].encode()
        self._loop = Loop()
        self._times = []
        self._deadline = 0.0

    def kept(self):
        request = self._request()
        tunnels = [self._tunnel() for _ in range(self._plan["concurrency"])]
        for tls in tunnels:
            self._loop.spawn(tls, self._warm_up(tls, request))
        self._loop.finish()
        began = self._go()
        for tls in tunnels:
            self._loop.spawn(tls, self._repeat(tls, request))
        self._loop.finish()
        return self._found(began)

    def new(self):
        request = self._request()
        began = self._go()
        while len(self._loop) or time.perf_counter() < self._deadline:
            while len(self._loop) < self._plan["concurrency"] and time.perf_counter() < self._deadline:
                tls = self._tunnel()
                self._loop.spawn(tls, self._once(tls, request))
            if len(self._loop):
                self._loop.run()
        return self._found(began)

    def fresh(self):
        request = self._request()
        self._one(request)  # every later client finds what others left
        times = []
        began = self._go()
        while time.perf_counter() < self._deadline:
            times.append(self._one(request))
        self._times = times
        return self._found(began)

    def _one(self, request):
        """How long it takes, from the first SYN to the last byte."""
        began = time.perf_counter()
        tls = self._tunnel()
        self._loop.spawn(tls, self._once(tls, request))
        self._loop.finish()
        return time.perf_counter() - began

    def transfer(self):
        tls = self._tunnel()
        self._loop.spawn(tls, handshake(tls))
        self._loop.finish()
        tls.setblocking(True)
        began = self._go()
        tls.sendall(self._plan["head"].encode())
        for sent in range(0, self._plan["body"], len(_PIECE)):
            tls.sendall(_PIECE[: self._plan["body"] - sent])
        answer = body = b""
        while not body:
            answer += _some(tls)
            head, _, body = answer.partition(b"\r\n\r\n")
        first = time.perf_counter() - began
        _check(head)
        length = LENGTH.search(head)
        size, end = len(body), body[-5:]
        while size < int(length[1]) if length else end != b"0\r\n\r\n":
            piece = _some(tls)
            size, end = size + len(piece), (end + piece)[-5:]
        self._times.append(time.perf_counter() - began)
        return self._found(began) | {"first_byte": first}

    def _request(self):
        return self._plan["head"].encode() + bytes(self._plan["body"])

    def _go(self):
        print("ready", flush=True)
        sys.stdin.readline()
        began = time.perf_counter()
        self._deadline = began + self._plan.get("seconds", 0)
        return began

    def _found(self, began):
        """`median` is the time of a request in seconds."""
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "requests": len(self._times), "median": statistics.median(self._times)}

    def _tunnel(self):
        """A tunnel that the proxy agreed to, or a connection; TLS in it has not begun."""
        raw = socket.create_connection(("127.0.0.1", self._plan["port"]))
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        raw.sendall(self._connect)
        answer = b""
        while self._connect and not answer.endswith(b"\r\n\r\n"):
            answer += _some(raw)
        _check(answer or b"HTTP/1.1 200")
        raw.setblocking(False)
        return self._context.wrap_socket(raw, server_hostname=self._plan["host"], do_handshake_on_connect=False)

    def _warm_up(self, tls, request):
        yield from handshake(tls)
        for _ in range(WARM_UP):
            yield from self._ask(tls, request)

    def _repeat(self, tls, request):
        ended = time.perf_counter()
        while ended < self._deadline:
            began = ended
            yield from self._ask(tls, request)
            ended = time.perf_counter()
            self._times.append(ended - began)

    def _once(self, tls, request):
        began = time.perf_counter()
        yield from handshake(tls)
        yield from self._ask(tls, request)
        tls.close()
        self._times.append(time.perf_counter() - began)

    def _ask(self, tls, request):
        yield from send(tls, request)
        answer, left = b"", 1
        while left > 0:
            piece = yield from receive(tls)
            if not piece:
                raise WrongAnswer("the connection was closed")
            answer += piece
            head, end, body = answer.partition(b"\r\n\r\n")
            if end:
                left = int(LENGTH.search(head)[1]) - len(body)
        _check(head)


def _some(sock):
    piece = sock.recv(1 << 18)
    if not piece:
        raise WrongAnswer("the connection was closed")
    return piece


def _check(head):
    if not head.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200")):
        raise WrongAnswer(head.decode("latin-1"))


if __name__ == "__main__":
    main()
