"""
What is under way when it has not ended: events come one by one, and whoever leaves early is not served any longer.

No test measures time. The upstream goes on only when the client has got what came before.
"""

import asyncio
import ssl
import threading

import httpx
import openai
import pytest

from tests.e2e import apis
from tests.e2e.stage import HOSTS, VALUES

HOST = HOSTS["bearer"]
URL = f"https://{HOST}"
TOKEN = VALUES["bearer"]["token"]


class Acknowledged:
    """A side channel on which a client says that something has arrived."""

    def __init__(self):
        self._arrived = threading.Semaphore(0)

    def say(self):
        self._arrived.release()

    async def wait(self):
        """For the next one. What is held back never arrives."""
        assert await asyncio.to_thread(self._arrived.acquire, timeout=5), "it was held back"


@pytest.mark.parametrize("tagged", [True, False], ids=["tagged", "untagged"])
@pytest.mark.parametrize("http2", [False, True], ids=["h1", "h2"])
def test_events_arrive_one_by_one(stage, upstream, http2, tagged):
    """Some end in the beginning of the secret, but for the empty line that ends every event."""
    events = [b"data: %d %b\n\n" % (size, TOKEN[:size].encode()) for size in range(len(TOKEN))]
    arrived = Acknowledged()

    async def function(exchange):
        await exchange.start(200, [(b"content-type", b"text/event-stream")])
        for event in events:
            await exchange.write(event)
            await arrived.wait()
        await exchange.end()

    upstream.scripts["events"] = function
    tag = stage.tag() if tagged else {}
    with (
        stage.client(http2=http2) as client,
        client.stream("GET", f"{URL}/script/events", headers=tag) as answer,
    ):
        got = []
        for piece in answer.iter_raw():
            got.append(piece)
            if piece.endswith(b"\n\n"):
                arrived.say()
    assert b"".join(got) == b"".join(events)


def test_a_chat_is_streamed_word_by_word_to_the_openai_sdk(stage, upstream):
    arrived = Acknowledged()
    upstream.scripts["openai"] = apis.openai(TOKEN, arrived=arrived.wait)
    words = []
    with openai.OpenAI(
        base_url=f"{URL}/script/openai",
        api_key=f"alter_grant_{stage.grants['bearer']}",
        max_retries=0,
        http_client=openai.DefaultHttpxClient(
            proxy=stage.proxy.url(*stage.caller), verify=ssl.create_default_context(cafile=stage.proxy.ca)
        ),
    ) as client:
        chat = {"model": "gpt-test", "messages": [{"role": "user", "content": "What is my key?"}]}
        for chunk in client.chat.completions.create(**chat, stream=True):
            words.append(chunk.choices[0].delta.content)
            arrived.say()
    assert words == ["Your", " key", " is ", "*" * len(TOKEN)]


@pytest.fixture
def outcome(stage):
    """`outcome(path)`: the record of the newest request for it, once it is over."""

    def outcome(path):
        return stage.audit([row for row in stage.records() if row["path"] == path][-1]["id"])

    return outcome


def test_a_download_whose_client_leaves_is_ended_upstream_and_in_the_record(stage, upstream, outcome):
    over = threading.Event()

    async def function(exchange):
        try:
            await exchange.start(200, [])
            while True:
                await exchange.write(b"x" * 10_000)
        finally:
            over.set()

    upstream.scripts["endless"] = function
    with stage.wire() as wire:
        wire.tunnel(HOST).send(
            f"GET /script/endless HTTP/1.1\r\nHost: {HOST}\r\nX-Alter-Grant: {stage.grants['bearer']}\r\n\r\n"
        )
        assert wire.interim().status == 200
        assert wire.read()
    assert over.wait(10), "the upstream is still sending"
    record = outcome("/script/endless")
    assert (record["decision"], record["status"], record["code"]) == ("authorized", 200, "client_gone")


def test_a_client_that_leaves_before_the_answer_is_not_waited_for(stage, upstream, outcome):
    asked, over = threading.Event(), threading.Event()

    async def function(exchange):
        asked.set()
        assert not await exchange.reader.read(1), "nothing but the end of the connection"
        over.set()

    upstream.scripts["silent"] = function
    with stage.wire() as wire:
        wire.tunnel(HOST).send(
            f"GET /script/silent HTTP/1.1\r\nHost: {HOST}\r\nX-Alter-Grant: {stage.grants['bearer']}\r\n\r\n"
        )
        assert asked.wait(10)
    assert over.wait(10), "the upstream is still asked"
    record = outcome("/script/silent")
    assert (record["decision"], record["status"], record["code"]) == ("authorized", None, "client_gone")


def test_an_upload_whose_client_leaves_never_becomes_whole(stage, upstream, outcome):
    with stage.wire() as wire:
        wire.tunnel(HOST).send(
            f"POST /upload?left HTTP/1.1\r\nHost: {HOST}\r\nX-Alter-Grant: {stage.grants['bearer']}\r\n"
            "Content-Length: 100000\r\n\r\n" + "x" * 50_000
        )
        upstream.wait(1)
    record = outcome("/upload")
    assert (record["decision"], record["status"], record["code"]) == ("authorized", None, "client_gone")
    assert not upstream.last.complete


@pytest.mark.parametrize("http2", [False, True], ids=["h1", "h2"])
def test_an_upstream_that_breaks_off_is_named_in_the_record(stage, upstream, outcome, http2):
    with stage.client(http2=http2) as client, pytest.raises(httpx.RemoteProtocolError):
        client.get(f"{URL}/cut/1000", headers=stage.tag())
    record = outcome("/cut/1000")
    assert (record["decision"], record["status"], record["code"]) == ("authorized", 200, "upstream_unreachable")


def test_an_early_answer_reaches_curl_in_the_middle_of_its_upload(stage, outcome, tmp_path):
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(50 << 20)
    tag = f"X-Alter-Grant: {stage.grants['bearer']}"
    done = stage.curl("--http1.1", "-H", tag, "-T", large, "-w", "%{http_code} %{size_upload}", f"{URL}/early?s=1")
    assert done.returncode == 0, done.stderr
    status, sent = done.stdout.split()
    assert status == b"413"
    assert int(sent) < 50 << 20
    record = outcome("/early")
    assert (record["decision"], record["status"], record["code"]) == ("authorized", 413, "")
