"""
A sealed value opens at its own place, with its own key, exactly as it was written, or it is a fault.
"""

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from addon import binding
from addon.binding import Binding, Placement, Role
from addon.errors import Fault, Locked, Usage
from addon.vault import seal as module
from addon.vault.keyring import Keyring, PrivateKey
from addon.vault.seal import LIMIT, Place, Sealed, Wrap, open_sealed, pae, rewrap, seal

FROZEN = json.loads((Path(__file__).parents[1] / "vectors" / "seal_v1.json").read_text())

BOUND = Binding(
    hosts=(("api.example.com", 443),),
    methods=("GET", "POST"),
    paths=("/v1/",),
    placements=(Placement("header", "authorization", "Bearer {value}"),),
    constants=(("x-version", "2026-01-01"),),
    services=("s3",),
    regions=("eu-central-1",),
)
PLACE = Place(vault_id="vlt_one", secret_id="sec_one", version=3, kind="bearer", binding=BOUND.dump())
PLAINTEXT = b"sk_live_example"


@pytest.fixture(scope="module", params=[1, 2], ids=["x25519", "x-wing"])
def ring(request):
    return Keyring.generate(request.param)


@pytest.fixture(scope="module")
def sealed(ring):
    return seal(PLAINTEXT, place=PLACE, recipients=ring.recipients)


def refused(sealed, *, ring, place=PLACE):
    """What the fault says. It says the code the client gets, and nothing of the value."""
    with pytest.raises(Fault) as caught:
        open_sealed(sealed, place=place, keyring=ring)
    assert caught.value.code == "vault_unavailable"
    assert PLAINTEXT.decode() not in str(caught.value)
    return str(caught.value)


def with_wrap(sealed, **changes):
    return Sealed(sealed.payload, (dataclasses.replace(sealed.wraps[0], **changes),))


def flipped(data, bit):
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


# Round trips


def test_what_was_sealed_opens(sealed, ring):
    assert open_sealed(sealed, place=PLACE, keyring=ring) == PLAINTEXT


@settings(max_examples=100, deadline=None)
@given(
    plaintext=st.binary(min_size=1, max_size=300),
    place=st.builds(
        Place,
        vault_id=st.text(max_size=20),
        secret_id=st.text(max_size=20),
        version=st.integers(0, 2**64 - 1),
        kind=st.text(max_size=20),
        binding=st.binary(max_size=100),
    ),
)
def test_any_value_opens_at_any_place_and_is_never_stored_in_clear(ring, plaintext, place):
    sealed = seal(plaintext, place=place, recipients=ring.recipients)
    assert open_sealed(sealed, place=place, keyring=ring) == plaintext
    assert len(plaintext) < 8 or plaintext not in sealed.payload


@pytest.mark.parametrize("size", [1, 2, LIMIT - 1, LIMIT])
def test_a_value_of_one_byte_to_64_kib_opens(ring, size):
    sealed = seal(b"v" * size, place=PLACE, recipients=ring.recipients)
    assert open_sealed(sealed, place=PLACE, keyring=ring) == b"v" * size


@pytest.mark.parametrize("size", [0, LIMIT + 1])
def test_a_value_of_another_size_is_not_sealed(ring, size):
    with pytest.raises(Usage, match="empty or too large"):
        seal(b"v" * size, place=PLACE, recipients=ring.recipients)


def test_nothing_is_sealed_to_nobody():
    with pytest.raises(Locked, match="no key"):
        seal(PLAINTEXT, place=PLACE, recipients=())


def test_every_recipient_opens_alone_whatever_their_suites():
    rings = [Keyring.generate(1), Keyring.generate(2), Keyring.generate(1)]
    sealed = seal(PLAINTEXT, place=PLACE, recipients=[r for ring in rings for r in ring.recipients])
    for ring in rings:
        assert open_sealed(sealed, place=PLACE, keyring=ring) == PLAINTEXT
    assert "no key" in refused(sealed, ring=Keyring.generate())


def test_a_ring_of_several_keys_opens_what_was_sealed_to_one_of_them():
    old, new = PrivateKey.generate(1), PrivateKey.generate(2)
    for recipient in (old.recipient, new.recipient):
        sealed = seal(PLAINTEXT, place=PLACE, recipients=[recipient])
        assert open_sealed(sealed, place=PLACE, keyring=Keyring([old, new])) == PLAINTEXT


def test_nothing_random_is_used_twice(ring):
    many = [seal(PLAINTEXT, place=PLACE, recipients=ring.recipients) for _ in range(500)]
    parts = [
        part for s in many for part in (s.payload[1:33], s.payload[33:45], s.payload[45:], s.wraps[0].wrapped[:32])
    ]
    assert len(set(parts)) == 4 * 500


# The place is sealed in


@pytest.mark.parametrize(
    "change",
    [
        {"vault_id": "vlt_two"},
        {"vault_id": ""},
        {"secret_id": "sec_two"},
        {"secret_id": "sec_one\0"},
        {"version": 2},
        {"version": 4},
        {"version": 3 + 2**56},
        {"kind": "header"},
        {"kind": "Bearer"},
        {"vault_id": "vlt_onesec_one", "secret_id": ""},
        {"vault_id": "vlt_onesec", "secret_id": "_one"},
        {"vault_id": "sec_one", "secret_id": "vlt_one"},
    ],
    ids=str,
)
def test_a_value_does_not_open_elsewhere(sealed, ring, change):
    assert "not verify" in refused(sealed, ring=ring, place=dataclasses.replace(PLACE, **change))


@pytest.mark.parametrize(
    "change",
    [
        {"hosts": (("evil.example.com", 443),)},
        {"hosts": (("api.example.com", 8443),)},
        {"hosts": (("*.example.com", 443),)},
        {"hosts": (*BOUND.hosts, ("evil.example.com", 443))},
        {"methods": ("GET",)},
        {"methods": ("POST", "GET")},
        {"paths": ("/",)},
        {"placements": ()},
        {"placements": (Placement("query", "authorization", "Bearer {value}"),)},
        {"placements": (Placement("header", "x-echo", "Bearer {value}"),)},
        {"placements": (Placement("header", "authorization", "{value}"),)},
        {"constants": ()},
        {"constants": (("x-version", "2026-01-02"),)},
        {"services": ("sts",)},
        {"services": ()},
        {"services": ("s3", "sts")},
        {"regions": ("us-east-1",)},
        {"regions": ()},
        {"role": Role(arn="arn:aws:iam::1:role/r")},
        {"flags": frozenset({"private"})},
        {"scheme": "http"},
    ],
    ids=str,
)
def test_a_value_does_not_open_under_a_changed_binding(sealed, ring, change):
    changed = dataclasses.replace(BOUND, **change).dump()
    assert "not verify" in refused(sealed, ring=ring, place=dataclasses.replace(PLACE, binding=changed))


def test_the_binding_changes_every_member_in_the_list_above():
    """A member added to Binding must be added to the cases: nothing about a binding is outside the seal."""
    assert {f.name for f in dataclasses.fields(Binding)} == {
        "hosts", "methods", "paths", "placements", "constants", "services", "regions", "role", "flags", "scheme",
    }  # fmt: skip


def test_even_the_spelling_of_a_binding_is_sealed(sealed, ring):
    respelled = json.dumps(json.loads(PLACE.binding)).encode()
    assert binding.load(respelled) == BOUND
    assert "not verify" in refused(sealed, ring=ring, place=dataclasses.replace(PLACE, binding=respelled))


@pytest.mark.parametrize("version", [-1, 2**64, 2**200])
def test_a_version_that_has_no_encoding_is_a_fault(sealed, ring, version):
    assert "not verify" in refused(sealed, ring=ring, place=dataclasses.replace(PLACE, version=version))


def test_text_that_has_no_encoding_is_a_fault(sealed, ring):
    assert "not verify" in refused(sealed, ring=ring, place=dataclasses.replace(PLACE, secret_id="\ud800"))


# Nothing in a record can be changed or moved


def test_any_flipped_bit_is_a_fault(sealed, ring):
    step = 1 if sealed.wraps[0].suite == 1 else 7  # an X-Wing wrap has ten thousand bits
    for bit in range(8 * len(sealed.payload)):
        refused(Sealed(flipped(sealed.payload, bit), sealed.wraps), ring=ring)
    for bit in range(0, 8 * len(sealed.wraps[0].wrapped), step):
        refused(with_wrap(sealed, wrapped=flipped(sealed.wraps[0].wrapped, bit)), ring=ring)
    for bit in range(8 * 32):
        kid = flipped(sealed.wraps[0].kid.encode(), bit).decode("latin-1")
        assert "no key" in refused(with_wrap(sealed, kid=kid), ring=ring)
    for bit in range(8):
        refused(with_wrap(sealed, suite=sealed.wraps[0].suite ^ 1 << bit), ring=ring)


def test_any_truncation_is_a_fault(sealed, ring):
    for length in range(len(sealed.payload)):
        refused(Sealed(sealed.payload[:length], sealed.wraps), ring=ring)
    for length in range(len(sealed.wraps[0].wrapped)):
        refused(with_wrap(sealed, wrapped=sealed.wraps[0].wrapped[:length]), ring=ring)


def test_any_addition_is_a_fault(sealed, ring):
    refused(Sealed(sealed.payload + b"\0", sealed.wraps), ring=ring)
    refused(Sealed(b"\1" + sealed.payload, sealed.wraps), ring=ring)
    refused(with_wrap(sealed, wrapped=sealed.wraps[0].wrapped + b"\0"), ring=ring)
    assert "length" in refused(Sealed(sealed.payload + bytes(LIMIT), sealed.wraps), ring=ring)


@pytest.mark.parametrize("part", [slice(1, 33), slice(33, 45), slice(45, None)], ids=["commit", "nonce", "ciphertext"])
def test_parts_of_another_record_at_the_same_place_do_not_fit(sealed, ring, part):
    other = seal(PLAINTEXT, place=PLACE, recipients=ring.recipients)
    mixed = bytearray(sealed.payload)
    mixed[part] = other.payload[part]
    assert "not verify" in refused(Sealed(bytes(mixed), sealed.wraps), ring=ring)


def test_a_wrap_of_another_record_at_the_same_place_does_not_fit(sealed, ring):
    other = seal(PLAINTEXT, place=PLACE, recipients=ring.recipients)
    assert "not verify" in refused(Sealed(sealed.payload, other.wraps), ring=ring)
    assert "not verify" in refused(Sealed(other.payload, sealed.wraps), ring=ring)


def test_a_wrap_for_one_key_does_not_open_under_the_name_of_another():
    for suite in (1, 2):
        first, second = PrivateKey.generate(suite), PrivateKey.generate(suite)
        sealed = seal(PLAINTEXT, place=PLACE, recipients=[first.recipient, second.recipient])
        one, two = sealed.wraps
        swapped = (Wrap(two.kid, one.suite, one.wrapped), Wrap(one.kid, two.suite, two.wrapped))
        assert "not verify" in refused(Sealed(sealed.payload, swapped), ring=Keyring([first, second]))
        assert "not verify" in refused(with_wrap(sealed, kid=two.kid), ring=Keyring([first, second]))


def test_no_wraps_means_no_key(sealed, ring):
    assert "no key" in refused(Sealed(sealed.payload, ()), ring=ring)


def test_a_relabelled_suite_is_never_tried(sealed, ring):
    assert "no key" in refused(with_wrap(sealed, suite=3 - sealed.wraps[0].suite), ring=ring)


@pytest.mark.parametrize("suite", [0, 3, 255, -1])
def test_an_unknown_suite_refuses_the_record_even_beside_a_known_one(sealed, ring, suite):
    assert "suite" in refused(with_wrap(sealed, suite=suite), ring=ring)
    foreign = Wrap("0" * 32, suite, b"?")
    assert "suite" in refused(Sealed(sealed.payload, (*sealed.wraps, foreign)), ring=ring)


@pytest.mark.parametrize("first", [b"", b"\0", b"\2", b"\xff"])
def test_an_unknown_format_refuses(sealed, ring, first):
    assert "format" in refused(Sealed(first + sealed.payload[1:] if first else b"", sealed.wraps), ring=ring)


@settings(max_examples=200, deadline=None)
@given(
    payload=st.binary(max_size=100) | st.binary(min_size=62, max_size=100).map(lambda b: b"\1" + b),
    wrapped=st.binary(max_size=100) | st.binary(min_size=80, max_size=80) | st.binary(min_size=1168, max_size=1168),
    suite=st.integers(),
    ours=st.booleans(),
    kid=st.text(max_size=40),
)
def test_a_planted_record_is_a_fault_and_nothing_else(ring, payload, wrapped, suite, ours, kid):
    own = ring.recipients[0]
    wrap = Wrap(own.kid, own.suite, wrapped) if ours else Wrap(kid, suite, wrapped)
    refused(Sealed(payload, (wrap,)), ring=ring)


@pytest.mark.parametrize("planted", [None, "text", 7, [1]], ids=repr)
def test_a_planted_cell_of_another_type_is_a_fault(sealed, ring, planted):
    refused(Sealed(planted, sealed.wraps), ring=ring)
    refused(with_wrap(sealed, wrapped=planted), ring=ring)
    if planted != "text":
        refused(sealed, ring=ring, place=dataclasses.replace(PLACE, binding=planted))


@pytest.mark.parametrize("size", [0, LIMIT + 1])
def test_a_value_of_an_impossible_size_is_a_fault_however_well_it_is_sealed(ring, size, monkeypatch):
    monkeypatch.setattr(module, "LIMIT", 2 * LIMIT)
    sealed = seal(b"v" * max(size, 1), place=PLACE, recipients=ring.recipients)
    monkeypatch.undo()
    if size == 0:
        sealed = Sealed(sealed.payload[:-1], sealed.wraps)
    assert "length" in refused(sealed, ring=ring)


# The commitment


def forge(sealed, recipient, dek):
    """A wrap that HPKE accepts: anybody who has the public key can make one."""
    info = pae(b"alter/wrap/v1", recipient.kid.encode(), PLACE.context(), sealed.payload[1:33])
    return Sealed(sealed.payload, (Wrap(recipient.kid, recipient.suite, recipient.wrap(dek, info=info)),))


def test_a_key_that_was_not_committed_to_never_reaches_the_cipher(sealed, ring, monkeypatch):
    def used(_key):
        pytest.fail("the cipher ran")

    monkeypatch.setattr(module, "_cipher", used)
    assert "not verify" in refused(forge(sealed, ring.recipients[0], b"k" * 32), ring=ring)


def test_a_key_that_was_not_committed_to_is_not_rewrapped(sealed, ring):
    with pytest.raises(Fault, match="not verify"):
        rewrap(forge(sealed, ring.recipients[0], b"k" * 32), place=PLACE, keyring=ring, recipients=ring.recipients)


# Rewrapping


def test_rewrapping_changes_the_recipients_and_not_the_payload(sealed, ring, monkeypatch):
    new = Keyring([PrivateKey.generate(1), PrivateKey.generate(2)])
    with monkeypatch.context() as patch:
        patch.delattr(module, "AESGCM")
        moved = rewrap(sealed, place=PLACE, keyring=ring, recipients=new.recipients)
    assert moved.payload == sealed.payload
    assert [w.kid for w in moved.wraps] == [r.kid for r in new.recipients]
    assert open_sealed(moved, place=PLACE, keyring=new) == PLAINTEXT
    assert "no key" in refused(moved, ring=ring)


def test_rewrapping_twice_for_the_same_key_shares_nothing(sealed, ring):
    one, two = (rewrap(sealed, place=PLACE, keyring=ring, recipients=ring.recipients) for _ in range(2))
    assert one.wraps[0].wrapped[:32] != two.wraps[0].wrapped[:32]


def test_rewrapping_needs_a_key_the_place_and_a_recipient(sealed, ring):
    with pytest.raises(Fault, match="no key"):
        rewrap(sealed, place=PLACE, keyring=Keyring.generate(), recipients=ring.recipients)
    with pytest.raises(Fault, match="not verify"):
        rewrap(sealed, place=dataclasses.replace(PLACE, version=4), keyring=ring, recipients=ring.recipients)
    with pytest.raises(Fault, match="format"):
        rewrap(Sealed(b"\2", sealed.wraps), place=PLACE, keyring=ring, recipients=ring.recipients)
    with pytest.raises(Locked, match="no key to seal to"):
        rewrap(sealed, place=PLACE, keyring=ring, recipients=())


# Format 1 is for ever


def frozen_ring(*suites):
    return Keyring(
        [PrivateKey(bytes.fromhex(k["seed"]), suite=k["suite"]) for k in FROZEN["keys"] if k["suite"] in suites]
    )


def frozen_place(vector):
    return Place(**{**vector["place"], "binding": vector["place"]["binding"].encode()})


def frozen_sealed(vector):
    wraps = tuple(Wrap(w["kid"], w["suite"], bytes.fromhex(w["wrapped"])) for w in vector["wraps"])
    return Sealed(bytes.fromhex(vector["payload"]), wraps)


@pytest.mark.parametrize("vector", FROZEN["vectors"], ids=lambda v: v["name"])
def test_a_frozen_record_opens(vector):
    place, sealed = frozen_place(vector), frozen_sealed(vector)
    for suite in {wrap.suite for wrap in sealed.wraps}:
        assert open_sealed(sealed, place=place, keyring=frozen_ring(suite)).hex() == vector["plaintext"]


@pytest.mark.parametrize("vector", FROZEN["vectors"], ids=lambda v: v["name"])
def test_every_stage_of_a_frozen_record_is_as_written(vector):
    place, sealed, ring = frozen_place(vector), frozen_sealed(vector), frozen_ring(1, 2)
    context, commit = place.context(), bytes.fromhex(vector["commit"])
    assert context.hex() == vector["context"]
    assert sealed.payload[:33] == b"\1" + commit
    for wrap in sealed.wraps:
        info = pae(b"alter/wrap/v1", wrap.kid.encode(), context, commit)
        assert ring.key(wrap.kid).unwrap(wrap.wrapped, info=info).hex() == vector["dek"]


@pytest.mark.parametrize("vector", FROZEN["vectors"], ids=lambda v: v["name"])
def test_sealing_with_the_random_numbers_of_a_frozen_record_makes_the_same_payload(vector, monkeypatch):
    place, ring, sealed = frozen_place(vector), frozen_ring(1, 2), frozen_sealed(vector)
    drawn = {32: bytes.fromhex(vector["dek"]), 12: sealed.payload[33:45]}
    monkeypatch.setattr(module.secrets, "token_bytes", drawn.__getitem__)
    again = seal(bytes.fromhex(vector["plaintext"]), place=place, recipients=ring.recipients)
    assert again.payload == sealed.payload
