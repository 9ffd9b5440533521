"""`idp`, `delegation`, and what they add to `grant`: the commands as an operator and a user type them."""

import json
import time

import pytest
import trustme

from addon.callers.idp import presets
from addon.vault import Vault
from tests.callers.conftest import LiveProvider
from tests.provider import Provider

SECRET = "8f1d2c3b4a59687706f5e4d3c2b1a09f8e7d6c5b4a39281706f5e4d3c2b1a0ff"


@pytest.fixture
def provider():
    return Provider(now=int(time.time()))


@pytest.fixture
def write(tmp_path):
    """Put text into a file; gives its name."""

    def put(data, name="file"):
        path = tmp_path / name
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return str(path)

    return put


@pytest.fixture
def acme(cli, provider, write):
    ran = cli("idp", "add", "acme", "--issuer", provider.issuer, "--audience", provider.audience, "--group-claim", "groups",
              "--jwks-file", write(provider.jwks(), "jwks"), "--json")  # fmt: skip
    assert ran.code == 0, ran.err
    return provider


@pytest.fixture
def live(tmp_path):
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "idp-ca.pem")
    provider = LiveProvider(ca)
    provider.ca = str(tmp_path / "idp-ca.pem")
    provider.provider.now = int(time.time())
    yield provider
    provider.stop()


# ── add, list, show, change, remove ──────────────────────────────────────────────────────────────────────────────────


def test_a_provider_is_registered_with_issuer_and_audience(cli, acme):
    [listed] = cli("idp", "list", "--json").json
    assert (listed["name"], listed["issuer"], listed["audiences"], listed["keys"]) == ("acme", "https://id.test", ["https://egress.test"], "file")  # fmt: skip
    assert cli("idp", "show", "acme", "--json").json["grants"] == 0
    assert "acme" in cli("idp").out


@pytest.mark.parametrize("slug", sorted(presets()))
def test_with_a_preset_the_audience_is_enough_or_issuer_and_audience(cli, write, provider, slug):
    issuer = [] if presets()[slug].only_issuer else ["--issuer", "https://id.test/x"]
    ran = cli("idp", "add", "p", "--preset", slug, *issuer, "--audience", "api", "--jwks-file", write(provider.jwks()), "--alg", "RS256", "--json")  # fmt: skip
    assert ran.code == 0, ran.err
    assert presets()[slug].note in ran.err


def test_a_preset_without_its_issuer_says_what_that_looks_like(cli):
    ran = cli("idp", "add", "p", "--preset", "auth0", "--audience", "api")
    assert (ran.code, ran.error) == (2, "the issuer is missing")
    assert "https://{tenant}.auth0.com/" in ran.err


def test_what_is_given_wins_over_the_preset(cli, write, provider):
    ran = cli("idp", "add", "p", "--preset", "entra", "--issuer", "https://id.test/x", "--audience", "api", "--user-claim", "sub",
              "--group-claim", "", "--max-ttl", "10m", "--jwks-file", write(provider.jwks()), "--json")  # fmt: skip
    assert (ran.json["user_claim"], ran.json["group_claim"], ran.json["max_ttl_seconds"]) == ("sub", None, 600)
    assert ran.json["ignored_headers"] == ["x5t"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--issuer", "https://id.test"], 2),
        (["--audience", "api"], 2),
        (["--issuer", "http://id.test", "--audience", "api"], 2),
        (["--issuer", "https://id.test", "--audience", "api", "--alg", "none"], 2),
        (["--issuer", "https://id.test", "--audience", "api", "--alg", "HS256"], 2),
        (["--issuer", "https://id.test", "--audience", "api", "--max-ttl", "48h"], 2),
        (["--issuer", "https://id.test", "--audience", "api", "--require", "azp"], 2),
        (["--issuer", "https://id.test", "--audience", "api", "--jwks-url", "http://id.test/keys"], 2),
        (["--issuer", "https://id.test", "--audience", "api", "--jwks-file", "/does/not/exist"], 2),
        (["--issuer", "https://id.test", "--audience", "api", "--jwks-file", "/dev/null"], 2),
        (["--issuer", "https://id.test", "--audience", "api", "--jwks-url", "https://id.test/", "--jwks-file", "x"], 2),
        (["--issuer", "https://id.test", "--audience", "api", "--ignore-header", "jku"], 2),
    ],
)
def test_what_would_be_unsafe_is_not_registered(cli, arguments, code):
    ran = cli("idp", "add", "bad", *arguments)
    assert ran.code == code
    assert ran.error
    assert cli("idp", "list", "--json").json == []


def test_a_key_set_that_gives_a_private_key_away_is_refused_without_repeating_it(cli, write, provider):
    document = json.loads(provider.jwks())
    document["keys"][0]["d"] = "SECRETEXPONENT"
    ran = cli("idp", "add", "x", "--issuer", "https://id.test", "--audience", "a", "--jwks-file", write(json.dumps(document)))  # fmt: skip
    assert ran.code == 2
    assert "SECRETEXPONENT" not in ran.out + ran.err


def test_keys_are_tried_at_once_where_they_are_fetched(cli, live):
    common = ("--issuer", live.provider.issuer, "--audience", live.provider.audience)
    ran = cli("idp", "add", "live", *common, "--upstream-ca", live.ca)
    assert (ran.code, "its keys are there: 1" in ran.err) == (0, True)
    assert cli("idp", "show", "live", "--json").json["keys"] == "discovery"


def test_a_provider_that_cannot_be_reached_is_registered_with_a_warning(cli, live):
    live.stop()
    ran = cli("idp", "add", "live", "--issuer", live.provider.issuer, "--audience", "a", "--upstream-ca", live.ca)
    assert ran.code == 0
    assert "warning: its keys cannot be had from here now" in ran.err


def test_a_change_holds_and_leaves_the_rest(cli, acme):
    assert cli("idp", "change", "acme", "--max-ttl", "5m", "--audience", "a", "--audience", "b", "--require", "azp=x").code == 0  # fmt: skip
    shown = cli("idp", "show", "acme", "--json").json
    assert (shown["max_ttl_seconds"], shown["audiences"], shown["required"], shown["group_claim"]) == (300, ["a", "b"], {"azp": "x"}, "groups")  # fmt: skip


def test_other_claims_for_users_that_grants_name_need_a_yes(cli, acme, stripe):
    cli("grant", "issue", "stripe", "--to", "user:acme/ada")
    assert cli("idp", "change", "acme", "--user-claim", "email").code == 2
    assert cli("idp", "change", "acme", "--max-ttl", "5m").code == 0
    assert cli("idp", "change", "acme", "--user-claim", "email", "--yes").code == 0


def test_a_removed_provider_keeps_its_name(cli, acme, write):
    assert cli("idp", "remove", "acme").code == 2
    assert cli("idp", "remove", "acme", "--yes").code == 0
    assert cli("idp", "show", "acme").code == 3
    jwks = write(acme.jwks(), "jwks")
    assert cli("idp", "add", "acme", "--issuer", "https://evil.test", "--audience", "a", "--jwks-file", jwks).code == 7
    assert cli("idp", "add", "acme", "--issuer", acme.issuer, "--audience", "a", "--jwks-file", jwks).code == 0


def test_presets_are_listed(cli):
    assert {each["preset"] for each in cli("idp", "presets", "--json").json} == set(presets())
    assert "keycloak" in cli("idp", "presets").out


# ── check ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_good_token_is_explained_claim_by_claim(cli, acme, write):
    token = acme.token()
    ran = cli("idp", "check", "acme", "--token-file", write(token + "\n"), "--json")
    assert (ran.code, ran.json["valid"], ran.json["code"], ran.json["subject"], ran.json["groups"]) == (0, True, "", "ada", ["staff"])  # fmt: skip
    assert {check["verdict"] for check in ran.json["checks"]} == {"passed"}
    text = cli("idp", "check", "acme", "--token-file", write(token))
    assert "user:acme/ada\ngroup:acme/staff" in text.out
    assert not any(part in text.out + text.err for part in token.split("."))


def test_a_bad_token_fails_where_it_is_bad_and_exits_4(cli, acme, write):
    ran = cli("idp", "check", "acme", "--token-file", write(acme.token(aud="other", nonce="n")), "--json")
    assert (ran.code, ran.json["valid"], ran.json["code"], ran.json["subject"]) == (4, False, "user_token_invalid", None)  # fmt: skip
    assert [check["name"] for check in ran.json["checks"] if check["verdict"] == "failed"] == ["audience", "purpose"]


def test_the_time_of_the_check_can_be_chosen(cli, acme, write):
    token = write(acme.token())
    assert cli("idp", "check", "acme", "--token-file", token, "--at", str(acme.now + 10_000)).code == 4
    assert cli("idp", "check", "acme", "--token-file", token, "--at", str(acme.now + 500)).code == 0


def test_the_token_may_come_from_stdin(cli, acme):
    assert cli("idp", "check", "acme", "--token-file", "-", input=acme.token() + "\n").code == 0


@pytest.mark.parametrize("content", ["", "\n", "é", "x" * 70_000])
def test_a_file_without_a_token_is_said_to_be_so(cli, acme, write, content):
    assert cli("idp", "check", "acme", "--token-file", write(content)).code == 2


def test_control_characters_in_a_claim_do_not_reach_the_terminal(cli, acme, write):
    ran = cli("idp", "check", "acme", "--token-file", write(acme.token(sub="\x1b[31mred\r\nx")))
    assert "\x1b" not in ran.out
    assert "\r" not in ran.out


def test_keys_are_fetched_for_a_check_and_their_absence_is_a_failed_check(cli, live, write):
    cli("idp", "add", "live", "--issuer", live.provider.issuer, "--audience", live.provider.audience, "--upstream-ca", live.ca)  # fmt: skip
    token = write(live.provider.token())
    assert cli("idp", "check", "live", "--token-file", token, "--upstream-ca", live.ca).code == 0
    ran = cli("idp", "check", "live", "--token-file", token, "--json")
    assert ran.code == 4
    verdicts = {check["name"]: check["verdict"] for check in ran.json["checks"]}
    assert (verdicts["keys"], verdicts["key"], verdicts["signature"], verdicts["expiry"]) == ("failed", "skipped", "skipped", "passed")  # fmt: skip


def test_a_shared_secret_is_sealed_and_has_to_be_given_for_a_check(cli, provider, write, home):
    secret = write(SECRET + "\n", "secret")
    ran = cli("idp", "add", "hs", "--issuer", provider.issuer, "--audience", provider.audience, "--shared-secret-file", secret, "--json")  # fmt: skip
    assert (ran.code, ran.json["algorithms"], ran.json["keys"]) == (0, ["HS256"], "shared")
    assert SECRET.encode() not in b"".join(path.read_bytes() for path in home.iterdir() if path.is_file())
    token = write(provider.token(key=SECRET.encode(), algorithm="HS256"), "token")
    assert cli("idp", "check", "hs", "--token-file", token).code == 4
    ran = cli("idp", "check", "hs", "--token-file", token, "--shared-secret-file", secret)
    assert ran.code == 0
    assert SECRET not in ran.out + ran.err


def test_a_weak_shared_secret_is_refused(cli, write):
    for secret in ("short", "a" * 64, "your-256-bit-secret" * 3):
        assert cli("idp", "add", "hs", "--issuer", "x", "--audience", "a", "--shared-secret-file", write(secret)).code == 2  # fmt: skip


# ── grants ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_grant_names_a_user_or_a_group_of_a_known_provider(cli, acme, stripe):
    assert cli("grant", "issue", "stripe", "--to", "user:acme/ada").code == 0
    assert cli("grant", "issue", "stripe", "--to", "group:acme/staff").code == 0
    assert cli("grant", "issue", "stripe", "--to", "user:other/ada").code == 3
    assert "X-Alter-User-Token" in cli("grant", "issue", "stripe", "--to", "user:acme/auth0|1").err


def test_limits_of_delegation_are_kept_with_the_grant(cli, acme, stripe):
    ran = cli("grant", "issue", "stripe", "--to", "group:acme/staff", "--delegable", "--max-delegation", "2h", "--max-proof-age", "1h")  # fmt: skip
    shown = cli("grant", "show", ran.out.strip(), "--json").json
    assert (shown["delegable"], shown["max_delegation_seconds"], shown["max_proof_age_seconds"]) == (True, 7200, 3600)
    assert cli("grant", "issue", "stripe", "--to", "user:acme/ada", "--max-delegation", "2h").code == 2
    assert cli("grant", "issue", "stripe", "--to", "system:billing", "--delegable").code == 2


def test_an_explanation_takes_the_users_token(cli, acme, stripe, write):
    grant = cli("grant", "issue", "stripe", "--to", "user:acme/ada").out.strip()
    explain = ("grant", "explain", grant, "--url", "https://api.stripe.com/v1/charges", "--as", "billing", "--json")
    assert cli(*explain).json["code"] == "user_token_required"
    assert cli(*explain, "--user-token-file", write(acme.token())).json["decision"] == "authorized"
    assert cli(*explain, "--user-token-file", write(acme.token(sub="eve"))).json["code"] == "grant_unavailable"
    ran = cli(*explain, "--user-token-file", write(acme.token(aud="x")))
    assert (ran.code, ran.json["code"]) == (4, "user_token_invalid")
    assert "audience" in ran.json["steps"][0]["detail"]


# ── delegations ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def delegable(cli, acme, stripe):
    assert cli("agent", "create", "helper").code == 0
    return cli("grant", "issue", "stripe", "--to", "user:acme/ada", "--delegable").out.strip()


def create(cli, grant, token, *more):
    return cli("delegation", "create", "--grant", grant, "--agent", "helper", "--user-token-file", token, *more)


def test_the_users_token_makes_a_delegation(cli, acme, delegable, write):
    token = acme.token()
    ran = create(cli, delegable, write(token), "--ttl", "8h", "--json")
    assert (ran.code, ran.json["grant_id"], ran.json["agent"]) == (0, delegable, "helper")
    shown = cli("delegation", "show", ran.json["delegation_id"], "--json").json
    assert (shown["user"], shown["secret"], shown["state"], shown["consent_token_id"]) == ("user:acme/ada", "stripe", "active", "t-1")  # fmt: skip
    everything = json.dumps(shown) + ran.out + ran.err
    assert not any(part in everything for part in token.split("."))
    explained = cli("grant", "explain", ran.json["delegation_id"], "--url", "https://api.stripe.com/v1/charges", "--json")  # fmt: skip
    assert explained.json["decision"] == "authorized"


@pytest.mark.parametrize(
    ("claims", "code"),
    [({"aud": "other"}, 4), ({"iss": "https://evil.test"}, 4), ({"exp": 5, "iat": 1}, 4), ({"sub": "eve"}, 3)],
)
def test_no_other_token_is_a_consent(cli, acme, delegable, write, claims, code):
    ran = create(cli, delegable, write(acme.token(**claims)))
    assert ran.code == code
    assert ran.error
    assert cli("delegation", "list", "--json").json == []


def test_a_delegation_of_a_grant_that_is_not_delegable_is_in_the_way(cli, acme, delegable, write):
    plain = cli("grant", "issue", "stripe", "--to", "user:acme/ada").out.strip()
    assert create(cli, plain, write(acme.token())).code == 7


def test_delegations_are_listed_and_chosen(cli, acme, delegable, write):
    made = create(cli, delegable, write(acme.token())).out.strip()
    for choice in (["--agent", "helper"], ["--user", "user:acme/ada"], ["--grant", delegable], ["--state", "active"]):
        assert [each["delegation_id"] for each in cli("delegation", "list", *choice, "--json").json] == [made]
    for choice in (["--agent", "x"], ["--user", "user:acme/eve"], ["--grant", "x"], ["--state", "revoked"]):
        assert cli("delegation", "list", *choice, "--json").json == []
    assert made in cli("delegation").out


def test_the_user_revokes_with_the_token_and_nobody_elses(cli, acme, delegable, write):
    made = create(cli, delegable, write(acme.token())).out.strip()
    assert cli("delegation", "revoke", made, "--user-token-file", write(acme.token(sub="eve"))).code == 3
    ran = cli("delegation", "revoke", made, "--user-token-file", write(acme.token()), "--json")
    assert ran.json == {"delegation_id": made, "state": "revoked", "revoked_by": "user:acme/ada"}


def test_an_operator_revokes_without_one(cli, acme, delegable, write):
    made = create(cli, delegable, write(acme.token())).out.strip()
    ran = cli("delegation", "revoke", made, "--reason", "done", "--json")
    assert ran.json["revoked_by"].startswith("operator:")
    explained = cli("grant", "explain", made, "--url", "https://api.stripe.com/v1/charges", "--json")
    assert (explained.code, explained.json["code"]) == (4, "delegation_revoked")
    assert cli("delegation", "revoke", "unknown").code == 3


def test_run_takes_a_delegation_for_its_agent_and_a_users_grant_for_an_app(cli, acme, delegable, write, home):
    made = create(cli, delegable, write(acme.token())).out.strip()
    assert cli("env", "--grant", made, "--json").code == 0
    vault = Vault.connect(home)
    assert [key.grants for key in vault.callers.keys("agent", "helper") if key.type == "run"] == [(made,)]
    vault.close()
    assert cli("env", "--grant", delegable, "--json").code == 2
    assert cli("env", "--grant", delegable, "--as", "billing", "--json").code == 0
    cli("delegation", "revoke", made)
    assert cli("env", "--grant", made, "--json").code == 2
