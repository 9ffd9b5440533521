"""Delegations at rest: who may make them, how long they last, what is kept of the consent."""

from dataclasses import replace

import pytest

from addon.errors import Conflict, Fault, NotFound, Usage
from addon.model import User
from addon.vault import Vault
from addon.vault.log import entries
from tests.provider import NOW, Provider

DAY = 86_400.0
ADA = User(idp="acme", subject="ada", groups=frozenset({"staff"}), issuer="https://id.test", token_id="t-9", issued_at=NOW - 30)  # fmt: skip
EVE = replace(ADA, subject="eve", groups=frozenset())


@pytest.fixture
def vault(story):
    provider = Provider()
    story.vault.idps.add(provider.idp(), keys=provider.jwks(), now=NOW)
    return story.vault


def granted(vault, principal="user:acme/ada", **options):
    return vault.grants.issue("stripe", principal=principal, now=NOW, **({"delegable": True} | options)).id


def delegate(vault, grant_id, user=ADA, *, agent="helper", ttl=3600.0, now=NOW):
    return vault.delegations.create(grant_id, agent=agent, user=user, now=now, ttl=ttl)


def test_a_delegation_keeps_who_consented_and_when_but_not_the_token(vault):
    made = delegate(vault, granted(vault))
    assert (made.user, made.agent, made.secret, made.token_id, made.token_at) == ("user:acme/ada", "helper", "stripe", "t-9", NOW - 30)  # fmt: skip
    assert made.expires_at == NOW + 3600
    last = entries(vault.database)[-1]
    assert (last.action, last.subject) == ("delegation.create", made.id)
    assert last.detail["issuer"] == "https://id.test"
    assert last.detail["token_id"] == "t-9"


@pytest.mark.parametrize(
    ("options", "ttl", "lasts"),
    [
        ({}, 60.0, 60.0),
        ({}, 400 * DAY, 90 * DAY),
        ({"delegation_seconds": 120.0}, 3600.0, 120.0),
        ({"expires_at": NOW + 10.0}, 3600.0, 10.0),
        ({"expires_at": NOW + 500.0, "delegation_seconds": 120.0}, 3600.0, 120.0),
        ({"expires_at": NOW + 500.0, "delegation_seconds": 900.0}, 3600.0, 500.0),
    ],
)
def test_the_shortest_limit_counts(vault, options, ttl, lasts):
    assert delegate(vault, granted(vault, **options), ttl=ttl).expires_at == NOW + lasts


@pytest.mark.parametrize("ttl", [0.0, -5.0])
def test_a_delegation_for_no_time_is_refused(vault, ttl):
    with pytest.raises(Usage):
        delegate(vault, granted(vault), ttl=ttl)


def test_the_grant_of_somebody_else_looks_as_if_it_did_not_exist(vault):
    foreign, unknown = granted(vault), "00000000-0000-4000-8000-000000000000"
    messages = []
    for grant_id in (foreign, unknown):
        with pytest.raises(NotFound) as error:
            delegate(vault, grant_id, EVE)
        messages.append(error.value.message.replace(grant_id, "ID"))
    assert messages[0] == messages[1]


def test_users_of_another_provider_are_strangers_whatever_their_name(vault):
    with pytest.raises(NotFound):
        delegate(vault, granted(vault), replace(ADA, idp="corp"))


@pytest.mark.parametrize("principal", ["system:billing", "agent:helper"])
def test_only_the_access_of_people_is_delegated(vault, principal):
    with pytest.raises(Usage):
        granted(vault, principal)
    grant_id = vault.grants.issue("stripe", principal=principal, now=NOW).id
    with pytest.raises(NotFound):
        delegate(vault, grant_id)


def test_a_grant_must_be_delegable_and_alive(vault):
    with pytest.raises(Conflict, match="cannot be delegated"):
        delegate(vault, granted(vault, delegable=False))
    with pytest.raises(Conflict, match="does not work now"):
        delegate(vault, granted(vault, expires_at=NOW + 5.0), now=NOW + 5)
    revoked = granted(vault)
    vault.grants.revoke(ids=(revoked,), now=NOW)
    with pytest.raises(Conflict):
        delegate(vault, revoked)
    disabled = granted(vault)
    vault.secrets.set_state("stripe", "disabled", now=NOW)
    with pytest.raises(Conflict):
        delegate(vault, disabled)


def test_the_agent_must_be_there_and_enabled(vault):
    grant_id = granted(vault)
    with pytest.raises(NotFound):
        delegate(vault, grant_id, agent="nobody")
    with pytest.raises(NotFound):
        delegate(vault, grant_id, agent="billing")
    vault.callers.set_state("agent", "helper", "disabled", now=NOW)
    with pytest.raises(Conflict, match="disabled"):
        delegate(vault, grant_id)


def test_a_delegation_cannot_be_delegated(vault):
    made = delegate(vault, granted(vault))
    with pytest.raises(NotFound):
        delegate(vault, made.id)


def test_revoking_is_final_recorded_and_can_be_repeated(vault):
    made = delegate(vault, granted(vault))
    first = vault.delegations.revoke(made.id, by="agent:helper", reason="done", now=NOW + 1)
    again = vault.delegations.revoke(made.id, by="user:acme/ada", now=NOW + 2)
    assert again == first
    assert (first.revoked_at, first.revoked_by, first.revoked_reason) == (NOW + 1, "agent:helper", "done")
    assert first.state(NOW + 5) == "revoked"
    assert entries(vault.database)[-1].detail == {"by": "agent:helper", "reason": "done"}
    with pytest.raises(NotFound):
        vault.delegations.revoke("unknown", by="operator", now=NOW)


def test_delegations_are_listed_by_agent_user_and_grant(vault):
    first, second = granted(vault), granted(vault, "group:acme/staff")
    vault.callers.create("agent", "other", cidrs=(), now=NOW)
    made = [delegate(vault, first), delegate(vault, second, agent="other"), delegate(vault, first, agent="other")]
    list_ = vault.delegations.list
    assert [d.id for d in list_()] == sorted((d.id for d in made), key=lambda i: (NOW, i))
    assert {d.id for d in list_(agent="other")} == {made[1].id, made[2].id}
    assert {d.id for d in list_(grant_id=first)} == {made[0].id, made[2].id}
    assert len(list_(user="user:acme/ada")) == 3
    assert list_(user="user:acme/eve") == []


def test_an_expired_delegation_says_so(vault):
    made = delegate(vault, granted(vault), ttl=60.0)
    assert (made.state(NOW + 59.9), made.state(NOW + 60)) == ("active", "expired")


# ── groups ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_group_grant_needs_a_token_that_lists_the_group(vault):
    grant_id = granted(vault, "group:acme/staff")
    assert delegate(vault, grant_id)
    with pytest.raises(NotFound):
        delegate(vault, grant_id, EVE)


def test_a_token_older_than_the_freshness_proves_nothing(vault):
    grant_id = granted(vault, "group:acme/staff", proof_seconds=600.0)
    assert delegate(vault, grant_id, now=NOW + 569)
    with pytest.raises(Conflict, match="does not prove"):
        delegate(vault, grant_id, now=NOW + 570)


def test_a_newer_token_without_the_group_has_the_last_word(vault):
    grant_id = granted(vault, "group:acme/staff")
    delegate(vault, grant_id)
    assert vault.proofs.note(replace(ADA, groups=frozenset(), issued_at=NOW - 29))
    with pytest.raises(Conflict, match="does not prove"):
        delegate(vault, grant_id)
    assert delegate(vault, grant_id, replace(ADA, issued_at=NOW - 28))


def proof(vault):
    state = vault.lookup(digest=b"", tag=vault.delegations.list()[0].id).grant.delegation
    return state.proven_at


@pytest.mark.parametrize(
    ("age", "groups", "proven"),
    [
        (10, {"staff"}, NOW - 10), (10, set(), None), (10, {"Staff", "staf"}, None), (50, set(), NOW - 30), (50, {"staff"}, NOW - 30),
        (30, set(), None), (30, {"staff"}, NOW - 30), (30, {"staff", "x"}, NOW - 30),
    ],
)  # fmt: skip
def test_the_newest_token_tells_and_of_two_as_old_the_one_without(vault, age, groups, proven):
    delegate(vault, granted(vault, "group:acme/staff"))
    vault.proofs.note(replace(ADA, groups=frozenset(groups), issued_at=NOW - age))
    assert proof(vault) == proven


def test_a_lost_group_can_be_proven_again(vault):
    delegate(vault, granted(vault, "group:acme/staff"))
    vault.proofs.note(replace(ADA, groups=frozenset(), issued_at=NOW - 20))
    vault.proofs.note(replace(ADA, issued_at=NOW - 20))
    assert proof(vault) is None
    vault.proofs.note(replace(ADA, issued_at=NOW - 19))
    assert proof(vault) == NOW - 19


def test_tokens_of_others_prove_nothing(vault):
    delegate(vault, granted(vault, "group:acme/staff"))
    assert not vault.proofs.note(replace(ADA, idp="corp", groups=frozenset(), issued_at=NOW))
    assert not vault.proofs.note(replace(EVE, issued_at=NOW))
    assert proof(vault) == NOW - 30


def test_nothing_is_noted_of_users_whose_groups_nobody_relies_on(vault):
    delegate(vault, granted(vault))
    assert not vault.proofs.note(replace(ADA, issued_at=NOW))
    assert vault.database.conn.execute("SELECT count(*) FROM group_proofs").fetchone() == (0,)


def test_the_proxy_notes_through_a_connection_of_its_own(vault):
    delegate(vault, granted(vault, "group:acme/staff"))
    reader = Vault.connect(vault.home, writable=False)
    assert reader.proofs.note(replace(ADA, issued_at=NOW))
    assert proof(reader) == NOW
    reader.close()


def test_a_loss_that_cannot_be_noted_is_a_fault_soon(vault):
    delegate(vault, granted(vault, "group:acme/staff"))
    reader = Vault.connect(vault.home, writable=False)
    vault.database.conn.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(Fault, match="vault_unavailable"):
            reader.proofs.note(replace(ADA, groups=frozenset(), issued_at=NOW))
    finally:
        vault.database.conn.execute("ROLLBACK")
        reader.close()


def test_deleting_a_secret_takes_its_delegations_with_it(vault):
    made = delegate(vault, granted(vault))
    vault.secrets.delete("stripe", now=NOW)
    assert vault.delegations.list() == []
    assert vault.lookup(digest=b"", tag=made.id).grant is None
