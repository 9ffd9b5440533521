"""What the proxy tells its callers about themselves: only what is theirs, never a value, and consent only by the user."""

import contextlib
import json
import re

import pytest

from addon import pipeline, selfservice
from addon.callers.key_sets import KeySets
from addon.errors import Refusal
from addon.pipeline import Local
from addon.selfservice import HOST, SelfService
from tests.provider import NOW, Provider


class Desk:
    """The story's vault with a provider, and requests to alter.internal."""

    def __init__(self, story):
        self.story, self.vault = story, story.vault
        self.acme = Provider()
        self.vault.idps.add(self.acme.idp(), keys=self.acme.jwks(), now=NOW)
        self.key_sets = KeySets(self.vault.idps, connect=lambda: contextlib.nullcontext(self.vault.idps), web=None)
        self.service = SelfService(self.vault)
        self.grant = self.issue("user:acme/ada")

    def issue(self, principal, **options):
        return self.vault.grants.issue("stripe", principal=principal, now=NOW, **({"delegable": True} | options)).id

    def request(self, method, path, *, caller="billing", user=None, headers=(), **changes):
        token = [(b"X-Alter-User-Token", self.acme.token(sub=user).encode())] if user else []
        return self.story.request(
            grant=None, caller=caller, url=f"https://{HOST}{path}", method=method, headers=[*headers, *token], **changes
        )

    def ask(self, method, path, *, body=b"", later=0.0, **options):
        """(status, document), or (0, code) for a refusal."""
        request = self.request(method, path, **options)
        local = pipeline.receive(request, vault=self.vault, now=NOW + later, key_sets=self.key_sets)
        if not isinstance(local, Local):
            return 0, local.code
        try:
            answer = self.service.answer(request, body, caller=local.caller, now=NOW + later)
        except Refusal as refusal:
            return 0, refusal.code
        assert (b"Cache-Control", b"no-store") in answer.headers
        assert self.story.canary.encode() not in answer.body
        return answer.status, json.loads(answer.body) if answer.body else None

    def create(self, *, user="ada", kind=b"application/json", **members):
        body = {"grant_id": self.grant, "agent": "helper"} | members
        body = json.dumps({k: v for k, v in body.items() if v is not ...}).encode()
        return self.ask("POST", "/v1/delegations", body=body, user=user, headers=[(b"Content-Type", kind)])


@pytest.fixture
def desk(story):
    return Desk(story)


# ── who may ask ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"caller": None}, "caller_required"),
        ({"caller": "garbage"}, "caller_invalid"),
        ({"scheme": "http"}, "cleartext_upstream"),
        ({"absolute_scheme": "http"}, "authority_mismatch"),
        ({"port": 8443}, "authority_mismatch"),
        ({"authorities": ()}, "header_forbidden"),
        ({"authorities": (b"evil.test",)}, "authority_mismatch"),
        ({"authorities": (b"alter.internal", b"evil.test")}, "authority_mismatch"),
        ({"authorities": (b"alter.internal:80",)}, "authority_mismatch"),
        ({"headers": [(b"X-Alter-User-Token", b"garbage")]}, "user_token_invalid"),
    ],
)
def test_the_proofs_are_those_of_any_request(desk, changes, code):
    assert desk.ask("GET", "/v1/whoami", **changes) == (0, code)


def test_an_unknown_caller_learns_nothing_not_even_what_there_is(desk):
    assert {desk.ask("GET", path, caller=None) for path in ("/v1/whoami", "/v1/openapi.json", "/nothing")} == {(0, "caller_required")}  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/"), ("GET", "/v1"), ("POST", "/v1/whoami"), ("GET", "/v1/whoami?x=1"), ("GET", "/v1/whoami/"), ("PUT", "/v1/grants"), ("DELETE", "/v1/delegations"), ("GET", "/v1/delegations/" + "0" * 36), ("OPTIONS", "/v1/whoami"), ("GET", "/v1/../v1/whoami")],
)  # fmt: skip
def test_there_is_nothing_else(desk, method, path):
    assert desk.ask(method, path) == (0, "not_found")


# ── whoami, grants ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_caller_is_told_who_it_is(desk):
    assert desk.ask("GET", "/v1/whoami") == (200, {"caller": {"type": "app", "name": "billing"}, "user": None, "verified": ["key"]})  # fmt: skip
    _, document = desk.ask("GET", "/v1/whoami", user="ada")
    assert document["user"] == {"idp": "acme", "subject": "ada", "groups": ["staff"], "expires_at": NOW + 600}
    assert document["verified"] == ["key", "user_token"]


def test_a_caller_sees_the_grants_it_could_use_now_and_no_others(desk):
    def seen(**options):
        return {grant["id"] for grant in desk.ask("GET", "/v1/grants", **options)[1]["grants"]}

    staff, ended = desk.issue("group:acme/staff"), desk.issue("user:acme/ada", expires_at=NOW + 1.0)
    revoked = desk.issue("user:acme/ada")
    desk.vault.grants.revoke(ids=(revoked,), now=NOW)
    own = desk.story.grants
    assert seen() == {own["stripe"]}
    assert seen(user="ada") == {own["stripe"], desk.grant, staff, ended}
    assert seen(user="ada", later=5) == {own["stripe"], desk.grant, staff}
    assert seen(user="eve") == {own["stripe"], staff}
    assert seen(caller="other") == set()
    assert seen(caller="helper") == seen(caller="helper", user="ada") == {own["openai"]}


def test_a_grant_is_described_without_its_value(desk):
    [grant] = [each for each in desk.ask("GET", "/v1/grants", user="ada")[1]["grants"] if each["id"] == desk.grant]
    assert grant == {"id": desk.grant, "secret": "stripe", "hosts": ["api.stripe.test:443"], "expires_at": None, "delegable": True, "for_user": None}  # fmt: skip


def test_an_agent_sees_the_delegations_that_hold(desk):
    made = desk.create()[1]["id"]
    grants = {each["id"]: each["for_user"] for each in desk.ask("GET", "/v1/grants", caller="helper")[1]["grants"]}
    assert grants == {desk.story.grants["openai"]: None, made: "user:acme/ada"}
    desk.vault.grants.revoke(ids=(desk.grant,), now=NOW)
    assert made not in json.dumps(desk.ask("GET", "/v1/grants", caller="helper"))


def test_a_session_sees_only_what_it_may_use(desk):
    _, key = desk.vault.callers.mint_key("app", "billing", now=NOW, session=True, grants=(desk.grant,))
    assert [each["id"] for each in desk.ask("GET", "/v1/grants", caller=key, user="ada")[1]["grants"]] == [desk.grant]


def test_a_disabled_secret_is_not_listed(desk):
    desk.vault.secrets.set_state("stripe", "disabled", now=NOW)
    assert desk.ask("GET", "/v1/grants", user="ada") == (200, {"grants": []})


# ── delegations ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_user_of_an_app_makes_a_delegation_that_works(desk):
    status, made = desk.create(ttl_seconds=600)
    assert (status, made["user"], made["agent"], made["expires_at"]) == (201, "user:acme/ada", "helper", NOW + 600)
    assert isinstance(desk.story.decide(grant=made["id"], caller="helper"), pipeline.Authorized)


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"grant_id": ...}, "request_malformed"), ({"agent": ...}, "request_malformed"), ({"grant_id": 5}, "request_malformed"),
        ({"ttl_seconds": "600"}, "request_malformed"), ({"ttl_seconds": 0}, "request_malformed"), ({"ttl_seconds": True}, "request_malformed"),
        ({"ttl_seconds": 1.5}, "request_malformed"), ({"ttl_seconds": 1 << 40}, "request_malformed"), ({"extra": 1}, "request_malformed"),
        ({"kind": b"text/plain"}, "request_malformed"), ({"kind": b"application/x-www-form-urlencoded"}, "request_malformed"),
        ({"grant_id": "0" * 36}, "not_found"), ({"agent": "nobody"}, "not_found"),
    ],
)  # fmt: skip
def test_an_order_that_is_not_understood_makes_nothing(desk, members, code):
    assert desk.create(**members) == (0, code)
    assert desk.vault.delegations.list() == []


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"grant_id":"a","grant_id":"b","agent":"c"}', b"\xff", b"[" * 9000]
)
def test_a_body_that_is_no_object_makes_nothing(desk, body):
    headers = [(b"Content-Type", b"application/json")]
    assert desk.ask("POST", "/v1/delegations", body=body, user="ada", headers=headers) == (0, "request_malformed")


def test_only_the_user_consents(desk):
    assert desk.create(user=None) == (0, "user_token_required")
    assert desk.create(user="eve") == (0, "not_found")
    body = json.dumps({"grant_id": desk.grant, "agent": "helper"}).encode()
    headers = [(b"Content-Type", b"application/json")]
    assert desk.ask("POST", "/v1/delegations", body=body, user="ada", caller="helper", headers=headers) == (0, "grant_unavailable")  # fmt: skip


def test_what_cannot_be_delegated_is_said_to_be_so(desk):
    assert desk.create(grant_id=desk.issue("user:acme/ada", delegable=False)) == (0, "not_delegable")
    desk.vault.callers.set_state("agent", "helper", "disabled", now=NOW)
    assert desk.create() == (0, "not_delegable")


def test_users_and_agents_see_their_own_delegations(desk):
    made = desk.create()[1]["id"]
    assert [each["id"] for each in desk.ask("GET", "/v1/delegations", user="ada")[1]["delegations"]] == [made]
    assert [each["id"] for each in desk.ask("GET", "/v1/delegations", caller="helper")[1]["delegations"]] == [made]
    assert desk.ask("GET", "/v1/delegations", user="eve") == (200, {"delegations": []})
    assert desk.ask("GET", "/v1/delegations") == (0, "user_token_required")


@pytest.mark.parametrize(("who", "by"), [({"user": "ada"}, "user:acme/ada"), ({"caller": "helper"}, "agent:helper")])
def test_the_user_or_the_agent_ends_a_delegation(desk, who, by):
    made = desk.create()[1]["id"]
    assert desk.ask("DELETE", f"/v1/delegations/{made}", **who) == (204, None)
    assert desk.ask("DELETE", f"/v1/delegations/{made}", **who) == (204, None)
    assert desk.vault.delegations.get(made).revoked_by == by


def test_nobody_else_does(desk):
    made = desk.create()[1]["id"]
    _, desk.story.keys["stranger"] = desk.vault.callers.create("agent", "stranger", cidrs=(), now=NOW)
    for who in ({"user": "eve"}, {"caller": "stranger"}, {"caller": "stranger", "user": "ada"}):
        assert desk.ask("DELETE", f"/v1/delegations/{made}", **who) == (0, "not_found")
    assert desk.ask("DELETE", f"/v1/delegations/{made}") == (0, "user_token_required")
    assert desk.vault.delegations.get(made).revoked_at is None


# ── the description ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_description_names_every_route_and_no_other(desk):
    document = selfservice.openapi()
    described = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    routes = {(method, path.decode()) for method, path in selfservice._ROUTES}
    routes |= {
        ("DELETE", "/v1/delegations/{id}"),
        ("POST", "/v1/approvals/{id}"),
        ("GET", "/consent"),
        ("POST", "/consent"),
    }
    assert described == routes
    assert desk.ask("GET", "/v1/openapi.json") == (200, document)


def test_every_answer_has_the_members_that_are_described(desk):
    schemas = selfservice.openapi()["components"]["schemas"]
    desk.create()
    answers = {
        "Identity": desk.ask("GET", "/v1/whoami", user="ada")[1],
        "Grant": desk.ask("GET", "/v1/grants", user="ada")[1]["grants"][0],
        "Delegation": desk.ask("GET", "/v1/delegations", user="ada")[1]["delegations"][0],
    }
    for name, answer in answers.items():
        assert set(answer) == set(schemas[name]["required"]) == set(schemas[name]["properties"])
    references = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(selfservice.openapi())))
    assert references == set(schemas)
