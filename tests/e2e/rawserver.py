"""
Byte-level tools: an origin that keeps what reached it, clients that say exactly what a test wants said, and a real
proxy in a process of its own, patched or plain, whose addon does in each hook what the test told it.
"""

import asyncio
import contextlib
import json
import logging
import multiprocessing
import os
import re
import ssl
import tempfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import trustme
from mitmproxy import http
from mitmproxy import options as mitmproxy_options
from mitmproxy.hooks import all_hooks

from addon import hardening
from addon.refusals import answer

HOST = "localhost"
WAIT = 0.1
PRELOAD = ["mitmproxy.addons", "tests.e2e.rawserver"]
TAG = "X-Alter-Grant: tag-of-the-caller\r\n"


async def abort(*writers):
    """Close at once: a TLS farewell would wait for a peer that may hang."""
    for writer in writers:
        writer.transport.abort()
    for _ in range(5):
        await asyncio.sleep(0)


class Origin:
    """
    An HTTP/1 server that keeps every byte. `async with Origin(...) as origin:`

    `replies` gives the raw bytes (or an async function of the writer) to answer a path with; any other path is answered
    200. With `h2` it speaks HTTP/2 instead, and ends each response with a trailer.
    """

    def __init__(self, certificate=None, *, replies=None, h2=False):
        self.replies = replies or {}
        self.h2 = h2
        self.context = None
        if certificate:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            certificate.configure_cert(self.context)
            self.context.set_alpn_protocols(["h2" if h2 else "http/1.1"])
        self.received = bytearray()
        self.requests = []

    async def __aenter__(self):
        speak = self._speak_h2 if self.h2 else self._speak_h1
        self.tasks, self.writers = [], []

        def accept(reader, writer):
            self.writers.append(writer)
            self.tasks.append(asyncio.ensure_future(speak(reader, writer)))

        self.server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=self.context)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.server.close()
        await abort(*self.writers)
        await asyncio.gather(*self.tasks)

    @property
    def connections(self):
        return len(self.writers)

    async def _speak_h1(self, reader, writer):
        buffer = bytearray()

        async def more():
            data = await reader.read(65536)
            if not data:
                raise EOFError
            self.received += data
            buffer.extend(data)

        async def take(mark_or_size):
            while True:
                if isinstance(mark_or_size, int):
                    end = mark_or_size if len(buffer) >= mark_or_size else -1
                else:
                    end = found + len(mark_or_size) if (found := buffer.find(mark_or_size)) >= 0 else -1
                if end >= 0:
                    taken = bytes(buffer[:end])
                    del buffer[:end]
                    return taken
                await more()

        try:
            while True:
                head = await take(b"\r\n\r\n")
                self.requests.append(head)
                path = head.split(b" ", 2)[1].decode()
                if callable(reply := self.replies.get(path)):
                    await reply(writer)
                    continue
                if length := re.search(rb"(?im)^content-length: (\d+)", head):
                    await take(int(length[1]))
                elif re.search(rb"(?im)^transfer-encoding: chunked", head):
                    while size := int(await take(b"\r\n"), 16):
                        await take(size + 2)
                    await take(b"\r\n")
                writer.write(reply or b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        except (EOFError, OSError, ValueError):
            pass
        finally:
            writer.close()

    async def _speak_h2(self, reader, writer):
        wire = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
        wire.initiate_connection()
        writer.write(wire.data_to_send())
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                for event in wire.receive_data(data):
                    if isinstance(event, h2.events.RequestReceived):
                        self.requests.append(event.headers)
                    elif isinstance(event, h2.events.StreamEnded):
                        wire.send_headers(event.stream_id, [(b":status", b"200"), (b"content-length", b"2")])
                        wire.send_data(event.stream_id, b"ok")
                        wire.send_headers(event.stream_id, [(b"grpc-status", b"0")], end_stream=True)
                writer.write(wire.data_to_send())
        writer.close()


@dataclass
class Response:
    """What a client got. `status` 0: the connection was closed; -1: nothing came in time."""

    status: int
    headers: dict = field(default_factory=dict)
    body: bytes = b""
    ended: bool = True

    @property
    def code(self):
        """The code of a refusal; checks that the body tells the same."""
        if self.headers.get("content-type") != "application/problem+json":
            return None
        document = json.loads(self.body)
        assert document["status"] == self.status
        assert document["code"] == self.headers["x-alter-error"]
        assert document["request_id"] == self.headers["x-alter-request-id"]
        return document["code"]


class Client:
    """One connection to the proxy, and through it: `async with Client(proxy) as client:`"""

    def __init__(self, proxy, *, patience=5):
        self.proxy = proxy
        self.patience = patience

    async def __aenter__(self):
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.proxy.port, limit=1 << 20)
        return self

    async def __aexit__(self, *_):
        await abort(self.writer)

    async def tunnel(self, port, *, alpn=()):
        """CONNECT and TLS. Returns the response to CONNECT; raises OSError where TLS fails."""
        request = f"CONNECT {HOST}:{port} HTTP/1.1\r\nHost: {HOST}:{port}\r\n\r\n"
        response = await self.send(request)
        if response.status == 200:
            context = ssl.create_default_context(cafile=self.proxy.ca)
            if alpn:
                context.set_alpn_protocols(list(alpn))
            async with asyncio.timeout(self.patience):
                await self.writer.start_tls(context, server_hostname=HOST)
        return response

    async def send(self, data, *, answered=True):
        """Write `data`, then read one response."""
        self.writer.write(data.encode("latin-1") if isinstance(data, str) else data)
        with contextlib.suppress(OSError):
            await self.writer.drain()
        return await self.response(headless=isinstance(data, str) and data.startswith("HEAD ")) if answered else None

    async def response(self, *, headless=False):
        try:
            async with asyncio.timeout(self.patience):
                head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                status = int(head.split(" ", 2)[1])
                lines = [line.partition(":") for line in head.split("\r\n")[1:] if line]
                headers = {name.lower(): value.strip() for name, _, value in lines}
                if headless:
                    return Response(status, headers)
                if headers.get("transfer-encoding") == "chunked":
                    body = b""
                    while size := int(await self.reader.readline(), 16):
                        body += (await self.reader.readexactly(size + 2))[:-2]
                    await self.reader.readline()
                else:
                    body = await self.reader.readexactly(int(headers.get("content-length", 0)))
                return Response(status, headers, body)
        except (asyncio.IncompleteReadError, OSError) as error:
            return Response(-1 if isinstance(error, TimeoutError) else 0)

    async def closed(self):
        """Whether the proxy closes the connection, having sent nothing more."""
        try:
            async with asyncio.timeout(self.patience):
                return await self.reader.read(1) == b""
        except TimeoutError:
            return False
        except OSError:
            return True


class H2Client(Client):
    """The same over HTTP/2."""

    async def tunnel(self, port, *, alpn=("h2",)):
        response = await super().tunnel(port, alpn=alpn)
        self.wire = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True, header_encoding="latin-1", validate_outbound_headers=False)
        )
        self.wire.initiate_connection()
        self.authority = f"{HOST}:{port}"
        return response

    async def begin(self, method="GET", path="/", headers=(), *, body=None, end=True, trailers=()):
        """Send a request, or with `end=False` its beginning. Returns the stream id."""
        stream = self.wire.get_next_available_stream_id()
        pseudo = [(":method", method), (":scheme", "https"), (":authority", self.authority), (":path", path)]
        self.wire.send_headers(stream, [*pseudo, *headers], end_stream=end and body is None)
        if body is not None:
            self.wire.send_data(stream, body, end_stream=end and not trailers)
        if trailers:
            self.wire.send_headers(stream, trailers, end_stream=True)
        await self.flush()
        return stream

    async def flush(self):
        self.writer.write(self.wire.data_to_send())
        await self.writer.drain()

    async def result(self, stream):
        """The response on `stream`; `ended` tells whether it was complete, status 0 that it was reset."""
        (response,) = await self.results([stream])
        return response

    async def results(self, streams):
        responses = {stream: Response(-1, ended=False) for stream in streams}
        try:
            async with asyncio.timeout(self.patience):
                while any(not response.ended for response in responses.values()):
                    if not (data := await self.reader.read(65536)):
                        break
                    for event in self.wire.receive_data(data):
                        response = responses.get(getattr(event, "stream_id", None))
                        if response is None:
                            continue
                        if isinstance(event, h2.events.ResponseReceived):
                            response.headers = dict(event.headers)
                            response.status = int(response.headers[":status"])
                        elif isinstance(event, h2.events.DataReceived):
                            response.body += event.data
                        elif isinstance(event, h2.events.StreamEnded):
                            response.ended = True
                        elif isinstance(event, h2.events.StreamReset):
                            response.status, response.ended = 0, True
                    await self.flush()
        except OSError:
            pass
        return list(responses.values())


class Steered:
    """An addon that does in each hook what the test told the proxy (`Proxy.tell`), and stands before the decider."""

    def __init__(self):
        self.plan = {}

    def __getattr__(self, name):
        if name in all_hooks and name not in ("load", "configure", "running", "done", "add_log"):
            return partial(self.act, name)
        raise AttributeError(name)

    def act(self, name, data):
        action = self.plan.get(name)
        return action(data) if action else None


class Decider:
    """Stands in for the shell: takes the tag off, gives the verdict, remembers what the `error` hook saw."""

    def __init__(self):
        self.verdict, self.late, self.stream = "injected", "injected", True
        self.errors = []

    def requestheaders(self, flow):
        if not self.verdict:
            return
        flow.request.headers.pop("x-alter-grant", None)
        flow.metadata["alter.verdict"] = self.verdict
        flow.request.stream = self.stream

    def request(self, flow):
        if flow.metadata.get("alter.verdict") == "hold" and self.late:
            flow.metadata["alter.verdict"] = self.late
            flow.request.headers["Signature"] = str(len(flow.request.raw_content))

    def responseheaders(self, flow):
        flow.response.stream = True

    def error(self, flow):
        self.errors.append((flow.metadata.get("alter.refusal"), flow.metadata.get("alter.id")))

    def tls_clienthello(self, data):
        data.establish_server_tls_first = self.stream == "mirror"


def fail(kind, _data):
    raise kind("the secret of the hook")


async def fail_later(kind, _data):
    await asyncio.sleep(0)
    raise kind("the secret of the hook")


def deny(flow):
    flow.metadata["alter.id"] = "id-of-the-record"
    hardening.local_response(flow, answer("policy_denied", "id-of-the-record"))


def deny_cleartext(flow):
    """By the scheme that was kept, or else by the one that mitmproxy tells."""
    if flow.metadata.get("alter.scheme", flow.request.scheme) == "http":
        deny(flow)


def deny_plainly(flow):
    """The way mitmproxy's documentation shows."""
    reply = answer("policy_denied", "id-of-the-record")
    flow.response = http.Response.make(reply.status, reply.body, http.Headers(reply.headers))


def limit(flow):
    """Room for a megabyte of what is held."""
    full = answer("body_too_large", "id-of-the-record")
    flow.metadata["alter.room"] = lambda size: full if size > 1 << 20 else None


def let_pass(flow):
    flow.metadata["alter.verdict"] = "pass"


async def wait(_data):
    await asyncio.sleep(WAIT)


def intercept(flow):
    flow.intercept()
    asyncio.get_running_loop().call_later(WAIT, flow.resume)


def kill(flow):
    flow.kill()


def withdraw(flow):
    flow.response = None


def speak_h2_upstream(data):
    data.conn.alpn_offers = (b"h2",)


def refuse_connection(data):
    data.server.error = hardening.connection_refused("address_forbidden")


class Proxy:
    """A running proxy. `with Proxy(authority, ...) as proxy:`; `pid`, `port` and the CA file `ca` are there."""

    def __init__(self, upstream_ca, *, hardened=True, **options):
        self.folder = tempfile.TemporaryDirectory()
        home = Path(self.folder.name)
        authority = trustme.CA()
        (home / "mitmproxy-ca.pem").write_bytes(authority.private_key_pem.bytes() + authority.cert_pem.bytes())
        self.ca, self.log = str(home / "ca.pem"), home / "log"
        authority.cert_pem.write_to_path(self.ca)
        upstream_ca.cert_pem.write_to_path(home / "upstream.pem")
        settings = {
            "listen_host": "127.0.0.1",
            "listen_port": 0,
            "confdir": str(home),
            "ssl_verify_upstream_trusted_ca": str(home / "upstream.pem"),
            "connection_strategy": "lazy",
        }
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOAD)
        self.pipe, far = context.Pipe()
        self.process = context.Process(target=_run, args=(far, str(self.log), hardened, settings | options))

    def __enter__(self):
        self.process.start()
        self.port = self.pipe.recv()
        self.pid = self.process.pid
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.join()
        self.process.close()
        self.pipe.close()
        self.folder.cleanup()

    def tell(self, *, plan=None, **decider):
        """Set what the addons do from now on. Returns what `Decider.errors` was."""
        self.pipe.send((plan or {}, decider))
        return self.pipe.recv()

    def descriptors(self):
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())

    def memory(self):
        """Bytes that are resident, at most so far."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) * 1024

    def output(self):
        return self.log.read_text()


def _run(pipe, log, hardened, settings):
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT, 0o600), 2)
    logging.basicConfig(level=logging.WARNING)
    if hardened:
        hardening.install()
    asyncio.run(_serve(pipe, settings))


async def _serve(pipe, settings):
    # Only here, in the child: importing them warns, and warnings are errors where the tests run.
    from mitmproxy.addons import core, next_layer, proxyserver, tlsconfig  # noqa: PLC0415
    from mitmproxy.master import Master  # noqa: PLC0415

    master = Master(mitmproxy_options.Options())
    steered, decider = Steered(), Decider()
    server = proxyserver.Proxyserver()
    master.addons.add(core.Core(), server, steered, next_layer.NextLayer(), tlsconfig.TlsConfig(), decider)
    master.options.update(**settings)

    def told():
        steered.plan, state = pipe.recv()
        errors = decider.errors
        decider.__init__()
        vars(decider).update(state)
        pipe.send(errors)

    async def tell_port():
        while not server.listen_addrs():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        pipe.send(server.listen_addrs()[0][1])

    asyncio.get_running_loop().add_reader(pipe.fileno(), told)
    task = asyncio.ensure_future(tell_port())
    await master.run()
    await task


def call(function, *, hardened):
    """What `function` returns in a process of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    near, far = context.Pipe()
    with near, far:
        process = context.Process(target=_call, args=(far, function, hardened))
        process.start()
        process.join()
        return near.recv() if near.poll() else None


def _call(pipe, function, hardened):
    if hardened:
        hardening.install()
    pipe.send(function())


def certificates():
    """Five hosts in a store for three: which are kept, and how many entries were compared field by field."""
    from mitmproxy.certs import CertStore, CertStoreEntry  # noqa: PLC0415

    compared = []
    CertStoreEntry.__eq__ = lambda one, other: compared.append(1) or one is other
    CertStore.STORE_CAP = 3
    store = object.__new__(CertStore)
    store.certs, store.expire_queue = {}, []
    for host in range(5):
        entry = CertStoreEntry(cert=None, privatekey=None, chain_file=None, chain_certs=[])
        store.certs[host] = entry
        store.expire(entry)
    return {"kept": list(store.certs), "compared": len(compared)}


def certificate_cap():
    from mitmproxy.certs import CertStore  # noqa: PLC0415

    return CertStore.STORE_CAP


def install_again():
    from mitmproxy.proxy.layers.http import HttpStream  # noqa: PLC0415

    before = dict(vars(HttpStream))
    hardening.install()
    return dict(vars(HttpStream)) == before
