"""Why a request would be authorized or refused: the same answer as the live one, and nothing opened for it."""

from contextlib import closing

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from addon.errors import Usage
from addon.explanation import attempt, explain
from addon.model import Caller
from addon.pipeline import Authorized, Refused, authorize
from addon.vault import Vault

CALLERS = {
    "billing": Caller(type="app", name="billing", key_id=""),
    "other": Caller(type="app", name="other", key_id=""),
    "helper": Caller(type="agent", name="helper", key_id=""),
}


@pytest.fixture
def explained(story):
    """`explained(grant, …)` is the explanation of a request that nobody made."""

    def make(
        grant="stripe",
        *,
        url="https://api.stripe.test/v1/charges",
        method="GET",
        caller="billing",
        ip="127.0.0.1",
        later=0.0,
    ):
        request = attempt(story.grants.get(grant, grant), url=url, method=method, client_ip=ip)
        return explain(request, vault=story.vault, caller=CALLERS.get(caller), now=story.now + later)

    return make


def test_every_step_of_a_yes_is_told(explained):
    found = explained()
    assert (found.decision, found.code) == ("authorized", "")
    names = [step.name for step in found.steps]
    assert [name for name in names if name in {"tag", "caller", "grant", "binding", "policies"}] == [
        "tag", "caller", "grant", "binding", "policies",
    ]  # fmt: skip
    assert {step.verdict for step in found.steps} == {"passed"}
    assert any("stripe version 1 for system:billing" in step.detail for step in found.steps)


def test_without_the_private_key_it_does_not_claim_to_have_looked_for_values_of_the_vault(story):
    request = attempt(story.grants["stripe"], url="https://api.stripe.test/v1", method="GET", client_ip="127.0.0.1")
    with closing(Vault.connect(story.vault.home)) as keyless:
        for vault, told in ((story.vault, "no value of the vault in it"), (keyless, "not looked for")):
            found = explain(request, vault=vault, caller=CALLERS["billing"], now=story.now)
            assert [step.detail.partition(":")[0] for step in found.steps if step.name == "known"] == [told]


@pytest.mark.parametrize(
    ("changes", "step", "code"),
    [
        ({"grant": "short"}, "tag", "tag_malformed"),
        ({"grant": "0" * 36}, "grant", "grant_unavailable"),
        ({"caller": "other"}, "grant", "grant_unavailable"),
        ({"caller": "nobody"}, "grant", "caller_required"),
        ({"url": "https://evil.test/"}, "binding", "destination_not_bound"),
        ({"url": "http://api.stripe.test:443/"}, "binding", "cleartext_upstream"),
        ({"url": "https://user@api.stripe.test/"}, "binding", "authority_mismatch"),
        ({"method": "TRACE"}, "binding", "method_not_bound"),
        ({"grant": "openai", "caller": "helper", "url": "https://api.openai.test/v2"}, "binding", "path_not_bound"),
    ],
)
def test_the_step_that_refuses_is_the_last_and_carries_the_code(explained, changes, step, code):
    found = explained(**changes)
    assert (found.decision, found.code) == ("refused", code)
    assert (found.steps[-1].name, found.steps[-1].verdict) == (step, code)
    assert {earlier.verdict for earlier in found.steps[:-1]} <= {"passed"}


def test_the_policy_that_refuses_is_named(story, explained):
    rules = (("methods", {"methods": ["GET"]}),)
    story.grants["gets"] = story.vault.grants.issue("stripe", principal="system:billing", rules=rules, now=story.now).id
    found = explained("gets", method="POST")
    assert (found.code, found.steps[-1].detail) == ("policy_denied", "grant.methods")


@pytest.mark.parametrize(
    ("url", "ip"),
    [
        ("", "127.0.0.1"),
        ("api.stripe.test", "127.0.0.1"),
        ("/v1/charges", "127.0.0.1"),
        ("https://", "127.0.0.1"),
        ("https://127.0.0.1/", "127.0.0.1"),
        ("https://[::1]/", "127.0.0.1"),
        ("https://[::1", "127.0.0.1"),
        ("https://api.stripe.test:99999/", "127.0.0.1"),
        ("https://api.stripe.test:x/", "127.0.0.1"),
        ("https://api\u2100stripe.test/", "127.0.0.1"),
        ("https://api.stripe.test/\udcff", "127.0.0.1"),
        ("https://api.stripe.test/", ""),
        ("https://api.stripe.test/", "localhost"),
        ("https://api.stripe.test/", "10.0.0.0/8"),
    ],
)
def test_what_is_no_request_is_refused_with_an_example(url, ip):
    with pytest.raises(Usage) as refused:
        attempt("0" * 36, url=url, method="GET", client_ip=ip)
    assert "--url https://api.example.com" in refused.value.hint


def test_a_url_becomes_the_request_that_a_client_would_send():
    made = attempt("0" * 36, url="HTTPS://API.Stripe.test:8443/v1?a=b#c", method="post", client_ip="10.0.0.1")
    assert (made.scheme, made.host, made.port, made.target, made.method) == (
        "https", "api.stripe.test", 8443, b"/v1?a=b", "POST",
    )  # fmt: skip
    assert made.authorities == (b"API.Stripe.test:8443",)
    assert attempt("0" * 36, url="http://a.test", method="GET", client_ip="::1").port == 80
    assert attempt("0" * 36, url="https://a.test", method="GET", client_ip="::1").target == b"/"


# ── it is the live answer ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def many(story):
    """Grants in every state, by name."""
    rules = {
        "methods": ("methods", {"methods": ["GET", "POST"]}),
        "paths": ("paths", {"paths": ["/v1"]}),
        "cidr": ("cidr", {"networks": ["10.0.0.0/8", "::1/128"]}),
    }
    issue = story.vault.grants.issue
    for secret, principal in (("stripe", "system:billing"), ("stripe", "agent:helper"), ("openai", "system:billing")):
        for name, chosen in (
            ("free", ()),
            *((n, (rule,)) for n, rule in rules.items()),
            ("all", tuple(rules.values())),
        ):
            story.grants[f"{secret} {principal} {name}"] = issue(
                secret, principal=principal, rules=chosen, now=story.now
            ).id
    story.grants["expiring"] = issue("stripe", principal="system:billing", expires_at=story.now + 60, now=story.now).id
    story.grants["revoked"] = issue("stripe", principal="system:billing", now=story.now).id
    story.vault.grants.revoke(ids=(story.grants["revoked"],), now=story.now)
    story.vault.secrets.put("off", kind="bearer", binding=story.vault.secrets.get("stripe").binding, values={"token": "x"}, now=story.now)  # fmt: skip
    story.grants["disabled"] = issue("off", principal="system:billing", now=story.now).id
    story.vault.secrets.set_state("off", "disabled", now=story.now)
    story.grants["unknown"] = "0" * 36
    story.grants["malformed"] = "x"
    return sorted(story.grants)


@settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_an_explanation_agrees_with_the_live_decision_and_opens_nothing(story, many, monkeypatch, data):
    def opened(*_):
        raise RuntimeError("opened for an explanation")

    monkeypatch.setattr(Vault, "open", opened)
    draw = data.draw
    name = draw(st.sampled_from(many))
    caller = draw(st.sampled_from(sorted(CALLERS)))
    if draw(st.booleans()) and " system:" in name:
        caller = "billing"
    host = draw(
        st.sampled_from(
            ["api.stripe.test", "api.openai.test", "api.stripe.test:8443", "evil.test", "user@api.stripe.test"]
        )
    )
    host = (
        {"stripe": "api.stripe.test", "openai": "api.openai.test"}.get(name.split()[0], host)
        if draw(st.booleans())
        else host
    )
    url = draw(st.sampled_from(["https", "https", "https", "http"])) + "://" + host + draw(st.sampled_from(["", "/", "/v1", "/v1/a?b", "/v1/../v2", "/v2"]))  # fmt: skip
    method = draw(st.sampled_from(["GET", "POST", "DELETE", "TRACE"]))
    ip = draw(st.sampled_from(["127.0.0.1", "10.1.2.3", "::1", "::ffff:10.0.0.1"]))
    now = story.now + draw(st.sampled_from([0.0, 59.0, 60.0, 1e6]))

    request = attempt(story.grants[name], url=url, method=method, client_ip=ip)
    told = explain(request, vault=story.vault, caller=CALLERS[caller], now=now)
    keyed = request._replace(headers=(*request.headers, (b"X-Alter-Key", story.keys[caller].encode())))
    live = authorize(keyed, vault=story.vault, now=now)

    event(told.code or told.decision)
    assert told.decision == ("authorized" if isinstance(live, Authorized) else "refused")
    assert told.code == (live.code if isinstance(live, Refused) else "")
    if isinstance(live, Refused):
        assert (told.steps[-1].verdict, told.steps[-1].detail) == (live.code, live.policy or "")
    before = story.vault.database.conn.total_changes
    explain(request, vault=story.vault, caller=CALLERS[caller], now=now)
    assert story.vault.database.conn.total_changes == before
