"""What asks for a WebSocket, and what grants it."""

import pytest

from addon.errors import Refusal
from addon.model import Head
from addon.websocket import handshake

HEADERS = {
    b"Upgrade": b"websocket",
    b"Connection": b"keep-alive, Upgrade",
    b"Sec-WebSocket-Version": b"13",
    b"Sec-WebSocket-Key": b"dGhlIHNhbXBsZSBub25jZQ==",
    b"Sec-WebSocket-Protocol": b"chat, superchat",
    b"Sec-WebSocket-Extensions": b"permessage-deflate; client_max_window_bits, x-own",
    b"Origin": b"https://app.test",
}
GRANTED = {
    b"Upgrade": b"WebSocket",
    b"Connection": b"upgrade",
    b"Sec-WebSocket-Accept": b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",  # the example of RFC 6455 1.3
}


def offer(method="GET", **changes):
    return handshake.read(Head(method, b"/chat", headers(HEADERS, changes)))


def headers(usual, changes):
    """`usual` with some values replaced, or several in their place; None leaves one out."""
    merged = usual | {name.replace("_", "-").encode(): value for name, value in changes.items()}
    several = {
        name: value if isinstance(value, list) else [value] for name, value in merged.items() if value is not None
    }
    return tuple((name, value) for name, values in several.items() for value in values)


def granted(of=None, **changes):
    return (of or offer()).check(headers(GRANTED, changes))


def test_the_example_of_the_rfc_is_granted():
    assert granted() is False


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "POST"},
        {"Upgrade": None},
        {"Upgrade": b"websocket, h2c"},
        {"Upgrade": [b"websocket", b"websocket"]},
        {"Connection": None},
        {"Connection": b"keep-alive"},
        {"Sec_WebSocket_Version": None},
        {"Sec_WebSocket_Version": b"8"},
        {"Sec_WebSocket_Version": [b"13", b"13"]},
        {"Sec_WebSocket_Key": None},
        {"Sec_WebSocket_Key": b"eA=="},
        {"Sec_WebSocket_Key": b"dGhlIHNhbXBsZSBub25jZQ"},
        {"Sec_WebSocket_Key": b"dGhlIHNhbXBsZSBub25jZR=="},
        {"Sec_WebSocket_Key": b"not base64 at all, no ==="},
        {"Sec_WebSocket_Key": [b"dGhlIHNhbXBsZSBub25jZQ=="] * 2},
        {"Content_Length": b"1"},
        {"Content_Length": b""},
        {"Transfer_Encoding": b"chunked"},
        {"Expect": b"100-continue"},
        {"Trailer": b"X"},
    ],
    ids=str,
)
def test_what_is_no_handshake_to_the_letter_is_refused(changes):
    with pytest.raises(Refusal, match="websocket_malformed"):
        offer(**changes)


def test_a_length_of_nothing_is_no_body():
    assert offer(Content_Length=b"0")


@pytest.mark.parametrize(
    "changes",
    [
        {"Upgrade": None},
        {"Upgrade": b"h2c"},
        {"Connection": None},
        {"Sec_WebSocket_Accept": None},
        {"Sec_WebSocket_Accept": b"HSmrc0sMlYUkAGmm5OPpG2HaGWk="},
        {"Sec_WebSocket_Accept": [b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="] * 2},
        {"Sec_WebSocket_Extensions": b"x-other"},
        {"Sec_WebSocket_Extensions": [b"permessage-deflate", b"x-other"]},
        {"Sec_WebSocket_Protocol": b"other"},
        {"Sec_WebSocket_Protocol": b"chat, superchat"},
        {"Sec_WebSocket_Protocol": [b"chat", b"chat"]},
    ],
    ids=str,
)
def test_an_answer_that_was_not_asked_for_is_refused(changes):
    with pytest.raises(Refusal, match="websocket_invalid"):
        granted(**changes)


def test_what_was_offered_may_be_chosen():
    assert granted(Sec_WebSocket_Protocol=b"superchat") is False
    assert granted(Sec_WebSocket_Extensions=b"permessage-deflate; server_no_context_takeover") is True


def test_where_no_extension_was_offered_none_is_taken():
    with pytest.raises(Refusal, match="websocket_invalid"):
        granted(offer(Sec_WebSocket_Extensions=None), Sec_WebSocket_Extensions=b"permessage-deflate")
