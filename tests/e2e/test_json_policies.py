"""Policies on members of a JSON body, through a real proxy: what breaks a rule never arrives, and what passes arrives as it was."""

import gzip
import json

import pytest

from tests.e2e.stage import HOSTS, refusal

URL = f"https://{HOSTS['bearer']}/echo"
RULES = ("--json-member", 'model in ["a", "b"]', "--json-member", "n <= 5")
JSON = {"Content-Type": "application/json"}


@pytest.fixture(params=[False, True], ids=["h1", "h2"])
def client(request, stage):
    with stage.client(http2=request.param) as client:
        yield client


@pytest.fixture(scope="module")
def grants():
    """Those already issued, by the proxy's home and their options: each command is a process."""
    return {}


@pytest.fixture
def issue(stage, grants):
    """`issue(kind, *options)`: the headers of a request with a grant of that secret under the rules."""

    def issue(kind="bearer", *options, again=True):
        key = (stage.vaultctl.home, kind, options)
        if not again or key not in grants:
            grants[key] = stage.vaultctl.grant(kind, "system:billing", *RULES, *options)
        return {"X-Alter-Grant": grants[key]} | JSON

    return issue


GOOD = [
    b'{"model": "a", "n": 5}',
    b' {"n":0e0 ,\n"model" : "\\u0062","tools":[{"A":1,"a":2}], "x": "\xc3\xa9\xf0\x9f\x98\x80"}\t ',
    b'{"model": "a", "n": 1, "x": "' + b"x" * 900_000 + b'"}',
]


@pytest.mark.parametrize("body", GOOD, ids=["plain", "odd", "long"])
def test_a_body_that_passes_arrives_byte_for_byte(client, issue, upstream, body):
    assert client.post(URL, headers=issue(), content=body).status_code == 200
    assert upstream.last.body == body
    assert upstream.last.header("content-length") == str(len(body))


@pytest.mark.parametrize(
    "body", [b'{"model": "a", "n": 5}', b'{"model": "a", "n": 1, "x": "' + b"x" * 200_000 + b'"}'], ids=len
)
def test_a_body_in_pieces_of_unknown_length_is_judged_whole(client, issue, upstream, body):
    pieces = [body[:7], body[7:9], body[9:]]
    assert client.post(URL, headers=issue(), content=iter(pieces)).status_code == 200
    assert upstream.last.body == body
    upstream.reset()
    denied = [body[:-1], b', "n": 6}']
    refusal(client.post(URL, headers=issue(), content=iter(denied)), "policy_denied", status=403)
    assert upstream.untouched()


@pytest.mark.parametrize(
    ("body", "changes"),
    [
        (b'{"model": "c", "n": 5}', {}),
        (b'{"model": "a", "n": 6}', {}),
        (b'{"model": "a", "n": true}', {}),
        (b'{"model": "a"}', {}),
        (b'{"model": "c", "model": "a", "n": 5}', {}),
        (b'{"model": "a", "Model": "c", "n": 5}', {}),
        (b'{"model": "a", "n": NaN}', {}),
        (b'\xef\xbb\xbf{"model": "a", "n": 5}', {}),
        (b'{"model": "a", "n": 5}{"model": "c", "n": 5}', {}),
        (b"model=a&n=5", {}),
        (b"", {}),
        (b'{"model": "a", "n": 5}', {"Content-Type": "text/plain"}),
        (b'{"model": "a", "n": 5}', {"Content-Type": "application/json; charset=utf-16"}),
        (gzip.compress(b'{"model": "a", "n": 5}'), {"Content-Encoding": "gzip"}),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_breaks_a_rule_or_cannot_be_judged_never_arrives(stage, client, issue, upstream, body, changes):
    answer = client.post(URL, headers=issue() | changes, content=body)
    told = refusal(answer, "policy_denied", status=403, stage=stage)
    assert told["policy"] == stage.audit(told["request_id"])["policy"] == "grant.json"
    assert upstream.untouched()


def test_a_request_without_a_body_is_refused(stage, client, issue, upstream):
    for headers in (issue(), {"X-Alter-Grant": issue()["X-Alter-Grant"]}):
        refusal(client.get(URL, headers=headers), "policy_denied", status=403, stage=stage)
    assert upstream.untouched()


def test_a_body_longer_than_is_looked_at_is_413_whether_or_not_its_length_is_stated(stage, client, issue, upstream):
    body = b'{"model": "a", "n": 5}'.ljust((1 << 20) + 1)
    for content in (body, iter([body[:1000], body[1000:]])):
        answer = client.post(URL, headers=issue(), content=content)
        told = refusal(answer, "body_too_large", status=413, stage=stage)
        assert told["policy"] == "grant.json"
    assert upstream.untouched()


def test_a_refused_body_uses_up_nothing(stage, client, issue, upstream):
    headers = issue("bearer", "--max-uses", "1", "--rate", "1/hour", again=False)
    for body in (b'{"model": "c", "n": 5}', b"{", b'{"model": "a", "n": 5}'.ljust((1 << 20) + 1)):
        assert client.post(URL, headers=headers, content=body).status_code in {403, 413}
    assert client.post(URL, headers=headers, content=b'{"model": "a", "n": 5}').status_code == 200
    assert client.post(URL, headers=headers, content=b'{"model": "a", "n": 5}').status_code == 429
    assert len(upstream.seen()) == 1


def test_nobody_is_asked_to_approve_what_a_rule_refuses(stage, client, issue, upstream):
    headers = issue("bearer", "--approval", again=False) | {"Prefer": "respond-async"}
    refusal(client.post(URL, headers=headers, content=b'{"model": "c", "n": 5}'), "policy_denied", status=403)
    assert not [
        each for each in stage.vaultctl.json("approval", "list") if each["grant_id"] == headers["X-Alter-Grant"]
    ]
    good = b'{"model": "a", "n": 5}'
    answer = client.post(URL, headers=headers, content=good)
    bearing = headers | {"X-Alter-Approval": answer.json()["approval_id"]}
    assert answer.status_code == 202
    stage.vaultctl.run("approval", "approve", bearing["X-Alter-Approval"])
    assert upstream.untouched()
    assert client.post(URL, headers=bearing, content=good).status_code == 200
    assert upstream.last.body == good


def test_a_signed_body_is_judged_before_it_is_signed(stage, client, issue, upstream):
    url = f"https://{HOSTS['sigv4']}/echo"
    for kind in ("application/json", "application/x-amz-json-1.1"):
        headers = issue("sigv4") | {"Content-Type": kind}
        upstream.reset()
        refusal(
            client.post(url, headers=headers, content=b'{"model": "c", "n": 5}'),
            "policy_denied",
            status=403,
            stage=stage,
        )
        assert upstream.untouched()
        assert client.post(url, headers=headers, content=b'{"model": "a", "n": 5}').status_code == 200
        assert upstream.last.body == b'{"model": "a", "n": 5}'
        assert upstream.last.header("authorization").startswith("AWS4-HMAC-SHA256")


def test_explain_with_the_body_says_what_the_proxy_did(stage, client, issue, tmp_path):
    headers, file = issue(), tmp_path / "body"
    for body in [*GOOD[:2], b'{"model": "c", "n": 5}', b"{", b'{"model": "a", "n": 5, "N": 6}']:
        file.write_bytes(body)
        done = stage.vaultctl("grant", "explain", headers["X-Alter-Grant"], "--url", URL, "--method", "POST", "--body", f"@{file}", "--json")  # fmt: skip
        live = client.post(URL, headers=headers, content=body)
        told = json.loads(done.stdout)
        assert (told["code"], told["policy"]) == ((live.json()["code"], live.json()["policy"]) if live.status_code == 403 else ("", ""))  # fmt: skip


def test_a_client_that_expects_100_continue_is_asked_for_the_body(stage, issue, upstream):
    for body, status in ((b'{"model": "a", "n": 5}', b"200"), (b'{"model": "c", "n": 5}', b"403")):
        done = stage.curl(
            "-o", "/dev/null", "-w", "%{http_code}", "-H", f"X-Alter-Grant: {issue()['X-Alter-Grant']}",
            "-H", "Content-Type: application/json", "-H", "Expect: 100-continue", "--data-binary", "@-", URL, input=body,
        )  # fmt: skip
        assert done.stdout == status
    assert len(upstream.seen()) == 1
