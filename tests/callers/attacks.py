"""
Hostile and dubious tokens, as data: what each is, and which check must stop it (none for the few that are good).

The kinds are those of RFC 8725, of the known attacks on JWT libraries, and of everything a parser could be lenient about.
`policy` marks what the RFCs leave open and we decide ourselves.
"""

import base64
import json
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.provider import NOW, Provider, b64, compact, private_key, public_jwk, signature, unb64

PROVIDER = Provider(keys={"r1": ("RS256", 0), "e1": ("ES256", 0), "o1": ("EdDSA", 0)})
ATTACKER = private_key("RS256", 666)
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@dataclass(frozen=True)
class Attack:
    """`stopped_by` is the check that refuses it, or empty where it is accepted."""

    kind: str
    name: str
    token: str
    stopped_by: str
    policy: bool = False

    def __str__(self):
        return f"{self.kind}: {self.name}"


ATTACKS: list[Attack] = []


def attack(kind, name, token, stopped_by, *, policy=False):
    ATTACKS.append(Attack(kind, name, token, stopped_by, policy))


def raw(header, payload, key=None, algorithm="RS256"):
    return compact(header, payload, PROVIDER.key("r1") if key is None else key, algorithm)


def head(**members):
    return {name: value for name, value in ({"alg": "RS256", "typ": "JWT", "kid": "r1"} | members).items() if value is not ...}  # fmt: skip


def claimed(**claims):
    return raw(head(), PROVIDER.claims(**claims))


def headed(**members):
    return raw(head(**members), PROVIDER.claims())


GOOD = PROVIDER.token()
HEADER, PAYLOAD, SIGNATURE = GOOD.split(".")
CLAIMS = PROVIDER.claims()

# ── valid ────────────────────────────────────────────────────────────────────────────────────────────────────────────

for kid in ("r1", "e1", "o1"):
    attack("valid", PROVIDER.keys[kid][0], PROVIDER.token(kid=kid), "")
attack("valid", "no typ", headed(typ=...), "")

# ── alg ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

for alg in ("none", "None", "NONE", "nOnE", "", None, 0, [], ["none"], "none "):
    unsigned = f"{b64(json.dumps(head(alg=alg)).encode())}.{PAYLOAD}."
    attack("alg", f"{alg!r} without a signature", unsigned, "form")
    attack("alg", f"{alg!r} with a signature", f"{b64(json.dumps(head(alg=alg)).encode())}.{PAYLOAD}.{SIGNATURE}", "algorithm")  # fmt: skip
attack("alg", "missing", headed(alg=...), "algorithm")
attack("alg", "case", headed(alg="rs256"), "algorithm")
attack("alg", "object", headed(alg={"a": 1}), "algorithm")

# ── key confusion ────────────────────────────────────────────────────────────────────────────────────────────────────

PUBLIC = PROVIDER.key("r1").public_key()
PEM = PUBLIC.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
SECRETS = {
    "PEM": PEM,
    "PEM without newline": PEM.strip(),
    "PKCS#1 PEM": PUBLIC.public_bytes(Encoding.PEM, PublicFormat.PKCS1),
    "DER": PUBLIC.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
    "JWK": json.dumps(public_jwk(PROVIDER.key("r1"), kid="r1", alg="RS256", use="sig")).encode(),
    "JWKS": PROVIDER.jwks(),
    "modulus": PUBLIC.public_numbers().n.to_bytes(256, "big"),
    "empty": b"",
}
for name, secret in SECRETS.items():
    attack("confusion", f"HS256 with {name}", raw(head(alg="HS256"), CLAIMS, secret, "HS256"), "algorithm")
for alg in ("HS384", "HS512"):
    attack("confusion", f"{alg} with PEM", raw(head(alg=alg), CLAIMS, PEM, alg), "algorithm")
attack("confusion", "HS256 said to be RS256", raw(head(), CLAIMS, PEM, "HS256"), "signature")

# ── signature ────────────────────────────────────────────────────────────────────────────────────────────────────────


def es256(number_pair, *, der=False):
    pair = encode_dss_signature(*number_pair) if der else b"".join(n.to_bytes(32, "big") for n in number_pair)
    return f"{ES_INPUT}.{b64(pair)}"


ES_TOKEN = PROVIDER.token(kid="e1")
ES_INPUT, _, ES_SIGNATURE = ES_TOKEN.rpartition(".")
R, S = (int.from_bytes(half, "big") for half in (unb64(ES_SIGNATURE)[:32], unb64(ES_SIGNATURE)[32:]))
OTHER = encode_dss_signature(R, S)

attack("signature", "of another key", raw(head(), CLAIMS, ATTACKER), "signature")
attack("signature", "of a key with the same kid in another algorithm", PROVIDER.token(header={"kid": "e1"}), "algorithm")  # fmt: skip
for alg in ("PS256", "RS384", "RS512", "ES256", "EdDSA"):
    attack("signature", f"{alg} said over RS256", f"{b64(json.dumps(head(alg=alg)).encode())}.{PAYLOAD}.{SIGNATURE}", "algorithm")  # fmt: skip
attack("signature", "PS256 made, RS256 said", raw(head(), CLAIMS, None, "PS256"), "signature")
attack("signature", "RS512 made, RS256 said", raw(head(), CLAIMS, None, "RS512"), "signature")
attack("signature", "RS256 key, ES256 kid", raw(head(kid="e1"), CLAIMS), "algorithm")
attack("signature", "r = s = 0", es256((0, 0)), "signature")
attack("signature", "r = n", es256((P256_ORDER, S)), "signature")
attack("signature", "s = n", es256((R, P256_ORDER)), "signature")
attack("signature", "r = 1, s = 1", es256((1, 1)), "signature")
attack("signature", "in DER", es256((R, S), der=True), "signature")
attack("signature", "s of the other sign", es256((R, P256_ORDER - S)), "", policy=True)
attack("signature", "of one byte", f"{HEADER}.{PAYLOAD}.AA", "signature")
attack("signature", "of zero bytes", f"{HEADER}.{PAYLOAD}.{b64(bytes(256))}", "signature")
attack("signature", "one byte longer", f"{HEADER}.{PAYLOAD}.{b64(unb64(SIGNATURE) + b'x')}", "signature")
attack("signature", "one byte shorter", f"{HEADER}.{PAYLOAD}.{b64(unb64(SIGNATURE)[:-1])}", "signature")
attack("signature", "Ed25519 with S + L", PROVIDER.token(kid="o1").rpartition(".")[0] + "." + b64(bytes(32) + (2**252 + 27742317777372353535851937790883648493).to_bytes(32, "little")), "signature")  # fmt: skip

# ── kid ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

for kid in (
    "../../../../dev/null", "/dev/null", "r1' OR '1'='1", "r1; id", "r1\0", "", "R1", " r1", "r1 ", "r" * 4000, "..",
    "https://evil.test/keys", "r1\n", "none", "r1/../r1", "%72%31", "r1\u200b",
):  # fmt: skip
    attack("kid", repr(kid[:30]), headed(kid=kid), "key")
for kid in (1, ["r1"], {"r1": 1}, None, True, 0.5):
    attack("kid", f"{kid!r}", headed(kid=kid), "key")
attack("kid", "missing, with several keys", headed(kid=...), "key", policy=True)

# ── header parameters ────────────────────────────────────────────────────────────────────────────────────────────────

FOREIGN = {
    "jku": "https://evil.test/jwks.json",
    "x5u": "https://evil.test/cert.pem",
    "x5c": ["MIIB"],
    "jwk": public_jwk(ATTACKER, kid="r1"),
}
for name, value in FOREIGN.items():
    attack("header", f"{name} of an attacker's key", raw(head(**{name: value}), CLAIMS, ATTACKER), "parameters")
    attack("header", f"{name} on a good token", headed(**{name: value}), "parameters", policy=True)
for name, value in {
    "x5t": "abc", "x5t#S256": "abc", "cty": "JWT", "zip": "DEF", "b64": False, "enc": "A128GCM", "p2c": 10**9, "epk": {},
    "apu": "x", "nonce": "n", "url": "https://evil.test", "alg ": "none", "KID": "r1", "Alg": "none",
}.items():  # fmt: skip
    attack("header", name, headed(**{name: value}), "parameters")
attack("header", "crit with an unknown extension", headed(crit=["x-y"], **{"x-y": 1}), "parameters")
attack("header", "crit with b64", headed(crit=["b64"], b64=True), "parameters")
attack("header", "crit, empty", headed(crit=[]), "parameters")
attack("header", "alg twice, none first", raw(b'{"alg":"none","alg":"RS256","kid":"r1"}', CLAIMS), "header")
attack("header", "alg twice, none last", raw(b'{"alg":"RS256","alg":"none","kid":"r1"}', CLAIMS), "header")
attack("header", "alg twice, escaped", raw(b'{"alg":"RS256","\\u0061lg":"none","kid":"r1"}', CLAIMS), "header")
attack("header", "kid twice", raw(b'{"alg":"RS256","kid":"r1","kid":"e1"}', CLAIMS), "header")

# ── typ ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

for typ in ("at+jwt", "jwt", "JWS", "logout+jwt", "secevent+jwt", "", None, 1, ["JWT"]):
    attack("typ", f"{typ!r}", headed(typ=typ), "type", policy=True)
for mark in ("nonce", "at_hash", "c_hash"):
    attack("typ", f"an id token, by {mark}", claimed(**{mark: "abc"}), "purpose", policy=True)

# ── times ────────────────────────────────────────────────────────────────────────────────────────────────────────────

for name, claims, stopped_by in (
    ("exp missing", {"exp": ...}, "expiry"),
    ("exp just past the leeway", {"iat": NOW - 700, "exp": NOW - 60}, "expiry"),
    ("exp a string", {"exp": str(NOW + 600)}, "expiry"),
    ("exp null", {"exp": None}, "expiry"),
    ("exp true", {"exp": True}, "expiry"),
    ("exp negative", {"exp": -1}, "expiry"),
    ("exp a list", {"exp": [NOW + 600]}, "expiry"),
    ("exp a float", {"exp": NOW + 600.5}, "expiry"),
    ("exp an object", {"exp": {}}, "expiry"),
    ("exp far away", {"exp": 10**18}, "expiry"),
    ("exp in milliseconds", {"exp": (NOW + 600) * 1000}, "expiry"),
    ("exp in the year 3000", {"exp": 32_503_680_000}, "lifetime"),
    ("exp before iat", {"iat": NOW + 30, "exp": NOW + 20}, "lifetime"),
    ("exp at iat", {"iat": NOW, "exp": NOW}, "lifetime"),
    ("one second too long a life", {"iat": NOW, "exp": NOW + 3601}, "lifetime"),
    ("nbf in the future", {"nbf": NOW + 61}, "started"),
    ("nbf a string", {"nbf": str(NOW)}, "started"),
    ("nbf null", {"nbf": None}, "started"),
    ("nbf true", {"nbf": True}, "started"),
    ("iat in the future", {"iat": NOW + 61}, "issued"),
    ("iat missing", {"iat": ...}, "issued"),
    ("iat a string", {"iat": str(NOW)}, "issued"),
    ("iat a float", {"iat": float(NOW)}, "issued"),
    ("iat negative", {"iat": -5}, "issued"),
):
    attack("time", name, claimed(**claims), stopped_by)
attack("time", "exp inside the leeway", claimed(iat=NOW - 700, exp=NOW - 59), "", policy=True)
attack("time", "iat inside the leeway", claimed(iat=NOW + 60), "", policy=True)
attack("time", "the longest life", claimed(iat=NOW, exp=NOW + 3600), "", policy=True)
for constant in (b"Infinity", b"-Infinity", b"NaN", b"1e400", b"1" * 5000):
    stopped_by = "expiry" if constant == b"1e400" else "claims"
    payload = json.dumps(PROVIDER.claims(exp=0)).encode().replace(b'"exp": 0', b'"exp": ' + constant)
    attack("time", f"exp {constant[:12].decode()}", raw(head(), payload), stopped_by)

# ── audience and issuer ──────────────────────────────────────────────────────────────────────────────────────────────

AUD = PROVIDER.audience
for name, value in {
    "missing": ..., "other": "https://other.test", "empty": "", "null": None, "prefix": AUD[:-1], "longer": AUD + "/",
    "upper case": AUD.upper(), "blank before": " " + AUD, "number": 1, "true": True, "object": {AUD: 1},
    "list of others": ["a", "b"], "empty list": [], "list in a list": [[AUD]], "substring": "egress.test",
}.items():  # fmt: skip
    attack("audience", name, claimed(aud=value), "audience")
attack("audience", "list with ours and another", claimed(aud=["x", AUD]), "audience", policy=True)
attack("audience", "list with ours alone", claimed(aud=[AUD]), "audience", policy=True)

ISS = PROVIDER.issuer
for name, value in {
    "missing": ..., "other": "https://evil.test", "substring": ISS[:-1], "suffix": ISS + ".evil.test", "slash": ISS + "/",
    "list": [ISS], "empty": "", "upper case": ISS.upper(), "null": None, "number": 5, "userinfo": "https://id.test@evil.test",
    "blank": ISS + " ", "http": ISS.replace("https", "http"), "port": ISS + ":443",
}.items():  # fmt: skip
    attack("issuer", name, claimed(iss=value), "issuer")

# ── who ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

for name, value in {
    "missing": ..., "empty": "", "number": 7, "null": None, "list": ["ada"], "object": {"ada": 1}, "NUL": "ada\0",
    "CRLF": "ada\r\nX-Evil: 1", "long": "a" * 257, "blank": "a da", "umlaut": "ädä", "true": True, "newline at the end": "ada\n",
    "full-width": "\uff41da", "lone surrogate": "\ud800",
}.items():  # fmt: skip
    attack("subject", name, claimed(sub=value), "subject")
for name, value in {
    "string": "staff", "object": {"staff": True}, "nested": [["staff"]], "numbers": [1, 2], "257 of them": [str(n) for n in range(257)],
    "null": None, "an empty one": [""], "null inside": ["staff", None], "control character": ["sta\x00ff"],
    "blank at the end": ["staff "], "too long a name": ["g" * 257], "true": True,
}.items():  # fmt: skip
    attack("groups", name, claimed(groups=value), "groups")
attack("groups", "missing", claimed(groups=...), "", policy=True)
attack("groups", "with a blank inside", claimed(groups=["Domain Users"]), "", policy=True)
for name, value in {"number": 1, "list": ["t"], "null": None, "long": "t" * 257, "control character": "t\n"}.items():
    attack("token id", name, claimed(jti=value), "identity")

# ── form ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def bits(text):
    """The same bytes in base64url, with the unused bits of the last character set."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return text[:-1] + alphabet[alphabet.index(text[-1]) | 1]


flipped = bytearray(unb64(SIGNATURE))
flipped[100] ^= 1
other = b64(json.dumps(PROVIDER.claims(sub="eve")).encode())
for name, token, stopped_by in (
    ("flipped bit in the signature", f"{HEADER}.{PAYLOAD}.{b64(bytes(flipped))}", "signature"),
    ("swapped payload", f"{HEADER}.{other}.{SIGNATURE}", "signature"),
    ("no signature", f"{HEADER}.{PAYLOAD}.", "form"),
    ("two parts", f"{HEADER}.{PAYLOAD}", "form"),
    ("four parts", f"{GOOD}.{SIGNATURE}", "form"),
    ("five parts", f"{GOOD}.{PAYLOAD}.{SIGNATURE}", "form"),
    ("empty", "", "form"),
    ("dots only", "..", "form"),
    ("empty payload", f"{HEADER}..{SIGNATURE}", "form"),
    ("empty header", f".{PAYLOAD}.{SIGNATURE}", "form"),
    ("padding on the signature", GOOD + "==", "form"),
    ("padding on the header", f"{HEADER}=.{PAYLOAD}.{SIGNATURE}", "form"),
    ("leading blank", " " + GOOD, "form"),
    ("trailing blank", GOOD + " ", "form"),
    ("trailing newline", GOOD + "\n", "form"),
    ("CRLF inside", f"{HEADER}.{PAYLOAD[:10]}\r\n{PAYLOAD[10:]}.{SIGNATURE}", "form"),
    (
        "standard alphabet",
        f"{HEADER}.{PAYLOAD}.{base64.b64encode(bytes([251, 255] * 128)).decode().rstrip('=')}",
        "form",
    ),
    ("#", GOOD.replace("A", "#", 1), "form"),
    ("unused bits of the signature", f"{HEADER}.{PAYLOAD}.{bits(SIGNATURE)}", "form"),
    ("impossible length", f"{HEADER}.{PAYLOAD}.AAAAA", "form"),
    ("full-width dots", GOOD.replace(".", "\uff0e"), "form"),
    ("NUL at the end", GOOD + "\0", "form"),
    ("Bearer before", "Bearer " + GOOD, "form"),
    ("quoted", f'"{GOOD}"', "form"),
    ("twice", f"{GOOD},{GOOD}", "form"),
    ("JSON serialisation", json.dumps({"payload": PAYLOAD, "protected": HEADER, "signature": SIGNATURE}), "form"),
    ("one megabyte", claimed(pad="x" * 1_000_000), "form"),
    ("just over the limit", claimed(pad="x" * 6000), "form"),
    ("full-width digits", GOOD[:-1] + "\uff11", "form"),
):
    attack("form", name, token, stopped_by)

CLAIM_BYTES = json.dumps(CLAIMS).encode()
for name, payload in {
    "a list": b"[]", "a string": b'"x"', "a number": b"1", "null": b"null", "not JSON": b"abc", "truncated": CLAIM_BYTES[:-1],
    "BOM": b"\xef\xbb\xbf" + CLAIM_BYTES, "UTF-16": json.dumps(CLAIMS).encode("utf-16"), "UTF-32": json.dumps(CLAIMS).encode("utf-32"),
    "invalid UTF-8": CLAIM_BYTES.replace(b"ada", b"ad\xff"), "overlong UTF-8": CLAIM_BYTES.replace(b"ada", b"ad\xc1\xa1"),
    "sub twice": CLAIM_BYTES[:-1] + b', "sub": "eve"}', "sub twice, escaped": CLAIM_BYTES[:-1] + b', "\\u0073ub": "eve"}',
    "a member twice, deep inside": CLAIM_BYTES[:-1] + b', "x": [{"a": 1, "a": 2}]}',
    "deep lists": CLAIM_BYTES[:-1] + b', "x": ' + b"[" * 2500 + b"]" * 2500 + b"}",
    "nine deep": CLAIM_BYTES[:-1] + b', "x": ' + b"[" * 8 + b"]" * 8 + b"}",
    "deep objects": CLAIM_BYTES[:-1] + b', "x": ' + b'{"a":' * 800 + b"1" + b"}" * 800 + b"}",
    "huge integer": CLAIM_BYTES[:-1] + b', "x": ' + b"9" * 5000 + b"}", "something after": CLAIM_BYTES + b" {}",
    "a comment": CLAIM_BYTES[:-1] + b"/* */}", "a comma too many": CLAIM_BYTES[:-1] + b",}", "single quotes": b"{'sub': 'ada'}",
    "a raw newline in a string": CLAIM_BYTES.replace(b"ada", b"a\nda"), "empty object": b"{}",
}.items():  # fmt: skip
    attack("claims", name, raw(head(), payload), "issuer" if payload == b"{}" else "claims")
for name, header in {
    "a list": b"[]", "not JSON": b"abc", "BOM": b'\xef\xbb\xbf{"alg":"RS256","kid":"r1"}', "NaN": b'{"alg":"RS256","kid":"r1","x":NaN}',
    "deep": b'{"alg":"RS256","x":' + b"[" * 2500 + b"]" * 2500 + b"}", "invalid UTF-8": b'{"alg":"RS256","kid":"r\xff"}',
}.items():  # fmt: skip
    attack("header", name, raw(header, CLAIMS), "header")
attack("claims", "eight deep", raw(head(), CLAIM_BYTES[:-1] + b', "x": ' + b"[" * 7 + b"]" * 7 + b"}"), "", policy=True)

assert decode_dss_signature(OTHER) == (R, S)
assert signature(b"x", PROVIDER.key("r1"), "RS256")
