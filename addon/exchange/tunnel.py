"""
One client's tunnel: its requests, one after another.

Fails closed by construction: the upstream's stream is written to in `_forward` alone, with the head that the gate
released for a Permit. Everything that breaks ends in an answer of our own or in a closed connection.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from addon import responses
from addon.complaints import complain
from addon.errors import Refusal
from addon.exchange import bodies, heads
from addon.exchange.bodies import Body
from addon.exchange.heads import Malformed, RequestHead, ResponseHead
from addon.exchange.pool import Pool, Unreachable, Upstream
from addon.exchange.spool import IN_MEMORY, Spool
from addon.exchange.streams import Stream
from addon.gate import Denial, Gate, Permit
from addon.model import Head, Headers, Proof, Request, Rewriter
from addon.redaction import Passage, Screened
from addon.refusals import Answer

HEAD_SECONDS = 75.0
"""How long a client may take for a head, idle time between requests included."""
ANSWER_SECONDS = 600.0
"""How long an upstream may take for a head, and either side between two pieces of a body."""
_DISCARD = 1 << 18
_LINGER = 2.0
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Broken(Exception):
    """The exchange cannot go on: `code` for the record, `answerable` while the client has seen nothing of a response."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


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
        self._upload_task: asyncio.Task[None] | None = None
        self._held: Spool | None = None
        self._refused = ""
        self._status: int | None = None
        self._keyless = False
        self._nobody = f"tunnel:{opening.number}"
        self.overdue = time.monotonic() + HEAD_SECONDS

    async def serve(self) -> None:
        """Until the client leaves, or nothing more can be trusted to be a request."""
        try:
            await self._client.handshake()
            while await self._serve_one():
                pass
        except Malformed:
            denial = await self._gate.refuse(self._unreadable(), "header_forbidden")
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
        self.overdue = time.monotonic() + HEAD_SECONDS
        raw = await _read_head(self._client)
        if raw is None:
            return False
        head = heads.parse_request(raw)
        self.overdue = time.monotonic() + ANSWER_SECONDS
        body = bodies.expect(head.length)
        permit = await self._gate.enter(self._read(head))
        if isinstance(permit, Denial):
            return await self._deny(permit, head, body)
        self._status, self._refused, code = None, "", "interrupted"
        try:
            try:
                outcome = await (self._forward if permit.local is None else self._answer)(permit, head, body)
            finally:
                await self._end_upload(body)
                self._drop_held()
            code = ""
            if isinstance(outcome, Denial):
                self._status = outcome.answer.status
                outcome = await self._deny(outcome, head, body)
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
        )

    def _unreadable(self) -> Request:
        """What is known of a request whose head cannot be read."""
        opening = self._opening
        return Request(
            id=secrets.token_hex(16), scheme="https", host=opening.host, port=opening.port, method="", target=b"",
            headers=(), authorities=(), sni=opening.sni, client_ip=opening.client_ip,
        )  # fmt: skip

    async def _answer(self, permit: Permit, head: RequestHead, body: Body) -> Denial:
        """The proxy itself is asked."""
        held = await self._hold(permit, head, body)
        if isinstance(held, Denial) or permit.local is None:
            return held if isinstance(held, Denial) else self._gate.abandon(permit, "fault")
        return self._gate.answer(permit, permit.local, b"".join(held.pieces()))

    async def _forward(self, permit: Permit, head: RequestHead, body: Body) -> Denial | bool:
        """Send a permitted request and relay its response; whether the connection can go on."""
        upgrade = _upgrade_of(head)
        held = None
        if permit.needs_body:
            outcome = await self._hold_approved(permit, head, body)
            if isinstance(outcome, Denial):
                return outcome
            held = outcome
        else:
            self._approve_continue(head)
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
        message = _write_head(released.head, upgrade, length=length)
        if held:
            self._upload_held(upstream.stream, message, held)
        else:
            self._start_upload(upstream.stream, message, body, released.rewriter, chunked=length is None)
        try:
            response = await self._read_response(upstream, head)
            if response is None and upstream.reused and repeatable and not upstream.stream.received:
                upstream = self._upstream = await self._replace(permit, upstream)
                upstream.stream.write(message)
                response = await self._read_response(upstream, head)
        except (Malformed, Unreachable):
            response = None
        if response is None:
            if self._client.closed:
                raise Broken("client_gone")
            await self._end_upload(body)
            return self._gate.abandon(permit, self._refused or "upstream_unreachable", sent=True)
        self._status = response.status
        return await self._relay(permit, upstream, head, response, body)

    def _key(self, permit: Permit) -> tuple[str, int, str, str]:
        caller, grant = permit.pool
        self._keyless = self._keyless or not caller
        return self._opening.host, self._opening.port, caller or self._nobody, grant

    async def _replace(self, permit: Permit, stale: Upstream) -> Upstream:
        """A new connection in place of one that its server had closed before it read our request."""
        stale.stream.abort()
        return await self._pool.acquire(self._key(permit), repeatable=True, fresh=True)

    # ── the request body ─────────────────────────────────────────────────────────────────────────────────────────

    def _approve_continue(self, head: RequestHead) -> None:
        """RFC 9110 10.1.1: the request is permitted, so the client need not wait for the upstream to say so."""
        if head.minor == 1 and head.length != 0 and not self._client.buffer:
            expects = [value for name, value in head.headers if name.lower() == b"expect"]
            if expects and expects[0].lower() == b"100-continue":
                self._client.write(_CONTINUE)

    async def _hold(self, permit: Permit, head: RequestHead, body: Body) -> Spool | Denial:
        """Receive a body whole, within the limit, whether or not its length was stated."""
        denial = self._gate.hold(permit, head.length or 0, on_disk=True)
        if denial is not None:
            return denial
        self._approve_continue(head)
        held = self._held = Spool(self._folder)
        while True:
            payload = body.feed(self._client.buffer)
            denial = self._gate.hold(permit, held.size + len(payload), on_disk=True)
            if denial is not None:
                return denial
            try:
                held.write(payload)
            except OSError:
                return self._gate.abandon(permit, "fault")
            if body.done:
                return held
            if not await self._more(self._client):
                raise Broken("interrupted")

    async def _hold_approved(self, permit: Permit, head: RequestHead, body: Body) -> Spool | Denial:
        """The same, and a person has looked at it where a policy asks for that."""
        held = await self._hold(permit, head, body)
        if isinstance(held, Denial):
            return held
        denial = await self._gate.approve(permit, body_sha256=held.sha256, gone=lambda: self._client.closed)
        return denial or held

    def _drop_held(self) -> None:
        if self._held is not None:
            self._held.close()
            self._held = None

    def _upload_held(self, stream: Stream, message: bytes, held: Spool) -> None:
        """Send head and body; a large one follows in a task, beside the response."""
        pieces = held.pieces()
        stream.write(message + next(pieces, b""))
        if held.size > IN_MEMORY:
            self._upload_task = asyncio.create_task(self._send(stream, pieces))

    async def _send(self, stream: Stream, pieces: Iterator[bytes]) -> None:
        for piece in pieces:
            self.overdue = time.monotonic() + ANSWER_SECONDS
            stream.write(piece)
            await (stream.drain() if stream.congested else asyncio.sleep(0))

    def _start_upload(
        self, stream: Stream, message: bytes, body: Body, rewriter: Rewriter | None, *, chunked: bool
    ) -> None:
        """Send head and body; what has not arrived yet follows in a task, beside the response."""
        payload = self._take(stream, body, rewriter)
        stream.write(message + _encode(payload, body, chunked=chunked))
        if not body.done:
            self._upload_task = asyncio.create_task(self._upload(stream, body, rewriter, chunked=chunked))

    async def _upload(self, stream: Stream, body: Body, rewriter: Rewriter | None, *, chunked: bool) -> None:
        client = self._client
        while not body.done and not self._refused:
            if not await self._more(client):
                stream.abort()
                return
            payload = self._take(stream, body, rewriter)
            stream.write(_encode(payload, body, chunked=chunked))
            if stream.congested:
                await stream.drain()

    def _take(self, stream: Stream, body: Body, rewriter: Rewriter | None) -> bytes:
        """What of the body can be sent on now. A body that is not what it was said to be breaks off upstream."""
        try:
            payload = body.feed(self._client.buffer)
            if rewriter is None:
                return payload
            return rewriter.feed(payload) + (rewriter.finish() if body.done else b"")
        except Malformed:
            stream.abort()
            raise
        except Refusal as refusal:
            self._refused = refusal.code
            stream.abort()
            return b""

    # ── the response ─────────────────────────────────────────────────────────────────────────────────────────────

    async def _read_response(self, upstream: Upstream, head: RequestHead) -> ResponseHead | None:
        """The final response head; None when the connection ended before one. Interim ones are swallowed."""
        while True:
            raw = await _read_head(upstream.stream)
            if raw is None:
                return None
            response = heads.parse_response(raw, method=head.method)
            if response.status >= 200 or response.status == 101:
                return response

    async def _relay(
        self, permit: Permit, upstream: Upstream, head: RequestHead, response: ResponseHead, request_body: Body
    ) -> Denial | bool:
        if response.status == 101:
            return await self._switch(upstream, head, response)
        begun = False
        try:
            body = bodies.expect(response.length)
            shown, passage, resized = _screen(permit, head, response)
            if passage is not None:
                body = bodies.Searched(body, passage)
            length = shown.length
            if length in {-1, None}:
                length = None if head.minor == 1 else -1
            keep = head.persistent and request_body.done and length != -1
            # A body that has to be decoded is tried before its head goes out: there is no taking back after that.
            first = await self._begin(upstream.stream, body, patient=resized)
            begun = True
            await self._relay_body(upstream.stream, head, shown, body, first, length=length, close=not keep)
        except Refusal as refusal:
            if not begun:
                await self._end_upload(request_body)
                return self._gate.abandon(permit, refusal.code, sent=True)
            self._client.abort()
            raise Broken(refusal.code) from None
        except (Malformed, ConnectionError) as error:
            self._client.abort()
            raise Broken("client_gone" if isinstance(error, ConnectionError) else "upstream_unreachable") from error
        sent = await self._end_upload(request_body)
        self._upstream = None
        if response.persistent and sent and not _binds_connection(response.headers):
            self._pool.release(upstream)
        else:
            upstream.stream.close()
        return keep and request_body.done

    async def _relay_body(
        self,
        source: Stream,
        head: RequestHead,
        response: ResponseHead,
        body: Body,
        first: bytes,
        *,
        length: int | None,
        close: bool,
    ) -> None:
        """Head and body of the response, piece by piece as they come, and no faster than the client takes them."""
        client, fields, chunked = self._client, response.headers, length is None
        if head.method == "HEAD" or response.status in {204, 304}:
            client.write(_with_lengths(heads.write_response(response, fields, length=-1, close=close), fields))
            return
        out = heads.write_response(response, fields, length=length, close=close)
        client.write(out + _encode(first, body, chunked=chunked))
        while not body.done:
            if client.congested:
                await client.drain()
            client.write(_encode(await self._receive(source, body), body, chunked=chunked))

    async def _begin(self, source: Stream, body: Body, *, patient: bool) -> bytes:
        """What is there of the body; if `patient`, something at least."""
        payload = body.feed(source.buffer)
        while patient and not payload and not body.done:
            payload = await self._receive(source, body)
        return payload

    async def _receive(self, source: Stream, body: Body) -> bytes:
        """What comes next of the body."""
        if not await self._more(source):
            if not source.ended:
                raise Malformed
            body.end()
        return body.feed(source.buffer)

    async def _end_upload(self, body: Body) -> bool:
        """
        The exchange is over: whether all of the request went out.

        Raises Malformed if the rest of the body was no body, and so what follows no request.
        """
        upload, self._upload_task = self._upload_task, None
        if upload is None:
            return body.done
        if body.done and not upload.done():
            await asyncio.wait({upload}, timeout=_LINGER)
        cut = upload.cancel()
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            await upload
        return body.done and not cut

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
            if not await self._more(source):
                return

    async def _more(self, stream: Stream) -> bool:
        self.overdue = time.monotonic() + ANSWER_SECONDS
        return await stream.more()

    # ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _deny(self, denial: Denial, head: RequestHead, body: Body) -> bool:
        """Answer at once. A body that is still coming is read away, so that the client can read the answer."""
        if self._upstream is not None:
            self._upstream.stream.abort()
            self._upstream = None
        expects = any(name.lower() == b"expect" for name, _ in head.headers)
        body.feed(self._client.buffer)
        keep = head.persistent and (body.done or (head.length is not None and head.length <= _DISCARD and not expects))
        self._client.write(_assemble(denial.answer, head_only=head.method == "HEAD", close=not keep))
        if body.done:
            return keep
        with contextlib.suppress(TimeoutError, Malformed):
            async with asyncio.timeout(_LINGER):
                while not body.done and await self._client.more():
                    body.feed(self._client.buffer)
        return keep and body.done


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
            raise Malformed
        searched = len(buffer)
        if not await stream.more():
            if buffer:
                raise Malformed
            return None


def _encode(payload: bytes, body: Body, *, chunked: bool) -> bytes:
    if not chunked:
        return payload
    return bodies.encode_chunk(payload) + (bodies.LAST if body.done else b"")


def _screen(permit: Permit, head: RequestHead, response: ResponseHead) -> tuple[ResponseHead, Passage | None, bool]:
    """The response's head as the client gets it, what its body goes through, and whether its length changes there."""
    shown = Screened(response.reason, responses.clean(response.headers))
    if permit.screen is not None:
        bodiless = head.method == "HEAD" or response.status in {204, 304}
        shown = permit.screen.open(shown.reason, shown.headers, bodiless=bodiless)
    length = None if shown.resized else response.length
    head_shown = ResponseHead(response.status, shown.reason, response.minor, shown.headers, length, response.persistent)
    return head_shown, shown.body, shown.resized


def _write_head(released: Head, upgrade: Headers | None, *, length: int | None) -> bytes:
    fields = tuple((name, value) for name, value in released.headers if name.lower() != b"expect")
    if upgrade is not None:
        first = b"%s %s HTTP/1.1" % (released.method.encode("ascii"), released.target)
        return heads.write_upgrade(first, fields)
    return heads.write_request(released.method, released.target, fields, length=length)


def _upgrade_of(head: RequestHead) -> Headers | None:
    """The headers of a WebSocket handshake (RFC 6455 4.1), or None. No other protocol is switched to."""
    wanted = [value.lower() for name, value in head.headers if name.lower() == b"upgrade"]
    return head.headers if wanted == [b"websocket"] and head.method == "GET" and head.length == 0 else None


def _binds_connection(headers: Headers) -> bool:
    """NTLM and Negotiate authenticate the connection, which then must serve nobody else (RFC 4559 6)."""
    return any(
        name.lower() == b"www-authenticate" and value[:9].lower().startswith((b"ntlm", b"negotiate"))
        for name, value in headers
    )


def _with_lengths(out: bytes, headers: Headers) -> bytes:
    """A response without a body keeps the length it would have had (RFC 9110 8.6)."""
    lengths = {value for name, value in headers if name.lower() == b"content-length"}
    return out[:-2] + b"".join(b"Content-Length: %s\r\n" % value for value in lengths) + out[-2:]


def _assemble(answer: Answer, *, head_only: bool, close: bool) -> bytes:
    fields = (*answer.headers, (b"Content-Length", b"%d" % len(answer.body)))
    if close:
        fields = (*fields, (b"Connection", b"close"))
    head = b"HTTP/1.1 %d %s\r\n" % (answer.status, answer.reason)
    return head + b"".join(b"%s: %s\r\n" % pair for pair in fields) + b"\r\n" + (b"" if head_only else answer.body)
