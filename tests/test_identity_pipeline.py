"""Decisions about users, groups and delegations, as a client sees them; and against an oracle of a few lines."""

import contextlib
import itertools
import threading
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from addon import pipeline
from addon.callers import key as keys
from addon.callers.key_sets import KeySets
from addon.errors import Fault, Refusal
from addon.explanation import attempt, explain
from addon.model import Caller, User
from addon.pipeline import Authorized, Refused, Untagged
from tests.provider import NOW, Provider

DAY = 86_400


class People:
    """The story's vault with two providers, and grants for users and groups."""

    def __init__(self, story):
        self.story, self.vault = story, story.vault
        self.acme, self.corp = Provider(), Provider(name="corp", issuer="https://corp.test", keys={"c1": ("ES256", 5)})
        for provider in (self.acme, self.corp):
            self.vault.idps.add(provider.idp(), keys=provider.jwks(), now=NOW)
        self.key_sets = KeySets(self.vault.idps, connect=lambda: contextlib.nullcontext(self.vault.idps), web=None)
        _, story.keys["other-agent"] = self.vault.callers.create("agent", "other-agent", cidrs=(), now=NOW)
        self.ada = self.grant("user:acme/ada", delegable=True)
        self.staff = self.grant("group:acme/staff", delegable=True)

    def grant(self, principal, **options):
        return self.vault.grants.issue("stripe", principal=principal, now=NOW, **options).id

    def token(self, provider=None, *, later=0, **claims):
        provider = provider or self.acme
        provider.now = NOW + int(later)
        return provider.token(kid=next(iter(provider.keys)), **claims)

    def decide(self, grant, *, token=None, later=0.0, headers=(), **changes):
        extra = [(b"X-Alter-User-Token", token.encode())] if token is not None else []
        request = self.story.request(grant=grant, headers=[*headers, *extra], **changes)
        return pipeline.authorize(request, vault=self.vault, now=NOW + later, key_sets=self.key_sets)

    def code(self, grant, **options):
        outcome = self.decide(grant, **options)
        return outcome.code if isinstance(outcome, Refused) else "untagged" if isinstance(outcome, Untagged) else ""

    def user(self, name="ada", *, groups=("staff",), issued_at=NOW - 10, idp="acme"):
        return User(idp=idp, subject=name, groups=frozenset(groups), issuer="https://id.test", token_id="t-1", issued_at=issued_at)  # fmt: skip

    def delegate(self, grant, *, agent="helper", ttl=3600.0, **who):
        return self.vault.delegations.create(grant, agent=agent, user=self.user(**who), now=NOW, ttl=ttl).id


@pytest.fixture
def people(story):
    return People(story)


# ── users and groups ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_users_own_token_makes_the_users_grant_work(people):
    outcome = people.decide(people.ada, token=people.token())
    assert isinstance(outcome, Authorized)
    head = pipeline.inject(outcome, vault=people.vault).head
    assert (b"Authorization", b"Bearer " + people.story.canary.encode()) in head.headers
    assert not [name for name, _ in head.headers if name.lower() == b"x-alter-user-token"]


def test_the_record_names_app_user_and_principal_and_not_the_token(people):
    token = people.token()
    record = people.decide(people.ada, token=token).record
    assert (record.caller, record.user, record.principal) == ("app:billing", "user:acme/ada", "user:acme/ada")
    assert token not in repr(record)


def test_a_user_is_recorded_even_where_the_grant_names_the_app(people):
    outcome = people.decide("stripe", token=people.token())
    assert isinstance(outcome, Authorized)
    assert (outcome.record.user, outcome.record.principal) == ("user:acme/ada", "system:billing")


def test_a_group_grant_works_for_whose_token_lists_the_group(people):
    assert people.code(people.staff, token=people.token(sub="bob")) == ""
    assert people.code(people.staff, token=people.token(sub="bob", groups=[])) == "grant_unavailable"
    assert people.code(people.staff, token=people.token(sub="bob", groups=["Staff", "staff2"])) == "grant_unavailable"


@pytest.mark.parametrize("which", ["ada", "staff"])
def test_without_a_token_an_app_is_told_that_one_is_needed(people, which):
    assert people.code(getattr(people, which)) == "user_token_required"


def test_an_unknown_grant_never_asks_for_a_token(people):
    assert people.code("0" * 36) == "grant_unavailable"


def test_the_token_alone_is_not_a_way_in(people):
    assert people.code(people.ada, token=people.token(), caller=None) == "caller_required"
    assert people.code(people.ada, token=people.token(), caller=keys.mint("app")[0]) == "caller_invalid"


def test_any_app_may_bring_the_user(people):
    assert people.code(people.ada, token=people.token(), caller="other") == ""


def test_equal_names_of_different_providers_never_meet(people):
    assert people.code(people.ada, token=people.token(people.corp)) == "grant_unavailable"
    assert people.code(people.staff, token=people.token(people.corp)) == "grant_unavailable"


def test_a_user_named_like_an_app_or_an_agent_is_neither(people):
    assert people.code(people.grant("user:acme/billing")) == "user_token_required"
    assert people.code("openai", token=people.token(sub="helper"), url="https://api.openai.test/v1/") == "grant_unavailable"  # fmt: skip
    assert people.code(people.grant("user:acme/helper"), caller="helper") == "grant_unavailable"


@pytest.mark.parametrize("which", ["ada", "staff"])
@pytest.mark.parametrize("with_token", [True, False])
def test_an_agent_never_uses_a_users_grant_token_or_not(people, which, with_token):
    token = people.token() if with_token else None
    assert people.code(getattr(people, which), token=token, caller="helper") == "grant_unavailable"


def test_the_token_of_somebody_else_answers_byte_for_byte_as_an_unknown_grant(people):
    token = people.token(sub="eve", groups=[])
    foreign, group, unknown = (people.decide(grant, token=token) for grant in (people.ada, people.staff, "0" * 36))
    told = {(o.code, o.policy, o.retry_after, o.limit) for o in (foreign, group, unknown)}
    assert told == {("grant_unavailable", None, None, None)}


@pytest.mark.parametrize(
    "spoil",
    [
        {"exp": NOW - 100}, {"aud": "other"}, {"iss": "https://evil.test"}, {"sub": None}, {"nonce": "n"}, {"iat": NOW + 500},
    ],
)  # fmt: skip
def test_a_token_that_does_not_verify_is_refused(people, spoil):
    assert people.code(people.ada, token=people.token(**spoil)) == "user_token_invalid"


def test_a_bad_token_is_refused_even_where_none_was_needed(people):
    assert people.code("stripe", token="garbage") == "user_token_invalid"
    assert people.code(None, token="garbage") == "user_token_invalid"
    assert people.code(None, token=people.token()) == "untagged"


def test_a_bad_token_without_a_caller_counts_as_little_as_a_good_one(people):
    assert people.code(None, token="garbage", caller=None) == "untagged"


def test_two_tokens_are_one_too_many(people):
    token = people.token()
    headers = [(b"x-alter-user-token", token.encode())]
    assert people.code(people.ada, token=token, headers=headers) == "user_token_invalid"


def test_blanks_around_the_header_are_not_part_of_the_token(people):
    assert people.code(people.ada, token="\t" + people.token() + " ") == ""


@pytest.mark.parametrize("value", ["", " ", "é", "a.b.c", "Bearer x", "null"])
def test_a_header_that_holds_no_token_is_refused(people, value):
    assert people.code(people.ada, token=value) == "user_token_invalid"


def test_a_token_that_expires_on_the_tunnel_stops_there(people):
    token = people.token(exp=NOW + 300)
    assert people.code(people.ada, token=token, later=359) == ""
    assert people.code(people.ada, token=token, later=360) == "user_token_invalid"


def test_two_users_on_one_tunnel_are_each_judged_alone(people):
    """The key was proved once, on CONNECT; each request brings its own user, or none."""
    tunnel = [(b"X-Alter-Key", people.story.keys["billing"].encode())]
    bob = people.grant("user:acme/bob")
    cases = [("ada", people.ada, ""), ("bob", bob, ""), ("ada", bob, "grant_unavailable"), ("bob", people.ada, "grant_unavailable"), (None, bob, "user_token_required")]  # fmt: skip
    for (name, grant, expected), _ in itertools.product(cases, range(3)):
        token = people.token(sub=name) if name else None
        assert people.code(grant, token=token, caller=None, headers=tunnel) == expected


def test_a_removed_provider_proves_nobody_from_the_next_request_on(people):
    token = people.token()
    assert people.code(people.ada, token=token) == ""
    people.vault.idps.remove("acme", now=NOW)
    assert people.code(people.ada, token=token) == "user_token_invalid"


def test_a_change_of_the_group_claim_holds_from_the_next_request_on(people):
    token = people.token(groups=[], roles=["staff"])
    assert people.code(people.staff, token=token) == "grant_unavailable"
    people.vault.idps.change(people.acme.idp(group_claim="roles"), now=NOW)
    assert people.code(people.staff, token=token) == ""


def test_a_session_key_uses_a_users_grant_only_with_the_user(people):
    _, key = people.vault.callers.mint_key("app", "billing", now=NOW, session=True, grants=(people.ada,))
    assert people.code(None, caller=key) == "user_token_required"
    assert people.code(None, caller=key, token=people.token()) == ""
    assert people.code(people.staff, caller=key, token=people.token()) == "grant_unavailable"
    assert people.code(people.staff, caller=key) == "grant_unavailable"


def test_grants_of_people_revoke_and_expire_like_all_others(people):
    ending = people.grant("user:acme/ada", expires_at=NOW + 10.0)
    assert people.code(ending, token=people.token(), later=10) == "grant_expired"
    assert people.code(ending, token=people.token(sub="eve"), later=10) == "grant_unavailable"
    people.vault.grants.revoke(ids=(people.ada,), now=NOW)
    assert people.code(people.ada, token=people.token()) == "grant_revoked"
    assert people.code(people.ada, token=people.token(sub="eve")) == "grant_unavailable"
    assert people.code(people.ada) == "user_token_required"


def test_without_key_sets_a_token_is_a_fault_not_a_yes(people):
    request = people.story.request(grant=people.ada, headers=[(b"X-Alter-User-Token", people.token().encode())])
    with pytest.raises(Fault):
        pipeline.authorize(request, vault=people.vault, now=NOW)


@pytest.mark.parametrize("step", ["find_token", "authenticate"])
def test_no_step_that_breaks_can_become_a_yes(people, monkeypatch, step):
    def broken(*_args, **_kwargs):
        raise RuntimeError(step)

    monkeypatch.setattr(pipeline.callers, step, broken)
    with pytest.raises(RuntimeError, match=step):
        people.decide(people.ada, token=people.token())


# ── delegation ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("which", ["ada", "staff"])
def test_a_delegation_lets_its_agent_use_the_grant(people, which):
    grant = getattr(people, which)
    delegation = people.delegate(grant)
    outcome = people.decide(delegation, caller="helper")
    assert isinstance(outcome, Authorized)
    record = outcome.record
    assert (record.caller, record.user, record.grant_id, record.delegation_id) == ("agent:helper", "user:acme/ada", grant, delegation)  # fmt: skip
    assert record.principal == ("user:acme/ada" if which == "ada" else "group:acme/staff")


def test_a_delegation_is_for_its_agent_alone(people):
    delegation = people.delegate(people.ada)
    token = people.token()
    for caller, bearing in (("other-agent", None), ("billing", None), ("billing", token), ("other-agent", token)):
        assert people.code(delegation, caller=caller, token=bearing) == "grant_unavailable"
    assert people.code(delegation, caller=None) == "caller_required"
    people.vault.delegations.revoke(delegation, by="operator", now=NOW)
    assert people.code(delegation, caller="other-agent") == "grant_unavailable"
    assert people.code(delegation, caller="helper") == "delegation_revoked"


def test_an_app_named_like_the_agent_is_not_the_agent(people):
    _, people.story.keys["twin"] = people.vault.callers.create("app", "helper", cidrs=(), now=NOW)
    assert people.code(people.delegate(people.ada), caller="twin") == "grant_unavailable"


def test_a_delegation_ends_to_the_second(people):
    delegation = people.delegate(people.ada, ttl=60.0)
    assert people.code(delegation, caller="helper", later=59.9) == ""
    assert people.code(delegation, caller="helper", later=60) == "delegation_expired"


LINKS = {
    "grant revoked": (lambda p: p.vault.grants.revoke(ids=(p.ada,), now=NOW), "delegation_source_lost"),
    "secret disabled": (lambda p: p.vault.secrets.set_state("stripe", "disabled", now=NOW), "secret_disabled"),
    "secret deleted": (lambda p: p.vault.secrets.delete("stripe", now=NOW), "grant_unavailable"),
    "agent disabled": (lambda p: p.vault.callers.set_state("agent", "helper", "disabled", now=NOW), "caller_invalid"),
    "provider removed": (lambda p: p.vault.idps.remove("acme", now=NOW), "delegation_source_lost"),
    "no longer delegable": (lambda p: p.vault.database.conn.execute("UPDATE grants SET delegable = 0"), "delegation_source_lost"),
    "another user named": (lambda p: p.vault.database.conn.execute("UPDATE grants SET principal = 'user:acme/eve'"), "delegation_source_lost"),
    "the group named": (lambda p: p.vault.database.conn.execute("UPDATE grants SET principal = 'group:acme/staff'"), "delegation_source_lost"),
    "delegation revoked": (lambda p: p.vault.delegations.revoke(p.delegation, by="agent:helper", now=NOW), "delegation_revoked"),
}  # fmt: skip


@pytest.mark.parametrize("link", LINKS)
def test_any_link_that_breaks_ends_the_delegation_with_the_next_request(people, link):
    breaks, expected = LINKS[link]
    people.delegation = people.delegate(people.ada)
    assert people.code(people.delegation, caller="helper") == ""
    breaks(people)
    assert people.code(people.delegation, caller="helper") == expected


def test_a_provider_that_comes_back_brings_its_delegations_back(people):
    delegation = people.delegate(people.ada)
    people.vault.idps.remove("acme", now=NOW)
    people.vault.idps.add(people.acme.idp(), keys=people.acme.jwks(), now=NOW)
    assert people.code(delegation, caller="helper") == ""


def test_a_source_that_expires_takes_the_delegation_with_it(people):
    grant = people.grant("user:acme/ada", delegable=True, expires_at=NOW + 50.0)
    delegation = people.delegate(grant)
    people.vault.database.conn.execute("UPDATE delegations SET expires_at = ?", (NOW + 500.0,))
    assert people.code(delegation, caller="helper", later=50) == "delegation_source_lost"


def test_the_policies_of_the_grant_bind_the_agent_too(people):
    grant = people.grant("user:acme/ada", delegable=True, rules=(("methods", {"methods": ["GET"]}),))
    delegation = people.delegate(grant)
    assert people.code(delegation, caller="helper") == ""
    assert people.code(delegation, caller="helper", method="POST") == "policy_denied"


def test_an_agents_session_may_be_limited_to_a_delegation(people):
    delegation = people.delegate(people.ada)
    _, key = people.vault.callers.mint_key("agent", "helper", now=NOW, session=True, grants=(delegation,))
    assert people.code(None, caller=key) == ""
    assert people.code(delegation, caller=key) == ""
    assert people.code(people.delegate(people.staff), caller=key) == "grant_unavailable"


# ── freshness ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_group_delegation_lives_as_long_as_the_proof_is_fresh(people):
    delegation = people.delegate(people.staff, ttl=10.0 * DAY)
    assert people.code(delegation, caller="helper", later=DAY - 11) == ""
    assert people.code(delegation, caller="helper", later=DAY - 10) == "delegation_source_lost"
    people.decide("stripe", token=people.token(later=DAY), later=DAY)
    assert people.code(delegation, caller="helper", later=DAY) == ""


def test_the_freshness_is_the_grants_own(people):
    grant = people.grant("group:acme/staff", delegable=True, proof_seconds=600.0)
    delegation = people.delegate(grant)
    assert people.code(delegation, caller="helper", later=589) == ""
    assert people.code(delegation, caller="helper", later=590) == "delegation_source_lost"


def test_a_newer_token_without_the_group_ends_it_at_once_whatever_it_was_for(people):
    delegation = people.delegate(people.staff)
    assert people.code("stripe", token=people.token(later=5, groups=[]), later=5) == ""
    assert people.code(delegation, caller="helper", later=5) == "delegation_source_lost"


def test_even_when_the_agent_itself_brings_that_token(people):
    delegation = people.delegate(people.staff)
    token = people.token(later=5, groups=[])
    assert people.code(delegation, caller="helper", token=token, later=5) == "delegation_source_lost"


def test_an_older_token_changes_nothing(people):
    delegation = people.delegate(people.staff)
    people.decide("stripe", token=people.token(later=-100, groups=[]))
    assert people.code(delegation, caller="helper") == ""


def test_a_token_that_does_not_verify_ends_nothing(people):
    delegation = people.delegate(people.staff)
    forged = people.token(later=5, groups=[])[:-8] + "AAAAAAAA"
    assert people.code("stripe", token=forged, later=5) == "user_token_invalid"
    assert people.code(delegation, caller="helper", later=5) == ""


def test_losing_a_group_leaves_delegations_of_the_users_own_grants(people):
    delegation = people.delegate(people.ada)
    people.delegate(people.staff)
    people.decide("stripe", token=people.token(later=5, groups=[]), later=5)
    assert people.code(delegation, caller="helper", later=5) == ""


# ── explaining ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_explanation_with_a_user_notes_nothing_and_decides_the_same(people):
    people.delegate(people.staff)
    request = attempt(people.staff, url="https://api.stripe.test/", method="GET", client_ip="127.0.0.1")
    lost = people.user(groups=(), issued_at=NOW + 5)
    caller = Caller(type="app", name="billing", key_id="", user=lost)
    assert explain(request, vault=people.vault, caller=caller, now=NOW).code == "grant_unavailable"
    assert explain(request, vault=people.vault, caller=replace(caller, user=people.user()), now=NOW).decision == "authorized"  # fmt: skip
    assert people.vault.database.conn.execute("SELECT member FROM group_proofs").fetchall() == [(1,)]


# ── the matrix ───────────────────────────────────────────────────────────────────────────────────────────────────────

CALLERS = {"billing": ("app", "billing"), "other": ("app", "other"), "helper": ("agent", "helper"), "other-agent": ("agent", "other-agent"), None: None}  # fmt: skip
TOKENS = {
    None: None,
    "ada": ("acme", "ada", {"staff"}),
    "ada without": ("acme", "ada", set()),
    "bob": ("acme", "bob", {"staff", "ops"}),
    "helper": ("acme", "helper", {"billing"}),
    "billing": ("acme", "billing", set()),
    "corp ada": ("corp", "ada", {"staff"}),
    "bad": "bad",
}
PRINCIPALS = (
    "user:acme/ada", "user:acme/bob", "user:acme/helper", "user:acme/billing", "user:corp/ada", "group:acme/staff", "group:acme/ops",
    "group:corp/staff", "group:acme/billing", "system:billing", "system:other", "agent:helper", "agent:other-agent", "unknown",
)  # fmt: skip


def oracle(principal, caller, token):
    """What must become of it, said as shortly as it can be."""
    if caller is None:
        return "caller_required"
    if token == "bad":
        return "user_token_invalid"
    if principal == "unknown":
        return "grant_unavailable"
    kind, _, name = principal.partition(":")
    who, own_name = caller
    if kind in {"system", "agent"}:
        return "" if (kind, name) == ({"app": "system"}.get(who, who), own_name) else "grant_unavailable"
    if who == "agent":
        return "grant_unavailable"
    if token is None:
        return "user_token_required"
    idp, subject, groups = token
    held = {f"{idp}/{subject}"} if kind == "user" else {f"{idp}/{group}" for group in groups}
    return "" if name in held else "grant_unavailable"


def test_principals_callers_and_tokens_meet_exactly_as_the_oracle_says(people):
    grants = {principal: people.grant(principal) if ":" in principal else "0" * 36 for principal in PRINCIPALS}
    providers = {"acme": people.acme, "corp": people.corp}
    tokens = {
        name: made if made is None or made == "bad" else people.token(providers[made[0]], sub=made[1], groups=sorted(made[2]))
        for name, made in TOKENS.items()
    }  # fmt: skip
    for principal, caller, token in itertools.product(PRINCIPALS, CALLERS, TOKENS):
        found = people.code(grants[principal], caller=caller, token=tokens[token])
        assert found == oracle(principal, CALLERS[caller], TOKENS[token]), (principal, caller, token)


NODES = ("grant", "secret", "agent", "idp", "delegation", "delegable", "time", "member", "fresh")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(broken=st.sets(st.sampled_from(NODES)), group=st.booleans())
def test_a_delegation_works_exactly_if_every_link_holds(people, broken, group):
    vault = people.vault
    grant = people.grant("group:acme/staff" if group else "user:acme/ada", delegable=True)
    connection = vault.database.conn
    delegation = people.delegate(grant, ttl=3600.0)
    try:
        if "grant" in broken:
            vault.grants.revoke(ids=(grant,), now=NOW)
        if "secret" in broken:
            vault.secrets.set_state("stripe", "disabled", now=NOW)
        if "agent" in broken:
            vault.callers.set_state("agent", "helper", "disabled", now=NOW)
        if "idp" in broken:
            vault.idps.remove("acme", now=NOW)
        if "delegation" in broken:
            vault.delegations.revoke(delegation, by="operator", now=NOW)
        if "delegable" in broken:
            connection.execute("UPDATE grants SET delegable = 0 WHERE id = ?", (grant,))
        if "member" in broken:
            connection.execute("UPDATE group_proofs SET member = 0")
        if "fresh" in broken:
            connection.execute("UPDATE group_proofs SET proven_at = 0")
        later = 3600.0 if "time" in broken else 0.0
        decisive = broken - (set() if group else {"member", "fresh"})
        assert (people.code(delegation, caller="helper", later=later) == "") == (not decisive)
    finally:
        vault.secrets.set_state("stripe", "active", now=NOW)
        vault.callers.set_state("agent", "helper", "active", now=NOW)
        with contextlib.suppress(Exception):
            vault.idps.add(people.acme.idp(), keys=people.acme.jwks(), now=NOW)
        connection.execute("DELETE FROM group_proofs")


def test_revoking_while_others_use_it_is_seen_by_every_request_that_starts_after(people):
    """Each thread has its own connection; no request that began after the commit may be authorized."""
    delegation = people.delegate(people.ada)
    committed, used, mistakes = threading.Event(), threading.Event(), []

    def use():
        from addon.vault import Vault  # noqa: PLC0415

        vault = Vault.connect(people.vault.home, writable=False)
        request = people.story.request(grant=delegation, caller="helper")
        for _ in range(200):
            after = committed.is_set()
            outcome = pipeline.authorize(request, vault=vault, now=NOW)
            used.set()
            if after and isinstance(outcome, Authorized):
                mistakes.append(outcome)
        vault.close()

    threads = [threading.Thread(target=use) for _ in range(3)]
    for thread in threads:
        thread.start()
    used.wait(5)
    people.vault.delegations.revoke(delegation, by="operator", now=NOW)
    committed.set()
    for thread in threads:
        thread.join()
    assert mistakes == []
    assert people.code(delegation, caller="helper") == "delegation_revoked"


def test_no_answer_tells_more_to_a_stranger_than_that_there_is_nothing(people):
    """Unknown, foreign, revoked, expired, a delegation of another agent: the client is told the same in every field."""
    revoked = people.grant("user:acme/ada")
    people.vault.grants.revoke(ids=(revoked,), now=NOW)
    ids = [people.ada, people.staff, revoked, people.grant("user:acme/ada", expires_at=NOW + 1.0), people.delegate(people.ada), "0" * 36, people.story.grants["openai"]]  # fmt: skip
    token = people.token(sub="eve", groups=["nobody"])
    outcomes = [people.decide(grant, token=token, caller="other", later=5) for grant in ids]
    assert {(o.code, o.policy, o.retry_after, o.limit) for o in outcomes} == {("grant_unavailable", None, None, None)}
    assert outcomes[0].code == "grant_unavailable"


# ── what goes on for long ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("later", "change", "expected"),
    [
        (0, None, ""),
        (359, None, ""),
        (360, None, "user_token_invalid"),
        (0, lambda p: p.vault.idps.remove("acme", now=NOW), "user_token_invalid"),
    ],
)
def test_what_a_user_was_allowed_goes_on_no_longer_than_the_token(people, later, change, expected):
    outcome = people.decide(people.ada, token=people.token(exp=int(NOW) + 300))
    assert isinstance(outcome, Authorized)
    if change:
        change(people)
    with pytest.raises(Refusal, match=expected) if expected else contextlib.nullcontext():
        pipeline.recheck(outcome, vault=people.vault, now=NOW + later)
