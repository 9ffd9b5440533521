"""Real clients, unchanged but for a proxy URL, a CA file and a header: each is authenticated, and none ever held a key."""

import asyncio
import base64
import hashlib
import json
import ssl
import time
import urllib.error
import urllib.request

import httpx
import pytest
import requests

from tests.e2e import stage as stages
from tests.e2e.stage import HOSTS, KINDS, VALUES, refusal
from vaultctl import sigv4_check

BODY = bytes(range(256)) * 80_000
DIGEST = hashlib.sha256(BODY).hexdigest()


def check_credential(kind, seen):
    """The upstream got this credential, once, and nothing of ours."""
    names = [name.lower() for name, _ in seen.headers]
    assert not [name for name in names if name.startswith((b"x-alter", b"proxy-"))]
    values = VALUES[kind]
    match kind:
        case "bearer":
            assert seen.values("authorization") == [f"Bearer {values['token']}"]
        case "header":
            assert seen.header("dd-api-key") == values["api_key"]
            assert seen.header("dd-application-key") == values["app_key"]
            assert seen.header("x-version") == "2024-06-01"
        case "query":
            assert seen.target == b"/echo?a=1&key=AIza-canary-query%3F%26%3D%2B%2F%2094"
        case "basic":
            sent = seen.header("authorization").removeprefix("Basic ")
            assert base64.b64decode(sent).decode() == f"{values['user']}:{values['password']}"
        case "sigv4":
            headers = [(b"host" if name == b":authority" else name, value) for name, value in seen.headers]
            wrong = sigv4_check.verify(
                seen.method, target=seen.target, headers=headers, body=seen.body, now=time.time(),
                keys={stages.AWS_ID: stages.AWS_SECRET}, region="eu-west-1", service="iot",
            )  # fmt: skip
            assert wrong is None, wrong


@pytest.fixture(params=["h1", "h2"])
def http2(request):
    return request.param == "h2"


@pytest.mark.parametrize("kind", KINDS)
def test_httpx(stage, upstream, kind, http2):
    url = f"https://{HOSTS[kind]}/echo?a=1"
    with stage.client(http2=http2) as client:
        answer = client.post(url, headers=stage.tag(kind), content=b"amount=1")
    assert answer.json()["size"] == 8
    assert upstream.last.version == ("HTTP/2" if http2 else "HTTP/1.1")
    assert upstream.last.sni == HOSTS[kind]
    check_credential(kind, upstream.last)


@pytest.mark.parametrize("kind", KINDS)
def test_curl(stage, upstream, kind, http2):
    version = "--http2" if http2 else "--http1.1"
    tag = f"X-Alter-Grant: {stage.grants[kind]}"
    done = stage.curl(version, "-H", tag, "-d", "amount=1", "-w", "%{http_code}", f"https://{HOSTS[kind]}/echo?a=1")
    assert (done.returncode, done.stdout[-3:]) == (0, b"200"), done.stderr
    check_credential(kind, upstream.last)


@pytest.mark.parametrize("kind", KINDS)
def test_requests(stage, upstream, kind):
    with requests.Session() as session:
        session.trust_env = False
        session.proxies = {"https": stage.proxy.url(*stage.caller)}
        session.verify = str(stage.proxy.ca)
        answer = session.post(f"https://{HOSTS[kind]}/echo?a=1", headers=stage.tag(kind), data="amount=1", timeout=10)
    assert answer.json()["size"] == 8
    check_credential(kind, upstream.last)


@pytest.mark.parametrize("kind", KINDS)
def test_urllib(stage, upstream, kind):
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({"https": stage.proxy.url(*stage.caller)}),
        urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=stage.proxy.ca)),
    )
    request = urllib.request.Request(f"https://{HOSTS[kind]}/echo?a=1", b"amount=1", stage.tag(kind))
    with opener.open(request, timeout=10) as answer:
        assert json.load(answer)["size"] == 8
    check_credential(kind, upstream.last)


def test_a_refusal_reaches_urllib_with_its_body(stage, upstream):
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({"https": stage.proxy.url(*stage.caller)}),
        urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=stage.proxy.ca)),
    )
    request = urllib.request.Request("https://api.stripe.test/", headers={"X-Alter-Grant": "0" * 16})
    with pytest.raises(urllib.error.HTTPError) as refused:
        opener.open(request, timeout=10)
    assert json.load(refused.value)["code"] == "grant_unavailable"
    refused.value.close()
    assert upstream.untouched()


def test_a_client_that_offers_both_versions_gets_one_that_both_ends_speak(stage, upstream):
    context = ssl.create_default_context(cafile=stage.proxy.ca)
    with httpx.Client(
        proxy=stage.proxy.url(*stage.caller), verify=context, http1=True, http2=True, trust_env=False
    ) as client:
        for _ in range(3):
            answer = client.post("https://api.stripe.test/upload", headers=stage.tag(), content=BODY[:100_000])
            assert (answer.status_code, answer.json()["size"]) == (200, 100_000)
    assert {one.version for one in upstream.seen()} == {answer.http_version}
    check_credential("bearer", upstream.last)


async def test_many_streams_at_once_over_one_http2_connection(stage, upstream):
    async with stage.proxy.async_client(*stage.caller, http2=True) as client:
        await client.get("https://api.stripe.test/echo", headers=stage.tag())  # opens the connection
        answers = await asyncio.gather(
            *(
                client.post(f"https://api.stripe.test/echo/{n}", headers=stage.tag(), content=b"x" * n * 1000)
                for n in range(30)
            )
        )
    assert [answer.json()["size"] for answer in answers] == [n * 1000 for n in range(30)]
    assert upstream.connections() == 1
    for seen in upstream.seen():
        check_credential("bearer", seen)


def test_a_sdk_that_puts_the_placeholder_where_its_key_goes(stage, upstream):
    placeholder = f"alter_grant_{stage.grants['bearer']}"
    with stage.client() as client:
        answer = client.get("https://api.stripe.test/echo", headers={"Authorization": f"Bearer {placeholder}"})
        assert answer.status_code == 200
        check_credential("bearer", upstream.last)
        basic = f"alter_grant_{stage.grants['basic']}"
        assert client.get("https://api.twilio.test/echo", auth=("anything", basic)).status_code == 200
        check_credential("basic", upstream.last)
        query = f"alter_grant_{stage.grants['query']}"
        assert client.get(f"https://maps.google.test/echo?a=1&key={query}").status_code == 200
        check_credential("query", upstream.last)
    assert not [seen for seen in upstream.seen() if b"alter_grant" in seen.raw]


def test_a_client_that_cannot_authenticate_to_proxies_sends_its_key_as_a_header(stage, upstream):
    with stage.proxy.client() as client:
        answer = client.get("https://api.stripe.test/echo", headers=stage.tag() | {"X-Alter-Key": stage.key})
        assert answer.status_code == 200
        check_credential("bearer", upstream.last)
        answer = client.get("https://api.stripe.test/echo", headers=stage.tag())
    refusal(answer, "caller_required", status=407, stage=stage)
    assert len(upstream.seen()) == 1


def test_a_redirect_that_curl_follows_with_the_tag_does_not_take_the_credential_along(stage, upstream, evil):
    tag = f"X-Alter-Grant: {stage.grants['bearer']}"
    url = "https://api.stripe.test/redirect?to=https://evil.test/echo"
    done = stage.curl("-L", "-H", tag, "-w", "%{http_code}", url)
    assert done.stdout[-3:] == b"403"
    assert b"destination_not_bound" in done.stdout
    assert len(upstream.seen()) == 1
    assert evil.untouched()


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_curl_moves_20_mb_both_ways(stage, upstream, version, tmp_path):
    tag = f"X-Alter-Grant: {stage.grants['bearer']}"
    up = stage.curl(version, "-H", tag, "-T", "-", "https://api.stripe.test/upload", input=BODY)
    assert json.loads(up.stdout) == {"size": len(BODY), "sha256": DIGEST}
    down = stage.curl(version, "-H", tag, f"https://api.stripe.test/bytes/{len(BODY)}")
    assert len(down.stdout) == len(BODY)
    chunked = stage.curl(version, "-H", tag, f"https://api.stripe.test/bytes/{len(BODY)}?chunked")
    assert chunked.stdout == down.stdout


def test_untagged_requests_pass_without_a_credential(stage, upstream, evil):
    with stage.client() as client:
        assert client.get("https://evil.test/echo", headers={"X-Alter-Reason": "none"}).status_code == 200
        assert client.get("http://evil.test/echo").json()["host"] == "evil.test"
        assert client.get("https://api.stripe.test/echo", headers={"Authorization": "mine"}).status_code == 200
    assert upstream.last.values("authorization") == ["mine"]
    for seen in [*evil.seen(), *upstream.seen()]:
        assert not [name for name, _ in seen.headers if name.lower().startswith((b"x-alter", b"proxy-"))]


def test_a_program_started_by_vaultctl_run_needs_neither_tag_nor_key(stage, upstream):
    """The session carries the grant; the program is told about the proxy by its environment alone."""
    done = stage.vaultctl(
        "run", "--grant", stage.grants["bearer"], "--proxy", stage.proxy.address, "--", "curl", "-sS", "https://api.stripe.test/echo"
    )  # fmt: skip
    assert (done.returncode, json.loads(done.stdout)["method"]) == (0, "GET"), done.stderr
    check_credential("bearer", upstream.last)
