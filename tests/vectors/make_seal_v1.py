"""
Makes seal_v1.json: what format 1 looks like, written from its description and without the product's code.

Seeds, deks and nonces come from fixed labels, so `context`, `commit` and `payload` come out the same every time; the
wraps do not (HPKE draws a fresh key). The vectors are frozen: what they hold is stored in vaults, and must open for
ever. So the script refuses to write over them.

    python tests/vectors/make_seal_v1.py
"""

import hashlib
import hmac
import json
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, Suite


def fixed(label, length=32):
    return hashlib.shake_256(b"alter-egress seal v1 vector: " + label.encode()).digest(length)


def le64(number):
    return number.to_bytes(8, "little")


def pae(*parts):
    out = le64(len(parts))
    for part in parts:
        out += le64(len(part)) + part
    return out


def hkdf_expand_64(key, info):
    first = hmac.digest(key, info + b"\x01", "sha256")
    return first + hmac.digest(key, first + info + b"\x02", "sha256")


class Key:
    def __init__(self, suite, label):
        self.suite, self.seed = suite, fixed(label)
        if suite == 1:
            private = X25519PrivateKey.from_private_bytes(self.seed)
            self.hpke_public = private.public_key()
            self.public = self.hpke_public.public_bytes_raw()
            kem = KEM.X25519
        else:
            wide = hashlib.shake_256(self.seed).digest(96)
            lattice = MLKEM768PrivateKey.from_seed_bytes(wide[:64])
            curve = X25519PrivateKey.from_private_bytes(wide[64:])
            self.hpke_public = MLKEM768X25519PrivateKey(lattice, curve).public_key()
            self.public = lattice.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()
            kem = KEM.MLKEM768_X25519
        self.hpke = Suite(kem, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
        self.kid = hashlib.sha256(pae(b"alter/kid/v1", bytes([suite]), self.public)).digest()[:16].hex()

    def describe(self):
        return {"suite": self.suite, "seed": self.seed.hex(), "public": self.public.hex(), "kid": self.kid}


def vector(name, keys, plaintext, *, vault_id="vlt_example", secret_id="sec_example", version=1, kind="bearer", binding):
    context = pae(
        b"alter/secret/v1",
        vault_id.encode(),
        secret_id.encode(),
        le64(version),
        kind.encode(),
        hashlib.sha256(binding.encode()).digest(),
    )
    dek, nonce = fixed(f"{name} dek"), fixed(f"{name} nonce", 12)
    both = hkdf_expand_64(dek, b"alter/dek/v1")
    key, commit = both[:32], both[32:]
    payload = b"\x01" + commit + nonce + AESGCM(key).encrypt(nonce, plaintext, context + commit)
    wraps = [
        {
            "kid": k.kid,
            "suite": k.suite,
            "wrapped": k.hpke.encrypt(
                dek, k.hpke_public, info=pae(b"alter/wrap/v1", k.kid.encode(), context, commit)
            ).hex(),
        }
        for k in keys
    ]
    place = {"vault_id": vault_id, "secret_id": secret_id, "version": version, "kind": kind, "binding": binding}
    return {
        "name": name,
        "place": place,
        "context": context.hex(),
        "dek": dek.hex(),
        "commit": commit.hex(),
        "plaintext": plaintext.hex(),
        "payload": payload.hex(),
        "wraps": wraps,
    }


def main():
    first, second = Key(1, "seed x25519"), Key(2, "seed x-wing")
    binding = '{"scheme":"https","hosts":[["api.example.com",443]]}'
    key_file = "alter-egress keyring 1\n# a comment\n\n" + "".join(
        f"{key.suite} {key.kid} {key.seed.hex()}\n" for key in (first, second)
    )
    vectors = [
        vector("x25519", [first], b"example-value-1", binding=binding),
        vector("x-wing", [second], b"example-value-2", binding=binding),
        vector("both", [first, second], b"example-value-3", binding=binding, version=7, kind="header"),
        vector("one byte", [first], b"x", binding=binding),
        vector("every byte", [first], bytes(range(256)), binding=binding),
        vector("last version", [first], b"example-value-4", binding=binding, version=2**63 - 1),
        vector("not ascii", [first], "Schlüssel".encode(), binding='{"é":"ü"}', vault_id="tresor-ü", secret_id="鍵"),
        vector("nothing named", [first], b"example-value-5", binding="", vault_id="", secret_id="", kind="", version=0),
    ]
    text = json.dumps(
        {"keys": [first.describe(), second.describe()], "key_file": key_file, "vectors": vectors},
        indent=1,
        ensure_ascii=False,
    )
    with Path(__file__).with_name("seal_v1.json").open("x", encoding="utf-8") as file:
        file.write(text + "\n")


if __name__ == "__main__":
    main()
