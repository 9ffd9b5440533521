"""
The mitmproxy hooks: read the flow, ask the kernel, write the answer. Nothing is decided here.

A request leaves only with a verdict in `flow.metadata`, which `hardening` demands after every hook: `pass` (untagged and
allowed), `injected`, or `hold` (the body is needed first, and `request` injects). Anything else, any exception included,
is refused.
"""

import contextlib
import hashlib
import ipaddress
import time
import uuid
from dataclasses import dataclass, replace

from mitmproxy import connection, http, tls
from mitmproxy.proxy import server_hooks

from addon import flows, hardening, hosts, pipeline, refusals
from addon.audit.writer import Writer
from addon.errors import Fault, Refusal
from addon.model import Clock, Head, Record
from addon.network import port_allowed
from addon.pipeline import Authorized, Refused, Untagged
from addon.resolver import Resolver
from addon.settings import Settings
from addon.vault import Vault

EXCHANGE = "alter.exchange"


@dataclass(slots=True)
class Exchange:
    """One request on its way: what was recorded, and the head to show once ours has been sent."""

    record: Record
    started: float
    clean: Head | None = None
    authorized: Authorized | None = None
    held: int = 0
    code: str = ""


class Egress:
    """The addon. Everything it needs is open and tested before the first hook can run."""

    def __init__(
        self, settings: Settings, *, vault: Vault, audit: Writer, resolver: Resolver, clock: Clock = time.time
    ) -> None:
        self._settings = settings
        self._vault = vault
        self._audit = audit
        self._resolver = resolver
        self._clock = clock
        self._tunnel_keys: dict[str, str] = {}
        self._held = 0
        self.active = 0

    # ── tunnels ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def http_connect(self, flow: http.HTTPFlow) -> None:
        """A tunnel opens unless it brings a bad key, or leads to a port that never speaks TLS or HTTP."""
        request = flows.read(flow, request_id=str(uuid.uuid4()), tunnel_key=None)
        now = self._clock()
        refused = pipeline.admit(request, vault=self._vault, now=now)
        if refused is None and not self._port_open(request.host, request.port):
            record = Record(
                id=request.id, at=now, phase="outcome", decision="refused", code="address_forbidden",
                host=request.host, port=request.port, method="CONNECT", client_ip=request.client_ip,
            )  # fmt: skip
            refused = Refused(record=record, code=record.code)
        if refused is not None:
            await self._refuse(flow, refused)
            return
        keys = request.values(b"proxy-authorization")
        if keys:
            self._tunnel_keys[flow.client_conn.id] = keys[0].decode("latin-1")

    def client_disconnected(self, client: connection.Client) -> None:
        """A key proved on CONNECT lives as long as its connection."""
        self._tunnel_keys.pop(client.id, None)

    def tls_clienthello(self, data: tls.ClientHelloData) -> None:
        """
        Reach a bound upstream first, so that its certificate is proved before anything is opened and both legs speak
        the same HTTP. No other upstream is contacted before a decision; both legs then speak HTTP/1.1, unless the client
        cannot.
        """
        client, server = data.context.client, data.context.server
        if server.address is None:
            return
        host, port = hosts.fold(server.address[0]), server.address[1]
        server.sni = host
        h2_only = bool(client.alpn_offers) and b"http/1.1" not in client.alpn_offers
        data.establish_server_tls_first = self._vault.bound(host, port) is not None or h2_only
        if not data.establish_server_tls_first:
            client.alpn = b"http/1.1"
            server.alpn_offers = (b"http/1.1",)

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
        if not self._resolver.allows(address[0], address[1]):
            data.server.error = hardening.connection_refused("address_forbidden")

    # ── requests ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Decide, record, and either inject now or hold the body first."""
        if flow.error is not None or flow.response is not None:
            return
        now = self._clock()
        request = flows.read(flow, request_id=str(uuid.uuid4()), tunnel_key=self._tunnel_keys.get(flow.client_conn.id))
        flow.metadata[hardening.REQUEST_ID] = request.id
        try:
            outcome = pipeline.authorize(request, vault=self._vault, now=now)
            if isinstance(outcome, Untagged) and self._settings.untagged != "pass":
                outcome = _refuse_untagged(outcome)
            if isinstance(outcome, Refused):
                await self._refuse(flow, outcome)
                return
            exchange = Exchange(record=outcome.record, started=time.monotonic(), clean=outcome.head)
            await self._audit.record(outcome.record)
            flow.metadata[EXCHANGE] = exchange
            self.active += 1
            if isinstance(outcome, Untagged):
                await self._pass(flow, outcome)
            else:
                self._release(flow, exchange, outcome)
        except Fault as fault:
            self._fault(flow, request.id, fault, now=now)

    async def request(self, flow: http.HTTPFlow) -> None:
        """The whole body of a held request is here: hash it as it will be sent, and inject."""
        exchange = flow.metadata.get(EXCHANGE)
        if exchange is None or flow.metadata.get(hardening.VERDICT) != hardening.HOLD or flow.response is not None:
            return
        body = flow.request.raw_content or b""
        try:
            self._inject(flow, exchange, hashlib.sha256(body).hexdigest())
        except Fault as fault:
            self._fault(flow, exchange.record.id, fault, now=self._clock())

    def _release(self, flow: http.HTTPFlow, exchange: Exchange, authorized: Authorized) -> None:
        exchange.authorized = authorized
        code = self._unproved(flow, authorized)
        if code is None and authorized.needs_body:
            code = self._admit_body(flow, exchange)
            if code is None:
                flow.request.stream = False
                flow.metadata[hardening.VERDICT] = hardening.HOLD
                return
        if code is not None:
            self._abandon(flow, exchange, code)
            return
        self._inject(flow, exchange, None)

    def _inject(self, flow: http.HTTPFlow, exchange: Exchange, body_sha256: str | None) -> None:
        if exchange.authorized is None:
            raise Fault
        try:
            head = pipeline.inject(exchange.authorized, vault=self._vault, body_sha256=body_sha256)
        except Refusal as refusal:
            self._abandon(flow, exchange, refusal.code)
            return
        flows.write(flow, head)
        if body_sha256 is None:
            flow.request.stream = True
        flow.metadata[hardening.VERDICT] = hardening.INJECTED

    async def _pass(self, flow: http.HTTPFlow, outcome: Untagged) -> None:
        host, port = outcome.record.host, outcome.record.port
        allowed = self._port_open(host, port)
        if allowed and self._vault.bound(host, port):
            # A sealed binding opens a private host to its own secret only, not to whoever is on the tunnel.
            allowed = await self._resolver.allows_untagged(host, port)
        if not allowed:
            self._abandon(flow, flow.metadata[EXCHANGE], "address_forbidden")
            return
        flows.write(flow, outcome.head)
        flow.request.stream = True
        flow.metadata[hardening.VERDICT] = hardening.PASS

    def _admit_body(self, flow: http.HTTPFlow, exchange: Exchange) -> str | None:
        """The code to refuse a body with that cannot be held: of no stated length, or over the limit."""
        length = flow.request.headers.get("content-length", "")
        if not length.isdecimal():
            return "body_required_length"
        limit = self._settings.max_signed_body
        if int(length) > limit:
            return "body_too_large"
        if self._held + int(length) > 2 * limit:
            raise Fault("fault", "too many bodies are being held")
        exchange.held = int(length)
        self._held += exchange.held
        return None

    def _unproved(self, flow: http.HTTPFlow, authorized: Authorized) -> str | None:
        """The code to refuse with when the upstream is not yet proved to be the bound host."""
        server = flow.server_conn
        if server.error is not None:
            return hardening.upstream_code(server.error)
        if server.connected and not (
            server.tls_established and server.certificate_list and server.sni == authorized.target.host
        ):
            return "upstream_unverified"
        return None

    def _port_open(self, host: str, port: int) -> bool:
        return port_allowed(port) or self._resolver.redirected(host, port) or self._vault.bound(host, port) is not None

    # ── responses ────────────────────────────────────────────────────────────────────────────────────────────────

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Stream every response; take our head off the flow, for whoever looks at it later."""
        exchange = flow.metadata.get(EXCHANGE)
        if exchange is not None and exchange.clean is not None:
            flows.write(flow, exchange.clean)
        if exchange is not None and not exchange.code and flow.response is not None:
            flow.response.stream = True

    def response(self, flow: http.HTTPFlow) -> None:
        """The response has ended."""
        self._finish(flow, status=flow.response.status_code if flow.response else None, code="")

    def error(self, flow: http.HTTPFlow) -> None:
        """The exchange broke off: the client left, or the upstream failed."""
        exchange = flow.metadata.get(EXCHANGE)
        if exchange is not None and exchange.clean is not None:
            flows.write(flow, exchange.clean)
        self._finish(
            flow,
            status=flow.response.status_code if flow.response else None,
            code=flow.metadata.get(hardening.REFUSAL, "interrupted"),
        )

    def websocket_message(self, flow: http.HTTPFlow) -> None:
        """mitmproxy keeps every message of a connection until it ends; nobody here reads them again."""
        if flow.websocket is not None:
            flow.websocket.messages.clear()

    def _finish(self, flow: http.HTTPFlow, *, status: int | None, code: str) -> None:
        exchange = flow.metadata.pop(EXCHANGE, None)
        if exchange is None:
            return
        self.active -= 1
        self._held -= exchange.held
        outcome = replace(
            exchange.record,
            at=self._clock(),
            phase="outcome",
            status=status,
            code=exchange.code or code,
            duration_ms=round((time.monotonic() - exchange.started) * 1000, 3),
        )
        with contextlib.suppress(Fault):  # the log is closed: the intent tells that this request went out
            self._audit.post(outcome)

    # ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _refuse(self, flow: http.HTTPFlow, refused: Refused) -> None:
        """Record, then answer. Nothing of the request leaves."""
        answer = refusals.answer(
            refused.code, refused.record.id, policy=refused.policy, retry_after=refused.retry_after
        )
        try:
            await self._audit.record(replace(refused.record, status=answer.status))
        except Fault as fault:
            answer = refusals.answer(fault.code, refused.record.id)
        hardening.local_response(flow, answer)

    def _abandon(self, flow: http.HTTPFlow, exchange: Exchange, code: str) -> None:
        """Refuse after the intent was recorded; the outcome row, which follows with the answer, carries the code."""
        exchange.code = code
        exchange.record = replace(exchange.record, decision="refused")
        hardening.local_response(flow, refusals.answer(code, exchange.record.id))
        if code.startswith("upstream_") and flow.response is not None and not flow.request.is_http2:
            # The failed upstream connection belongs to this tunnel; a new tunnel tries again.
            flow.response.headers["Connection"] = "close"

    def _fault(self, flow: http.HTTPFlow, request_id: str, fault: Fault, *, now: float) -> None:
        """Answer 503, and leave a record if one can be left."""
        answer = refusals.answer(fault.code, request_id)
        exchange = flow.metadata.get(EXCHANGE)
        if exchange is not None:
            exchange.code = fault.code
            exchange.record = replace(exchange.record, decision="fault")
        else:
            record = Record(
                id=request_id, at=now, phase="outcome", decision="fault", code=fault.code, status=answer.status
            )
            record = replace(record, host=flow.request.host, port=flow.request.port, method=flow.request.method)
            with contextlib.suppress(Fault):
                self._audit.post(record)
        hardening.local_response(flow, answer)


def _refuse_untagged(outcome: Untagged) -> Refused:
    record = replace(outcome.record, phase="outcome", decision="refused", code="untagged")
    return Refused(record=record, code="untagged")
