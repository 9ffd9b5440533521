"""Both sides: nothing of a secret gets through, nothing else is touched, and nobody waits."""

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from addon.errors import Refusal
from addon.redaction import Screen, variants
from addon.websocket import frames, relay
from addon.websocket.frames import Frames
from addon.websocket.handshake import Offer
from addon.websocket.relay import Relay

TOKEN = "sk_live_51H8xJ2eZvKYlo2C0aBc"
SECRET = TOKEN.encode()
STARS = b"*" * len(SECRET)


def send(opcode, payload=b"", *, final=True, masked=False):
    return frames.write(opcode, payload, final=final, masked=masked)


def messages(data):
    """What a client makes of these bytes: (opcode, payload) of whole messages and control frames, and what is unfinished."""
    found, parts, opcode = [], [], 0
    for piece in Frames(masked=False, whole=1 << 40).feed(data):
        if piece.opcode >= frames.CLOSE:
            found.append((piece.opcode, piece.payload))
            continue
        parts.append(piece.payload)
        opcode = piece.opcode or opcode
        if piece.final and piece.last:
            found.append((opcode, b"".join(parts)))
            parts = []
    return found, b"".join(parts)


def shown(*pieces, screen=None):
    through = Relay(screen or Screen([TOKEN]))
    return messages(b"".join(map(through.from_upstream, pieces)))[0]


@pytest.mark.parametrize("opcode", [frames.TEXT, frames.BINARY])
@pytest.mark.parametrize("at", range(len(SECRET) + 1))
def test_a_secret_that_fragments_split_is_found_at_every_place(opcode, at):
    first, second = send(opcode, b"<" + SECRET[:at], final=False), send(0, SECRET[at:] + b">")
    assert shown(first + second) == [(opcode, b"<" + STARS + b">")]
    assert shown(first, send(frames.PING, b"?"), second) == [(frames.PING, b"?"), (opcode, b"<" + STARS + b">")]


@given(
    before=st.binary(max_size=40),
    needle=st.sampled_from(variants([TOKEN])),
    cuts=st.lists(st.integers(0, 200), max_size=6),
    pieces=st.lists(st.integers(0, 400), max_size=8),
)
@example(before=b"", needle=SECRET, cuts=list(range(1, len(SECRET))), pieces=list(range(400)))
def test_no_fragments_and_no_pieces_let_a_spelling_through(before, needle, cuts, pieces):
    payload = before + needle + b"!"
    edges = [0, *sorted(min(cut, len(payload)) for cut in cuts), len(payload)]
    parts = [payload[a:b] for a, b in itertools.pairwise(edges)]
    data = b"".join(send(frames.TEXT if not n else 0, part, final=n == len(parts) - 1) for n, part in enumerate(parts))
    ends = [0, *sorted(min(cut, len(data)) for cut in pieces), len(data)]
    ((opcode, text),) = shown(*(data[a:b] for a, b in itertools.pairwise(ends)))
    assert opcode == frames.TEXT
    assert len(text) == len(payload)
    assert not [one for one in variants([TOKEN]) if one in text]


@given(
    st.lists(st.tuples(st.sampled_from([1, 2, 9, 10]), st.binary(max_size=125)), max_size=8),
    st.lists(st.integers(0, 1200), max_size=8),
)
def test_frames_without_a_secret_go_on_unchanged(sent, cuts):
    data = b"".join(send(opcode, payload) for opcode, payload in sent)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    through = Relay(Screen([TOKEN]))
    assert b"".join(through.from_upstream(data[a:b]) for a, b in itertools.pairwise(edges)) == data


@given(st.binary(max_size=300), st.integers(0, 300))
def test_a_clients_frames_are_not_touched(payload, cut):
    data = send(frames.TEXT, payload + SECRET, masked=True)
    through = Relay(Screen([TOKEN]))
    assert through.from_client(data[:cut]) + through.from_client(data[cut:]) == data


def test_a_message_is_not_held_back_by_what_its_end_could_become():
    assert shown(send(frames.TEXT, SECRET[:-1])) == [(frames.TEXT, SECRET[:-1])]
    assert shown(send(frames.TEXT, SECRET[:5]), send(frames.TEXT, SECRET[5:])) == [
        (frames.TEXT, SECRET[:5]),
        (frames.TEXT, SECRET[5:]),
    ]


def test_all_but_what_could_be_the_beginning_goes_on_before_the_message_ends():
    through = Relay(Screen([TOKEN]))
    assert messages(through.from_upstream(send(frames.TEXT, b"hello " + SECRET[:7], final=False))) == ([], b"hello ")


@pytest.mark.parametrize("opcode", [frames.PING, frames.PONG, frames.CLOSE])
def test_control_frames_are_searched_too(opcode):
    screen = Screen([TOKEN])
    (got,) = shown(send(opcode, b"\x03\xe8" + SECRET + b"."), screen=screen)
    assert got == (opcode, b"\x03\xe8" + STARS + b".")
    assert screen.count == 1


def test_every_place_is_counted_over_all_messages():
    screen = Screen([TOKEN])
    shown(*(send(frames.TEXT, SECRET) for _ in range(5)), screen=screen)
    assert screen.count == 5


def test_a_frame_without_end_is_searched_and_goes_on_in_fragments():
    through = Relay(Screen([TOKEN]))
    head = b"\x82\x7f" + (1 << 40).to_bytes(8)
    got = through.from_upstream(head + bytes(100_000) + SECRET[:9])
    got += through.from_upstream(SECRET[9:] + bytes(1000))
    assert messages(got) == ([], bytes(100_000) + STARS + bytes(1000))


@pytest.mark.parametrize("screen", [None, Screen(), Screen(["short"])])
def test_where_nothing_is_looked_for_every_byte_goes_on_as_it_comes(screen):
    through = Relay(screen, extended=True)
    data = b"\xc2\x7f" + (1 << 40).to_bytes(8) + b"abc"
    assert through.from_upstream(data[:11]) + through.from_upstream(data[11:]) == data


@pytest.mark.parametrize(
    ("side", "code"), [("from_client", "websocket_malformed"), ("from_upstream", "websocket_invalid")]
)
def test_what_came_before_a_violation_goes_on_and_nothing_after(side, code):
    through = Relay(Screen([TOKEN]))
    good = send(frames.TEXT, b"x", masked=side == "from_client")
    assert getattr(through, side)(good + b"\x83\x00") == good
    assert through.violation == code
    assert through.from_client(send(frames.TEXT, b"x", masked=True)) == b""
    assert through.from_upstream(send(frames.TEXT, b"x")) == b""


def test_a_close_frame_of_ours_goes_to_whoever_has_none_yet():
    through = Relay(Screen([TOKEN]))
    to_client, to_upstream = through.close(1008, "grant_revoked")
    assert to_client == frames.close(1008, "grant_revoked")
    assert next(Frames(masked=True).feed(to_upstream)).opcode == frames.CLOSE
    assert len(to_upstream) == 8
    assert through.from_upstream(send(frames.TEXT, b"x")) == b""

    through = Relay()
    through.from_upstream(frames.close(1000))
    to_client, to_upstream = through.close(1008)
    assert (to_client, len(to_upstream)) == (b"", 8)


def test_no_close_frame_is_written_into_the_midst_of_another_frame():
    through = Relay(None)
    through.from_client(send(frames.BINARY, bytes(70_000), masked=True)[:-1])
    through.from_upstream(send(frames.BINARY, bytes(70_000))[:-1])
    assert through.close(1008) == (b"", b"")


def test_a_searched_frame_in_progress_is_no_obstacle():
    through = Relay(Screen([TOKEN]))
    got = through.from_upstream(send(frames.BINARY, bytes(70_000))[:-1])
    assert messages(got + through.close(1008)[0])[0] == [(frames.CLOSE, b"\x03\xf0")]


def test_it_is_over_when_both_have_closed():
    through = Relay()
    through.from_upstream(frames.close(1000))
    assert not through.over
    through.from_client(frames.close(1000, masked=True))
    assert through.over


OFFER = Offer(accept=b"proof", extensions=frozenset(), protocols=frozenset())
GRANTED = ((b"Upgrade", b"websocket"), (b"Connection", b"Upgrade"), (b"Sec-WebSocket-Accept", b"proof"))


def test_the_head_of_a_grant_is_cleaned_and_searched():
    extra = ((b"X-Alter-Error", b"fault"), (b"Set-Cookie", b"a=1"), (b"X-Key", SECRET))
    headers, _ = relay.grant(OFFER, (*GRANTED, *extra), Screen([TOKEN]))
    assert headers == (*GRANTED, (b"X-Key", STARS))


@pytest.mark.parametrize(("offer", "headers"), [(None, GRANTED), (OFFER, GRANTED[:2])])
def test_there_are_no_frames_without_a_grant_of_what_was_asked_for(offer, headers):
    with pytest.raises(Refusal, match="websocket_invalid"):
        relay.grant(offer, headers, None)
