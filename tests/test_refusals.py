"""The answers the proxy makes itself: fixed texts, the same in every engine, and nothing about anybody else."""

import json
import re
from http import HTTPStatus
from pathlib import Path

import pytest

import addon
from addon.refusals import CODES, answer

# wire.md, section 4, and what https://alter.internal/ answers besides
STATUS = {
    202: {"approval_pending"},
    400: {"tag_malformed", "tag_repeated", "context_malformed", "header_forbidden", "request_malformed", "websocket_malformed"},
    401: {"user_token_required", "user_token_invalid"},
    403: {
        "grant_unavailable", "grant_expired", "grant_revoked", "secret_disabled", "delegation_revoked",
        "delegation_expired", "delegation_source_lost", "destination_not_bound", "authority_mismatch",
        "cleartext_upstream", "address_forbidden", "method_not_bound", "path_not_bound", "websocket_not_bound", "credential_minting",
        "secret_in_request", "passthrough_bound", "policy_denied", "approval_denied", "approval_expired",
        "approver_required", "untagged",
    },
    407: {"caller_required", "caller_invalid"},
    404: {"not_found"},
    409: {"approval_closed", "grant_ambiguous", "not_delegable"},
    413: {"body_too_large"},
    422: {"signing_unsupported", "signing_scope_unknown", "signing_scope_not_bound"},
    429: {"rate_limited", "quota_exceeded", "concurrency_exceeded"},
    431: {"header_too_large"},
    502: {"upstream_unverified", "upstream_unreachable", "response_undecodable", "websocket_invalid"},
    503: {"vault_unavailable", "audit_unavailable", "session_unavailable", "fault"},
}  # fmt: skip


def headers(given):
    found = {name.decode(): value.decode() for name, value in given.headers}
    assert len(found) == len(given.headers)
    return found


def test_the_codes_and_their_statuses_are_those_of_the_protocol():
    assert {code: entry.status for code, entry in CODES.items()} == {
        c: status for status, cs in STATUS.items() for c in cs
    }


@pytest.mark.parametrize("code", CODES)
def test_an_answer_has_the_form_that_clients_rely_on(code):
    given = answer(code, "0b6f3c1e")
    body, found = json.loads(given.body), headers(given)
    assert list(body) == ["type", "title", "status", "code", "detail", "hint", "request_id"]
    assert (body["status"], body["code"], body["request_id"]) == (given.status, code, "0b6f3c1e")
    assert body["title"] == HTTPStatus(given.status).phrase
    assert body["type"].endswith(f"#{code}")
    assert (body["detail"], body["hint"]) == (CODES[code].detail, CODES[code].hint)
    assert found["Content-Type"] == "application/problem+json"
    assert found["X-Alter-Error"] == code
    assert found["X-Alter-Request-Id"] == "0b6f3c1e"
    assert found["Cache-Control"] == "no-store"
    assert re.fullmatch(rf'alter-egress; error=[a-z_]+; details="{code}"', found["Proxy-Status"])
    assert given.body.endswith(b"\n")


@pytest.mark.parametrize("code", CODES)
def test_each_status_brings_the_headers_it_must(code):
    found = headers(answer(code, "r"))
    status = CODES[code].status
    assert found.get("Proxy-Authenticate") == ('Basic realm="alter-egress"' if status == 407 else None)
    assert found.get("WWW-Authenticate") == ('Bearer realm="alter-egress"' if status == 401 else None)
    assert found.get("Retry-After") == ("1" if status == 503 else None)


@pytest.mark.parametrize("code", CODES)
def test_texts_are_whole_sentences_that_fit_a_line(code):
    for text in (CODES[code].detail, CODES[code].hint):
        assert text.isprintable()
        assert text.endswith(".")
        assert len(text) < 200


def test_an_unknown_code_says_no_more_than_that_something_broke():
    assert answer("Traceback (most recent call last)", "r") == answer("fault", "r")


def test_a_policy_and_the_time_to_wait_are_told():
    given = answer("rate_limited", "r", policy="grant.rate", retry_after=7)
    assert json.loads(given.body)["policy"] == "grant.rate"
    assert headers(given)["Retry-After"] == "7"
    assert "policy" not in json.loads(answer("policy_denied", "r").body)


def test_hostile_text_stays_inside_its_json_string():
    given = answer("policy_denied", "r", policy='x"\r\n\r\n<script>\u2028')
    assert json.loads(given.body)["policy"] == 'x"\r\n\r\n<script>\u2028'
    assert given.body.count(b"\n") == 1


def test_every_code_that_the_product_names_is_in_the_table():
    source = "".join(path.read_text(encoding="utf-8") for path in Path(addon.__file__).parent.rglob("*.py"))
    named = re.findall(
        r'(?:Refusal|Fault|_refuse|abandon|connection_refused|Broken|Unreachable)\((?:permit, )?"([a-z_]+)"', source
    )
    assert len(named) > 20
    assert set(named) - {"interrupted", "client_gone"} <= set(CODES)
