"""
One client's tunnel: its requests, one after another.

Fails closed by construction: the upstream's stream is written to in `_forward` alone, with the head that the gate
released for a Permit. Everything that breaks ends in an answer of our own or in a closed connection.
"""

import asyncio
import contextlib
import secrets
from dataclasses import dataclass
from pathlib import Path

from addon import responses
from addon.complaints import complain
from addon.errors import Refusal
from addon.exchange import heads
from addon.exchange.bodies import Body
from addon.exchange.download import Download
from addon.exchange.heads import Malformed, RequestHead, ResponseHead, TooLarge
from addon.exchange.pool import Key, Pool, Unreachable, Upstream
from addon.exchange.progress import Broken, Progress
from addon.exchange.spool import Spool
from addon.exchange.streams import Stream
from addon.exchange.upload import Upload
from addon.gate import Denial, Gate, Permit
from addon.model import Head, Headers, Proof, Request
from addon.refusals import Answer

_DISCARD = 1 << 18
_LINGER = 2.0
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Opening:
    """What the CONNECT and the ClientHello said."""

    host: str
    port: int
    sni: str | None
    client_ip: str
    key: Proof | None
    number: str


class Tunnel:
    """Serves a client whose TLS has been accepted for `opening.host`. Large bodies are held in `folder`."""

    def __init__(self, client: Stream, opening: Opening, *, gate: Gate, pool: Pool, folder: Path) -> None:
        self._client = client
        self._opening = opening
        self._gate = gate
        self._pool = pool
        self._folder = folder
        self._upstream: Upstream | None = None
        self._status: int | None = None
        self._keyless = False
        self._nobody = f"tunnel:{opening.number}"
        self.progress = Progress()

    async def serve(self) -> None:
        """Until the client leaves, or nothing more can be trusted to be a request."""
        try:
            await self._client.handshake()
            while await self._serve_one():
                pass
        except Malformed as problem:
            denial = await self._gate.refuse(self._unreadable(), problem.code)
            self._client.write(_assemble(denial.answer, head_only=False, close=True))
        except (ConnectionError, OSError):
            pass
        except Exception as error:  # noqa: BLE001  one tunnel must not take others with it
            complain("a tunnel broke", error)
        finally:
            self.hang_up()
            if self._keyless:
                self._pool.forget(self._nobody)
            self._client.close()

    def expire(self) -> None:
        """Give up: somebody took too long."""
        self._client.abort()
        self.hang_up()

    def hang_up(self) -> None:
        """The client is gone: what it asked for need not be finished."""
        if self._upstream is not None:
            self._upstream.stream.abort()

    # ── one exchange ─────────────────────────────────────────────────────────────────────────────────────────────

    async def _serve_one(self) -> bool:
        """Whether another request may follow on this connection."""
        self.progress.await_head()
        raw = await _read_head(self._client)
        if raw is None:
            return False
        head = heads.parse_request(raw)
        self.progress.moved()
        upload = Upload(self._client, head, self.progress)
        permit = await self._gate.enter(self._read(head))
        if isinstance(permit, Denial):
            return await self._deny(permit, head, upload)
        self._status, code = None, "interrupted"
        try:
            try:
                outcome = await (self._forward if permit.local is None else self._answer)(permit, head, upload)
            finally:
                await upload.end()
            code = ""
            if isinstance(outcome, Denial):
                self._status = outcome.answer.status
                outcome = await self._deny(outcome, head, upload)
        except Broken as broken:
            code, outcome = broken.code, False
        except Malformed:
            outcome = self._give_up(permit, head, "header_forbidden")
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001  whatever it is, the client is told, and the tunnel ends
            complain("a request broke", error)
            outcome = self._give_up(permit, head, "fault")
        finally:
            self._gate.leave(permit, status=self._status, code=code)
        return outcome

    def _give_up(self, permit: Permit, head: RequestHead, code: str) -> bool:
        """Answer, if nothing of a response has gone out yet. There is no next request on this connection."""
        if self._status is None:
            denial = self._gate.abandon(permit, code, sent=self._upstream is not None)
            self._status = denial.answer.status
            self._client.write(_assemble(denial.answer, head_only=head.method == "HEAD", close=True))
        return False

    def _read(self, head: RequestHead) -> Request:
        """The request as the kernel sees it. The absolute form (RFC 9112 3.2.2) becomes origin-form and a claim."""
        target, scheme = head.target, None
        claims: tuple[bytes, ...] = ()
        if not target.startswith(b"/") and target != b"*":
            scheme_raw, separator, rest = target.partition(b"://")
            authority, slash, path = rest.partition(b"/")
            if not separator or b"?" in authority or b"#" in authority:
                raise Malformed
            target, claims, scheme = slash + path or b"/", (authority,), scheme_raw.decode("latin-1").lower()
        opening = self._opening
        return Request(
            id=secrets.token_hex(16),
            scheme="https",
            host=opening.host,
            port=opening.port,
            method=head.method,
            target=target,
            headers=head.headers,
            authorities=(*(value for name, value in head.headers if name.lower() == b"host"), *claims),
            sni=opening.sni,
            client_ip=opening.client_ip,
            tunnel_key=opening.key,
            absolute_scheme=scheme,
            connection=opening.number,
        )

    def _unreadable(self) -> Request:
        """What is known of a request whose head cannot be read."""
        opening = self._opening
        return Request(
            id=secrets.token_hex(16), scheme="https", host=opening.host, port=opening.port, method="", target=b"",
            headers=(), authorities=(), sni=opening.sni, client_ip=opening.client_ip,
        )  # fmt: skip

    async def _answer(self, permit: Permit, _head: RequestHead, upload: Upload) -> Denial:
        """The proxy itself is asked."""
        held = await self._hold(permit, upload)
        if isinstance(held, Denial) or permit.local is None:
            return held if isinstance(held, Denial) else self._gate.abandon(permit, "fault")
        return self._gate.answer(permit, permit.local, b"".join(held.pieces()))

    async def _forward(self, permit: Permit, head: RequestHead, upload: Upload) -> Denial | bool:
        """Send a permitted request and relay its response; whether the connection can go on."""
        held = None
        if permit.needs_body:
            outcome = await self._hold_judged(permit, upload)
            if isinstance(outcome, Denial):
                return outcome
            held = outcome
        else:
            upload.approve_continue()
        repeatable = head.method in _SAFE and head.length == 0
        try:
            upstream = await self._pool.acquire(self._key(permit), repeatable=repeatable)
        except Unreachable as problem:
            return self._gate.abandon(permit, problem.code)
        released = self._gate.release(permit, body_sha256=held.sha256 if held else None)
        if isinstance(released, Denial):
            self._pool.release(upstream)
            return released
        self._upstream = upstream
        length = held.size if held else head.length
        message = _write_head(released.head, _upgrade_of(head), length=length)
        if held:
            upload.send_held(upstream.stream, message, held)
        else:
            upload.send(upstream.stream, message, released.rewriter, chunked=length is None)
        upstream, response = await self._await_response(upstream, permit, head, again=message if repeatable else b"")
        if response is None:
            if self._client.closed:
                raise Broken("client_gone")
            await upload.end()
            return self._gate.abandon(permit, upload.refused or "upstream_unreachable", sent=True)
        self._status = response.status
        if response.status == 101:
            return await self._switch(upstream, head, response)
        return await self._relay(permit, upstream, head, response, upload)

    async def _await_response(
        self, upstream: Upstream, permit: Permit, head: RequestHead, *, again: bytes
    ) -> tuple[Upstream, ResponseHead | None]:
        """The response head, if one came. A kept connection that was closed unread is replaced, and `again` sent there."""
        try:
            response = await self._read_response(upstream, head)
            if response is None and again and upstream.reused and not upstream.stream.received:
                upstream.stream.abort()
                upstream = self._upstream = await self._pool.acquire(self._key(permit), repeatable=True, fresh=True)
                upstream.stream.write(again)
                response = await self._read_response(upstream, head)
        except (Malformed, Unreachable):
            return upstream, None
        return upstream, response

    async def _relay(
        self, permit: Permit, upstream: Upstream, head: RequestHead, response: ResponseHead, upload: Upload
    ) -> Denial | bool:
        download = Download(self._client, upstream.stream, head, self.progress)
        try:
            keep = await download.relay(response, permit.screen, keep=head.persistent and upload.done)
        except Refusal as refusal:
            await upload.end()
            return self._gate.abandon(permit, refusal.code, sent=True)
        sent = await upload.end()
        self._upstream = None
        if response.persistent and sent and not _binds_connection(response.headers):
            self._pool.release(upstream)
        else:
            upstream.stream.close()
        if not upload.done:
            await self._read_away(upload.body)
        return keep

    def _key(self, permit: Permit) -> Key:
        caller, grant = permit.pool
        self._keyless = self._keyless or not caller
        return self._opening.host, self._opening.port, caller or self._nobody, grant

    async def _hold(self, permit: Permit, upload: Upload) -> Spool | Denial:
        try:
            return await upload.hold(self._folder, room=lambda size: self._gate.hold(permit, size, on_disk=True))
        except ConnectionError:
            raise
        except OSError:
            return self._gate.abandon(permit, "fault")

    async def _hold_judged(self, permit: Permit, upload: Upload) -> Spool | Denial:
        """The body, once policies, and then a person, have looked at it where that is asked for."""
        held = await self._hold(permit, upload)
        if isinstance(held, Denial):
            return held
        denial = self._gate.examine(permit, held.pieces())
        if denial is None:
            denial = await self._gate.approve(permit, body_sha256=held.sha256, gone=lambda: self._client.closed)
        return denial or held

    async def _read_response(self, upstream: Upstream, head: RequestHead) -> ResponseHead | None:
        """The final response head; None when the connection ended before one. Interim ones are swallowed."""
        while True:
            raw = await _read_head(upstream.stream)
            if raw is None:
                return None
            response = heads.parse_response(raw, method=head.method)
            if response.status >= 200 or response.status == 101:
                return response

    # ── another protocol ─────────────────────────────────────────────────────────────────────────────────────────

    async def _switch(self, upstream: Upstream, head: RequestHead, response: ResponseHead) -> bool:
        """Another protocol takes over (RFC 9110 7.8): bytes both ways until either side ends."""
        if _upgrade_of(head) is None:
            raise Broken("upstream_unreachable")
        first = b"HTTP/1.1 101 Switching Protocols"
        self._client.write(heads.write_upgrade(first, responses.clean(response.headers)))
        there = asyncio.create_task(self._pump(self._client, upstream.stream))
        back = asyncio.create_task(self._pump(upstream.stream, self._client))
        await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
        for pump in (there, back):
            pump.cancel()
        upstream.stream.close()
        self._upstream = None
        return False

    async def _pump(self, source: Stream, sink: Stream) -> None:
        while True:
            data = bytes(source.buffer)
            source.buffer.clear()
            sink.write(data)
            if sink.congested:
                await sink.drain()
            if not await self.progress.more(source):
                return

    # ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _deny(self, denial: Denial, head: RequestHead, upload: Upload) -> bool:
        """Answer at once. A body that is still coming is read away, so that the client can read the answer."""
        if self._upstream is not None:
            self._upstream.stream.abort()
            self._upstream = None
        body = upload.body
        expects = any(name.lower() == b"expect" for name, _ in head.headers)
        body.feed(self._client.buffer)
        keep = head.persistent and (body.done or (head.length is not None and head.length <= _DISCARD and not expects))
        self._client.write(_assemble(denial.answer, head_only=head.method == "HEAD", close=not keep))
        await self._read_away(body)
        return keep and body.done

    async def _read_away(self, body: Body) -> None:
        """What still comes of a body that nobody wants: closed on, a client loses the answer (RFC 9112 9.6)."""
        with contextlib.suppress(TimeoutError, Malformed):
            async with asyncio.timeout(_LINGER):
                while not body.done and await self._client.more():
                    body.feed(self._client.buffer)


async def _read_head(stream: Stream) -> bytes | None:
    """The bytes up to and including the empty line; None if the stream ends before the first. Raises Malformed."""
    buffer = stream.buffer
    searched = 0
    while True:
        end = buffer.find(b"\r\n\r\n", max(0, searched - 3))
        if 0 <= end <= heads.LIMIT:
            raw = bytes(buffer[: end + 4])
            del buffer[: end + 4]
            return raw
        if end > heads.LIMIT or len(buffer) > heads.LIMIT:
            raise TooLarge
        searched = len(buffer)
        if not await stream.more():
            if buffer:
                raise Malformed
            return None


def _write_head(released: Head, upgrade: Headers | None, *, length: int | None) -> bytes:
    if upgrade is None:
        return heads.write_request(released.method, released.target, released.headers, length=length)
    fields = tuple((name, value) for name, value in released.headers if name.lower() != b"expect")
    first = b"%s %s HTTP/1.1" % (released.method.encode("ascii"), released.target)
    return heads.write_upgrade(first, fields)


def _upgrade_of(head: RequestHead) -> Headers | None:
    """The headers of a WebSocket handshake (RFC 6455 4.1), or None. No other protocol is switched to."""
    if head.method != "GET" or head.length != 0:
        return None
    wanted = [value.lower() for name, value in head.headers if name.lower() == b"upgrade"]
    return head.headers if wanted == [b"websocket"] else None


def _binds_connection(headers: Headers) -> bool:
    """NTLM and Negotiate authenticate the connection, which then must serve nobody else (RFC 4559 6)."""
    return any(
        name.lower() == b"www-authenticate" and value[:9].lower().startswith((b"ntlm", b"negotiate"))
        for name, value in headers
    )


def _assemble(answer: Answer, *, head_only: bool, close: bool) -> bytes:
    fields = (*answer.headers, (b"Content-Length", b"%d" % len(answer.body)))
    if close:
        fields = (*fields, (b"Connection", b"close"))
    head = b"HTTP/1.1 %d %s\r\n" % (answer.status, answer.reason)
    return head + b"".join(b"%s: %s\r\n" % pair for pair in fields) + b"\r\n" + (b"" if head_only else answer.body)
