"""The HPKE under the seal is the published one: RFC 9180 appendix A, and draft-ietf-hpke-pq for X-Wing."""

import json
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.bindings._rust import openssl
from cryptography.hazmat.primitives.asymmetric import ec, mlkem
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from addon.vault.keyring import PrivateKey

FOLDER = Path(__file__).parents[1] / "vectors" / "hpke"

KEMS = {0x10: KEM.P256, 0x20: KEM.X25519, 0x41: KEM.MLKEM768, 0x647A: KEM.MLKEM768_X25519}
KDFS = {1: KDF.HKDF_SHA256, 3: KDF.HKDF_SHA512, 17: KDF.SHAKE256}
AEADS = {1: AEAD.AES_128_GCM, 2: AEAD.AES_256_GCM, 3: AEAD.CHACHA20_POLY1305}
OURS = {0x20: 1, 0x647A: 2}


def load(name):
    for vector in json.loads((FOLDER / name).read_text()):
        if vector["kdf_id"] in KDFS:  # the draft has one with TurboSHAKE, which cryptography does not offer
            label = f"kem{vector['kem_id']:x}-kdf{vector['kdf_id']}-aead{vector['aead_id']}"
            yield pytest.param(vector, id=label)


VECTORS = [*load("rfc9180_base_mode.json"), *load("hpke_pq_draft.json")]


def private_key(vector):
    secret = bytes.fromhex(vector["skRm"])
    match vector["kem_id"]:
        case 0x10:
            return ec.derive_private_key(int.from_bytes(secret), ec.SECP256R1())
        case 0x41:
            return mlkem.MLKEM768PrivateKey.from_seed_bytes(secret)
        case ours:
            return PrivateKey(secret, suite=OURS[ours])._key


def opened(vector, *, flip=None):
    encryption = vector["encryptions"][0]
    message = bytearray.fromhex(vector["enc"] + encryption["ct"])
    if flip is not None:
        message[flip] ^= 1
    suite = Suite(KEMS[vector["kem_id"]], KDFS[vector["kdf_id"]], AEADS[vector["aead_id"]])
    info, aad = bytes.fromhex(vector["info"]), bytes.fromhex(encryption["aad"])
    # The public `decrypt` takes no aad, and every vector has one.
    return openssl.hpke._decrypt_with_aad(suite, bytes(message), private_key(vector), info, aad)


def test_all_published_vectors_are_here():
    assert len(VECTORS) == 12 + 3


@pytest.mark.parametrize("vector", VECTORS)
def test_a_published_message_opens(vector):
    assert opened(vector) == bytes.fromhex(vector["encryptions"][0]["pt"])


@pytest.mark.parametrize("vector", VECTORS)
def test_a_changed_message_does_not(vector):
    with pytest.raises(InvalidTag):
        opened(vector, flip=0)
    with pytest.raises(InvalidTag):
        opened(vector, flip=-1)


@pytest.mark.parametrize("vector", [v for v in VECTORS if v.values[0]["kem_id"] in OURS])
def test_our_keys_expand_a_published_seed_to_its_published_public_key(vector):
    key = PrivateKey(bytes.fromhex(vector["skRm"]), suite=OURS[vector["kem_id"]])
    assert key.recipient.public.hex() == vector["pkRm"]
