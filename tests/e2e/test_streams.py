"""Many streams on one HTTP/2 connection: each is judged, recorded and ended by itself."""

import asyncio
import hashlib
import threading

import h2.errors
import pytest

from tests.e2e.stage import HOSTS, VALUES, refusal

HOST = HOSTS["bearer"]
URL = f"https://{HOST}"
BEARER = f"Bearer {VALUES['bearer']['token']}"


@pytest.fixture
async def client(stage, upstream):
    """A client with one HTTP/2 connection, which is open."""
    async with stage.proxy.async_client(*stage.caller, http2=True) as client:
        assert (await client.get(f"{URL}/status/200")).http_version == "HTTP/2"
        upstream.wait(1)
        yield client


async def test_refused_streams_beside_good_ones(stage, upstream, client):
    def ask(number):
        tags = [stage.tag(), {"X-Alter-Grant": "0" * 36}, {}]
        return client.post(f"{URL}/echo/{number}", headers=tags[number % 3], content=b"x" * number * 100)

    answers = await asyncio.gather(*(ask(number) for number in range(30)))
    assert [answer.status_code for answer in answers] == [200, 403, 200] * 10
    for answer in answers[1::3]:
        refusal(answer, "grant_unavailable", status=403, stage=stage)
    seen = {one.path: one for one in upstream.seen() if one.method == "POST"}
    assert {path: one.values("authorization") for path, one in seen.items()} == {
        f"/echo/{number}": [BEARER] if number % 3 == 0 else [] for number in range(30) if number % 3 != 1
    }
    assert all(one.size == int(path.removeprefix("/echo/")) * 100 for path, one in seen.items())
    assert upstream.connections() == 1


async def test_two_grants_each_with_its_own_credential(stage, upstream, client):
    stage.vaultctl.secret(f"other-{stage.engine}", "--kind", "bearer", "--host", HOST, token="the-other-token")
    other = stage.vaultctl.grant(f"other-{stage.engine}", "system:billing")

    def ask(number):
        tag = {"X-Alter-Grant": other} if number % 2 else stage.tag()
        return client.get(f"{URL}/echo/{number}", headers=tag)

    answers = await asyncio.gather(*(ask(number) for number in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    seen = {one.path: one.values("authorization") for one in upstream.seen() if one.path.startswith("/echo")}
    assert seen == {f"/echo/{number}": ["Bearer the-other-token" if number % 2 else BEARER] for number in range(20)}
    assert upstream.connections() == 1


def test_a_stream_that_is_cancelled_ends_upstream_and_in_the_record_and_takes_no_other_along(stage, upstream):
    cancelled, held = threading.Event(), threading.Event()

    async def function(exchange):
        try:
            await exchange.start(200, [])
            await exchange.write(b"begun")
            held.set()
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    upstream.scripts["held"] = function
    with stage.h2wire() as wire:
        wire.tunnel(HOST)
        tag = [("x-alter-grant", stage.grants["bearer"])]
        stream = wire.begin(path="/script/held", headers=tag)
        other = wire.begin("POST", "/upload", tag, body=b"half", end=False)
        assert held.wait(10)
        wire.h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
        wire.flush()
        assert cancelled.wait(10)
        wire.h2.send_data(other, b" and half", end_stream=True)
        wire.flush()
        assert wire.result(other).json["size"] == 13
    (intent,) = [row for row in stage.records() if (row["phase"], row["path"]) == ("intent", "/script/held")][-1:]
    outcome = stage.audit(intent["id"])
    assert (outcome["decision"], outcome["status"], outcome["code"]) == ("authorized", 200, "client_gone")


def test_a_connection_that_ends_ends_all_its_streams(stage, upstream):
    gone = threading.Semaphore(0)

    async def function(exchange):
        try:
            await asyncio.sleep(30)
        finally:
            gone.release()

    upstream.scripts["unanswered"] = function
    with stage.h2wire() as wire:
        wire.tunnel(HOST)
        for _ in range(5):
            wire.begin(path="/script/unanswered", headers=[("x-alter-grant", stage.grants["bearer"])])
        upstream.wait(5)
    assert all(gone.acquire(timeout=10) for _ in range(5))
    intents = [row for row in stage.records() if (row["phase"], row["path"]) == ("intent", "/script/unanswered")]
    outcomes = [stage.audit(row["id"]) for row in intents[-5:]]
    assert [(row["status"], row["code"]) for row in outcomes] == [(None, "client_gone")] * 5


def test_a_download_that_is_not_read_waits_upstream_and_holds_up_no_other_stream(stage, upstream):
    """More than any window between here and there lets through at once."""
    whole, size = threading.Event(), 8 << 20

    async def function(exchange):
        await exchange.start(200, [])
        await exchange.write(b"x" * size)
        whole.set()
        await exchange.end()

    upstream.scripts["large"] = function
    tag = [("x-alter-grant", stage.grants["bearer"])]
    with stage.h2wire(timeout=10) as wire:
        wire.tunnel(HOST).h2.increment_flow_control_window(1 << 30)  # of the connection, not of its streams
        stream = wire.begin(path="/script/large", headers=tag)
        upstream.wait(1)
        assert [wire.ask(path=f"/echo/{number}", headers=tag).status for number in range(20)] == [200] * 20
        assert not whole.wait(0.5)
        wire.h2.increment_flow_control_window(size, stream)
        wire.flush()
        assert len(wire.result(stream).body) > size - (1 << 17)  # the rest came, and was thrown away, before
        assert whole.is_set()


def test_a_body_that_must_be_held_may_be_larger_than_any_window(stage, upstream):
    """Its signature needs a hash of all of it."""
    with stage.client(http2=True) as client:
        answer = client.post(f"https://{HOSTS['sigv4']}/upload", headers=stage.tag("sigv4"), content=bytes(20 << 20))
    assert answer.json() == {"size": 20 << 20, "sha256": hashlib.sha256(bytes(20 << 20)).hexdigest()}
    assert upstream.last.values("authorization")[0].startswith("AWS4-HMAC-SHA256 ")


def test_a_body_of_a_refused_stream_uses_up_no_credit(stage, upstream):
    """More of it than the connection has credit for, and then a request that goes through."""
    with stage.client(http2=True) as client:
        for _ in range(20):
            answer = client.post(f"{URL}/upload", headers={"X-Alter-Grant": "0" * 36}, content=bytes(1 << 20))
            refusal(answer, "grant_unavailable", status=403)
        answer = client.post(f"{URL}/upload", headers=stage.tag(), content=bytes(1 << 20))
    assert answer.json()["size"] == 1 << 20
    assert [seen.path for seen in upstream.seen()] == ["/upload"]
