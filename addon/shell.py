"""
The mitmproxy hooks: read the flow, ask the gate, write the answer. Nothing is decided here.

A request leaves only with a verdict in `flow.metadata`, which `hardening` demands after every hook: `pass`, `prove` (its
upstream first, then the credential goes in), or `hold` (the body first). Anything else, any exception included, is refused.
"""

import contextlib
import hashlib
import ipaddress
import secrets
from collections.abc import Callable, Coroutine
from typing import Any

from mitmproxy import connection, http, tls
from mitmproxy.proxy import server_hooks

from addon import callers, flows, hardening, hosts, responses, selfservice
from addon.errors import Refusal
from addon.gate import Denial, Gate, Permit
from addon.hardening.local import LEAVING
from addon.hardening.unjudged import Unjudged
from addon.model import Proof, Request, Rewriter
from addon.redaction import Passage, Screen
from addon.refusals import Answer
from addon.websocket import handshake, relay

PERMIT = "alter.permit"
OFFER = "alter.offer"
REST = "alter.rest"


class Egress:
    """The addon for mitmproxy's own HTTP layers."""

    def __init__(self, gate: Gate, *, transparent: bool = False) -> None:
        self._gate = gate
        self._transparent = transparent
        self._tunnel_keys: dict[str, Proof] = {}
        self._passed: dict[str, Permit] = {}
        self._open: dict[str, dict[str, Permit]] = {}

    # ── tunnels ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def http_connect(self, flow: http.HTTPFlow) -> None:
        """A key that comes with a CONNECT holds for its tunnel."""
        request = flows.read(flow, request_id=secrets.token_hex(16), tunnel_key=None)
        denial = await self._gate.admit(request)
        if denial is not None:
            hardening.local_response(flow, denial.answer)
            return
        keys = request.values(b"proxy-authorization")
        if keys:
            self._tunnel_keys[flow.client_conn.id] = callers.parse_basic(keys[0])

    def client_connected(self, client: connection.Client) -> None:
        """
        Whoever has waited longest without proving anything gives way when there are too many.

        Only what was redirected here is served transparently, and whoever connects to us was not.
        """
        gives_way = self._gate.load.arrive(client.id, address=str(client.peername[0]))
        if gives_way == client.id:
            client.error = "refused"
        elif gives_way is not None:
            hardening.hang_up(gives_way)
        if self._transparent and self._gate.resolver.is_own(*client.sockname[:2]):
            client.error = "not redirected"

    def client_disconnected(self, client: connection.Client) -> None:
        """A key proved on CONNECT lives as long as its connection, and so does what was begun on it."""
        self._tunnel_keys.pop(client.id, None)
        permit = self._passed.pop(client.id, None)
        if permit is not None:
            self._gate.leave(permit, status=None)
        self._gate.load.depart(client.id)
        for permit in self._open.pop(client.id, {}).values():
            self._gate.leave(permit, status=None, code="interrupted")  # it broke where no hook tells

    def tls_clienthello(self, data: tls.ClientHelloData) -> Coroutine[Any, Any, None] | None:
        """Let through what nobody reads, and intercept the rest."""
        client, server = data.context.client, data.context.server
        if server.address is None:
            return None
        if self._transparent:
            # What a CONNECT would have named. The address that the app took for it is not used: it proves nothing.
            with contextlib.suppress(hosts.NotAName):
                server.address = (hosts.normalize(client.sni or ""), server.address[1])
        host, port = hosts.fold(server.address[0]), server.address[1]
        if self._gate.interception.passes(host, port, sni=client.sni):
            return self._pass(data, host, port)
        self._intercept(data, host)
        return None

    async def _pass(self, data: tls.ClientHelloData, host: str, port: int) -> None:
        client = data.context.client
        request = Request(
            id=secrets.token_hex(16), scheme="https", host=host, port=port, method="CONNECT", target=b"", headers=(),
            authorities=(), sni=client.sni, client_ip=str(client.peername[0]), tunnel_key=self._tunnel_keys.get(client.id),
        )  # fmt: skip
        permit = await self._gate.pass_through(request)
        if permit is None:
            self._intercept(data, host)
            return
        self._passed[client.id] = permit
        data.ignore_connection = True
        data.context.server.tls = False  # not with us, so nobody waits for it
        hardening.pass_on(client.id)

    def _intercept(self, data: tls.ClientHelloData, host: str) -> None:
        """
        Reach a bound upstream first, so that its certificate is proved before anything is opened and both legs speak
        the same HTTP. No other upstream is contacted before a decision; both legs then speak HTTP/1.1, unless the client
        cannot.
        """
        client, server = data.context.client, data.context.server
        if server.address is None:
            return
        server.sni = host
        h2_only = bool(client.alpn_offers) and b"http/1.1" not in client.alpn_offers
        if host == selfservice.HOST:
            return  # there is no upstream to meet, and the client may speak what it likes
        try:
            bound = self._gate.bound(host, server.address[1])
            h2_only = h2_only and self._gate.port_open(host, server.address[1])
        except Exception:  # noqa: BLE001  whatever it is, each request is told, which a handshake cannot do
            bound = True
        data.establish_server_tls_first = bound or h2_only
        if not data.establish_server_tls_first:
            # What the client offers is what every upstream connection of this tunnel will be offered.
            client.alpn = b"http/1.1"
            client.alpn_offers = (b"http/1.1",)

    def server_connect(self, data: server_hooks.ServerConnectionHookData) -> None:
        """An address in place of a name never meets the resolver, so it is judged here."""
        address = data.server.address
        if address is None or data.server.via is not None:
            data.server.error = hardening.connection_refused("address_forbidden")
            return
        try:
            ipaddress.ip_address(address[0].partition("%")[0])
        except ValueError:
            return
        if not self._gate.resolver.allows(address[0], address[1]):
            data.server.error = hardening.connection_refused("address_forbidden")

    def server_connect_error(self, data: server_hooks.ServerConnectionHookData) -> None:
        """A tunnel that nobody reads ends here, and its record says why."""
        permit = self._passed.get(data.client.id)
        if permit is not None:
            self._gate.abandon(permit, hardening.upstream_code(data.server.error or ""))

    async def alter_unjudged(self, refusal: Unjudged) -> None:
        """Record what was refused before there was a request to decide about."""
        host, port = refusal.destination
        request = Request(
            id=secrets.token_hex(16), scheme="https", host=host, port=port, method="", target=b"", headers=(),
            authorities=(), sni=None, client_ip=str(refusal.client.peername[0]),
        )  # fmt: skip
        refusal.answer = (await self._gate.refuse(request, refusal.code)).answer

    # ── requests ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Decide, record, and either inject now or hold the body first."""
        if flow.error is not None or flow.response is not None:
            return
        tunnel_key = self._tunnel_keys.get(flow.client_conn.id)
        request = flows.read(flow, request_id=secrets.token_hex(16), tunnel_key=tunnel_key)
        flow.metadata[hardening.REQUEST_ID] = request.id
        fault = flows.fault(flow)
        if fault:
            hardening.local_response(flow, (await self._gate.refuse(request, fault)).answer)
            return
        permit = await self._gate.enter(request)
        if isinstance(permit, Denial):
            hardening.local_response(flow, permit.answer)
            return
        flow.metadata[PERMIT] = permit
        self._open.setdefault(flow.client_conn.id, {})[permit.record.id] = permit
        unproved = self._unproved(flow, permit)
        if unproved is not None:
            self._deny(flow, self._gate.abandon(permit, unproved))
        elif permit.needs_body:
            self._hold(flow, permit)
        else:
            flow.request.stream = True
            self._release(flow, permit)

    async def request(self, flow: http.HTTPFlow) -> None:
        """The whole body is here: drop trailers, which nobody has judged; hash a held one as it will go out, and inject."""
        flow.request.trailers = None
        permit = flow.metadata.get(PERMIT)
        if permit is None or flow.metadata.get(hardening.VERDICT) != hardening.HOLD or flow.response is not None:
            return
        body = flow.request.raw_content or b""
        if permit.local is not None:
            self._deny(flow, self._gate.answer(permit, permit.local, body))
            return
        digest = hashlib.sha256(body).hexdigest()
        denial = self._gate.examine(permit, [body]) or await self._gate.approve(permit, body_sha256=digest)
        if denial is not None:
            self._deny(flow, denial)
            return
        self._release(flow, permit, body_sha256=digest)

    def _hold(self, flow: http.HTTPFlow, permit: Permit) -> None:
        length = flow.request.headers.get("content-length", "")
        denial = self._gate.hold(permit, int(length) if length.isdecimal() else 0)
        if denial is not None:
            self._deny(flow, denial)
            return

        def make_room(size: int) -> Answer | None:
            denial = self._gate.hold(permit, size)
            return denial.answer if denial else None

        flow.request.stream = False
        flow.metadata[hardening.VERDICT] = hardening.HOLD
        flow.metadata[hardening.ROOM] = make_room

    def _release(self, flow: http.HTTPFlow, permit: Permit, *, body_sha256: str | None = None) -> None:
        """Let it go: at once without a credential, otherwise when its upstream is connected and proved."""
        authorized = permit.authorized
        if authorized is None:
            flow.metadata[OFFER] = permit.clean
            flows.write(flow, permit.clean)
            flow.metadata[hardening.VERDICT] = hardening.PASS
            return

        def release() -> Answer | None:
            unproved = self._unproved(flow, permit, connected=True)
            released = (
                self._gate.abandon(permit, unproved)
                if unproved
                else self._gate.release(permit, body_sha256=body_sha256)
            )
            if isinstance(released, Denial):
                return released.answer
            flow.metadata[OFFER] = released.head
            flows.write(flow, released.head, authority=authorized.target.authority)
            if body_sha256 is not None:
                _size(flow.request)
            if released.rewriter is not None:
                flow.request.stream = self._rewrite(flow, permit, released.rewriter)
            flow.metadata[hardening.VERDICT] = hardening.INJECTED
            return None

        flow.metadata[hardening.VERDICT] = hardening.PROVE
        flow.metadata[hardening.RELEASE] = release

    def _rewrite(
        self, flow: http.HTTPFlow, permit: Permit, rewriter: Rewriter | Passage
    ) -> Callable[[bytes], list[bytes]]:
        """What mitmproxy calls with each piece of a body, and with nothing at its end."""

        def stream(data: bytes) -> list[bytes]:
            try:
                piece = rewriter.feed(data) if data else rewriter.finish()
            except Exception as error:
                # Part of it is out. FailClosedHandler drops both connections, and no hook tells that it is over.
                status = flow.response.status_code if flow.response else None
                self._gate.abandon(permit, error.code if isinstance(error, Refusal) else "fault", sent=True)
                self._gate.leave(permit, status=status)
                raise
            return [piece] if piece else []  # an empty piece would end a chunked body

        return stream

    def _unproved(self, flow: http.HTTPFlow, permit: Permit, *, connected: bool = False) -> str | None:
        """
        The code to refuse with when a credential is to go to an upstream that is not proved to be the bound host.

        One that is not `connected` yet may still prove it.
        """
        if permit.authorized is None:
            return None
        server = flow.server_conn
        if server.error is not None:
            return hardening.upstream_code(server.error)
        proved = (
            server.tls_established and server.certificate_list and hosts.fold(server.sni or "") == permit.record.host
        )
        if (connected or server.connected) and not (server.connected and proved):
            return "upstream_unverified"
        return None

    def _deny(self, flow: http.HTTPFlow, denial: Denial) -> None:
        hardening.local_response(flow, denial.answer)
        if denial.answer.status == 502 and flow.response is not None and not flow.request.is_http2:
            # The failed upstream connection belongs to this tunnel; a new tunnel tries again.
            flow.response.headers["Connection"] = "close"

    # ── responses ────────────────────────────────────────────────────────────────────────────────────────────────

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Stream every response, cleaned; take the credential off the flow, for whoever looks at it later."""
        permit = self._cleaned(flow)
        if permit is None or flow.response is None or not flow.metadata.get(LEAVING):  # it is an answer of ours
            return
        if flow.response.status_code == 101 and not permit.code:
            self._switch(flow, flow.response, permit)
        elif permit.local is None and not permit.code:
            flow.response.headers = http.Headers(list(responses.clean(flow.response.headers.fields)))
            flow.response.stream = True
            if permit.screen is not None:
                self._screen(flow, flow.response, permit, permit.screen)

    def _switch(self, flow: http.HTTPFlow, response: http.Response, permit: Permit) -> None:
        """Another protocol takes over, if it is the one that was asked for."""
        sent = flow.metadata.pop(OFFER, None)
        try:
            offer = None if sent is None or not flow.request.is_http11 else handshake.read(sent)
            headers, flow.metadata[hardening.RELAY] = relay.grant(offer, response.headers.fields, permit.screen)
        except Refusal:
            self._withhold(flow, response, self._gate.abandon(permit, "websocket_invalid", sent=True).answer)
            response.headers["Connection"] = "close"
            return
        framing = (b"content-length", b"transfer-encoding")
        response.data.reason = b"Switching Protocols"
        response.headers = http.Headers([pair for pair in headers if pair[0].lower() not in framing])
        response.stream = True

    def _screen(self, flow: http.HTTPFlow, response: http.Response, permit: Permit, screen: Screen) -> None:
        bodiless = flow.request.method == "HEAD" or response.status_code in {204, 304}
        try:
            shown = screen.open(response.data.reason, response.headers.fields, bodiless=bodiless)
        except Refusal as refusal:
            self._withhold(flow, response, self._gate.abandon(permit, refusal.code, sent=True).answer)
            return
        response.data.reason = shown.reason
        response.headers = http.Headers(list(shown.headers))
        if shown.body is not None:
            response.stream = self._rewrite(flow, permit, shown.body)
        if shown.resized:
            _chunk(flow, response)

    def _withhold(self, flow: http.HTTPFlow, response: http.Response, answer: Answer) -> None:
        """Put an answer of ours in the place of an upstream's, whose body is dropped as it comes."""
        response.status_code, response.data.reason = answer.status, answer.reason
        response.headers = http.Headers(list(answer.headers))
        _chunk(flow, response)
        rest = flow.metadata[REST] = [answer.body]

        def stream(_dropped: bytes) -> list[bytes]:
            return [rest.pop()] if rest else []

        response.stream = stream

    def response(self, flow: http.HTTPFlow) -> None:
        """The response has ended, unless a WebSocket begins."""
        if flow.websocket is not None:
            return
        rest = flow.metadata.get(REST)
        if rest and flow.response is not None:
            flow.response.raw_content = rest.pop()  # the upstream's had no body, and so nothing was streamed
        permit = flow.metadata.pop(PERMIT, None)
        if permit is not None:
            if permit.screen is not None and flow.response is not None and flow.response.trailers:
                kept = () if permit.code else permit.screen.redact(flow.response.trailers.fields)
                flow.response.trailers = http.Headers(list(kept)) if kept else None
            self._leave(flow, permit, status=flow.response.status_code if flow.response else None)

    def error(self, flow: http.HTTPFlow) -> None:
        """The exchange broke off: the client left, or the upstream failed."""
        permit = self._cleaned(flow)
        if permit is not None:
            del flow.metadata[PERMIT]
            status = flow.response.status_code if flow.response else None
            code = flow.metadata.get(hardening.REFUSAL)
            if code and status is None:
                status = self._gate.abandon(permit, code, sent=True).answer.status
            broken = flow.metadata.get(hardening.BROKEN, "interrupted")
            self._leave(flow, permit, status=status, code=code or broken)

    def _leave(self, flow: http.HTTPFlow, permit: Permit, *, status: int | None, code: str = "") -> None:
        begun = self._open.get(flow.client_conn.id, {})
        begun.pop(permit.record.id, None)
        if not begun:
            self._open.pop(flow.client_conn.id, None)
        self._gate.leave(permit, status=status, code=code)

    def websocket_start(self, flow: http.HTTPFlow) -> None:
        """Frames may pass."""
        self._gate.attend(flow.metadata[PERMIT], flow.metadata[hardening.END])

    def websocket_end(self, flow: http.HTTPFlow) -> None:
        """No more of them."""
        permit = flow.metadata.pop(PERMIT, None)
        if permit is not None:
            self._leave(flow, permit, status=101, code=flow.metadata.get(hardening.REFUSAL, ""))

    def _cleaned(self, flow: http.HTTPFlow) -> Permit | None:
        permit: Permit | None = flow.metadata.get(PERMIT)
        if permit is not None:
            flows.write(flow, permit.clean)
        return permit


def _size(request: http.Request) -> None:
    """Frame a held body by its length."""
    body = request.raw_content or b""
    if request.headers.pop("transfer-encoding", None) or body:
        request.headers["Content-Length"] = str(len(body))


def _chunk(flow: http.HTTPFlow, response: http.Response) -> None:
    """Frame a body whose length is not known. HTTP/2 and 3 have frames of their own."""
    if not (flow.request.is_http2 or flow.request.is_http3):
        response.headers["Transfer-Encoding"] = "chunked"
