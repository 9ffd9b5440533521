"""Grants: issued to somebody who is there, ended at a time or by hand, and listed as they stand."""

import math

import pytest

from addon.binding import Binding
from addon.errors import Fault, NotFound, Usage
from addon.pipeline import Authorized

NOW = 1_800_000_000.0


@pytest.fixture
def grants(story):
    return story.vault.grants


def test_a_grant_holds_what_it_was_issued_with(grants):
    rules = (("methods", {"methods": ["GET"]}),)
    issued = grants.issue("stripe", principal="system:billing", now=NOW, expires_at=NOW + 60, label="why", rules=rules)
    assert grants.get(issued.id) == issued
    assert (issued.secret, issued.principal, issued.label, issued.policies) == (
        "stripe",
        "system:billing",
        "why",
        rules,
    )
    assert (issued.created_at, issued.expires_at, issued.revoked_at) == (NOW, NOW + 60, None)
    assert len(issued.id) == 36


def test_no_two_grants_share_an_id(grants):
    assert len({grants.issue("stripe", principal="system:billing", now=NOW).id for _ in range(50)}) == 50


@pytest.mark.parametrize(
    ("secret", "principal", "error"),
    [
        ("nowhere", "system:billing", NotFound),
        ("Stripe", "system:billing", NotFound),
        ("stripe", "system:nobody", NotFound),
        ("stripe", "agent:billing", NotFound),
        ("stripe", "system:helper", NotFound),
        ("stripe", "billing", Usage),
        ("stripe", "system:", Usage),
        ("stripe", "system:*", Usage),
        ("stripe", "", Usage),
    ],
)
def test_a_grant_names_a_secret_and_somebody_who_are_there(grants, secret, principal, error):
    before = grants.list()
    with pytest.raises(error) as refused:
        grants.issue(secret, principal=principal, now=NOW)
    assert refused.value.hint
    assert grants.list() == before


@pytest.mark.parametrize("expires_at", [NOW, NOW - 1, 0.0, -math.inf, math.nan])
def test_a_grant_that_would_never_work_or_never_end_by_accident_is_not_issued(grants, expires_at):
    with pytest.raises(Usage, match="expire at once"):
        grants.issue("stripe", principal="system:billing", now=NOW, expires_at=expires_at)


def test_a_grant_is_active_until_it_expires_or_is_revoked(grants):
    grant = grants.issue("stripe", principal="system:billing", now=NOW, expires_at=NOW + 60)
    assert (grant.state(NOW + 59.9), grant.state(NOW + 60)) == ("active", "expired")
    grants.revoke(ids=(grant.id,), now=NOW + 1, reason="left")
    revoked = grants.get(grant.id)
    assert (revoked.state(NOW), revoked.state(NOW + 60), revoked.revoked_reason) == ("revoked", "revoked", "left")


def test_grants_are_listed_by_secret_principal_and_state(story, grants):
    expired = grants.issue("stripe", principal="agent:helper", now=NOW + 1, expires_at=NOW + 2).id
    revoked = grants.issue("openai", principal="system:billing", now=NOW + 3).id
    grants.revoke(ids=(revoked,), now=NOW + 4)

    def listed(**filters):
        return [grant.id for grant in grants.list(now=NOW + 5, **filters)]

    stripe, openai = story.grants["stripe"], story.grants["openai"]
    assert set(listed()) == {stripe, openai, expired, revoked}
    assert listed()[-2:] == [expired, revoked]
    assert listed(secret="stripe") == [stripe, expired]
    assert listed(principal="agent:helper") == [openai, expired]
    assert listed(secret="stripe", principal="agent:helper") == [expired]
    assert listed(principal="agent:nobody") == []
    assert (listed(state="expired"), listed(state="revoked")) == ([expired], [revoked])
    assert set(listed(state="active")) == {stripe, openai}
    with pytest.raises(NotFound):
        listed(secret="nowhere")


def test_a_revocation_names_grants_a_secret_or_a_principal(story, grants):
    second = grants.issue("stripe", principal="agent:helper", now=NOW).id
    third = grants.issue("openai", principal="system:billing", now=NOW).id
    assert grants.revoke(ids=(second,), now=NOW) == [second]
    assert grants.revoke(secret="stripe", now=NOW) == [story.grants["stripe"]]
    assert grants.revoke(principal="system:billing", now=NOW) == [third]
    assert [grant.id for grant in grants.list(state="active")] == [story.grants["openai"]]


def test_a_revocation_that_names_nothing_revokes_nothing(grants):
    with pytest.raises(Usage, match="nothing is named"):
        grants.revoke(now=NOW)
    assert len(grants.list(state="active")) == 2


def test_a_revocation_that_names_one_unknown_grant_revokes_none(story, grants):
    for unknown in ("0" * 36, "", "%"):
        with pytest.raises(NotFound):
            grants.revoke(ids=(story.grants["stripe"], unknown), now=NOW)
    assert isinstance(story.decide(), Authorized)


def test_the_first_revocation_is_the_one_that_counts(story, grants):
    grant = story.grants["stripe"]
    assert grants.revoke(ids=(grant, grant), now=NOW + 1, reason="first") == [grant]
    assert grants.revoke(ids=(grant,), now=NOW + 2, reason="second") == []
    assert (grants.get(grant).revoked_at, grants.get(grant).revoked_reason) == (NOW + 1, "first")


def test_a_revoked_grant_never_comes_back(story, grants):
    grants.revoke(ids=(story.grants["stripe"],), now=NOW)
    story.vault.secrets.rotate("stripe", values={"token": "new"}, now=NOW)
    story.vault.secrets.bind(
        "stripe", binding=Binding(hosts=(("api.stripe.test", 443),)), values={"token": "x"}, now=NOW
    )
    assert story.decide().code == "grant_revoked"


def test_policies_that_cannot_be_read_are_a_fault_and_no_grant_without_policies(story, grants):
    story.vault.database.conn.execute("UPDATE grants SET policies = '{}'")
    with pytest.raises(Fault):
        grants.list()
    with pytest.raises(Fault):
        story.decide()


def test_a_grant_can_be_revoked_whatever_else_cannot_be_read(story, grants):
    story.vault.database.conn.execute("UPDATE grants SET policies = '{}'")
    story.vault.database.conn.execute("UPDATE versions SET binding = x'7b7d'")
    assert grants.revoke(ids=(story.grants["openai"],), now=NOW) == [story.grants["openai"]]
    assert grants.revoke(secret="stripe", now=NOW) == [story.grants["stripe"]]


def test_a_grant_that_cannot_be_read_hides_no_other(story, grants):
    story.vault.database.conn.execute("UPDATE grants SET policies = '{}' WHERE id = ?", (story.grants["openai"],))
    assert grants.get(story.grants["stripe"]).principal == "system:billing"
    assert isinstance(story.decide(), Authorized)
    with pytest.raises(Fault):
        grants.get(story.grants["openai"])
