"""Policies of every layer and limits, through a real proxy."""

import asyncio
import json
import sqlite3

import httpx
import pytest

from tests.e2e.product import Proxy, routes
from tests.e2e.stage import HOSTS, refusal

URL = f"https://{HOSTS['bearer']}/echo"


@pytest.fixture
def own(launch, engine):
    """A proxy on a vault of this test's own."""
    return launch(engine=engine)


def limited(answer, code, policy):
    """Check the whole 429; gives its headers."""
    assert (answer.status_code, answer.headers["x-alter-error"]) == (429, code)
    body = answer.json()
    assert (body["code"], body["policy"]) == (code, policy)
    return answer.headers


def test_a_policy_of_any_layer_holds_for_the_very_next_request(own, upstream):
    with own.client() as client:
        for subject, name in (("vault", "vault"), ("app:billing", "app"), ("secret:bearer", "secret")):
            assert client.get(URL, headers=own.tag()).status_code == 200
            own.vaultctl.run("policy", "set", subject, "--method", "POST")
            upstream.reset()
            body = refusal(client.get(URL, headers=own.tag()), "policy_denied", status=403, stage=own)
            assert body["policy"] == own.audit(body["request_id"])["policy"] == f"{name}.methods"
            assert upstream.untouched()
            own.vaultctl.run("policy", "clear", subject, "--yes")


def test_a_full_rate_is_a_429_that_says_how_long_to_wait(own, upstream):
    grant = own.vaultctl.grant("bearer", "system:billing", "--rate", "2/hour", "--max-uses", "9/day")
    tag = {"X-Alter-Grant": grant}
    with own.client() as client:
        assert [client.get(URL, headers=tag).status_code for _ in range(2)] == [200, 200]
        upstream.reset()
        answer = client.get(URL, headers=tag)
        headers = limited(answer, "rate_limited", "grant.rate")
        assert 3500 < int(headers["retry-after"]) <= 3600
        assert headers["ratelimit-policy"] == '"grant.rate";q=2;w=3600'
        assert headers["ratelimit"] == f'"grant.rate";r=0;t={headers["retry-after"]}'
        assert upstream.untouched()
        record = own.audit(answer.json()["request_id"])
        assert (record["decision"], record["code"], record["policy"]) == ("refused", "rate_limited", "grant.rate")
    done = own.vaultctl("grant", "explain", grant, "--url", URL, "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["code"], told["steps"][-1]["detail"]) == (4, "rate_limited", "grant.rate")


def test_a_request_that_another_policy_refuses_uses_up_nothing(own, upstream):
    grant = own.vaultctl.grant("bearer", "system:billing", "--max-uses", "1", "--method", "GET")
    tag = {"X-Alter-Grant": grant}
    with own.client() as client:
        for _ in range(3):
            refusal(client.post(URL, headers=tag), "policy_denied", status=403)
        assert client.get(URL, headers=tag).status_code == 200
        headers = limited(client.get(URL, headers=tag), "quota_exceeded", "grant.quota")
        assert headers["ratelimit"] == '"grant.quota";r=0'
        assert "retry-after" not in headers


def test_a_request_that_never_left_uses_up_nothing(launch, engine, upstream, impostor, evil):
    stage = launch(engine=engine, leads_to=(impostor, evil))
    grant = stage.vaultctl.grant("bearer", "system:billing", "--max-uses", "1")
    with stage.client() as client:
        for _ in range(3):
            answer = client.get(URL, headers={"X-Alter-Grant": grant})
            refusal(answer, "upstream_unverified", status=502, stage=stage)
    assert stage.vaultctl("grant", "explain", grant, "--url", URL).returncode == 0


def test_a_ledger_that_is_damaged_refuses_what_has_limits_and_nothing_else(own, upstream):
    grant = own.vaultctl.grant("bearer", "system:billing", "--max-uses", "9")
    with own.client() as client:
        assert client.get(URL, headers={"X-Alter-Grant": grant}).status_code == 200
        with sqlite3.connect(own.vaultctl.home / "limits.db") as data:
            data.execute("DROP TABLE counts")
        data.close()
        upstream.reset()
        refusal(client.get(URL, headers={"X-Alter-Grant": grant}), "fault", status=503, stage=own)
        assert upstream.untouched()
        assert client.get(URL, headers=own.tag()).status_code == 200


def test_256_parallel_requests_to_4_workers_let_exactly_100_through_a_restart_included(launch, engine, upstream, evil, authority_file):  # fmt: skip
    stage = launch(engine=engine, workers=4)
    grant = stage.vaultctl.grant("bearer", "system:billing", "--rate", "100/hour")

    async def storm(proxy, requests):
        async with proxy.async_client("billing", stage.key, limits=httpx.Limits(max_connections=64)) as client:
            answers = await asyncio.gather(
                *(client.get(URL, headers={"X-Alter-Grant": grant}, timeout=60) for _ in range(requests))
            )
        return [answer.status_code for answer in answers]

    first = asyncio.run(storm(stage.proxy, 96))
    assert first == [200] * 96
    assert stage.proxy.stop() == 0
    again = Proxy(stage.vaultctl.home, "--engine", engine, "--workers", 4, "--upstream-ca", authority_file, *routes(upstream, evil))  # fmt: skip
    try:
        second = asyncio.run(storm(again, 160))
    finally:
        again.stop()
    assert sorted(set(second)) == [200, 429]
    assert second.count(200) == 4
    assert len(upstream.seen()) == 100
