"""Every refusal that can happen so far, brought about for real: the whole answer, a record, and an upstream untouched."""

import base64
import json
import re
from pathlib import Path

import pytest

from addon.refusals import CODES
from tests.e2e.stage import HOSTS, refusal

HOST = HOSTS["bearer"]
UNKNOWN = "0" * 36

LATER = {
    "user_token_required", "user_token_invalid", "delegation_revoked", "delegation_expired", "delegation_source_lost",
    "request_malformed", "not_found", "not_delegable",
    "secret_in_request", "approval_denied", "approval_expired", "rate_limited", "quota_exceeded",
    "concurrency_exceeded",
}  # fmt: skip
"""Codes of features that have tests of their own, or are yet to come."""


def encode(text):
    return base64.b64encode(text.encode()).decode()


@pytest.fixture(params=["h1", "h2"])
def ask(request, stage):
    """`ask(headers, …)`: one request in a tunnel of its own, over HTTP/1.1 or HTTP/2."""

    def ask(headers=(), *, method="GET", target="/echo", host=HOST, port=443, body=b"", caller=..., sni=...):
        pairs = list(headers.items() if isinstance(headers, dict) else headers)
        if request.param == "h2":
            with stage.h2wire(caller=caller) as wire:
                wire.tunnel(host, port, sni=sni)
                lower = [(name.lower(), value) for name, value in pairs]
                if body:
                    lower.append(("content-length", str(len(body))))
                return wire.ask(method, target, lower, body=body or None)
        lines = "".join(f"{name}: {value}\r\n" for name, value in pairs)
        names = {name.lower() for name, _ in pairs}
        if body and not names & {"content-length", "transfer-encoding"}:
            lines += f"Content-Length: {len(body)}\r\n"
        authority = host if port == 443 else f"{host}:{port}"
        with stage.wire(caller=caller) as wire:
            wire.tunnel(host, port, sni=sni)
            return wire.ask(f"{method} {target} HTTP/1.1\r\nHost: {authority}\r\n{lines}\r\n".encode("latin-1") + body)

    ask.version = request.param
    return ask


@pytest.fixture
def cast(stage):
    return stage.cast


def test_callers(stage, upstream, ask):
    tag = stage.tag()
    refusal(ask(tag, caller=None), "caller_required", status=407, stage=stage)
    typo = stage.key[:-1] + ("a" if stage.key[-1] != "a" else "b")
    wrong = {"X-Alter-Key": typo}
    refusal(ask(tag | wrong, caller=None), "caller_invalid", status=407, stage=stage)
    refusal(ask(tag | {"X-Alter-Key": "nonsense"}, caller=None), "caller_invalid", status=407, stage=stage)
    refusal(ask(wrong, caller=None), "caller_invalid", status=407, stage=stage)
    twice = [*tag.items(), ("X-Alter-Key", stage.key), ("x-alter-key", stage.key)]
    refusal(ask(twice, caller=None), "caller_invalid", status=407, stage=stage)
    assert upstream.untouched()


@pytest.mark.parametrize("name", ["other", "Billing", ""])
def test_a_name_that_is_not_the_one_of_the_key(stage, upstream, name):
    with stage.wire(caller=(name, stage.key)) as wire:
        refusal(wire.connect(f"{HOST}:443"), "caller_invalid", status=407, stage=stage)
    assert upstream.untouched()


@pytest.mark.parametrize("proof", ["Bearer x", "Basic", "Basic !!!", f"Basic {encode('billing')}", "Basic a, Basic b"])
def test_a_malformed_proof_opens_no_tunnel(stage, upstream, proof):
    with stage.wire(caller=None) as wire:
        answer = wire.connect(f"{HOST}:443", headers=f"Proxy-Authorization: {proof}\r\n")
        refusal(answer, "caller_invalid", status=407, stage=stage)
        assert not upstream.connections()


@pytest.mark.parametrize("name", ["disabled", "elsewhere", "other"])
def test_a_key_that_is_no_good_any_more_or_here(stage, upstream, cast, name):
    key = {"disabled": "disabled key", "elsewhere": "key elsewhere", "other": "expired key"}[name]
    with stage.wire(caller=(name, cast[key])) as wire:
        refusal(wire.connect(f"{HOST}:443"), "caller_invalid", status=407, stage=stage)
    assert not upstream.connections()


@pytest.mark.parametrize(
    ("code", "headers"),
    [
        ("tag_malformed", [("X-Alter-Grant", "")]),
        ("tag_malformed", [("X-Alter-Grant", "short")]),
        ("tag_malformed", [("X-Alter-Grant", "x" * 65)]),
        ("tag_malformed", [("X-Alter-Grant", "0123456789abcdef!")]),
        ("tag_malformed", [("X-Alter-Grant", "ünïcödeünïcödeünïcöde")]),
        ("tag_malformed", [("X_Alter_Grant", UNKNOWN)]),
        ("tag_malformed", [("Authorization", "Bearer alter_grant_short")]),
        ("tag_repeated", [("X-Alter-Grant", UNKNOWN), ("x-alter-grant", UNKNOWN)]),
        ("tag_repeated", [("X-Alter-Grant", UNKNOWN), ("X_Alter_Grant", UNKNOWN)]),
        ("tag_repeated", [("X-Alter-Grant", f"{UNKNOWN}, {UNKNOWN}")]),
        (
            "tag_repeated",
            [("Authorization", f"Bearer alter_grant_{UNKNOWN}"), ("X-Api-Key", "alter_grant_" + "1" * 36)],
        ),
        ("grant_unavailable", [("X-Alter-Grant", UNKNOWN)]),
        ("grant_unavailable", [("Authorization", f"Bearer alter_grant_{UNKNOWN}")]),
        ("grant_unavailable", [("Authorization", "Basic " + encode(f"alter_grant_{UNKNOWN}:"))]),
    ],
)
def test_tags(stage, upstream, ask, code, headers):
    refusal(ask(headers), code, status=403 if code == "grant_unavailable" else 400, stage=stage)
    assert upstream.untouched()


def test_a_placeholder_in_the_path(stage, upstream, ask):
    answer = ask(target=f"/v1/alter_grant_{stage.grants['bearer']}/x")
    refusal(answer, "tag_malformed", status=400, stage=stage)
    assert upstream.untouched()


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Alter-Context": "not json"},
        {"X-Alter-Context": "[]"},
        {"X-Alter-Context": '{"a": 1}'},
        {"X-Alter-Context": json.dumps({str(n): "" for n in range(21)})},
        {"X-Alter-Context": json.dumps({"a": "x" * 513})},
        {"X-Alter-Context": json.dumps({str(n): "x" * 500 for n in range(9)})},
        {"X-Alter-Reason": "x" * 513},
    ],
)
def test_contexts(stage, upstream, ask, headers):
    refusal(ask(stage.tag() | headers), "context_malformed", status=400, stage=stage)
    assert upstream.untouched()


@pytest.mark.parametrize(
    "headers",
    [
        {"X-HTTP-Method-Override": "DELETE"},
        {"X-HTTP-Method": "DELETE"},
        {"X_Method_Override": "DELETE"},
        {"Trailer": "X-Checksum"},
    ],
)
def test_forbidden_headers(stage, upstream, ask, headers):
    refusal(ask(stage.tag() | headers), "header_forbidden", status=400, stage=stage)
    assert upstream.untouched()


@pytest.mark.parametrize(
    "headers",
    [
        {"Connection": "Authorization"},
        {"Connection": "close, X-Alter-Grant"},
        {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "eA=="},
        {"Upgrade": "h2c", "Connection": "Upgrade, HTTP2-Settings", "HTTP2-Settings": "AAMAAABkAAQAoAAAAAIAAAAA"},
        {"TE": "gzip"},
    ],
)
def test_forbidden_headers_of_http_1(stage, upstream, headers):
    lines = "".join(f"{name}: {value}\r\n" for name, value in (stage.tag() | headers).items())
    with stage.wire() as wire:
        answer = wire.tunnel(HOST).ask(f"GET /echo HTTP/1.1\r\nHost: {HOST}\r\n{lines}\r\n")
        refusal(answer, "header_forbidden", status=400, stage=stage)
    assert upstream.untouched()


@pytest.mark.parametrize(
    ("which", "code"),
    [
        ("agent's", "grant_unavailable"),
        ("other's", "grant_unavailable"),
        ("other's revoked", "grant_unavailable"),
        ("gone", "grant_unavailable"),
        ("revoked", "grant_revoked"),
        ("expired", "grant_expired"),
        ("switched-off", "secret_disabled"),
    ],
)
def test_grants(stage, upstream, ask, cast, which, code):
    refusal(ask({"X-Alter-Grant": cast[which]}), code, status=403, stage=stage)
    assert upstream.untouched()


def test_a_session_with_two_grants_that_fit(stage, upstream, ask, cast):
    grants = ["--grant", stage.grants["bearer"], "--grant", cast["second"], "--grant", stage.grants["header"]]
    made = stage.vaultctl.json("env", *grants, "--proxy", stage.proxy.address)
    _, name, key = re.split(r"//|:", made["HTTPS_PROXY"].partition("@")[0].replace("http:", "", 1), maxsplit=2)
    refusal(ask(caller=(name, key)), "grant_ambiguous", status=409, stage=stage)
    refusal(ask(stage.tag("basic"), caller=(name, key)), "grant_unavailable", status=403, stage=stage)
    assert upstream.untouched()
    assert ask(caller=(name, key), host=HOSTS["header"]).status == 200
    assert upstream.last.values("dd-api-key")
    assert ask(stage.tag(), caller=(name, key)).status == 200


def test_what_is_told_about_a_grant_of_somebody_else_is_what_is_told_about_none(stage, ask, cast):
    one = refusal(ask({"X-Alter-Grant": cast["other's revoked"]}), "grant_unavailable", status=403)
    other = refusal(ask({"X-Alter-Grant": UNKNOWN}), "grant_unavailable", status=403)
    assert one | {"request_id": ""} == other | {"request_id": ""}


def test_bindings(stage, upstream, evil, ask, cast):
    tag = {"X-Alter-Grant": cast["narrow"]}
    refusal(ask(tag, method="POST", target="/v1/charges"), "method_not_bound", status=403, stage=stage)
    for path in [
        "/v1/refunds",
        "/v1/chargesx",
        "/v1/charges/../refunds",
        "/v1/charges/%2e%2e/x",
        "/v1/charges%2fx",
        "/",
    ]:
        refusal(ask(tag, target=path), "path_not_bound", status=403, stage=stage)
    refusal(ask(stage.tag(), host="evil.test"), "destination_not_bound", status=403, stage=stage)
    refusal(ask(stage.tag(), host="api.datadog.test"), "destination_not_bound", status=403, stage=stage)
    assert upstream.untouched()
    assert evil.untouched()
    assert ask(tag, target="/v1/charges/1").status == 404, "which is the upstream's own"


def test_policies(stage, upstream, ask, cast):
    tag = {"X-Alter-Grant": cast["narrowed"]}
    body = refusal(ask(tag, method="DELETE", target="/v1/x"), "policy_denied", status=403, stage=stage)
    assert body["policy"] == "grant.methods"
    assert refusal(ask(tag, target="/v2/x"), "policy_denied", status=403)["policy"] == "grant.paths"
    body = refusal(ask({"X-Alter-Grant": cast["elsewhere"]}), "policy_denied", status=403, stage=stage)
    assert body["policy"] == "grant.cidr"
    assert upstream.untouched()


def test_cleartext(stage, upstream):
    with stage.wire(caller=None) as wire:
        lines = f"Host: {HOST}\r\nX-Alter-Grant: {stage.grants['bearer']}\r\nX-Alter-Key: {stage.key}\r\n\r\n"
        answer = wire.ask(f"GET http://{HOST}/echo HTTP/1.1\r\n{lines}")
        refusal(answer, "cleartext_upstream", status=403, stage=stage)
    with stage.wire() as wire:
        assert wire.connect(f"{HOST}:80").status == 200
        refusal(wire.ask(f"GET /echo HTTP/1.1\r\n{lines}"), "cleartext_upstream", status=403, stage=stage)
    assert upstream.untouched()


class TestSigning:
    HOST = HOSTS["sigv4"]

    @pytest.fixture
    def tag(self, stage):
        return stage.tag("sigv4")

    def test_chunk_signatures_event_streams_and_sigv4a(self, stage, upstream, tag, ask):
        for headers in [
            {"X-Amz-Content-Sha256": "STREAMING-AWS4-HMAC-SHA256-EVENTS"},
            {"X-Amz-Content-Sha256": "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"},
        ]:
            answer = ask(tag | headers, method="POST", host=self.HOST, body=b"x")
            refusal(answer, "signing_unsupported", status=422, stage=stage)
        assert upstream.untouched()

    def test_a_host_whose_service_nobody_knows(self, stage, upstream, ask, cast):
        answer = ask({"X-Alter-Grant": cast["wide"]}, host="unheardof.eu-west-1.amazonaws.com")
        refusal(answer, "signing_scope_unknown", status=422, stage=stage)
        assert upstream.untouched()

    def test_a_host_of_another_service_than_the_bound_one(self, stage, upstream, ask, cast):
        answer = ask({"X-Alter-Grant": cast["wide"]}, host=self.HOST)
        refusal(answer, "signing_scope_not_bound", status=422, stage=stage)
        assert upstream.untouched()

    def test_minting(self, stage, upstream, ask, cast):
        tag = {"X-Alter-Grant": cast["sts"], "Content-Type": "application/x-www-form-urlencoded"}
        answer = ask(tag, method="POST", target="/", body=b"Action=GetSessionToken&Version=2011-06-15")
        refusal(answer, "credential_minting", status=403, stage=stage)
        assert upstream.untouched()

    def test_a_body_that_is_too_large(self, stage, upstream, tag):
        lines = "".join(f"{name}: {value}\r\n" for name, value in tag.items())
        with stage.wire() as wire:
            head = f"POST /echo HTTP/1.1\r\nHost: {self.HOST}\r\n{lines}Content-Length: {(64 << 20) + 1}\r\n\r\n"
            refusal(wire.tunnel(self.HOST).ask(head), "body_too_large", status=413, stage=stage)
        assert upstream.untouched()


def test_tunnels_to_ports_and_addresses_that_are_never_right(stage, upstream):
    for authority in ["evil.test:25", "evil.test:22", "evil.test:6379", "evil.test:1"]:
        with stage.wire() as wire:
            refusal(wire.connect(authority), "address_forbidden", status=403, stage=stage)
    assert upstream.untouched()


def test_untagged_traffic_can_be_refused(launch, engine, upstream, evil):
    stage = launch("--untagged", "deny", engine=engine)
    for options in [{}, {"http2": True}]:
        with stage.client(**options) as client:
            refusal(client.get(f"https://{HOST}/echo"), "untagged", status=403, stage=stage)
            assert client.get(f"https://{HOST}/echo", headers=stage.tag()).status_code == 200
    with stage.client() as client:
        refusal(client.get("http://evil.test/echo"), "untagged", status=403, stage=stage)
    assert evil.untouched()
    assert len(upstream.seen()) == 2


def test_what_is_recorded_of_a_refusal_can_be_looked_up_by_its_id(stage, ask):
    note = {"X-Alter-Reason": "nightly job", "X-Alter-Context": '{"tool": "search"}'}
    request_id = refusal(ask(stage.tag() | note, target="/echo?a=secret", host="evil.test"), "destination_not_bound",
                         status=403, stage=stage)["request_id"]  # fmt: skip
    (row,) = stage.vaultctl.json("audit", "show", request_id)
    assert (row["decision"], row["code"], row["caller"]) == ("refused", "destination_not_bound", "app:billing")
    assert (row["host"], row["method"], row["path"]) == ("evil.test", "GET", "/echo")
    assert (row["reason"], row["context"]) == ("nightly job", {"tool": "search"})


def test_every_code_of_the_table_is_produced_by_one_of_these_tests():
    sources = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    produced = set(re.findall(r'"([a-z]+_[a-z_]+|untagged|fault)"', sources))
    assert set(CODES) - LATER <= produced


UNREADABLE = {
    "no request": ("hello\r\n\r\n", "header_forbidden"),
    "a line without a colon": ("GET /echo HTTP/1.1\r\nHost: {host}\r\nX-Other\r\n\r\n", "header_forbidden"),
    "two lengths": ("POST /echo HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "header_forbidden"),
    "no length": ("POST /echo HTTP/1.1\r\nHost: {host}\r\nContent-Length: x\r\n\r\n", "header_forbidden"),
    "a head over 64 KiB": ("GET /echo HTTP/1.1\r\nHost: {host}\r\nX-Filler: " + "x" * 66_000, "header_too_large"),
    "too many lines": ("GET /echo HTTP/1.1\r\nHost: {host}\r\n" + "X-Filler: x\r\n" * 300 + "\r\n", "header_too_large"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNREADABLE)
@pytest.mark.parametrize("where", ["in a tunnel", "outside"])
def test_what_cannot_be_read_is_refused_on_record(stage, upstream, where, case):
    raw, code = UNREADABLE[case]
    raw = raw.replace("{host}", HOST)
    with stage.wire() as wire:
        if where == "in a tunnel":
            wire.tunnel(HOST)
        else:
            raw = raw.replace("/echo", f"http://{HOST}/echo")
        answer = wire.ask(raw)
        assert case == "too many lines" or wire.closed()
    refusal(answer, code, status=CODES[code].status, stage=stage)
    recorded = stage.audit(answer.header("x-alter-request-id"))
    assert recorded["client_ip"] == "127.0.0.1"
    assert recorded["host"] == HOST or where == "outside"
    assert upstream.untouched()


def test_no_host_is_refused_on_record(stage, upstream):
    with stage.wire() as wire:
        refusal(wire.ask("GET /echo HTTP/1.1\r\n\r\n"), "header_forbidden", status=400, stage=stage)
    assert upstream.untouched()
