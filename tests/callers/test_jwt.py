"""What makes a token count: the attack set, each rule by itself, and nothing else than Invalid whatever comes in."""

import json
import os
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from addon.callers.jwt import Invalid, Unusable, explain, read, verification, verify
from addon.callers.jwt.keys import LIMIT, parse_set, shared
from tests.callers.attacks import ATTACKS, GOOD, PROVIDER
from tests.provider import NOW, Provider, b64, compact, private_key, public_jwk, unb64

IDP = PROVIDER.idp()
KEYS = PROVIDER.key_set
MUTATIONS = int(os.environ.get("ALTER_JWT_MUTATIONS", "20000"))
"""How many mutated tokens are tried in one run."""


def judge(token, *, idp=IDP, keys=KEYS, now=NOW):
    """The check that stops a token, or empty."""
    try:
        verify(read(token), idp=idp, keys=keys, now=now)
    except Invalid as problem:
        return problem.check
    return ""


# ── attacks ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_every_attack_is_stopped_by_the_check_that_is_meant_for_it(attack):
    assert judge(attack.token) == attack.stopped_by


def test_the_set_is_as_large_as_it_claims():
    assert len(ATTACKS) > 250
    assert {attack.kind for attack in ATTACKS} == {
        "valid", "alg", "confusion", "signature", "kid", "header", "typ", "time", "audience", "issuer", "subject",
        "groups", "token id", "form", "claims",
    }  # fmt: skip


def test_no_attack_takes_more_than_a_few_milliseconds():
    for attack in ATTACKS:
        best = min(_seconds(attack.token) for _ in range(3))
        assert best < 0.005, attack


def _seconds(token):
    begun = time.perf_counter()
    judge(token)
    return time.perf_counter() - begun


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_an_explanation_agrees_with_the_verdict(attack):
    checks, user = explain(attack.token, idp=IDP, keys=KEYS, now=NOW)
    failed = [check.name for check in checks if check.verdict == "failed"]
    assert (user is None) == bool(attack.stopped_by)
    assert failed[:1] == ([attack.stopped_by] if attack.stopped_by else [])
    assert len(checks) == 19
    assert all(len(check.detail) < 9000 and attack.token not in check.detail for check in checks if attack.token)


def test_an_explanation_goes_on_after_a_failure():
    checks, _ = explain(PROVIDER.token(aud="other", exp=NOW - 500, iat=NOW - 900), idp=IDP, keys=KEYS, now=NOW)
    assert [check.name for check in checks if check.verdict == "failed"] == ["audience", "expiry"]
    assert {check.name: check.detail for check in checks}["audience"] == "aud is 'other', not https://egress.test"


def test_what_cannot_be_checked_is_skipped_not_passed():
    checks, user = explain("not a token", idp=IDP, keys=KEYS, now=NOW)
    assert user is None
    assert [check.verdict for check in checks].count("skipped") == 18


# ── who comes out ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_good_token_gives_the_user_with_its_provider():
    user = verify(read(GOOD), idp=IDP, keys=KEYS, now=NOW)
    assert (str(user), user.groups, user.token_id) == ("user:acme/ada", {"staff"}, "t-1")
    assert (user.issuer, user.issued_at, user.expires_at) == ("https://id.test", NOW - 10, NOW + 600)


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"])  # fmt: skip
def test_every_algorithm_works_when_it_is_the_one_of_the_key(algorithm):
    provider = Provider(keys={"k": (algorithm, 1)})
    assert judge(provider.token(kid="k"), idp=provider.idp(), keys=provider.key_set) == ""


def test_an_algorithm_the_provider_was_not_registered_with_has_no_key():
    provider = Provider(keys={"r": ("RS256", 1), "e": ("ES256", 1)})
    keys = parse_set(provider.jwks(), algorithms=("RS256",))
    assert judge(provider.token(kid="e"), idp=provider.idp(algorithms=("RS256",)), keys=keys) == "key"


@pytest.mark.parametrize(
    ("path", "claim", "groups"),
    [
        ("groups", {"groups": ["a"]}, {"a"}),
        ("cognito:groups", {"cognito:groups": ["a"]}, {"a"}),
        ("https://x.test/groups", {"https://x.test/groups": ["a"]}, {"a"}),
        ("https://x.test/groups", {"https://x": {"test/groups": ["a"]}}, set()),
        ("realm_access.roles", {"realm_access": {"roles": ["a", "b"]}}, {"a", "b"}),
        ("realm_access.roles", {"realm_access.roles": ["a"]}, set()),
        ("realm_access.roles", {"realm_access": ["roles"]}, set()),
        ("/k8s.io/teams", {"k8s.io": {"teams": ["a"]}}, {"a"}),
        ("/a~1b/c~0d", {"a/b": {"c~d": ["a"]}}, {"a"}),
        ("", {"groups": ["a"]}, set()),
    ],
)
def test_groups_are_found_where_the_record_says(path, claim, groups):
    user = verify(read(PROVIDER.token(**({"groups": ...} | claim))), idp=PROVIDER.idp(group_claim=path), keys=KEYS, now=NOW)  # fmt: skip
    assert user.groups == groups


def test_the_user_may_be_another_claim_but_sub_must_still_be_there():
    idp = PROVIDER.idp(user_claim="oid")
    assert verify(read(PROVIDER.token(oid="o-7")), idp=idp, keys=KEYS, now=NOW).subject == "o-7"
    assert judge(PROVIDER.token(oid="o-7", sub=...), idp=idp) == "subject"
    assert judge(PROVIDER.token(), idp=idp) == "subject"


def test_a_list_of_audiences_counts_only_where_the_provider_sends_lists():
    token = PROVIDER.token(aud=["https://egress.test", "x"])
    assert judge(token) == "audience"
    assert judge(token, idp=PROVIDER.idp(audience_list=True)) == ""
    assert judge(PROVIDER.token(aud=["x", 1, "https://egress.test"]), idp=PROVIDER.idp(audience_list=True)) == "audience"  # fmt: skip
    assert judge(PROVIDER.token(aud=["y"]), idp=PROVIDER.idp(audience_list=True)) == "audience"


def test_the_audience_may_be_another_claim():
    idp = PROVIDER.idp(audience_claim="client_id", audiences=("c-1",))
    assert judge(PROVIDER.token(client_id="c-1", aud=...), idp=idp) == ""
    assert judge(PROVIDER.token(aud="c-1"), idp=idp) == "audience"


@pytest.mark.parametrize(("value", "stopped"), [("access", ""), ("id", "required"), (..., "required"), (1, "required"), (["access"], "required")])  # fmt: skip
def test_a_required_claim_has_its_one_value(value, stopped):
    assert judge(PROVIDER.token(token_use=value), idp=PROVIDER.idp(required=(("token_use", "access"),))) == stopped


def test_a_required_claim_may_be_true():
    idp = PROVIDER.idp(required=(("email_verified", "true"),))
    assert judge(PROVIDER.token(email_verified=True), idp=idp) == ""
    assert judge(PROVIDER.token(email_verified=False), idp=idp) == "required"
    assert judge(PROVIDER.token(email_verified=1), idp=idp) == "required"


def test_id_tokens_count_only_where_there_are_no_others():
    token = PROVIDER.token(nonce="n", at_hash="h")
    assert judge(token) == "purpose"
    assert judge(token, idp=PROVIDER.idp(id_tokens=True)) == ""


def test_a_header_parameter_is_ignored_only_where_the_record_says():
    token = PROVIDER.token(header={"x5t": "abc"})
    assert judge(token) == "parameters"
    assert judge(token, idp=PROVIDER.idp(headers=("x5t",))) == ""


def test_a_signature_that_was_verified_before_says_nothing_else():
    token = PROVIDER.token()
    assert judge(token) == ""
    head, claims, signature = token.split(".")
    other = compact(
        {"alg": "RS256", "typ": "JWT", "kid": "r1"}, PROVIDER.claims(sub="eve"), private_key("RS256", 9), "RS256"
    )
    assert judge(token, now=NOW + 700) == "expiry"
    assert judge(f"{head}.{other.split('.')[1]}.{signature}") == "signature"
    assert judge(f"{head}.{claims}.{other.split('.')[2]}") == "signature"
    replaced = parse_set(document(public_jwk(private_key("RS256", 9), kid="r1", alg="RS256")), algorithms=("RS256",))
    assert judge(token, keys=replaced) == "signature"


def test_what_is_remembered_of_tokens_is_bounded_and_none_of_their_text(monkeypatch):
    monkeypatch.setattr(verification, "_REMEMBERED", 2)
    keys = PROVIDER.key_set
    for number in range(5):
        assert judge(PROVIDER.token(jti=f"t-{number}"), keys=keys) == ""
    remembered = keys.named["r1"].verified
    assert 0 < len(remembered) <= 2
    assert all(len(each) == 32 for each in remembered)


def test_a_token_expires_at_the_end_of_the_leeway():
    token = PROVIDER.token(exp=NOW + 100)
    assert judge(token, now=NOW + 159.9) == ""
    assert judge(token, now=NOW + 160) == "expiry"


# ── keys ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def document(*keys):
    return json.dumps({"keys": list(keys)}).encode()


RSA = public_jwk(private_key("RS256"), kid="r1")
EC = public_jwk(private_key("ES256"), kid="e1")


@pytest.mark.parametrize(
    "jwk",
    [
        RSA | {"use": "enc"}, RSA | {"key_ops": ["encrypt"]}, RSA | {"key_ops": "verify"}, RSA | {"alg": "RS512"},
        RSA | {"alg": "HS256"}, RSA | {"alg": "none"}, RSA | {"alg": 1}, RSA | {"d": "AQAB"}, RSA | {"kid": 1},
        RSA | {"kid": "a b"}, RSA | {"kid": "k" * 129}, RSA | {"kid": ""}, RSA | {"kty": "oct", "k": "c2VjcmV0"},
        {"kty": "oct", "k": "c2VjcmV0" * 8, "kid": "r1", "alg": "RS256"}, RSA | {"kty": "EC"}, RSA | {"n": "AQ"},
        RSA | {"n": RSA["n"][:170]}, RSA | {"e": "Ag"}, RSA | {"e": b64(b"\x01" + bytes(300))}, RSA | {"n": 5},
        EC | {"crv": "secp256k1"}, EC | {"crv": "P-384"}, EC | {"x": EC["y"]}, {"kty": "OKP", "crv": "Ed448", "x": b64(bytes(57))},
        {"kty": "OKP", "crv": "X25519", "x": b64(bytes(32))}, {}, [], "x", None, 1, {"kty": "RSA"}, EC | {"crv": ["P-256"]},
    ],
)  # fmt: skip
def test_an_unfit_key_is_left_out(jwk):
    with pytest.raises(Unusable):
        parse_set(document(jwk), algorithms=("RS256", "ES256", "EdDSA"))
    assert len(parse_set(document(jwk, RSA | {"kid": "good"}), algorithms=("RS256", "ES256", "EdDSA")).named) == 1


@pytest.mark.parametrize(
    "raw",
    [b"", b"[]", b"{}", b'{"keys":{}}', b'{"keys":[]}', b'{"keys":[],"keys":[]}', b"\xff", b'{"keys":' + b"[" * 5000, b" " * (LIMIT + 1), b'{"keys":[' + b"{}," * 200 + b"{}]}"],
)  # fmt: skip
def test_what_is_no_key_set_is_refused(raw):
    with pytest.raises(Unusable):
        parse_set(raw, algorithms=("RS256",))


def test_a_kid_for_two_keys_names_neither():
    other = public_jwk(private_key("RS256", 1), kid="r1")
    third = public_jwk(private_key("RS256", 2), kid="r2")
    keys = parse_set(document(RSA, other, RSA, third), algorithms=("RS256",))
    assert set(keys.named) == {"r2"}
    assert keys.find("r1") is None


def test_the_same_key_twice_is_one_key():
    assert set(parse_set(document(RSA, RSA), algorithms=("RS256",)).named) == {"r1"}


def test_without_kid_the_only_key_is_meant():
    single = parse_set(document({k: v for k, v in RSA.items() if k != "kid"}), algorithms=("RS256",))
    assert judge(PROVIDER.token(header={"kid": ...}), keys=single) == ""
    assert judge(PROVIDER.token(), keys=single) == "key"
    assert judge(PROVIDER.token(header={"kid": ...}), keys=parse_set(document(RSA), algorithms=("RS256",))) == ""


def test_a_key_without_alg_gets_the_first_that_fits():
    keys = parse_set(document(RSA, EC), algorithms=("ES256", "PS256", "RS256"))
    assert (keys.named["r1"].algorithm, keys.named["e1"].algorithm) == ("PS256", "ES256")


# ── shared secrets ───────────────────────────────────────────────────────────────────────────────────────────────────

SECRET = bytes.fromhex("8f1d2c3b4a59687706f5e4d3c2b1a09f8e7d6c5b4a39281706f5e4d3c2b1a0ff")
HS = PROVIDER.idp(algorithms=("HS256",), source="shared")


def test_hs256_works_with_the_shared_secret_whatever_the_kid():
    for header in ({"kid": ...}, {"kid": "anything"}):
        token = PROVIDER.token(header=header, key=SECRET, algorithm="HS256")
        assert judge(token, idp=HS, keys=shared(SECRET)) == ""


def test_no_asymmetric_token_meets_a_shared_secret_nor_the_reverse():
    assert judge(GOOD, idp=HS, keys=shared(SECRET)) == "algorithm"
    assert judge(PROVIDER.token(key=SECRET, algorithm="HS256")) == "algorithm"
    assert judge(PROVIDER.token(key=SECRET, algorithm="HS512"), idp=HS, keys=shared(SECRET)) == "algorithm"


@pytest.mark.parametrize(
    "secret",
    [b"", b"x" * 31, b"x" * 64, b"your-256-bit-secret-your-256-bit-secret", b"0123456789" * 5, b"this is my super secret key 42 ok"],
)  # fmt: skip
def test_a_secret_that_could_be_guessed_is_refused(secret):
    with pytest.raises(Unusable):
        shared(secret)


def test_keys_never_show_what_they_are():
    assert SECRET.hex() not in repr(shared(SECRET))
    assert repr(SECRET) not in repr(shared(SECRET))


# ── whatever is sent ─────────────────────────────────────────────────────────────────────────────────────────────────

BASES = [PROVIDER.token(kid=kid) for kid in PROVIDER.keys]
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."


@st.composite
def mutated(draw):
    """A valid token with something done to its text, its bytes or its JSON, but never signed again."""
    base = draw(st.sampled_from(BASES))
    parts = base.split(".")
    which = draw(st.integers(0, 2))
    match draw(st.sampled_from(["char", "bit", "cut", "insert", "swap", "json", "join"])):
        case "char":
            at = draw(st.integers(0, len(base) - 1))
            return base[:at] + draw(st.characters(codec="utf-8")) + base[at + 1 :]
        case "bit":
            raw = bytearray(unb64(parts[which]))
            raw[draw(st.integers(0, len(raw) - 1))] ^= 1 << draw(st.integers(0, 7))
            parts[which] = b64(bytes(raw))
        case "cut":
            parts[which] = parts[which][: draw(st.integers(0, len(parts[which]) - 1))]
        case "insert":
            at = draw(st.integers(0, len(base)))
            return base[:at] + draw(st.text(ALPHABET, min_size=1, max_size=5)) + base[at:]
        case "swap":
            parts[which] = draw(st.sampled_from(BASES)).split(".")[draw(st.integers(0, 2))]
        case "json":
            part = draw(st.integers(0, 1))
            value = json.loads(unb64(parts[part]))
            name = draw(st.sampled_from(sorted(value)))
            value[name] = draw(st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.lists(st.text(max_size=5), max_size=3))  # fmt: skip
            parts[part] = b64(json.dumps(value).encode())
        case "join":
            parts = draw(st.lists(st.sampled_from(parts), max_size=5))
    return ".".join(parts)


@settings(max_examples=MUTATIONS, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(token=mutated())
def test_no_mutation_of_a_valid_token_is_valid(token):
    checked = judge(token)  # raises nothing else than Invalid
    if token not in BASES:
        assert checked


claim_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(name=st.sampled_from(["iss", "aud", "sub", "exp", "iat", "nbf", "jti", "groups", "nonce"]), value=claim_values)
def test_a_signed_token_with_any_claim_is_judged_without_an_accident(name, value):
    token = compact({"alg": "EdDSA", "kid": "o1"}, PROVIDER.claims() | {name: value}, PROVIDER.key("o1"), "EdDSA")
    stopped = judge(token)
    standard = PROVIDER.claims()
    if not stopped and name in {"iss", "aud"}:
        assert value == standard[name]


@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda b: f"{b64(b)}.{b64(b)}.{b64(b)}"))
def test_no_text_at_all_causes_an_accident(text):
    assert judge(text)
    explain(text, idp=IDP, keys=KEYS, now=NOW)
