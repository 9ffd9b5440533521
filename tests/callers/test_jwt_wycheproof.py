"""
The JWS vectors of Wycheproof (C2SP/wycheproof dac1dd4, Apache-2.0), through our own reading of keys and tokens.

Their payloads are not claims, so what is tested is all before the claims: form, header, key, algorithm, signature.
"""

import json
from pathlib import Path

import pytest

from addon.callers.idp import ASYMMETRIC, Idp
from addon.callers.jwt import Invalid, KeySet, Unusable, verification
from addon.callers.jwt.keys import SHARED, Key, parse_set
from addon.callers.jwt.verification import Reading
from tests.provider import unb64

VECTORS = Path(__file__).parent.parent / "vectors" / "wycheproof" / "json_web_signature_test.json"

DEFECTIVE = {
    367: "labelled invalid for its padding, which the file lost: the bytes are those of a valid token",
    370: "the same, in the payload",
    372: "labelled valid, but holds an inserted `?`, and the MAC is not that of the text",
    373: "the same",
}

REFUSED = {
    346: "RFC 7520 figure 20: the key says PS256, the header PS384",
    350: "the same",
    **dict.fromkeys((347, 351), "the key says ES521, which is no algorithm of RFC 7518"),
    **dict.fromkeys((259, 264, 268, 272, 320, 325), "an empty payload holds no claims"),
}
"""Valid by the file, refused here."""


CHECKS = [
    check
    for name, check in (*verification._READ, *verification._JUDGE)
    if name in {"form", "header", "parameters", "key", "algorithm", "signature"}
]


def cases():
    for group in json.loads(VECTORS.read_text())["testGroups"]:
        jwk = group.get("public") or group["private"]
        for test in group["tests"]:
            if test["tcId"] not in DEFECTIVE:
                yield pytest.param(jwk, test, id=f"{test['tcId']}-{test['comment']}")


def key_set(jwk):
    if jwk["kty"] == "oct":
        if jwk.get("alg") != SHARED:
            raise Unusable("not for HS256")
        return KeySet({}, Key(SHARED, unb64(jwk["k"])))
    return parse_set(json.dumps({"keys": [jwk]}).encode(), algorithms=ASYMMETRIC)


def accepts(jwk, token):
    reading = Reading(token)
    reading.idp = Idp(name="w", issuer="w", audiences=("w",), types=("JWT", "JOSE"))
    try:
        reading.keys = key_set(jwk)
        for check in CHECKS:
            check(reading)
    except (Invalid, Unusable):
        return False
    return True


@pytest.mark.parametrize(("jwk", "test"), list(cases()))
def test_a_signature_is_accepted_only_if_it_is_good(jwk, test):
    expected = test["result"] == "valid" and test["tcId"] not in REFUSED
    assert accepts(jwk, test["jws"]) is expected
