"""An identity provider for tests: signs tokens honestly, and anything else somebody asks for."""

import base64
import functools
import hmac
import json
from dataclasses import dataclass, field

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from addon.callers.idp import Idp
from addon.callers.jwt.keys import KeySet, parse_set

NOW = 1_800_000_000


def private_key(algorithm, number=0):
    """A private key for an algorithm; the same for the same number."""
    return _private_key(algorithm, number)


@functools.cache
def _private_key(algorithm, _):
    if algorithm[:2] in {"RS", "PS"}:
        return rsa.generate_private_key(65537, 2048)
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(
        {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}[algorithm]
    )


def b64(raw):
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unb64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def encode(value):
    return value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()


def signature(signing_input, key, algorithm):
    if algorithm.startswith("HS"):
        return hmac.digest(key, signing_input, {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}[algorithm])
    return jwt.get_algorithm_by_name(algorithm).sign(signing_input, key)


def compact(header, payload, key, algorithm):
    """A token over exactly these bytes (or JSON values), whatever they say."""
    signing_input = f"{b64(encode(header))}.{b64(encode(payload))}"
    return f"{signing_input}.{b64(signature(signing_input.encode(), key, algorithm))}"


def public_jwk(key, **members):
    algorithm = {"RSA": "RS256", "Elli": "ES256", "Ed25": "EdDSA"}[
        "RSA"
        if isinstance(key, rsa.RSAPrivateKey)
        else "Ed25"
        if isinstance(key, ed25519.Ed25519PrivateKey)
        else "Elli"
    ]
    return json.loads(jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key())) | members


@dataclass
class Provider:
    """One provider with its keys by `kid`. `token` overrides claims; a claim of `...` is left out."""

    issuer: str = "https://id.test"
    audience: str = "https://egress.test"
    name: str = "acme"
    now: int = NOW
    keys: dict = field(default_factory=lambda: {"r1": ("RS256", 0)})

    def claims(self, **changes):
        standard = {
            "iss": self.issuer, "aud": self.audience, "sub": "ada", "iat": self.now - 10, "exp": self.now + 600,
            "jti": "t-1", "groups": ["staff"],
        }  # fmt: skip
        return {name: value for name, value in (standard | changes).items() if value is not ...}

    def token(self, *, kid="r1", header=None, key=None, algorithm=None, **claims):
        chosen, number = self.keys.get(kid, next(iter(self.keys.values())))
        head = {"alg": algorithm or chosen, "typ": "JWT", "kid": kid} | (header or {})
        head = {name: value for name, value in head.items() if value is not ...}
        return compact(head, self.claims(**claims), key or private_key(chosen, number), algorithm or chosen)

    def key(self, kid):
        return private_key(*self.keys[kid])

    def jwks(self, *kids):
        members = [
            public_jwk(private_key(*self.keys[kid]), kid=kid, alg=self.keys[kid][0], use="sig")
            for kid in kids or self.keys
        ]
        return json.dumps({"keys": members}).encode()

    @property
    def algorithms(self):
        return tuple(dict.fromkeys(algorithm for algorithm, _ in self.keys.values()))

    @property
    def key_set(self) -> KeySet:
        return parse_set(self.jwks(), algorithms=self.algorithms)

    def idp(self, **changes) -> Idp:
        rules = {
            "name": self.name, "issuer": self.issuer, "audiences": (self.audience,), "algorithms": self.algorithms,
            "group_claim": "groups", "source": "file",
        }  # fmt: skip
        return Idp(**(rules | changes)).check()
