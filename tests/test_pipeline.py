"""The decision about one request, step by step. Every case asserts the code a client would see."""

import base64
import hashlib
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from addon import binding as bindings
from addon import callers, context, credentials, pipeline, policies, principals, tag
from addon.binding import Binding, Role
from addon.callers import key as keys
from addon.errors import Fault
from addon.model import Values
from addon.pipeline import Authorized, Refused, Untagged

EMPTY = hashlib.sha256(b"").hexdigest()


def code(outcome):
    assert isinstance(outcome, Refused), outcome
    assert outcome.record.decision == "refused"
    assert outcome.record.phase == "outcome"
    assert outcome.record.code == outcome.code
    return outcome.code


def header(outcome, name):
    return [value for key, value in outcome.headers if key.lower() == name]


# ── the road to yes ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_tagged_request_of_the_named_app_gets_the_credential(story):
    outcome = story.decide()
    assert isinstance(outcome, Authorized)
    head = pipeline.inject(outcome, vault=story.vault).head
    assert header(head, b"authorization") == [b"Bearer " + story.canary.encode()]


def test_no_control_header_survives(story):
    extra = [(b"x-ALTER-reason", b"why"), (b"X_Alter_Context", b"{}"), (b"Proxy-Authorization", b"")]
    request = story.request(headers=[extra[0], extra[1]])
    head = pipeline.inject(story.decide(request), vault=story.vault).head
    assert not [name for name, _ in head.headers if tag.is_control(name)]
    assert tag.strip(request.head).headers == ((b"Host", b"api.stripe.test"),)


def test_the_record_of_an_authorized_request_names_everything_but_the_value(story):
    record = story.decide(
        url="https://api.stripe.test/v1/charges?token=querysecret",
        headers=[(b"X-Alter-Reason", b"refund 7"), (b"X-Alter-Context", b'{"tool":"pay"}'),
                 (b"traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01")],
    ).record  # fmt: skip
    assert (record.phase, record.decision, record.caller, record.principal) == (
        "intent", "authorized", "app:billing", "system:billing",
    )  # fmt: skip
    assert (record.secret, record.version, record.host, record.port, record.path) == (
        "stripe", 1, "api.stripe.test", 443, "/v1/charges",
    )  # fmt: skip
    assert (record.reason, record.context, record.trace_id) == ("refund 7", {"tool": "pay"}, "a" * 32)
    assert "querysecret" not in repr(record)
    assert story.canary not in repr(record)


def test_rotation_keeps_the_grant_and_the_next_request_carries_the_new_value(story):
    story.vault.secrets.rotate("stripe", values={"token": "sk_live_second"}, now=story.now)
    head = pipeline.inject(story.decide(), vault=story.vault).head
    assert header(head, b"authorization") == [b"Bearer sk_live_second"]


def test_an_untagged_request_passes_without_a_credential(story):
    outcome = story.decide(grant=None, caller=None)
    assert isinstance(outcome, Untagged)
    assert outcome.record.decision == "untagged"


# ── 1 tag ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([(b"X-Alter-Grant", b"short")], "tag_malformed"),
        ([(b"X-Alter-Grant", b"")], "tag_malformed"),
        ([(b"X-Alter-Grant", b"a" * 65)], "tag_malformed"),
        ([(b"X-Alter-Grant", b"a" * 10_000)], "tag_malformed"),
        ([(b"X-Alter-Grant", "é".encode() * 16)], "tag_malformed"),
        ([(b"X_Alter_Grant", b"a" * 36)], "tag_malformed"),
        ([(b"X-Alter-Grant", b"a" * 36), (b"x-alter-grant", b"a" * 36)], "tag_repeated"),
        ([(b"X-Alter-Grant", b"a" * 36), (b"x_alter-grant", b"a" * 36)], "tag_repeated"),
        ([(b"X-Alter-Grant", b"a" * 36 + b", " + b"b" * 36)], "tag_repeated"),
        ([(b"X-Foo", b"a\r\n X-Alter-Grant: b")], "header_forbidden"),
        ([(b"X-Foo", b"a\0b")], "header_forbidden"),
        ([(b"Authorization", b"Bearer alter_grant_x")], "tag_malformed"),
        ([(b"A", b"alter_grant_" + b"a" * 36), (b"B", b"alter_grant_" + b"b" * 36)], "tag_repeated"),
    ],
)
def test_a_bad_tag_is_refused(story, headers, expected):
    assert code(story.decide(grant=None, headers=headers)) == expected


@pytest.mark.parametrize(
    "place",
    [
        lambda p: {"headers": [(b"Authorization", b"Bearer " + p)]},
        lambda p: {"headers": [(b"Authorization", b"Basic " + base64.b64encode(b"user:" + p))]},
        lambda p: {"headers": [(b"x-api-key", p)]},
        lambda p: {"url": "https://api.stripe.test/v1/charges?a=1&key=" + p.decode() + "&b=%20"},
    ],
    ids=["bearer", "basic", "custom header", "query"],
)
def test_a_placeholder_is_the_tag_and_never_leaves(story, place):
    placeholder = b"alter_grant_" + story.grants["stripe"].encode()
    outcome = story.decide(grant=None, **place(placeholder))
    head = pipeline.inject(outcome, vault=story.vault).head
    assert header(head, b"authorization") == [b"Bearer " + story.canary.encode()]
    assert b"alter_grant_" not in repr(head).encode()
    assert base64.b64encode(b"user:alter_grant")[:16] not in repr(head).encode()


def test_the_explicit_header_wins_over_a_placeholder(story):
    outcome = story.decide(headers=[(b"x-api-key", b"alter_grant_" + b"z" * 36)])
    assert isinstance(outcome, Authorized)
    assert not header(outcome.head, b"x-api-key")


# ── 2 caller ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def basic(name, key):
    return (b"Proxy-Authorization", b"Basic " + base64.b64encode(f"{name}:{key}".encode()))


def test_a_tagged_request_without_a_key_is_refused(story):
    assert code(story.decide(caller=None)) == "caller_required"


def test_the_key_may_come_as_proxy_credentials(story):
    request = story.request(caller=None, headers=[basic("billing", story.keys["billing"])])
    assert isinstance(story.decide(request), Authorized)


@pytest.mark.parametrize("value", [b"", b"Basic", b"Basic x", b"Bearer alter_app_x"])
def test_a_malformed_key_opens_no_tunnel(story, value):
    connect = story.request(grant=None, caller=None, headers=[(b"Proxy-Authorization", value)])
    assert code(pipeline.admit(connect, vault=story.vault, now=story.now)) == "caller_invalid"


def test_the_key_proved_on_the_tunnel_counts(story):
    proof = callers.parse_basic(basic("billing", story.keys["billing"])[1])
    assert isinstance(story.decide(story.request(caller=None, tunnel_key=proof)), Authorized)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda s: {"caller": keys.mint("app")[0]},
        lambda s: {"caller": s.keys["billing"][:-1] + ("a" if s.keys["billing"][-1] != "a" else "b")},
        lambda s: {"caller": "garbage"},
        lambda s: {"caller": None, "headers": [basic("other", s.keys["billing"])]},
        lambda s: {"caller": None, "headers": [basic("", s.keys["billing"])]},
        lambda s: {"caller": None, "headers": [(b"Proxy-Authorization", b"Bearer " + s.keys["billing"].encode())]},
        lambda s: {"caller": None, "headers": [(b"Proxy-Authorization", b"Basic !!!")]},
        lambda s: {"headers": [(b"X-Alter-Key", s.keys["billing"].encode())]},
        lambda s: {"headers": [basic("other", s.keys["other"])]},
    ],
    ids=["unknown", "typo", "garbage", "wrong name", "no name", "not basic", "not base64", "twice", "two callers"],
)
def test_a_key_that_does_not_prove_one_caller_is_refused(story, spoil):
    assert code(story.decide(**spoil(story))) == "caller_invalid"


def test_a_bad_key_is_refused_even_without_a_tag(story):
    assert code(story.decide(grant=None, caller=keys.mint("app")[0])) == "caller_invalid"


def test_a_revoked_key_stops_at_the_next_request(story):
    key_id, key = story.vault.callers.mint_key("app", "billing", now=story.now)
    assert isinstance(story.decide(caller=key), Authorized)
    story.vault.callers.revoke_key("app", key_id, now=story.now)
    assert code(story.decide(caller=key)) == "caller_invalid"


def test_a_key_stops_at_the_second_of_its_expiry(story):
    _, key = story.vault.callers.mint_key("app", "billing", now=story.now, expires_at=story.now + 60)
    assert isinstance(story.decide(caller=key, later=59.9), Authorized)
    assert code(story.decide(caller=key, later=60)) == "caller_invalid"


def test_a_disabled_app_stops_and_an_enabled_one_goes_on(story):
    story.vault.callers.set_state("app", "billing", "disabled", now=story.now)
    assert code(story.decide()) == "caller_invalid"
    story.vault.callers.set_state("app", "billing", "active", now=story.now)
    assert isinstance(story.decide(), Authorized)


@pytest.mark.parametrize(
    ("address", "allowed"),
    [("10.1.2.3", True), ("::ffff:10.1.2.3", True), ("10.2.0.1", False), ("::1", False), ("", False)],
)
def test_a_caller_with_networks_is_heard_only_from_them(story, address, allowed):
    _, key = story.vault.callers.create("app", "remote", cidrs=("10.1.0.0/16",), now=story.now)
    story.grants["remote"] = story.vault.grants.issue("stripe", principal="system:remote", now=story.now).id
    outcome = story.decide(grant="remote", caller=key, client_ip=address)
    assert isinstance(outcome, Authorized) if allowed else code(outcome) == "caller_invalid"


# ── 3 grant ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_unknown_and_foreign_grants_are_told_apart_by_nobody(story):
    unknown = story.decide(grant="0" * 36)
    foreign = story.decide(caller="other")
    assert code(unknown) == code(foreign) == "grant_unavailable"
    assert (unknown.policy, unknown.retry_after) == (foreign.policy, foreign.retry_after) == (None, None)


def test_the_record_of_a_refusal_says_which_grant_was_tried(story):
    unknown, foreign = story.decide(grant="0" * 36).record, story.decide(caller="other").record
    assert (unknown.grant_id, unknown.secret) == ("0" * 36, "")
    assert (foreign.grant_id, foreign.secret, foreign.caller) == (story.grants["stripe"], "stripe", "app:other")


def test_names_of_different_types_never_meet(story):
    _, story.keys["twin"] = story.vault.callers.create("agent", "billing", cidrs=(), now=story.now)
    assert code(story.decide(caller="twin")) == "grant_unavailable"


def test_revocation_holds_for_the_next_request_and_only_the_named_principal_is_told(story):
    story.vault.grants.revoke(ids=(story.grants["stripe"],), now=story.now)
    assert code(story.decide()) == "grant_revoked"
    assert code(story.decide(caller="other")) == "grant_unavailable"


def test_a_grant_stops_at_the_second_of_its_expiry(story):
    grant = story.vault.grants.issue("stripe", principal="system:billing", expires_at=story.now + 10, now=story.now).id
    assert isinstance(story.decide(grant=grant, later=9.9), Authorized)
    assert code(story.decide(grant=grant, later=10)) == "grant_expired"


def test_a_disabled_secret_opens_for_nobody(story):
    story.vault.secrets.set_state("stripe", "disabled", now=story.now)
    assert code(story.decide()) == "secret_disabled"


def test_a_deleted_secret_takes_its_grants_with_it(story):
    story.vault.secrets.delete("stripe", now=story.now)
    assert code(story.decide()) == "grant_unavailable"


def test_a_session_is_tagged_with_the_one_grant_that_fits(story):
    _, key = story.vault.callers.mint_key(
        "app", "billing", now=story.now, session=True, grants=(story.grants["stripe"],), expires_at=story.now + 60
    )
    outcome = story.decide(grant=None, caller=key)
    assert isinstance(outcome, Authorized)
    assert outcome.record.grant_id == story.grants["stripe"]
    assert isinstance(story.decide(grant=None, caller=key, url="https://elsewhere.test/"), Untagged)


def test_a_session_with_two_fitting_grants_must_name_one(story):
    second = story.vault.grants.issue("stripe", principal="system:billing", now=story.now).id
    _, key = story.vault.callers.mint_key(
        "app", "billing", now=story.now, session=True, grants=(story.grants["stripe"], second)
    )
    assert code(story.decide(grant=None, caller=key)) == "grant_ambiguous"
    assert isinstance(story.decide(grant=second, caller=key), Authorized)


def test_a_session_cannot_use_a_grant_it_was_not_given(story):
    second = story.vault.grants.issue("stripe", principal="system:billing", now=story.now).id
    _, key = story.vault.callers.mint_key("app", "billing", now=story.now, session=True, grants=(second,))
    assert code(story.decide(caller=key)) == "grant_unavailable"


# ── 4 binding ────────────────────────────────────────────────────────────────────────────────────────────────────────

HOST = b"api.stripe.test"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"url": "https://evil.test/"}, "destination_not_bound"),
        ({"url": "https://evil.test/", "authorities": (HOST,)}, "authority_mismatch"),
        ({"url": "https://api.stripe.test.evil.test/"}, "destination_not_bound"),
        ({"url": "https://evilapi.stripe.test/"}, "destination_not_bound"),
        ({"url": "https://api.stripe.test:8443/"}, "destination_not_bound"),
        ({"url": "https://127.0.0.1/", "authorities": (HOST,)}, "authority_mismatch"),
        ({"url": "http://api.stripe.test/", "port": 80}, "cleartext_upstream"),
        ({"url": "http://api.stripe.test:443/"}, "cleartext_upstream"),
        ({"absolute_scheme": "http"}, "cleartext_upstream"),
        ({"sni": "evil.test"}, "authority_mismatch"),
        ({"authorities": (b"evil.test",)}, "authority_mismatch"),
        ({"authorities": (HOST, b"evil.test")}, "authority_mismatch"),
        ({"authorities": (HOST + b":8443",)}, "authority_mismatch"),
        ({"authorities": (HOST + b", evil.test",)}, "authority_mismatch"),
        ({"authorities": (b"user@" + HOST,)}, "authority_mismatch"),
        ({"authorities": (b"[" + HOST + b"]",)}, "authority_mismatch"),
        ({"authorities": (HOST + b"#@evil.test",)}, "authority_mismatch"),
        ({"authorities": ("\u0430pi.stripe.test".encode(),)}, "authority_mismatch"),
        ({"authorities": ()}, "header_forbidden"),
        ({"method": "PRI", "target": b"*"}, "header_forbidden"),
        ({"headers": [(b"host", HOST)]}, "authority_mismatch"),
        ({"method": "TRACE"}, "method_not_bound"),
        ({"method": "get"}, "method_not_bound"),
        ({"method": "FOO"}, "method_not_bound"),
        ({"target": b"/a b"}, "path_not_bound"),
        ({"target": b"*"}, "path_not_bound"),
        ({"headers": [(b"X-HTTP-Method-Override", b"DELETE")]}, "header_forbidden"),
        ({"headers": [(b"X_HTTP_Method_Override", b"DELETE")]}, "header_forbidden"),
        ({"headers": [(b"Connection", b"close, Authorization")]}, "header_forbidden"),
        ({"headers": [(b"Connection", b"X-Alter-Grant")]}, "header_forbidden"),
        ({"headers": [(b"Upgrade", b"h2c")]}, "header_forbidden"),
        ({"headers": [(b"Trailer", b"X-Alter-Grant")]}, "header_forbidden"),
    ],
)  # fmt: skip
def test_a_request_that_is_not_plainly_for_the_bound_host_is_refused(story, changes, expected):
    assert code(story.decide(**changes)) == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"authorities": (HOST + b":443",)},
        {"authorities": (b"API.Stripe.TEST.",)},
        {"sni": None},
        {"sni": "API.stripe.test"},
        {"method": "OPTIONS", "headers": [(b"Max-Forwards", b"0")]},
        {"headers": [(b"Connection", b"keep-alive, close")]},
    ],
)
def test_other_spellings_of_the_bound_host_are_accepted(story, changes):
    assert isinstance(story.decide(**changes), Authorized)


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/", True), ("/v1/models", True), ("/v1", False), ("/v10/x", False), ("/v2/", False), ("/", False),
        ("/v1/../v2", False), ("/v1/./x", False), ("/v1//x", False), ("/v1/%2e%2e/v2", False), ("/v1/a%2fb", False),
        ("/v1/..;/v2", False), ("/v1/a;b", False), ("/v1/a%00", False), ("/v1/a\\b", False), ("/v1/%252e%252e/", False),
        ("/v1/a%20b?x=..;//", True),
    ],
)  # fmt: skip
def test_a_path_that_a_server_could_read_as_another_is_never_under_a_prefix(story, path, allowed):
    outcome = story.decide(grant="openai", caller="helper", url="https://api.openai.test" + path)
    assert isinstance(outcome, Authorized) if allowed else code(outcome) == "path_not_bound"


def test_a_method_outside_the_binding_is_refused(story):
    assert code(story.decide(grant="openai", caller="helper", url="https://api.openai.test/v1/", method="DELETE")) == "method_not_bound"  # fmt: skip


# ── 5 policies ───────────────────────────────────────────────────────────────────────────────────────────────────────


def policed(story, *rules):
    return story.vault.grants.issue("stripe", principal="system:billing", rules=rules, now=story.now).id


@pytest.mark.parametrize(
    ("rule", "changes", "kind"),
    [
        (("methods", {"methods": ["GET"]}), {"method": "POST"}, "grant.methods"),
        (("paths", {"paths": ["/v1/charges"]}), {"target": b"/v1/refunds"}, "grant.paths"),
        (("cidr", {"networks": ["10.0.0.0/8"]}), {}, "grant.cidr"),
    ],
)
def test_a_policy_refuses_and_names_its_layer_and_kind(story, rule, changes, kind):
    outcome = story.decide(grant=policed(story, rule), **changes)
    assert code(outcome) == "policy_denied"
    assert outcome.policy == outcome.record.policy == kind


def test_every_policy_must_pass(story):
    grant = policed(story, ("methods", {"methods": ["GET"]}), ("paths", {"paths": ["/v1/charges"]}))
    assert isinstance(story.decide(grant=grant), Authorized)
    assert code(story.decide(grant=grant, target=b"/other")) == "policy_denied"


@pytest.mark.parametrize(
    "stored", ['[["unknown", {}]]', "[[1]]", "nonsense", '[["cidr", {}]]', '[["cidr", {"networks": ["x"]}]]']
)
def test_a_policy_that_cannot_be_read_is_a_fault(story, stored):
    grant = policed(story)
    story.vault.database.conn.execute("UPDATE grants SET policies = ? WHERE id = ?", (stored, grant))
    with pytest.raises(Fault, match="vault_unavailable"):
        story.decide(grant=grant)


# ── faults ───────────────────────────────────────────────────────────────────────────────────────────────────────────

STEPS = {
    "tag": (tag, "find"),
    "strip": (tag, "strip"),
    "context": (context, "read"),
    "caller": (callers, "find"),
    "identity": (callers, "identify"),
    "principal": (principals, "matches"),
    "binding": (bindings, "load"),
    "hygiene": (pipeline, "check_hygiene"),
    "destination": (pipeline, "check_destination"),
    "kind": (credentials, "kind"),
    "policies": (policies, "load"),
    "check": (policies, "check"),
}


ROLE = Role(arn="arn:aws:iam::123456789012:role/reports")
SESSION = {
    "access_key_id": "ASIA0",
    "secret_access_key": "session/secret+canary",
    "session_token": "session-token-canary",
}


def test_the_response_under_a_role_shows_neither_the_session_nor_the_key_it_was_made_with(story):
    host, key = "iot.eu-west-1.amazonaws.com", "stored/secret+canary"
    binding = Binding(hosts=((host, 443),), role=ROLE)
    values = {"access_key_id": "AKIA0", "secret_access_key": key}
    story.vault.secrets.put("reports", kind="sigv4", binding=binding, values=values, now=story.now)
    grant = story.vault.grants.issue("reports", principal="system:billing", now=story.now).id
    outcome = story.decide(grant=grant, url=f"https://{host}/")
    _, screen = pipeline.inject(outcome, vault=story.vault, session=Values(SESSION), body_sha256=EMPTY)
    shown = f"{key} {SESSION['secret_access_key']} {SESSION['session_token']} AKIA0 ASIA0"
    body = screen.open(b"OK", (), bodiless=False).body.finish(shown.encode())
    assert body == re.sub(rb"[^ ]+canary", lambda found: b"*" * len(found[0]), shown.encode())


@pytest.mark.parametrize("step", STEPS)
def test_no_step_that_breaks_can_become_a_yes(story, monkeypatch, step):
    def broken(*_args, **_kwargs):
        raise RuntimeError(step)

    monkeypatch.setattr(*STEPS[step], broken)
    with pytest.raises(RuntimeError, match=step):
        story.decide()


@pytest.mark.parametrize(
    ("change", "host"),
    [
        ("binding = CAST(replace(CAST(binding AS TEXT), 'stripe', 'evil01') AS BLOB)", "api.evil01.test"),
        ("payload = randomblob(200)", "api.stripe.test"),
    ],
    ids=["re-pointed", "other payload"],
)
def test_a_changed_row_opens_nothing(story, change, host):
    story.vault.database.conn.execute(f"UPDATE versions SET {change}")
    outcome = story.decide(url=f"https://{host}/v1/charges")
    assert isinstance(outcome, Authorized)
    with pytest.raises(Fault, match="vault_unavailable"):
        pipeline.inject(outcome, vault=story.vault)


def test_a_missing_field_refuses(story):
    outcome = story.decide()
    with pytest.raises((Fault, KeyError)):
        outcome.plan.apply({}, target=outcome.target, body_sha256=None)


# ── whatever is sent ─────────────────────────────────────────────────────────────────────────────────────────────────

NAMES = st.sampled_from(
    [b"X-Alter-Grant", b"x_alter_grant", b"Host", b"Authorization", b"X-Alter-Key", b"Connection", b"A"]
)
VALUES = st.one_of(st.binary(max_size=60), st.sampled_from([HOST, b"Basic eDp5", b"alter_grant_" + b"a" * 36]))


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(headers=st.lists(st.tuples(NAMES, VALUES), max_size=6), target=st.binary(max_size=40), host=st.sampled_from(["api.stripe.test", "evil.test", "x"]))  # fmt: skip
def test_only_the_right_caller_at_the_right_host_ever_gets_a_yes(story, headers, target, host):
    request = story.request(
        grant=None, caller=None, url=f"https://{host}/", headers=headers, target=b"/" + target,
        authorities=tuple(v for n, v in headers if n == b"Host") or (host.encode(),),
    )  # fmt: skip
    outcome = story.decide(request)
    assert not isinstance(outcome, Authorized)
    if isinstance(outcome, Untagged):
        assert not [name for name, _ in outcome.head.headers if tag.is_control(name)]
        assert b"alter_grant_" not in repr(outcome.head).encode()
