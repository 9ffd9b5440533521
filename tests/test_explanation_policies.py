"""With any policies in any layers, an explanation is the live answer, uses up nothing, and says what would mend it."""

import contextlib
import os

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from addon import policies
from addon.errors import Refusal
from addon.explanation import attempt, explain
from addon.model import Caller
from addon.pipeline import Authorized, Refused, authorize, examine
from addon.vault.ledger import FILE, Ledger

CASES = int(os.environ.get("ALTER_TEST_CASES", "300"))

RULES = {
    "methods": st.sampled_from([("GET",), ("GET", "POST")]),
    "paths": st.sampled_from([("/v1",), ("/",), ("/v1/charges", "/v2")]),
    "cidr": st.sampled_from([("127.0.0.0/8", "::1"), ("10.0.0.0/8",)]),
    "hours": st.sampled_from([("Mon-Sun 00:00-24:00 UTC",), ("Fri 08:00-09:00 UTC", "Fri 07:00-08:30 Europe/Berlin")]),
    "period": st.sampled_from([("0", ""), ("", "1800000100"), ("1800000050", "1800000100")]),
    "max_body": st.sampled_from([("10",), ("0",)]),
    "content_type": st.just(("application/json",)),
    "json": st.sampled_from([('model in ["a", "b"]',), ("n <= 5", "o.m = true"), ("n <= 5",)]),
    "reason": st.sampled_from([(), ("9",)]),
    "rate": st.sampled_from([("2/second",), ("3/hour", "9/day")]),
    "quota": st.sampled_from([("4",), ("3/hour",), ("50", "9/month")]),
}
RULE = st.sampled_from(sorted(RULES)).flatmap(lambda kind: RULES[kind].map(lambda values: (kind, policies.KINDS[kind].parse(values))))  # fmt: skip
SOME = st.one_of(st.just(()), st.lists(RULE, max_size=2, unique_by=lambda rule: rule[0]).map(tuple))
SEEN = st.one_of(
    st.just(()),
    RULES["json"].map(lambda rules: (("json", policies.KINDS["json"].parse(rules)), ("quota", {"limits": ["2"]}))),
)
HEADERS = st.lists(
    st.sampled_from([
        (b"Content-Length", b"10"), (b"Content-Length", b"11"), (b"Transfer-Encoding", b"chunked"),
        (b"Content-Type", b"application/json"), (b"Content-Type", b"text/plain"), (b"X-Alter-Reason", b"ticket 1234"),
        (b"X-Alter-Reason", b"x"),
    ]),
    max_size=4, unique_by=lambda pair: pair[0],
)  # fmt: skip
BODIES = st.sampled_from([
    b"", b"{", b'{"model": "a"}', b'{"model": "c", "n": 5}', b'{"n": 5, "N": 6}', b'{"model": "b", "n": 5, "o": {"m": true}}',
    b'{"n": 6, "o": {"m": true}}', b'{"model": "b", "n": 5, "o": {"m": true}}' + b" " * (1 << 20),
])  # fmt: skip


@pytest.fixture
def ledger(story):
    with contextlib.closing(Ledger.open(story.vault.home / FILE)) as ledger:
        yield ledger


@settings(max_examples=CASES, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    layers=st.fixed_dictionaries({"vault": SOME, "app": SOME, "secret": SOME}),
    grant=SOME,
    method=st.sampled_from(["GET", "POST", "PUT"]),
    path=st.sampled_from(["/v1", "/v1/charges", "/v1/%2e%2e/v2", "/v2", "/v10"]),
    ip=st.sampled_from(["127.0.0.1", "10.9.9.9", "::1", "::ffff:10.0.0.1"]),
    later=st.sampled_from([0.0, 60.0, 100.0, 3600.0, 86_400.0 * 40]),
    headers=HEADERS,
    body=BODIES,
    times=st.integers(1, 5),
)
def test_an_explanation_is_the_live_answer(story, ledger, **case):
    compare(story, ledger, **case)


@settings(max_examples=CASES, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    layers=st.fixed_dictionaries({"vault": SEEN, "app": SEEN, "secret": SEEN}),
    grant=SEEN,
    body=BODIES,
    times=st.integers(1, 3),
)
def test_an_explanation_with_the_body_is_the_live_answer(story, ledger, **case):
    headers = ((b"Content-Type", b"application/json"),)
    compare(story, ledger, method="POST", path="/v1", ip="127.0.0.1", later=0.0, headers=headers, **case)


def compare(story, ledger, *, layers, grant, method, path, ip, later, headers, body, times):
    """Explain a request under policies, and make it, a few times over."""
    vault, now = story.vault, story.now + later
    for layer, rules in layers.items():
        vault.layers.put(layer, {"vault": "", "app": "billing", "secret": "stripe"}[layer], rules, now=story.now)
    tag = vault.grants.issue("stripe", principal="system:billing", rules=grant, now=story.now).id
    for table in ("hits", "counts"):
        ledger._database.conn.execute(f"DELETE FROM {table}")
    request = attempt(tag, url=f"https://api.stripe.test{path}", method=method, client_ip=ip, headers=tuple(headers))
    keyed = request._replace(headers=(*request.headers, (b"X-Alter-Key", story.keys["billing"].encode())))
    caller = Caller(type="app", name="billing", key_id="")
    for _ in range(times):
        told = [explain(request, vault=vault, caller=caller, now=now, body=body) for _ in range(2)][-1]
        live = decide(keyed, body, vault=vault, now=now, limits=ledger)
        event(f"{told.steps[-1].name}: {told.policy or told.code or told.decision}")
        if isinstance(live, Authorized):
            assert (told.decision, told.code, told.policy) == ("authorized", "", "")
            assert {step.verdict for step in told.steps} == {"passed"}
            passed = [step.detail for step in told.steps if step.name in {"policy", "limit"}]
            every = [("vault", layers["vault"]), ("app", layers["app"]), ("secret", layers["secret"]), ("grant", grant)]
            assert set(passed) == {f"{layer}.{kind}" for layer, rules in every for kind, _ in rules}
        else:
            assert (told.decision, told.code, told.policy) == ("refused", live.code, live.policy or "")
            last = told.steps[-1]
            assert (last.verdict, last.detail) == (live.code, live.policy or "")
            assert last.remedy
            assert last.compared or not live.policy


def decide(request, body, *, vault, now, limits):
    """What becomes of a request whose body is received, if it comes to that: as the gate does it."""
    live = authorize(request, vault=vault, now=now, limits=limits)
    if isinstance(live, Authorized):
        try:
            examine(live, body)
        except Refusal as no:
            limits.give_back(live.receipt)
            return Refused(record=live.record, code=no.code, policy=no.policy)
    return live
