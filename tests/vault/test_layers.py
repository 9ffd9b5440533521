"""Policies of every layer: where they stand, that they all must pass, and that nothing unreadable passes."""

import contextlib

import pytest

from addon import policies
from addon.errors import Fault, NotFound
from addon.model import User
from addon.pipeline import Authorized, Refused, authorize
from addon.vault import Vault, database, log, migrations
from addon.vault.layers import LAYERS
from addon.vault.ledger import Ledger
from addon.vault.migrations import MIGRATIONS
from tests.provider import Provider

ONLY_POST = (("methods", {"methods": ["POST"]}),)
TABLES = {
    "vault": "UPDATE meta SET value = ? WHERE name = 'policies'",
    "app": "UPDATE callers SET policies = ? WHERE type = 'app'",
    "secret": "UPDATE secrets SET policies = ?",
    "grant": "UPDATE grants SET policies = ?",
}
NAMES = {"vault": "", "app": "billing", "agent": "helper", "secret": "stripe"}


def put(story, layer, rules=ONLY_POST, name=None):
    story.vault.layers.put(layer, NAMES[layer] if name is None else name, rules, now=story.now)


def test_every_layer_begins_without_policies(story):
    for layer, name in NAMES.items():
        assert story.vault.layers.get(layer, name) == ()
    assert isinstance(story.decide(), Authorized)


@pytest.mark.parametrize("layer", ["vault", "app", "secret"])
def test_a_layer_narrows_what_goes_through_it_and_the_refusal_names_it(story, layer):
    put(story, layer)
    assert isinstance(story.decide(method="POST"), Authorized)
    refused = story.decide()
    assert isinstance(refused, Refused)
    assert (refused.code, refused.policy) == ("policy_denied", f"{layer}.methods")
    assert refused.record.policy == f"{layer}.methods"


def test_an_agent_is_a_layer_of_its_own(story):
    put(story, "agent")
    request = {"grant": "openai", "caller": "helper", "url": "https://api.openai.test/v1/models"}
    assert story.decide(**request).policy == "agent.methods"
    assert isinstance(story.decide(), Authorized)


def test_all_layers_must_pass_whatever_the_others_say(story):
    for layer, method in (("vault", "GET"), ("app", "POST"), ("secret", "GET")):
        put(story, layer, (("methods", {"methods": [method, "PUT"]}),))
    assert isinstance(story.decide(method="PUT"), Authorized)
    assert isinstance(story.decide(method="POST"), Refused)
    assert isinstance(story.decide(method="GET"), Refused)


def test_a_session_without_a_tag_is_narrowed_alike(story):
    _, key = story.vault.callers.mint_key(
        "app", "billing", now=story.now, session=True, grants=(story.grants["stripe"],)
    )
    story.keys["session"] = key
    assert isinstance(story.decide(grant=None, caller="session"), Authorized)
    for layer in ("vault", "app", "secret"):
        put(story, layer)
        assert story.decide(grant=None, caller="session").policy == f"{layer}.methods"
        put(story, layer, ())


def test_a_change_holds_for_the_very_next_request_and_is_in_the_log(story):
    put(story, "secret")
    assert isinstance(story.decide(), Refused)
    put(story, "secret", ())
    assert isinstance(story.decide(), Authorized)
    last, before = log.entries(story.vault.database)[:-3:-1]
    assert (last.action, last.subject, last.detail["kinds"]) == ("policy.set", "secret:stripe", [])
    assert before.detail["rules"] == policies.dump(ONLY_POST)


@pytest.mark.parametrize(
    "stored", ["", "null", "{}", "[[", '[["later",{}]]', '[["methods",{}]]', '[["methods",{"methods":"POST"}]]']
)
@pytest.mark.parametrize("layer", TABLES)
def test_what_cannot_be_read_in_any_layer_refuses(story, layer, stored):
    story.vault.database.conn.execute(TABLES[layer], (stored,))
    with pytest.raises(Fault, match="vault_unavailable"):
        story.decide()


def test_a_vault_that_lost_its_policies_refuses(story):
    story.vault.database.conn.execute("DELETE FROM meta WHERE name = 'policies'")
    with pytest.raises(Fault, match="vault_unavailable"):
        story.decide()
    with pytest.raises(Fault, match="lost"):
        put(story, "vault")


def test_an_unreadable_layer_is_a_fault_even_where_another_refuses(story):
    put(story, "app")
    story.vault.database.conn.execute(TABLES["grant"], ("[[",))
    with pytest.raises(Fault):
        story.decide()


@pytest.mark.parametrize("layer", [layer for layer in LAYERS if layer != "vault"])
def test_what_does_not_exist_has_no_policies(story, layer):
    for act in (lambda: put(story, layer, name="nothing"), lambda: story.vault.layers.get(layer, "nothing")):
        with pytest.raises(NotFound):
            act()


def test_a_vault_of_the_format_before_has_none(tmp_path, monkeypatch):
    def two_steps(data):
        with database.write(data):
            MIGRATIONS.apply(data, stop_before="0003_policies")

    with monkeypatch.context() as patched:
        patched.setattr(database, "migrate", two_steps)
        patched.setattr(migrations, "check", lambda _: None)
        Vault.create(tmp_path / "home", now=0).close()
    assert Vault.upgrade(tmp_path / "home")[0] == "0003_policies"
    vault = Vault.connect(tmp_path / "home")
    assert vault.layers.get("vault", "") == ()
    vault.close()


# ── delegations ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def delegated(story):
    """A delegable grant of a user, and the ids of two delegations of it to the agent."""
    vault, provider = story.vault, Provider()
    vault.idps.add(provider.idp(), keys=provider.jwks(), now=story.now)
    user = User(idp=provider.idp().name, subject="ada", issued_at=int(story.now) - 10)
    rules = (("quota", {"limits": ["3"]}),)
    grant = vault.grants.issue("stripe", principal=str(user), now=story.now, delegable=True, rules=rules)
    return [vault.delegations.create(grant.id, agent="helper", user=user, now=story.now, ttl=60).id for _ in range(2)]


@pytest.fixture
def use(story, tmp_path):
    ledger = Ledger.open(tmp_path / "home" / "limits.db")
    yield lambda tag, **changes: authorize(story.request(grant=tag, caller="helper", **changes), vault=story.vault, now=story.now, limits=ledger)  # fmt: skip
    ledger.close()


def test_a_delegation_is_a_layer_of_its_own(story, delegated, use):
    put(story, "delegation", name=delegated[0])
    assert use(delegated[0]).policy == "delegation.methods"
    assert isinstance(use(delegated[0], method="POST"), Authorized)
    assert isinstance(use(delegated[1]), Authorized)
    put(story, "agent")
    assert use(delegated[1]).policy == "agent.methods"


def test_all_delegations_of_a_grant_draw_from_its_limits(delegated, use):
    assert [isinstance(use(tag), Authorized) for tag in (*delegated, *delegated)] == [True, True, True, False]
    assert use(delegated[0]).policy == "grant.quota"


def test_a_delegation_may_have_a_limit_of_its_own(story, delegated, use):
    put(story, "delegation", (("quota", {"limits": ["1"]}),), name=delegated[0])
    assert isinstance(use(delegated[0]), Authorized)
    assert use(delegated[0]).policy == "delegation.quota"
    assert [isinstance(use(delegated[1]), Authorized) for _ in range(3)] == [True, True, False]


# ── whose limit it is ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("layer", "shared"), [("vault", True), ("secret", True), ("app", False)])
def test_a_limit_counts_what_goes_through_the_layer_it_stands_in(story, tmp_path, layer, shared):
    other = story.vault.grants.issue("stripe", principal="system:other", now=story.now).id
    put(story, layer, (("quota", {"limits": ["1"]}),))
    with contextlib.closing(Ledger.open(tmp_path / "home" / "limits.db")) as ledger:
        first, second = (
            authorize(request, vault=story.vault, now=story.now, limits=ledger)
            for request in (story.request(), story.request(grant=other, caller="other"))
        )
    assert isinstance(first, Authorized)
    assert isinstance(second, Refused) is shared
