"""Users, groups and delegations through the real proxy, with a live identity provider, over both engines."""

import time

import pytest

from tests.callers.conftest import LiveProvider
from tests.e2e.product import routes
from tests.e2e.stage import HOSTS, VALUES, Stage, refusal
from tests.provider import Provider

HOST = HOSTS["bearer"]
CREDENTIAL = "Bearer " + VALUES["bearer"]["token"]


class People:
    """A proxy, a live provider registered as `acme`, an agent, and grants to a user and a group."""

    def __init__(self, stage, live, tmp_path, authority_file):
        self.stage, self.live, self.folder = stage, live, tmp_path
        self.vaultctl = stage.vaultctl
        live.provider.now = int(time.time())
        self.ca = authority_file
        self.register()
        self.agent_key = self.vaultctl.agent("assistant")
        self.ada = self.vaultctl.grant("bearer", "user:acme/ada", "--delegable")
        self.bob = self.vaultctl.grant("bearer", "user:acme/bob")
        self.staff = self.vaultctl.grant("bearer", "group:acme/staff", "--delegable")

    def register(self):
        provider = self.live.provider
        self.vaultctl.run("idp", "add", "acme", "--issuer", provider.issuer, "--audience", provider.audience,
                          "--group-claim", "groups", "--upstream-ca", self.ca)  # fmt: skip

    def token(self, name="ada", **claims):
        return self.live.provider.token(sub=name, **claims)

    def headers(self, grant, token=None):
        return {"X-Alter-Grant": grant} | ({"X-Alter-User-Token": token} if token else {})

    def ask(self, client, grant, token=None):
        return client.get(f"https://{HOST}/echo", headers=self.headers(grant, token))

    def until(self, condition, *, seconds=10):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def delegate(self, grant, **claims):
        path = self.folder / "token.txt"
        path.write_text(self.token(**claims))
        return self.vaultctl.json("delegation", "create", "--grant", grant, "--agent", "assistant", "--user-token-file",
                                  path, "--upstream-ca", self.ca)["delegation_id"]  # fmt: skip


@pytest.fixture(scope="module")
def _people(engine, seed, tmp_path_factory, _upstream, authority, authority_file):
    folder, live = tmp_path_factory.mktemp("identity"), LiveProvider(authority)
    options = ["--upstream-ca", authority_file, *routes(_upstream)]
    with Stage.open(seed, folder / "home", *options, engine=engine) as stage:
        people = People(stage, live, folder, authority_file)
        with stage.client() as client:
            people.until(lambda: people.ask(client, people.ada, people.token()).status_code == 200)
        yield people
    live.stop()


@pytest.fixture
def people(_people, upstream):
    """The upstream has seen nothing yet."""
    return _people


def test_two_users_on_one_kept_alive_tunnel_are_each_judged_alone(people, upstream):
    with people.stage.client() as client:
        for name, grant, code in 3 * [
            ("ada", people.ada, None),
            ("bob", people.bob, None),
            ("ada", people.bob, "grant_unavailable"),
            ("bob", people.ada, "grant_unavailable"),
            (None, people.ada, "user_token_required"),
        ]:
            answer = people.ask(client, grant, people.token(name) if name else None)
            if code is None:
                assert answer.status_code == 200, answer.text
            else:
                status = 401 if code == "user_token_required" else 403
                refusal(answer, code, status=status, stage=people.stage)
                assert ("www-authenticate" in answer.headers) == (status == 401)
    assert [request.header("authorization") for request in upstream.seen()] == 6 * [CREDENTIAL]


def test_neither_token_nor_key_reaches_the_upstream_tagged_or_not(people, upstream):
    token = people.token()
    with people.stage.client() as client:
        assert people.ask(client, people.ada, token).status_code == 200
        assert client.get(f"https://{HOST}/echo", headers={"X-Alter-User-Token": token}).status_code == 200
    assert len(upstream.seen()) == 2
    for request in upstream.seen():
        assert token.encode() not in request.raw
        assert not [name for name, _ in request.headers if b"alter" in name.lower()]


def test_the_audit_names_app_and_user_and_holds_no_token(people):
    token = people.token()
    with people.stage.client() as client:
        people.ask(client, people.ada, token)
        refused = people.ask(client, people.bob, token)
    record = people.stage.audit(refused.headers["x-alter-request-id"])
    assert (record["caller"], record["user"], record["code"]) == ("app:billing", "user:acme/ada", "grant_unavailable")
    written = b"".join(path.read_bytes() for path in (people.vaultctl.home / "audit").rglob("*") if path.is_file())
    assert b"user:acme/ada" in written
    assert not any(part.encode() in written for part in token.split("."))


def test_a_token_that_does_not_verify_is_refused_with_all_its_headers(people, upstream):
    with people.stage.client() as client:
        for token in (people.token(aud="other"), people.token(exp=int(time.time()) - 100), people.token()[:-9] + "AAAAAAAAA"):  # fmt: skip
            refusal(people.ask(client, people.ada, token), "user_token_invalid", status=401, stage=people.stage)
        twice = [
            ("X-Alter-Grant", people.ada),
            ("X-Alter-User-Token", people.token()),
            ("X-Alter-User-Token", people.token()),
        ]
        refusal(client.get(f"https://{HOST}/echo", headers=twice), "user_token_invalid", status=401)
    assert upstream.untouched()


def test_a_delegation_serves_its_agent_until_the_user_ends_it(people, upstream):
    delegation = people.delegate(people.ada)
    with people.stage.proxy.client("assistant", people.agent_key) as agent, people.stage.client() as app:
        answer = people.ask(agent, delegation)
        assert answer.status_code == 200
        assert upstream.last.header("authorization") == CREDENTIAL
        refusal(people.ask(app, delegation, people.token()), "grant_unavailable", status=403)
        refusal(people.ask(agent, people.ada, people.token()), "grant_unavailable", status=403)
        record = [each for each in people.stage.records(grant=people.ada) if each["status"] == 200][-1]
        assert (record["caller"], record["user"], record["delegation_id"]) == ("agent:assistant", "user:acme/ada", delegation)  # fmt: skip
        people.vaultctl.run("delegation", "revoke", delegation)
        refusal(people.ask(agent, delegation), "delegation_revoked", status=403, stage=people.stage)


def test_a_newer_token_without_the_group_ends_a_delegation_of_the_group_at_once(people):
    delegation = people.delegate(people.staff)
    with people.stage.proxy.client("assistant", people.agent_key) as agent, people.stage.client() as app:
        assert people.ask(agent, delegation).status_code == 200
        people.ask(app, people.ada, people.token(groups=[], iat=int(time.time()) + 2))
        refusal(people.ask(agent, delegation), "delegation_source_lost", status=403, stage=people.stage)


def test_a_removed_provider_proves_nobody_until_it_is_back(people):
    with people.stage.client() as client:
        assert people.ask(client, people.ada, people.token()).status_code == 200
        people.vaultctl.run("idp", "remove", "acme", "--yes")
        refusal(people.ask(client, people.ada, people.token()), "user_token_invalid", status=401)
        people.register()
        people.until(lambda: people.ask(client, people.ada, people.token()).status_code == 200)


def test_a_provider_registered_while_the_proxy_runs_is_there_within_seconds(people, authority):
    second = LiveProvider(authority)
    try:
        second.provider = Provider(issuer=second.url, name="second", now=int(time.time()))
        people.vaultctl.run("idp", "add", "second", "--issuer", second.url, "--audience", second.provider.audience,
                            "--upstream-ca", people.ca)  # fmt: skip
        grant = people.vaultctl.grant("bearer", "user:second/ada")
        with people.stage.client() as client:
            people.until(lambda: people.ask(client, grant, second.provider.token()).status_code == 200)
            refusal(people.ask(client, grant, people.token()), "grant_unavailable", status=403)
    finally:
        second.stop()


# ── https://alter.internal/ ──────────────────────────────────────────────────────────────────────────────────────────

INSIDE = "https://alter.internal"


def test_a_user_makes_sees_and_ends_a_delegation_over_http(people, upstream):
    user = {"X-Alter-User-Token": people.token()}
    with people.stage.client() as app, people.stage.proxy.client("assistant", people.agent_key) as agent:
        about = app.get(f"{INSIDE}/v1/whoami", headers=user)
        assert (about.status_code, about.headers["content-type"]) == (200, "application/json")
        assert (about.json()["caller"]["name"], about.json()["user"]["subject"]) == ("billing", "ada")
        made = app.post(f"{INSIDE}/v1/delegations", headers=user, json={"grant_id": people.ada, "agent": "assistant"})
        assert made.status_code == 201, made.text
        delegation = made.json()["id"]
        assert people.ask(agent, delegation).status_code == 200
        assert delegation in agent.get(f"{INSIDE}/v1/grants").text
        ended = app.delete(f"{INSIDE}/v1/delegations/{delegation}", headers=user)
        assert (ended.status_code, ended.content) == (204, b"")
        refusal(people.ask(agent, delegation), "delegation_revoked", status=403)
        listed = app.get(f"{INSIDE}/v1/delegations", headers=user).json()["delegations"]
        assert {each["state"] for each in listed if each["id"] == delegation} == {"revoked"}
        record = people.stage.audit(made.headers["x-alter-request-id"])
    assert (record["host"], record["caller"], record["user"], record["status"]) == ("alter.internal", "app:billing", "user:acme/ada", 201)  # fmt: skip
    assert not upstream.seen("alter.internal")


def test_inside_nobody_is_answered_without_a_key_and_everything_has_its_refusal(people):
    with people.stage.client() as app, people.stage.proxy.client() as nobody:
        refusal(nobody.get(f"{INSIDE}/v1/whoami"), "caller_required", status=407)
        refusal(app.get(f"{INSIDE}/nothing"), "not_found", status=404, stage=people.stage)
        refusal(app.post(f"{INSIDE}/v1/delegations", json={}), "user_token_required", status=401, stage=people.stage)
        user = {"X-Alter-User-Token": people.token()}
        refusal(app.post(f"{INSIDE}/v1/delegations", headers=user, content=b"x"), "request_malformed", status=400)
        refusal(app.post(f"{INSIDE}/v1/delegations", headers=user, json={"grant_id": people.bob, "agent": "assistant"}), "not_found", status=404)  # fmt: skip
        refusal(app.post(f"{INSIDE}/v1/delegations", headers=user, content=b"x" * 20_000), "body_too_large", status=413)
        assert app.get(f"{INSIDE}/v1/whoami").status_code == 200


def test_inside_is_reached_by_http2_too(people):
    with people.stage.client(http2=True) as app:
        answer = app.get(f"{INSIDE}/v1/openapi.json")
        assert (answer.status_code, answer.json()["openapi"]) == (200, "3.1.0")
