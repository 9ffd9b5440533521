"""
What the upstream plays for real SDKs: enough of each API to satisfy its client, and no answer without the key.

They are the worst that can be behind a proxy that hides a key: each tells its caller the key that it got.
"""

import json
from urllib.parse import parse_qsl

from tests.e2e.behaviours import reply


async def _answer(exchange, document, status=200):
    await reply(exchange, status, json.dumps(document).encode(), [(b"content-type", b"application/json")])


def openai(key, *, arrived=None):
    """Chat completions. With `arrived` an event is sent only once that coroutine function says the one before is there."""

    async def function(exchange):
        seen = exchange.received
        if seen.values("authorization") != [f"Bearer {key}"]:
            await _answer(exchange, {"error": {"message": "no such key", "code": "invalid_api_key"}}, 401)
            return
        assert (seen.method, seen.path) == ("POST", "/script/openai/chat/completions")
        asked = json.loads(seen.body)
        words = ["Your", " key", " is ", key]
        head = {"id": "chatcmpl-1", "created": 1, "model": asked["model"]}
        if not asked.get("stream"):
            choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "".join(words)}}
            await _answer(exchange, {**head, "object": "chat.completion", "choices": [choice]})
            return
        await exchange.start(200, [(b"content-type", b"text/event-stream")])
        for word in words:
            choice = {"index": 0, "finish_reason": None, "delta": {"role": "assistant", "content": word}}
            event = {**head, "object": "chat.completion.chunk", "choices": [choice]}
            await exchange.write(b"data: %b\n\n" % json.dumps(event).encode())
            if arrived:
                await arrived()
        await exchange.write(b"data: [DONE]\n\n")
        await exchange.end()

    return function


def stripe(key):
    """Charges."""

    async def function(exchange):
        seen = exchange.received
        if seen.values("authorization") != [f"Bearer {key}"]:
            await _answer(exchange, {"error": {"type": "invalid_request_error", "message": "no such key"}}, 401)
            return
        assert (seen.method, seen.path) == ("POST", "/script/stripe/v1/charges")
        amount = int(dict(parse_qsl(seen.body.decode()))["amount"])
        await _answer(exchange, {"id": "ch_1", "object": "charge", "amount": amount, "description": f"paid with {key}"})

    return function
