"""One side's frames: strictly, whatever the pieces, and never held."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.frame_protocol import FrameDecoder, FrameProtocol, MessageDecoder, ParseFailed

from addon.websocket import frames
from addon.websocket.frames import Frames, Violation

MASK = b"\1\2\3\4"


def server(opcode, payload=b"", *, final=True):
    return frames.write(opcode, payload, final=final)


def client(opcode, payload=b"", *, final=True):
    return frames.write(opcode, payload, final=final, masked=True)


def read(data, *, cuts=(), **side):
    """The pieces of `data`, fed in parts."""
    reader = Frames(**({"masked": False} | side))
    edges = [0, *sorted(cuts), len(data)]
    return [piece for a, b in itertools.pairwise(edges) for piece in reader.feed(data[a:b])]


MESSAGES = st.lists(
    st.tuples(st.sampled_from([frames.TEXT, frames.BINARY]), st.lists(st.binary(max_size=300), min_size=1, max_size=4)),
    max_size=4,
)


def flow(messages, write):
    """Messages as frames, a ping after every fragment."""
    out = []
    for opcode, parts in messages:
        for number, part in enumerate(parts):
            out += [write(0 if number else opcode, part, final=number == len(parts) - 1), write(frames.PING, b"?")]
    return b"".join(out)


@pytest.mark.parametrize(("write", "masked"), [(client, True), (server, False)])
@given(messages=MESSAGES, cuts=st.lists(st.integers(0, 3000), max_size=12), whole=st.sampled_from([0, 200, 1 << 16]))
def test_nothing_is_lost_or_changed_however_it_comes(write, masked, messages, cuts, whole):
    data = flow(messages, write)
    pieces = read(data, cuts=[min(cut, len(data)) for cut in cuts], masked=masked, whole=whole)
    assert b"".join(piece.head + piece.payload for piece in pieces) == data
    assert sum(piece.final and piece.last and piece.opcode < frames.CLOSE for piece in pieces) == len(messages)


def test_a_long_frame_is_given_out_as_it_arrives():
    reader = Frames(masked=False, whole=1000)
    head = server(frames.BINARY, bytes(70_000))[:10]
    assert not list(reader.feed(head))
    first, second = [piece for size in (1, 69_999) for piece in reader.feed(bytes(size))]
    assert (first.opcode, first.head, first.payload, first.last) == (frames.BINARY, head, b"\0", False)
    assert (second.opcode, second.head, len(second.payload), second.last) == (0, b"", 69_999, True)


def test_a_frame_of_unheard_of_length_is_no_reason_to_keep_anything():
    reader = Frames(masked=False)
    assert not list(reader.feed(b"\x82\x7f" + (2**63 - 1).to_bytes(8)))
    assert sum(len(piece.payload) for _ in range(100) for piece in reader.feed(bytes(1000))) == 100_000
    assert not reader._buffer


def test_a_short_frame_comes_in_one_piece():
    data = server(frames.TEXT, b"x" * 60_000)
    assert [len(piece.payload) for piece in read(data, cuts=range(len(data)), whole=60_000)] == [60_000]


VIOLATIONS = {
    "masked by a server": client(frames.TEXT, b"x"),
    "a reserved bit": b"\xc1\x00",
    "another": b"\xa1\x00",
    "and another": b"\x91\x00",
    "an unknown opcode": b"\x83\x00",
    "an unknown control opcode": b"\x8b\x00",
    "a control frame of 126 bytes": b"\x89\x7e\x00\x7e" + bytes(126),
    "a fragmented control frame": b"\x09\x00",
    "a reserved bit in a control frame": b"\xc9\x00",
    "a close frame of one byte": b"\x88\x01x",
    "a continuation of nothing": b"\x80\x00",
    "a message in a message": server(frames.TEXT, final=False) + server(frames.TEXT),
    "a length written too long": b"\x81\x7e\x00\x7d" + bytes(125),
    "a length written much too long": b"\x81\x7f" + (65_535).to_bytes(8),
    "a length without end": b"\x81\x7f\xff" + bytes(7),
}


@pytest.mark.parametrize("data", VIOLATIONS.values(), ids=VIOLATIONS)
def test_what_is_no_frame_is_a_violation(data):
    with pytest.raises(Violation):
        read(data)


def test_a_client_has_to_mask():
    with pytest.raises(Violation):
        read(server(frames.TEXT, b"x"), masked=True)
    assert read(client(frames.TEXT, b"x"), masked=True)


def test_bits_of_an_extension_that_was_agreed_on_pass_in_messages_alone():
    assert read(b"\xc1\x00", reserved=True)
    with pytest.raises(Violation):
        read(b"\xc9\x00", reserved=True)


def test_nothing_follows_a_close_frame():
    pieces = read(frames.close(1000, "bye") + b"\xff\xff\xff", cuts=[9])
    assert [piece.payload for piece in pieces] == [b"\x03\xe8bye"]


@given(st.lists(st.sampled_from([0, 1, 2, 3, 8, 9, 10, 11, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8A, 0x8B, 0x7E, 0x7F, 126, 5, 0x41, 0xC1]), max_size=30).map(bytes), st.booleans())  # fmt: skip
def test_another_implementation_agrees_on_what_a_frame_is(data, masked):
    """wsproto, which judges a head only when all of it is here: where it has not, ours may have refused already."""
    theirs, messages, refused = FrameDecoder(client=not masked), MessageDecoder(), False
    theirs.receive_bytes(data)
    try:
        while not refused and (frame := theirs.process_buffer()) is not None:
            if not frame.opcode.iscontrol():
                messages.process_frame(frame._replace(opcode=frame.opcode, payload=b""))
            elif frame.opcode == frames.CLOSE:
                refused = len(frame.payload) == 1
                break
    except ParseFailed:
        refused = True
    try:
        read(data, masked=masked)
        ours = False
    except Violation:
        ours = True
    assert ours or not refused


@given(st.sampled_from([1, 2]), st.sampled_from([0, 1, 125, 126, 65_535, 65_536, 70_000]), st.booleans())
def test_another_implementation_reads_what_is_written(opcode, size, masked):
    theirs = FrameProtocol(client=not masked, extensions=[])
    theirs.receive_bytes(frames.write(opcode, b"x" * size, masked=masked))
    frame = next(theirs.received_frames())
    text = b"x" * size
    assert (frame.opcode, frame.payload) == (opcode, text.decode() if opcode == 1 else text)
    assert frame.message_finished


def test_a_close_frame_says_why():
    theirs = FrameProtocol(client=False, extensions=[])
    theirs.receive_bytes(frames.close(1008, "grant_revoked", masked=True))
    assert next(theirs.received_frames()).payload == (1008, "grant_revoked")
