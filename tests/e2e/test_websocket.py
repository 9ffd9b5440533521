"""WebSockets with a credential: a real client, a real upstream that demands it, and one that does what it must not."""

import contextlib
import json
import re
import ssl
import time
from pathlib import Path

import pytest
import websockets
from websockets.frames import Close, Frame, Opcode
from websockets.sync.client import connect

from addon.websocket import frames
from tests.e2e.product import routes
from tests.e2e.sockets import MB, Hostile, Sockets
from tests.e2e.stage import Stage, refusal

HOST, BAD = Sockets.hosts[0], Hostile.hosts[0]
TOKEN = "sk_live_canary_socket_51H"
STARS = "*" * len(TOKEN)
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"
GRANTED = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"


@pytest.fixture(scope="module")
def sockets(authority):
    with Sockets(authority, token=TOKEN) as sockets:
        yield sockets


@pytest.fixture(scope="module")
def hostile(authority):
    with Hostile(authority) as hostile:
        yield hostile


@pytest.fixture(scope="module")
def _stage(engine, seed, tmp_path_factory, sockets, hostile, authority_file):
    home = tmp_path_factory.mktemp(f"sockets-{engine}") / "home"
    with _open(seed, home, sockets, hostile, authority_file, engine) as stage:
        yield stage


def _open(seed, home, sockets, hostile, authority_file, engine):
    stage = Stage.open(seed, home, "--upstream-ca", authority_file, *routes(sockets, hostile), engine=engine)
    hosts = ["--host", HOST, "--host", BAD]
    for name, options in {"socket": ["--websocket"], "mute": ["--websocket", "--no-redact"], "plain": []}.items():
        stage.vaultctl.secret(name, "--kind", "bearer", *hosts, *options, token=TOKEN)
        stage.grants[name] = stage.vaultctl.grant(name, "system:billing")
    return stage


@pytest.fixture
def stage(_stage, sockets):
    sockets.closed.clear()
    sockets.heads.clear()
    return _stage


@pytest.fixture
def dial(stage):
    """`dial(path)`: a connection of the `websockets` client, which is strict, through the proxy."""
    with contextlib.ExitStack() as opened:

        def dial(path, *, host=HOST, secret="socket", grant=None, stage=stage, headers=(), **options):
            context = ssl.create_default_context(cafile=stage.proxy.ca)
            tag = {"X-Alter-Grant": grant or stage.grants[secret]} if secret else {}
            client = connect(
                f"wss://{host}{path}", proxy=stage.proxy.url(*stage.caller), ssl=context, close_timeout=5,
                additional_headers=tag | dict(headers), **({"max_size": None, "ping_interval": None} | options),
            )  # fmt: skip
            return opened.enter_context(client)

        yield dial


def ending(client):
    """The close frame that a client gets."""
    with pytest.raises(websockets.ConnectionClosed) as closed:
        for _ in range(1000):
            client.recv(timeout=5)
    return closed.value.rcvd


def outcome(stage, path, *, timeout=5):
    """The record of the last exchange with `path`, once it is over."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        intents = [one for one in stage.records() if one["path"] == path and one["phase"] == "intent"]
        found = [one for one in stage.records() if intents and one["id"] == intents[-1]["id"]]
        if len(found) > 1:
            return found[-1]
        time.sleep(0.02)
    raise AssertionError(f"no outcome of {path}")


# ── handshakes ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_app_talks_over_a_websocket_whose_key_it_does_not_have(stage, dial, sockets):
    with dial("/echo", subprotocols=["chat"], headers={"Origin": "https://app.test"}) as client:
        assert client.subprotocol == "chat"
        for message in ("hello", b"\0\1\2", "", "ä" * 100_000):
            client.send(message)
            assert client.recv(timeout=5) == message
        client.send(["a", "b", "c"])
        assert client.recv(timeout=5) == "abc"
        assert client.ping().wait(5)
    (head,) = sockets.heads
    assert head.get_all("Authorization") == [f"Bearer {TOKEN}"]
    assert head["Origin"] == "https://app.test"
    assert not [name for name in head if name.lower().startswith("x-alter")]
    assert "Sec-WebSocket-Extensions" not in head
    record = outcome(stage, "/echo")
    assert (record["decision"], record["status"], record["code"]) == ("authorized", 101, "")
    assert record["duration_ms"] > 0
    assert sockets.wait("/echo") == 1000


def test_without_the_flag_the_answer_says_what_would_mend_it(stage, sockets):
    answer = _ask(stage, secret="plain")
    body = refusal(answer, "websocket_not_bound", status=403, stage=stage)
    assert "--websocket" in body["hint"]
    assert not sockets.heads


@pytest.mark.parametrize(
    "spoil",
    [
        lambda head: head.replace("Version: 13", "Version: 8"),
        lambda head: head.replace(KEY, "eA=="),
        lambda head: head.replace(f"Sec-WebSocket-Key: {KEY}\r\n", ""),
        lambda head: head.replace("Connection: Upgrade", "Connection: keep-alive"),
        lambda head: head.replace("HTTP/1.1", "HTTP/1.0"),
        lambda head: head.replace("GET", "POST"),
        lambda head: head.replace("\r\n\r\n", "\r\nContent-Length: 1\r\n\r\nx"),
    ],
)
def test_what_is_no_handshake_to_the_letter_never_leaves(stage, sockets, spoil):
    refusal(_ask(stage, spoil), "websocket_malformed", status=400, stage=stage)
    assert not sockets.heads


def _ask(stage, spoil=lambda head: head, *, secret="socket", host=HOST):
    with stage.wire() as wire:
        tag = f"X-Alter-Grant: {stage.grants[secret]}\r\n"
        return wire.tunnel(host).ask(spoil(f"GET /echo HTTP/1.1\r\nHost: {host}\r\n{tag}{UPGRADE}\r\n"))


def test_over_http_2_there_is_none(stage, sockets):
    """Neither by RFC 8441, which the proxy does not offer, nor by headers that HTTP/2 does not have."""
    tag = ("x-alter-grant", stage.grants["socket"])
    with stage.h2wire() as wire:
        extended = {":method": "CONNECT", ":protocol": "websocket"}
        assert wire.tunnel(HOST).ask(headers=[tag, ("sec-websocket-version", "13")], pseudo=extended).status in {0, 400}
    with stage.h2wire() as wire:
        upgrade = [("upgrade", "websocket"), ("connection", "upgrade"), ("sec-websocket-version", "13")]
        answer = wire.tunnel(HOST).ask(headers=[tag, *upgrade, ("sec-websocket-key", KEY)])
        assert answer.status in {0, 400}
    assert not sockets.heads


def test_an_upstreams_refusal_is_its_own_but_for_the_key(stage, dial):
    with pytest.raises(websockets.InvalidStatus) as refused:
        dial("/echo", secret=None)
    assert refused.value.response.status_code == 401
    stage.vaultctl.secret("wrong", "--kind", "bearer", "--host", HOST, "--websocket", token="sk_live_wrong_canary")
    with pytest.raises(websockets.InvalidStatus) as refused:
        dial("/echo", grant=stage.vaultctl.grant("wrong", "system:billing"))
    assert refused.value.response.body == b"not with Bearer " + b"*" * len("sk_live_wrong_canary") + b"\n"


def test_a_key_can_go_where_browsers_put_theirs(stage, dial, sockets):
    options = ["--header", "Sec-WebSocket-Protocol", "--format", "chat, insecure-api-key.{token}"]
    stage.vaultctl.secret("browser", "--kind", "header", "--host", HOST, "--websocket", *options, token=TOKEN)
    grant = stage.vaultctl.grant("browser", "system:billing")
    with dial("/open/echo", secret=None, subprotocols=["chat", f"insecure-api-key.alter_grant_{grant}"]) as client:
        assert client.subprotocol == "chat"
    assert sockets.heads[-1]["Sec-WebSocket-Protocol"] == f"chat, insecure-api-key.{TOKEN}"


def test_without_a_grant_websockets_pass_untouched(stage, dial, sockets):
    with dial("/open/echo", secret=None) as client:
        client.send(TOKEN)
        assert client.recv(timeout=5) == TOKEN
    assert "permessage-deflate" in sockets.heads[-1]["Sec-WebSocket-Extensions"]


# ── frames ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_key_is_found_in_every_kind_of_frame(stage, dial):
    with dial("/key") as client:
        assert [client.recv(timeout=5) for _ in range(3)] == [STARS, f"{STARS}.", STARS.encode()]
        assert client.recv(timeout=5).count("*") >= len(TOKEN)
        client.send("go on")
        close = ending(client)
        assert close == Close(1000, f"it was {STARS}")
    assert outcome(stage, "/key")["redactions"] == 6


def test_where_nothing_is_redacted_messages_may_be_compressed(stage, dial, sockets):
    with dial("/key", secret="mute") as client:
        assert client.recv(timeout=5) == TOKEN
    assert "permessage-deflate" in sockets.heads[-1]["Sec-WebSocket-Extensions"]


HOSTILE = {
    "masked by a server": Frame(Opcode.TEXT, b"x").serialize(mask=True),
    "a control frame of 126 bytes": b"\x89\x7e\x00\x7e" + bytes(126),
    "a fragmented control frame": b"\x09\x00",
    "a reserved bit": b"\xc1\x01x",
    "an unknown opcode": b"\x83\x00",
    "a continuation of nothing": b"\x80\x01x",
    "a length without end": b"\x82\x7f" + b"\xff" * 8,
    "no frames at all": b"HTTP/1.1 200 OK\r\n\r\n",
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_an_upstream_that_sends_no_frames_is_cut_off(stage, dial, hostile, data):
    hostile.play(frames.write(frames.TEXT, b"good") + data)
    with dial("/bad", host=BAD) as client:
        assert client.recv(timeout=5) == "good"
        assert ending(client).code == 1002
    assert hostile.ended.wait(5)
    assert bytes(hostile.received[:2]) == b"\x88\x82"
    record = outcome(stage, "/bad")
    assert (record["decision"], record["status"], record["code"]) == ("authorized", 101, "websocket_invalid")


@pytest.mark.parametrize(
    "head",
    [
        b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: HSmrc0sMlYUkAGmm5OPpG2HaGWk=\r\n",
        b"Upgrade: websocket\r\nConnection: Upgrade\r\n",
        b"Upgrade: h2c\r\nConnection: Upgrade\r\n",
        GRANTED + b"Sec-WebSocket-Extensions: permessage-deflate\r\n",
    ],
    ids=["wrong accept", "no accept", "another protocol", "an extension nobody offered"],
)
@pytest.mark.parametrize("secret", ["socket", None])
def test_a_101_that_proves_nothing_is_refused(stage, hostile, head, secret):
    hostile.play(b"\x81\x04leak", head=b"HTTP/1.1 101 Switching Protocols\r\n" + head + b"\r\n")
    with stage.wire() as wire:
        tag = f"X-Alter-Grant: {stage.grants[secret]}\r\n" if secret else ""
        answer = wire.tunnel(BAD).ask(f"GET /x HTTP/1.1\r\nHost: {BAD}\r\n{tag}{UPGRADE}\r\n")
        refusal(answer, "websocket_invalid", status=502, stage=stage)
    assert hostile.ended.wait(5)


def test_a_101_to_an_ordinary_request_is_refused(stage, hostile):
    hostile.play(b"\x81\x04leak", head=b"HTTP/1.1 101 Switching Protocols\r\n" + GRANTED + b"\r\n")
    with stage.wire() as wire:
        tag = f"X-Alter-Grant: {stage.grants['socket']}\r\n"
        answer = wire.tunnel(BAD).ask(f"GET /x HTTP/1.1\r\nHost: {BAD}\r\n{tag}\r\n")
        refusal(answer, "websocket_invalid", status=502, stage=stage)


@pytest.mark.parametrize("data", [b"\x81\x01x", b"\x83\x80\0\0\0\0"], ids=["unmasked", "an unknown opcode"])
def test_a_client_that_sends_no_frames_is_cut_off(stage, sockets, data):
    with stage.wire() as wire:
        tag = f"X-Alter-Grant: {stage.grants['socket']}\r\n"
        answer = wire.tunnel(HOST).ask(f"GET /silence HTTP/1.1\r\nHost: {HOST}\r\n{tag}{UPGRADE}\r\n")
        assert answer.status == 101
        wire.send(data)
        assert wire.rest(within=2)[:4] == b"\x88\x15\x03\xea"
    assert sockets.wait("/silence") == 1002
    assert outcome(stage, "/silence")["code"] == "websocket_malformed"


# ── amounts ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _memory(stage):
    """The most bytes that a worker has ever had resident."""
    return max(int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) for pid in stage.proxy.workers()) * 1024  # fmt: skip


def test_a_message_of_any_size_passes_both_ways_and_is_never_held(stage, dial):
    size = 200
    with dial("/pour/1") as client:
        client.recv(timeout=5)
    before = _memory(stage)
    with dial(f"/pour/{size}") as client:
        assert sum(map(len, client.recv_streaming())) == size * MB
    with dial("/drink") as client:
        client.send(bytes(MB) for _ in range(size))
        assert client.recv(timeout=30) == str(size * MB)
    assert _memory(stage) - before < 30 * MB


def test_a_client_that_does_not_read_holds_the_upstream_back(stage, dial):
    before = _memory(stage)
    with stage.wire() as wire:
        tag = f"X-Alter-Grant: {stage.grants['socket']}\r\n"
        wire.tunnel(HOST).send(f"GET /pour/2000 HTTP/1.1\r\nHost: {HOST}\r\n{tag}{UPGRADE}\r\n")
        wire.answer()
        time.sleep(1)
        assert _memory(stage) - before < 30 * MB
        with dial("/echo") as client:
            client.send("others go on")
            assert client.recv(timeout=5) == "others go on"


# ── endings ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _grant_revoked(stage, grant):
    stage.vaultctl.run("grant", "revoke", grant)
    return "grant_revoked"


def _secret_disabled(stage, _grant):
    stage.vaultctl.run("secret", "disable", "socket")
    return "secret_disabled"


def _app_disabled(stage, _grant):
    stage.vaultctl.run("app", "disable", "billing")
    return "caller_invalid"


def _policy_set(stage, _grant):
    stage.vaultctl.run("policy", "set", "vault", "--path", "/elsewhere")
    return "policy_denied"


MEND = [
    ("secret", "enable", "socket"),
    ("app", "enable", "billing"),
    ("policy", "clear", "vault", "--yes"),
]


@pytest.mark.parametrize("revoke", [_grant_revoked, _secret_disabled, _app_disabled, _policy_set])
def test_a_revocation_ends_what_is_open(stage, dial, sockets, revoke):
    grant = stage.vaultctl.grant("socket", "system:billing")
    with dial("/silence", grant=grant) as client, dial("/open/silence", secret=None) as other:
        code = revoke(stage, grant)
        assert ending(client) == Close(1008, code)
        assert sockets.wait("/silence") == 1008
        record = outcome(stage, "/silence")
        assert (record["decision"], record["status"], record["code"]) == ("authorized", 101, code)
        assert other.ping().wait(5)
    for command in MEND:
        stage.vaultctl(*command)


def test_a_grant_that_expires_ends_what_is_open(stage, dial, sockets):
    with dial("/silence", grant=stage.vaultctl.grant("socket", "system:billing", "--expires", "2s")) as client:
        assert ending(client) == Close(1008, "grant_expired")
    assert sockets.wait("/silence") == 1008


def test_a_client_that_does_not_read_cannot_outlive_a_revocation(stage, sockets):
    grant = stage.vaultctl.grant("socket", "system:billing")
    with stage.wire() as wire:
        tag = f"X-Alter-Grant: {grant}\r\n"
        wire.tunnel(HOST).send(f"GET /pour/3000 HTTP/1.1\r\nHost: {HOST}\r\n{tag}{UPGRADE}\r\n")
        wire.answer()
        stage.vaultctl.run("grant", "revoke", grant)
        assert outcome(stage, "/pour/3000")["code"] == "grant_revoked"
        assert sockets.wait("/pour/3000")


def test_a_client_that_leaves_takes_the_upstream_with_it(stage, sockets):
    with stage.wire() as wire:
        tag = f"X-Alter-Grant: {stage.grants['socket']}\r\n"
        assert wire.tunnel(HOST).ask(f"GET /silence HTTP/1.1\r\nHost: {HOST}\r\n{tag}{UPGRADE}\r\n").status == 101
    assert sockets.wait("/silence") == 1006
    assert outcome(stage, "/silence")["status"] == 101


def test_a_proxy_that_stops_says_goodbye(engine, seed, tmp_path, dial, sockets, hostile, authority_file):
    with _open(seed, tmp_path / "home", sockets, hostile, authority_file, engine) as stage:
        with dial("/silence", stage=stage) as client, dial("/open/silence", secret=None, stage=stage) as other:
            stage.proxy.process.terminate()
            assert ending(client).code == ending(other).code == 1001
        assert stage.proxy.stop() == 0
        assert outcome(stage, "/silence")["code"] == "interrupted"
    assert sockets.wait("/silence") == 1001
    assert json.dumps(stage.records()).count(TOKEN) == 0
