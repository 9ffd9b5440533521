"""The catalog: every entry loads, binds, and writes; a wrong paste is noticed without being repeated."""

import re
from collections import Counter

import pytest

from addon import credentials, hosts
from addon.binding import load
from addon.credentials import providers
from addon.credentials.kind import Target
from addon.errors import NotFound, Usage
from addon.model import Head, Values

CATALOG = providers.catalog()


def binding(provider):
    own = [] if provider.hosts else [hosts.parse_pattern(provider.host_example)]
    return provider.binding(hosts=own)


def test_the_catalog_has_what_people_use():
    assert len(CATALOG) >= 50
    assert {
        "stripe", "openai", "anthropic", "github", "gitlab", "datadog", "sendgrid", "slack", "twilio", "elasticsearch",
        "pinecone", "google-maps", "aws", "mistral", "notion", "azure-openai",
    } <= CATALOG.keys()  # fmt: skip
    assert list(CATALOG) == sorted(CATALOG)


@pytest.mark.parametrize("slug", CATALOG)
def test_every_entry_binds_stores_and_writes(slug):
    provider = CATALOG[slug]
    kind = credentials.kind(provider.kind)
    bound = binding(provider)
    assert load(bound.dump()) == bound
    assert kind.check_binding(bound) == bound
    fields = kind.fields(bound)
    names = {f.name for f in fields}
    assert {f.name for f in fields if f.required} <= provider.fields.keys() <= names
    values = {f.name: f"{f.name.replace('_', '')}12345" for f in fields}
    kind.check_values(bound, values)
    host, port = bound.hosts[0]
    head = Head("GET", b"/", ((b"Host", host.encode()), (b"Authorization", b"Bearer dummy")))
    plan = kind.plan(head, binding=bound, host=host)
    assert not plan.needs_body
    sent = plan.apply(Values(values), target=Target(host=host, port=port, now=1.8e9), body_sha256=None).head
    assert sent != head
    assert b"Bearer dummy" not in [v for _, v in sent.headers]
    assert all((n.encode(), v.encode()) in sent.headers for n, v in bound.constants)


@pytest.mark.parametrize("slug", CATALOG)
def test_every_entry_is_documented(slug):
    provider = CATALOG[slug]
    assert re.fullmatch(r"[a-z][a-z0-9-]+", slug)
    assert provider.title
    assert provider.docs.startswith("https://")
    assert bool(provider.hosts) != bool(provider.host_example)
    for hint in provider.fields.values():
        assert (hint.shape is None) or hint.example


def test_a_variable_belongs_to_one_field_of_one_provider():
    names = Counter(name for p in CATALOG.values() for hint in p.fields.values() for name in hint.env)
    assert max(names.values()) == 1
    assert all(re.fullmatch(r"[A-Z][A-Z0-9_]+", name) for name in names)
    provider, field = providers.by_variable("DD_APP_KEY")
    assert (provider.slug, field) == ("datadog", "app_key")
    assert providers.by_variable("PATH") is None


@pytest.mark.parametrize(
    ("slug", "field", "right", "wrong"),
    [
        ("stripe", "token", ["sk_live_51Habc", "rk_test_x", "sk_org_live_x"], ["pk_live_51H", "whsec_x", "51Habc"]),
        ("openai", "token", ["sk-abc", "sk-proj-abc_def-", "sk-svcacct-x"], ["ghp_abc"]),
        ("anthropic", "token", ["sk-ant-api03-x_y-z"], ["sk-proj-x"]),
        ("github", "token", ["ghp_a", "github_pat_11A_b", "ghs_x", "a1" * 20], ["glpat-x"]),
        ("gitlab", "token", ["glpat-abc.01.x", "glrt-x", "A" * 20], ["ghp_x"]),
        ("slack", "token", ["xoxb-1-2-a", "xoxe.xoxp-1-a", "xapp-1-A"], ["https://hooks.slack.com/x"]),
        ("datadog", "api_key", ["0" * 32], ["0" * 40]),
        ("aws", "access_key_id", ["AKIAIOSFODNN7EXAMPLE", "ASIAIOSFODNN7EXAMPLE"], ["wJalrXUtnFEMI/K7MDENG"]),
        ("sendgrid", "token", ["SG.abc.def"], ["abc"]),
        ("elasticsearch", "token", ["VnVhQ2ZHY0JDZGJrUW0tZTVhT3g6dWkybHAyYXhUTm1zeWFrdw=="], ["id:secret"]),
        ("twilio", "user", ["AC" + "0" * 32, "SK" + "0" * 32], ["+15551234567"]),
    ],
)
def test_a_wrong_paste_is_a_warning_that_does_not_repeat_it(slug, field, right, wrong):
    provider = providers.get(slug)
    assert [provider.check_shape(field, value) for value in right] == [None] * len(right)
    for value in wrong:
        warning = provider.check_shape(field, value)
        assert provider.title in warning
        assert value not in warning
    assert provider.check_shape("unheard-of", "x") is None


@pytest.mark.parametrize(
    ("typed", "hint"), [("strip", "stripe"), ("OpenAI", "openai"), ("anthropc", "anthropic"), ("zzzz", "provider list")]
)
def test_an_unknown_slug_names_the_nearest(typed, hint):
    with pytest.raises(NotFound) as missing:
        providers.get(typed)
    assert hint in missing.value.hint


def test_a_provider_without_a_host_of_its_own_asks_for_one():
    with pytest.raises(Usage) as refusal:
        providers.get("azure-openai").binding()
    assert "--host your-resource.openai.azure.com" in refusal.value.hint


def test_other_hosts_may_be_given_instead():
    assert providers.get("datadog").binding(hosts=[("api.datadoghq.eu", 443)]).hosts == (("api.datadoghq.eu", 443),)
