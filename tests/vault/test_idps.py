"""Identity providers at rest: one issuer for each name, for ever; keys and shared secrets beside them."""

import json

import pytest

from addon.errors import Conflict, Fault, NotFound, Usage
from addon.vault import Vault
from addon.vault.log import entries
from tests.provider import NOW, Provider, private_key, public_jwk

SECRET = bytes.fromhex("8f1d2c3b4a59687706f5e4d3c2b1a09f8e7d6c5b4a39281706f5e4d3c2b1a0ff")


@pytest.fixture
def provider():
    return Provider()


@pytest.fixture
def idps(story):
    return story.vault.idps


def shared(provider, **changes):
    return provider.idp(source="shared", algorithms=("HS256",), **changes)


def test_a_provider_is_found_by_its_exact_issuer(idps, provider):
    idps.add(provider.idp(), keys=provider.jwks(), now=NOW)
    found = idps.find("https://id.test")
    assert found.idp == provider.idp()
    assert idps.keys(found) == provider.jwks()
    for other in ("https://id.test/", "https://ID.test", "", "https://id.tes", "%"):
        assert idps.find(other) is None


def test_several_providers_stand_side_by_side(idps, provider):
    other = Provider(name="corp", issuer="https://corp.test")
    idps.add(provider.idp(), keys=provider.jwks(), now=NOW)
    idps.add(other.idp(), keys=other.jwks(), now=NOW)
    assert [stored.idp.name for stored in idps.all()] == ["acme", "corp"]
    assert len(idps.list()) == 2


@pytest.mark.parametrize("changes", [{"name": "acme", "issuer": "https://other.test"}, {"name": "other"}])
def test_a_name_and_an_issuer_belong_to_each_other(idps, provider, changes):
    idps.add(provider.idp(), keys=provider.jwks(), now=NOW)
    with pytest.raises(Conflict):
        idps.add(provider.idp(**changes), keys=provider.jwks(), now=NOW)


def test_a_removed_provider_is_not_found_and_its_keys_are_gone(idps, provider):
    idps.add(provider.idp(), keys=provider.jwks(), now=NOW)
    registration = idps.find(provider.issuer)
    idps.remove("acme", now=NOW)
    assert idps.find(provider.issuer) is None
    assert idps.list() == []
    with pytest.raises(NotFound):
        idps.get("acme")
    with pytest.raises(Fault):
        idps.keys(registration)


def test_a_name_once_used_never_stands_for_another_issuer(idps, provider):
    idps.add(provider.idp(), keys=provider.jwks(), now=NOW)
    idps.remove("acme", now=NOW)
    with pytest.raises(Conflict):
        idps.add(provider.idp(issuer="https://evil.test"), keys=provider.jwks(), now=NOW)
    idps.add(provider.idp(max_ttl=60), keys=provider.jwks(), now=NOW)
    assert idps.find(provider.issuer).idp.max_ttl == 60


def test_an_issuer_may_come_back_under_another_name(idps, provider):
    idps.add(provider.idp(), keys=provider.jwks(), now=NOW)
    idps.remove("acme", now=NOW)
    idps.add(provider.idp(name="acme2"), keys=provider.jwks(), now=NOW)
    with pytest.raises(Conflict):
        idps.add(provider.idp(), keys=provider.jwks(), now=NOW)


def test_a_change_holds_at_once_and_has_a_revision_of_its_own(idps, provider):
    idps.add(provider.idp(), keys=provider.jwks(), now=NOW)
    before = idps.find(provider.issuer)
    idps.change(provider.idp(group_claim="roles"), now=NOW + 1)
    after = idps.find(provider.issuer)
    assert (after.idp.group_claim, after.revision > before.revision) == ("roles", True)
    assert idps.keys(after) == provider.jwks()
    with pytest.raises(Fault):
        idps.keys(before)


def test_keys_can_be_replaced(idps, provider):
    idps.add(provider.idp(), keys=provider.jwks(), now=NOW)
    provider.keys = {"r2": ("RS256", 2)}
    idps.change(provider.idp(), keys=provider.jwks(), now=NOW)
    assert b"r2" in idps.keys(idps.find(provider.issuer))


def test_the_source_of_keys_can_change_if_the_new_one_is_there(idps, provider):
    idps.add(provider.idp(), keys=provider.jwks(), now=NOW)
    idps.change(provider.idp(source="discovery"), now=NOW)
    with pytest.raises(Fault):
        idps.keys(idps.find(provider.issuer))
    with pytest.raises(Usage):
        idps.change(provider.idp(), now=NOW)
    idps.change(shared(provider), keys=SECRET, now=NOW)
    assert idps.keys(idps.find(provider.issuer)) == SECRET


def test_an_issuer_never_changes(idps, provider):
    idps.add(provider.idp(), keys=provider.jwks(), now=NOW)
    with pytest.raises(Usage):
        idps.change(provider.idp(issuer="https://evil.test"), keys=provider.jwks(), now=NOW)


def test_other_algorithms_need_keys_that_have_them(idps, provider):
    idps.add(provider.idp(), keys=provider.jwks(), now=NOW)
    with pytest.raises(Usage):
        idps.change(provider.idp(algorithms=("ES256",)), now=NOW)
    assert idps.find(provider.issuer).idp.algorithms == ("RS256",)


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({}, None), ({}, b"{}"), ({}, b'{"keys":[]}'), ({"source": "discovery"}, b'{"keys":[]}'),
        ({"algorithms": ("ES256",)}, Provider().jwks()),
        ({"source": "shared", "algorithms": ("HS256",)}, b"too short"),
        ({"source": "shared", "algorithms": ("HS256",)}, None),
    ],
)  # fmt: skip
def test_a_provider_without_the_keys_it_needs_is_not_registered(idps, provider, changes, keys):
    with pytest.raises(Usage):
        idps.add(provider.idp(**changes), keys=keys, now=NOW)
    assert idps.list() == []


def test_a_key_set_with_a_private_key_is_refused(idps, provider):
    given_away = json.dumps({"keys": [public_jwk(private_key("RS256"), kid="r1", d="AQAB")]}).encode()
    with pytest.raises(Usage, match="private"):
        idps.add(provider.idp(), keys=given_away, now=NOW)


# ── shared secrets ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_shared_secret_lies_sealed_and_only_the_proxy_opens_it(story, provider):
    story.vault.idps.add(shared(provider), keys=SECRET, now=NOW)
    registration = story.vault.idps.find(provider.issuer)
    assert story.vault.idps.keys(registration) == SECRET
    home = story.vault.home
    assert SECRET not in b"".join(path.read_bytes() for path in home.iterdir() if path.is_file())
    without_key = Vault.connect(home)
    with pytest.raises(Fault, match="no private key"):
        without_key.idps.keys(registration)
    without_key.close()


@pytest.mark.parametrize(
    "change",
    ["issuer = 'https://evil.test'", "keys = randomblob(200)", "id = 'other'"],
)
def test_a_shared_secret_whose_row_was_changed_does_not_open(story, provider, change):
    story.vault.idps.add(shared(provider), keys=SECRET, now=NOW)
    story.vault.database.conn.execute("PRAGMA foreign_keys = OFF")
    story.vault.database.conn.execute(f"UPDATE idps SET {change}")
    story.vault.database.conn.execute("UPDATE idp_wraps SET idp_id = (SELECT id FROM idps)")
    [registration] = story.vault.idps.list()
    with pytest.raises(Fault, match="vault_unavailable"):
        story.vault.idps.keys(registration)


# ── rows that are not ours ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("rules", ["{}", "x", '{"audiences":["a"],"algorithms":["none"],"source":"file"}', '{"audiences":["a"],"later":1}'])  # fmt: skip
def test_a_record_that_cannot_be_read_is_a_fault(story, provider, rules):
    story.vault.idps.add(provider.idp(), keys=provider.jwks(), now=NOW)
    story.vault.database.conn.execute("UPDATE idps SET rules = ?", (rules,))
    with pytest.raises(Fault):
        story.vault.idps.find(provider.issuer)


def test_every_change_is_in_the_admin_log(story, provider):
    idps = story.vault.idps
    idps.add(provider.idp(), keys=provider.jwks(), now=NOW)
    idps.change(provider.idp(max_ttl=60), now=NOW)
    idps.remove("acme", now=NOW)
    last = entries(story.vault.database)[-3:]
    assert [(entry.action, entry.subject) for entry in last] == [("idp.add", "acme"), ("idp.change", "acme"), ("idp.remove", "acme")]  # fmt: skip
    assert last[0].detail["issuer"] == "https://id.test"
    assert story.vault.first_bad_change() is None


def test_grants_to_people_need_their_provider(story, provider):
    grants = story.vault.grants
    for principal in ("user:acme/ada", "group:acme/staff"):
        with pytest.raises(NotFound, match="identity provider"):
            grants.issue("stripe", principal=principal, now=NOW)
    story.vault.idps.add(provider.idp(), keys=provider.jwks(), now=NOW)
    assert grants.issue("stripe", principal="user:acme/ada", now=NOW).principal == "user:acme/ada"


@pytest.mark.parametrize(
    "principal",
    ["user:acme", "user:acme/", "user:/ada", "user:acme/a b", "user:acme/ä", "user:a b/ada", "group:acme/", "group:acme/ staff", "group:acme/sta\nff", "user:acme/" + "a" * 257, "users:acme/ada"],
)  # fmt: skip
def test_a_principal_that_no_token_could_match_is_refused(story, provider, principal):
    story.vault.idps.add(provider.idp(), keys=provider.jwks(), now=NOW)
    with pytest.raises(Usage):
        story.vault.grants.issue("stripe", principal=principal, now=NOW)


def test_a_subject_may_hold_slashes_and_colons(story, provider):
    story.vault.idps.add(provider.idp(), keys=provider.jwks(), now=NOW)
    for subject in ("auth0|5f/x", "repo:o/r:ref:refs/heads/main", "https://x/y"):
        assert story.vault.grants.issue("stripe", principal=f"user:acme/{subject}", now=NOW)
