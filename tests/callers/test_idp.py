"""The record of an identity provider: what may be registered, and what the presets make of it."""

import json

import pytest

from addon.callers import idp as records
from addon.callers.idp import Idp, check_url, presets
from addon.callers.jwt import Invalid, read, verify
from addon.errors import Fault, Usage
from tests.provider import Provider


def idp(**changes):
    return Idp(**({"name": "acme", "issuer": "https://id.test", "audiences": ("api",)} | changes)).check()


@pytest.mark.parametrize(
    "changes",
    [
        {"audiences": ()}, {"audiences": ("",)}, {"audiences": ("a b",)}, {"issuer": ""}, {"issuer": "http://id.test"},
        {"issuer": "https://id.test?x"}, {"issuer": "https://id.test#x"}, {"issuer": "https://u:p@id.test"}, {"issuer": "ftp://x"},
        {"issuer": "https://"}, {"issuer": "https://id.test\n"}, {"issuer": "https://id.test/ä"}, {"name": "a/b"}, {"name": ""},
        {"algorithms": ()}, {"algorithms": ("none",)}, {"algorithms": ("HS256",)}, {"algorithms": ("RS256", "HS256")},
        {"algorithms": ("RS256", "RS256")}, {"algorithms": ("HS512",), "source": "shared"}, {"source": "shared"},
        {"algorithms": ("HS256", "ES256"), "source": "shared"}, {"source": "ldap"}, {"source": "url"},
        {"source": "url", "jwks_url": "http://id.test/keys"}, {"source": "url", "jwks_url": "file:///etc/passwd"},
        {"max_ttl": 0}, {"max_ttl": 86_401}, {"max_ttl": -1}, {"user_claim": ""}, {"user_claim": "a b"}, {"group_claim": "a\n"},
        {"types": ()}, {"headers": ("jku",)}, {"headers": ("x5c",)}, {"headers": ("crit",)}, {"required": (("azp", ""),)},
        {"required": (("", "x"),)}, {"issuer": "https://" + "i" * 600},
    ],
)  # fmt: skip
def test_what_could_never_work_or_would_be_unsafe_cannot_be_registered(changes):
    with pytest.raises(Usage) as error:
        idp(**changes)
    assert error.value.hint


def test_an_issuer_that_is_not_asked_for_keys_may_be_any_text():
    assert idp(issuer="kubernetes/serviceaccount", source="file").issuer == "kubernetes/serviceaccount"


def test_a_record_comes_back_as_it_was_stored():
    made = idp(audiences=("a", "b"), required=(("azp", "x"),), algorithms=("ES256", "RS256"), headers=("x5t",), group_claim="g")  # fmt: skip
    assert records.load(made.name, made.issuer, made.dump()) == made


@pytest.mark.parametrize("stored", ["", "[]", "{}", "null", '{"audiences":["a"],"unknown":1}', '{"audiences":["a"],"max_ttl":"x"}', '{"audiences":[]}'])  # fmt: skip
def test_a_stored_record_that_cannot_be_read_is_a_fault(stored):
    with pytest.raises(Fault, match="vault_unavailable"):
        records.load("acme", "https://id.test", stored)


@pytest.mark.parametrize("slug", sorted(presets()))
def test_a_preset_makes_a_record_from_issuer_and_audience_alone(slug):
    preset = presets()[slug]
    issuer = preset.only_issuer or "https://id.test/x"
    made = preset.apply(Idp(name="acme", issuer=issuer, audiences=("api",))).check()
    assert made.audiences == ("api",)
    assert preset.title
    assert preset.note


def test_there_is_a_preset_for_every_product_that_was_promised():
    assert set(presets()) == {
        "auth0", "okta", "clerk", "keycloak", "entra", "cognito", "google", "firebase", "supabase", "github-actions", "kubernetes",
    }  # fmt: skip


SAMPLES = {
    "auth0": ({"aud": ["https://egress.test", "https://t.auth0.com/userinfo"], "sub": "auth0|5f"}, {"typ": "at+jwt"}, "auth0|5f", set()),
    "okta": ({"sub": "ada@corp.test", "cid": "0oa", "groups": ["Everyone"]}, {"typ": ...}, "ada@corp.test", {"Everyone"}),
    "clerk": ({"sub": "user_2x", "groups": ["org:admin"]}, {"cat": "cl_B7d4PD222AAA"}, "user_2x", {"org:admin"}),
    "keycloak": ({"typ": "Bearer", "realm_access": {"roles": ["dev"]}, "aud": ["https://egress.test", "account"]}, {}, "ada", {"dev"}),
    "entra": ({"oid": "0000-1", "sub": "pairwise", "groups": ["9f-1"]}, {"x5t": "abc"}, "0000-1", {"9f-1"}),
    "cognito": ({"aud": ..., "client_id": "https://egress.test", "token_use": "access", "cognito:groups": ["ops"]}, {"typ": ...}, "ada", {"ops"}),
    "google": ({"at_hash": "x", "nonce": "y", "hd": "corp.test", "sub": "1052"}, {}, "1052", set()),
    "firebase": ({"sub": "Xy12", "groups": ["beta"]}, {}, "Xy12", {"beta"}),
    "supabase": ({"role": "authenticated", "app_metadata": {"groups": ["pro"]}}, {}, "ada", {"pro"}),
    "github-actions": ({"sub": "repo:o/r:ref:refs/heads/main"}, {"x5t": "abc"}, "repo:o/r:ref:refs/heads/main", set()),
    "kubernetes": ({"aud": ["https://egress.test"], "sub": "system:serviceaccount:ns:app", "kubernetes.io": {"namespace": "ns"}}, {"typ": ...}, "system:serviceaccount:ns:app", set()),
}  # fmt: skip
"""The shape of each product's tokens, from its documentation."""


@pytest.mark.parametrize("slug", sorted(SAMPLES))
def test_a_token_of_the_product_is_understood_with_its_preset(slug):
    claims, header, subject, groups = SAMPLES[slug]
    provider = Provider(issuer=presets()[slug].only_issuer or "https://id.test/x")
    made = presets()[slug].apply(Idp(name="acme", issuer=provider.issuer, audiences=(provider.audience,))).check()
    token = provider.token(header=header, **({"groups": ...} | claims))
    user = verify(read(token), idp=made, keys=provider.key_set, now=provider.now)
    assert (user.subject, user.groups) == (subject, groups)


@pytest.mark.parametrize(("slug", "claims"), [("cognito", {"token_use": "id"}), ("keycloak", {"typ": "ID"}), ("okta", {"nonce": "x"}), ("entra", {"oid": ...})])  # fmt: skip
def test_a_token_of_the_product_for_another_purpose_is_not(slug, claims):
    good, header, _, _ = SAMPLES[slug]
    provider = Provider(issuer="https://id.test/x")
    made = presets()[slug].apply(Idp(name="acme", issuer=provider.issuer, audiences=(provider.audience,))).check()
    token = provider.token(header=header, **({"groups": ...} | good | claims))
    with pytest.raises(Invalid):
        verify(read(token), idp=made, keys=provider.key_set, now=provider.now)


@pytest.mark.parametrize("url", ["https://a", "https://a:8443/b/c", "https://[::1]/x"])
def test_plain_https_addresses_are_taken(url):
    check_url(url, what="an address")


@pytest.mark.parametrize("url", ["", "https:///x", "https://a:0/", "https://a:99999/", "HTTP://a", "https://a b", "https://a/?", "https://[::1", "//a", "https://a\\b c"])  # fmt: skip
def test_others_are_not(url):
    with pytest.raises(Usage):
        check_url(url, what="an address")


def test_the_presets_are_plain_data():
    raw = json.dumps({slug: preset.rules for slug, preset in presets().items()})
    assert "secret" not in raw
