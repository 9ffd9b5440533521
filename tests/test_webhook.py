"""Announcing what waits: signed, tried again, and never in the way."""

import asyncio
import hashlib
import hmac
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from addon import webhook
from addon.errors import Usage
from addon.vault.approvals import Subject
from addon.webhook import Webhook, check_url, read_key, sign

KEY = b"0" * 64


@pytest.fixture
def bot():
    """A bot on this machine. It answers with `answers`, then with 200, and remembers what it was told."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            server.told.append((self.path, dict(self.headers), body))
            self.send_response(server.answers.pop(0) if server.answers else 200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.told, server.answers = [], []
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def approval(story):
    subject = Subject("app:billing", "", story.grants["stripe"], "POST", "api.stripe.test", 443, b"/v1/refunds?id=7", "ab" * 32, "why")  # fmt: skip
    return story.vault.approvals.ask(subject, grant_id=story.grants["stripe"], now=story.now, expires_at=story.now + 60)


async def announce(story, approval, url):
    hook = Webhook(url, key=KEY, ca_file="", clock=lambda: story.now)
    hook.announce(approval)
    await asyncio.wait_for(asyncio.gather(*hook._tasks), 10)


def url(bot):
    return f"http://127.0.0.1:{bot.server_port}/hook?team=a"


async def test_the_bot_is_told_what_an_operator_would_see_and_can_check_who_says_it(story, approval, bot):
    await announce(story, approval, url(bot))
    [(path, headers, body)] = bot.told
    document = json.loads(body)
    assert path == "/hook?team=a"
    assert (document["type"], document["approval_id"], document["secret"]) == ("approval.pending", approval.id, "stripe")  # fmt: skip
    assert (document["path"], document["reason"], document["caller"]) == ("/v1/refunds", "why", "app:billing")
    assert b"id=7" not in body
    time, _, signature = headers["X-Alter-Signature"].partition(",")
    assert time == f"t={int(story.now)}"
    expected = hmac.new(KEY, time[2:].encode() + b"." + body, hashlib.sha256).hexdigest()
    assert signature == f"v1={expected}"


async def test_a_failed_try_is_tried_again(story, approval, bot, monkeypatch):
    monkeypatch.setattr(webhook, "PAUSES", (0.01, 0.01))
    bot.answers = [500, 302]
    await announce(story, approval, url(bot))
    assert len(bot.told) == 3


async def test_what_cannot_be_told_is_given_up_and_complained_about(story, approval, monkeypatch, caplog):
    monkeypatch.setattr(webhook, "PAUSES", (0.01,))
    await announce(story, approval, "http://127.0.0.1:1/")
    assert "could not be announced" in caplog.text


async def test_nobody_is_told_after_it_is_over(story, approval, bot, monkeypatch):
    monkeypatch.setattr(webhook, "PAUSES", (60.0,))
    bot.answers = [500]
    await announce(story, approval, url(bot))
    assert len(bot.told) == 1


@pytest.mark.parametrize(
    "text",
    ["", "x", "http://bot.example/", "ftp://a/", "https://", "https://a:0/", "https://a:x/", "https://u:p@a/", "https://a/\n", "https://\u00e4.example/"],
)  # fmt: skip
def test_an_address_that_is_not_safe_is_refused(text):
    with pytest.raises(Usage, match="not an address for a webhook"):
        check_url(text)


@pytest.mark.parametrize("text", ["https://bot.example/hook", "https://bot.example:8443", "http://localhost:9/", "http://[::1]:9/a"])  # fmt: skip
def test_https_and_this_machine_are_safe(text):
    assert check_url(text).hostname


def test_the_key_is_made_once_and_closed_to_others(tmp_path):
    key = read_key(tmp_path)
    assert read_key(tmp_path) == key
    assert len(key) == 64
    assert (tmp_path / "webhook.key").stat().st_mode & 0o777 == 0o600


def test_a_signature_depends_on_key_time_and_body():
    assert len({sign(b"a", key=KEY, now=1.0), sign(b"b", key=KEY, now=1.0), sign(b"a", key=KEY, now=2.0), sign(b"a", key=b"1", now=1.0)}) == 4  # fmt: skip
