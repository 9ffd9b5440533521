"""Keys are found by id, read strictly, and never shown."""

import copy
import dataclasses
import json
import pickle
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import given
from hypothesis import strategies as st

from addon.errors import Corrupt, Locked
from addon.vault.keyring import Keyring, PrivateKey, Recipient, pae

FROZEN = json.loads((Path(__file__).parents[1] / "vectors" / "seal_v1.json").read_text())
SEED = bytes(range(32))


def both_suites():
    return Keyring([PrivateKey(SEED, suite=1), PrivateKey(SEED, suite=2)])


def lines(*rows):
    return b"\n".join((b"alter-egress keyring 1", *rows)) + b"\n"


# Encoding and ids


def test_pae_writes_count_and_lengths_as_eight_byte_little_endian():
    assert pae() == bytes(8)
    assert pae(b"") == b"\1" + bytes(7) + bytes(8)
    assert pae(b"ab", b"c") == b"\2" + bytes(7) + b"\2" + bytes(7) + b"ab" + b"\1" + bytes(7) + b"c"


@given(st.lists(st.binary(max_size=20), max_size=4), st.lists(st.binary(max_size=20), max_size=4))
def test_pae_of_different_parts_differs(one, other):
    assert (pae(*one) == pae(*other)) == (one == other)


@pytest.mark.parametrize("frozen", FROZEN["keys"], ids=lambda k: f"suite{k['suite']}")
def test_a_seed_always_has_the_same_public_key_and_id(frozen):
    recipient = PrivateKey(bytes.fromhex(frozen["seed"]), suite=frozen["suite"]).recipient
    assert recipient == Recipient(frozen["suite"], bytes.fromhex(frozen["public"]))
    assert recipient.kid == frozen["kid"]


def test_an_id_depends_on_the_suite():
    first, second = both_suites().recipients
    assert first.kid != second.kid
    assert len(first.kid) == len(second.kid) == 32


@pytest.mark.parametrize("suite", [1, 2])
@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_seed_of_another_length_refuses(suite, length):
    with pytest.raises(Corrupt, match="32 bytes"):
        PrivateKey(bytes(length), suite=suite)


def test_generated_keys_differ():
    assert Keyring.generate().recipients != Keyring.generate().recipients
    assert [r.suite for r in Keyring.generate(suite=2).recipients] == [2]


# Recipients


@pytest.mark.parametrize("suite", [0, 3, 255, -1])
def test_an_unknown_suite_refuses(suite):
    with pytest.raises(Locked, match="suite"):
        Recipient(suite, bytes(32))
    with pytest.raises(Locked, match="suite"):
        PrivateKey.generate(suite)


@pytest.mark.parametrize(
    ("suite", "public"),
    [(1, b""), (1, bytes(31)), (1, bytes(33)), (2, b""), (2, bytes(32)), (2, bytes(1215)), (2, b"\xff" * 1217)],
)
def test_bytes_that_are_no_public_key_refuse(suite, public):
    with pytest.raises(Corrupt, match="public key"):
        Recipient(suite, public)


def test_a_public_key_of_low_order_refuses_to_wrap():
    with pytest.raises(Corrupt, match="public key"):
        Recipient(1, bytes(32)).wrap(b"key", info=b"")


@pytest.mark.parametrize("suite", [1, 2])
def test_only_the_same_key_and_info_unwrap(suite):
    key = PrivateKey.generate(suite)
    wrapped = key.recipient.wrap(b"k" * 32, info=b"here")
    assert key.unwrap(wrapped, info=b"here") == b"k" * 32
    with pytest.raises(InvalidTag):
        key.unwrap(wrapped, info=b"there")
    with pytest.raises(InvalidTag):
        PrivateKey.generate(suite).unwrap(wrapped, info=b"here")


# Key files


def test_a_dump_reads_back():
    ring = both_suites()
    again = Keyring.parse(ring.dump())
    assert again.recipients == ring.recipients
    assert again.dump() == ring.dump()


def test_a_frozen_key_file_reads():
    ring = Keyring.parse(FROZEN["key_file"].encode())
    assert [r.kid for r in ring.recipients] == [k["kid"] for k in FROZEN["keys"]]


def test_keys_are_found_by_id():
    ring = both_suites()
    for recipient in ring.recipients:
        assert ring.key(recipient.kid).recipient == recipient
    assert ring.key("0" * 32) is None
    assert ring.key("") is None


def test_line_ends_of_other_systems_are_accepted():
    ring = both_suites()
    assert Keyring.parse(ring.dump().replace(b"\n", b"\r\n")).recipients == ring.recipients


@pytest.mark.parametrize("version", [b"2", b"01", b"1 ", b"", b"1.1"])
def test_an_unknown_version_refuses(version):
    data = both_suites().dump().replace(b"keyring 1", b"keyring " + version, 1)
    with pytest.raises(Locked, match="format"):
        Keyring.parse(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"\0",
        b"hello",
        b"-----BEGIN PRIVATE KEY-----",
        b"ALTER-EGRESS KEYRING 1\n",
        b"\xef\xbb\xbfalter-egress keyring 1\n",
    ],
)
def test_something_else_is_not_a_key_file(data):
    with pytest.raises(Corrupt, match="begin"):
        Keyring.parse(data)


def test_a_key_file_of_an_unknown_suite_refuses():
    row = PrivateKey(SEED, suite=1).line()
    with pytest.raises(Locked, match="suite"):
        Keyring.parse(lines(b"9" + row[1:]))


def test_a_file_without_keys_or_with_one_twice_refuses():
    row = PrivateKey(SEED, suite=1).line()
    with pytest.raises(Corrupt, match="no key"):
        Keyring.parse(lines())
    with pytest.raises(Corrupt, match="twice"):
        Keyring.parse(lines(row, row))


@pytest.mark.parametrize(
    "damage",
    [
        lambda row: row[:-1],
        lambda row: row + b"0",
        lambda row: row + b" extra",
        lambda row: b" " + row,
        lambda row: row.replace(b" ", b"  "),
        lambda row: row.replace(b" ", b"\t"),
        lambda row: row.upper(),
        lambda row: row.replace(b" ", b"\x0b"),
        lambda row: b"key " + row,
        lambda row: b"\xd9\xa1" + row[1:],
    ],
)
def test_a_malformed_line_refuses(damage):
    with pytest.raises(Corrupt, match="malformed"):
        Keyring.parse(lines(damage(PrivateKey(SEED, suite=1).line())))


@pytest.mark.parametrize("suite", [1, 2])
def test_one_wrong_digit_never_becomes_another_key(suite):
    row = PrivateKey(SEED, suite=suite).line()
    read = 0
    for position in range(2, len(row)):
        wrong = bytearray(row)
        wrong[position] ^= 1
        try:
            ring = Keyring.parse(lines(bytes(wrong)))
        except Corrupt:
            continue
        assert ring.recipients == (PrivateKey(SEED, suite=suite).recipient,)
        read += 1
    assert read == (1 if suite == 1 else 0)  # X25519 ignores five bits of its scalar (RFC 7748 5)


def test_another_suite_for_the_same_seed_is_noticed():
    row = PrivateKey(SEED, suite=1).line()
    with pytest.raises(Corrupt, match="id"):
        Keyring.parse(lines(b"2" + row[1:]))


@given(st.binary(max_size=200))
def test_any_other_bytes_refuse_with_a_typed_error(data):
    with pytest.raises((Corrupt, Locked)):
        Keyring.parse(data)
    with pytest.raises((Corrupt, Locked)):
        Keyring.parse(lines(data))


def test_a_private_file_loads(tmp_path):
    path = tmp_path / "proxy.key"
    path.write_bytes(both_suites().dump())
    path.chmod(0o600)
    assert Keyring.load(path).recipients == both_suites().recipients


def test_a_file_others_can_read_does_not_load(tmp_path):
    path = tmp_path / "proxy.key"
    path.write_bytes(both_suites().dump())
    path.chmod(0o640)
    with pytest.raises(Locked, match="readable by others"):
        Keyring.load(path)


# Nothing is shown

FORMS = (SEED, SEED.hex().encode(), repr(SEED)[2:-1].encode(), str(list(SEED))[1:-1].encode())


def shows_seed(text):
    data = text if isinstance(text, bytes) else text.encode()
    return any(form in data for form in FORMS)


@pytest.mark.parametrize("holder", [PrivateKey(SEED, suite=1), PrivateKey(SEED, suite=2), both_suites()], ids=repr)
def test_a_holder_of_keys_prints_ids_only(holder):
    assert shows_seed(both_suites().dump())
    for text in (repr(holder), str(holder), f"{holder}", f"{[holder]}", "%s" % (holder,)):  # noqa: UP031
        assert not shows_seed(text)
        assert both_suites().recipients[0].kid in text or both_suites().recipients[1].kid in text


@pytest.mark.parametrize("holder", [PrivateKey(SEED, suite=1), PrivateKey(SEED, suite=2), both_suites()], ids=repr)
def test_a_holder_of_keys_is_never_serialised(holder):
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="never serialised"):
            pickle.dumps(holder, protocol)
    with pytest.raises(TypeError, match="never serialised"):
        copy.copy(holder)
    with pytest.raises(TypeError, match="never serialised"):
        copy.deepcopy(holder)
    with pytest.raises(TypeError):
        json.dumps(holder)
    with pytest.raises(TypeError):
        vars(holder)


@pytest.mark.parametrize("held", [PrivateKey(SEED, suite=1), both_suites()], ids=repr)
def test_a_dataclass_that_holds_keys_is_not_turned_into_a_dict(held):
    holder = dataclasses.make_dataclass("Holder", ["held"])(held)
    with pytest.raises(TypeError, match="never serialised"):
        dataclasses.asdict(holder)
    assert not shows_seed(repr(holder))


@pytest.mark.parametrize("cut", [-2, -20, -64, -66])
def test_an_error_about_a_key_file_carries_nothing_of_it(cut):
    data = both_suites().dump()[:cut]
    with pytest.raises((Corrupt, Locked)) as caught:
        Keyring.parse(data)
    error = caught.value
    while error:
        assert not shows_seed(f"{error!r} {vars(error)}")
        error = error.__cause__ or error.__context__


def test_the_recipients_hold_no_seed():
    ring = both_suites()
    assert not shows_seed(repr(ring.recipients))
    assert not shows_seed(pickle.dumps(ring.recipients))
