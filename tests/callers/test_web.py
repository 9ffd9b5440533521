"""Fetching keys from a live provider: plain https answers, small and prompt, and nothing else."""

import gzip
import json
import socket
import threading
import time

import pytest
import trustme

from addon.callers.jwt.keys import LIMIT
from addon.callers.web import Unfetched, Web
from tests.callers.conftest import LiveProvider, body, drip


@pytest.fixture
def web(ca_file):
    return Web(ca=ca_file, seconds=1.0)


def discovered(live):
    return live.provider.idp(source="discovery")


def test_discovery_leads_to_the_keys(live, web):
    assert web.key_set(discovered(live)) == live.provider.jwks()
    assert [path for path, _ in live.requests] == ["/.well-known/openid-configuration", "/keys"]


def test_an_address_of_keys_needs_no_discovery(live, web):
    assert web.key_set(live.provider.idp(source="url", jwks_url=live.url + "/keys")) == live.provider.jwks()
    assert live.fetches() == ["/keys"]


def test_a_slash_at_the_end_of_an_issuer_is_not_doubled(live, web):
    live.provider.issuer += "/"
    assert web.key_set(discovered(live)) == live.provider.jwks()


def test_nothing_is_told_but_what_is_asked(live, web):
    web.get(live.url + "/keys")
    [(_, headers)] = live.requests
    assert set(headers) == {"Host", "Accept", "Accept-Encoding", "User-Agent", "Connection"}


@pytest.mark.parametrize(
    "document",
    [
        b"{}", b"[]", b"", b"not json", {"issuer": "https://other.test"}, {"jwks_uri": "http://localhost/keys"},
        {"jwks_uri": "file:///etc/passwd"}, {"jwks_uri": None}, {"jwks_uri": ["x"]}, {"jwks_uri": "https://u:p@localhost/"},
        {"jwks_uri": "https://localhost/keys?x=1"}, {"jwks_uri": "https:///keys"}, {"jwks_uri": "ftp://localhost/keys"},
    ],
)  # fmt: skip
def test_a_discovery_document_that_names_no_https_address_or_another_issuer_is_refused(live, web, document):
    if isinstance(document, dict):
        document = json.dumps({"issuer": live.provider.issuer, "jwks_uri": live.url + "/keys"} | document).encode()
    live.answers["/.well-known/openid-configuration"] = body(document)
    with pytest.raises(Unfetched):
        web.key_set(discovered(live))
    assert not live.fetches()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location", ["/elsewhere", "http://localhost/keys", "file:///etc/passwd", "https://evil.test/"]
)
def test_no_redirect_is_followed(live, web, status, location):
    live.answers["/keys"] = body(b"", status=status, Location=location)
    with pytest.raises(Unfetched, match="no redirect is followed"):
        web.get(live.url + "/keys")
    assert live.fetches() == ["/keys"]


@pytest.mark.parametrize("status", [204, 400, 401, 404, 500, 503])
def test_only_200_counts(live, web, status):
    live.answers["/keys"] = body(b"", status=status)
    with pytest.raises(Unfetched, match=str(status)):
        web.get(live.url + "/keys")


def test_a_compressed_answer_is_not_taken(live, web):
    live.answers["/keys"] = body(gzip.compress(b"x" * 10_000_000), Content_Encoding="gzip")
    with pytest.raises(Unfetched, match="compressed"):
        web.get(live.url + "/keys")


def test_an_answer_is_read_up_to_the_limit_and_no_further(live, web):
    sent = []

    def endless(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while len(sent) < 1000:
            handler.wfile.write(b" " * 65536)
            sent.append(1)

    live.answers["/keys"] = endless
    with pytest.raises(Unfetched, match=str(LIMIT)):
        web.get(live.url + "/keys")
    assert len(sent) < 200


def test_a_slow_drip_ends_at_the_deadline(live, web):
    live.answers["/keys"] = drip(live.provider.jwks())
    begun = time.monotonic()
    with pytest.raises(Unfetched, match="too slow"):
        web.get(live.url + "/keys")
    assert time.monotonic() - begun < 2.5


def test_silence_ends_at_the_deadline(live, web):
    live.answers["/keys"] = lambda _: time.sleep(3)
    begun = time.monotonic()
    with pytest.raises(Unfetched, match="too slow"):
        web.get(live.url + "/keys")
    assert time.monotonic() - begun < 2.5


def test_a_handshake_that_never_comes_ends_at_the_deadline(web):
    with socket.create_server(("127.0.0.1", 0)) as mute:
        begun = time.monotonic()
        with pytest.raises(Unfetched, match="too slow"):
            web.get(f"https://localhost:{mute.getsockname()[1]}/keys")
    assert time.monotonic() - begun < 2.5


@pytest.mark.parametrize("answer", [b"", b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nshort", b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70_000, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"])  # fmt: skip
def test_broken_answers_are_refused(live, web, answer):
    live.answers["/keys"] = lambda handler: (handler.wfile.write(answer), handler.connection.close())
    with pytest.raises(Unfetched):
        web.get(live.url + "/keys")


def test_a_provider_that_is_not_there_is_said_to_be_so(live, web):
    live.stop()
    with pytest.raises(Unfetched, match="refused"):
        web.get(live.url + "/keys")


def test_a_certificate_of_an_unknown_ca_is_refused(ca_file):
    stranger = LiveProvider(trustme.CA())
    try:
        with pytest.raises(Unfetched, match="does not verify"):
            Web(ca=ca_file, seconds=1.0).get(stranger.url + "/keys")
        assert not stranger.requests
    finally:
        stranger.stop()


def test_a_certificate_of_another_name_is_refused(certificates, ca_file):
    other = LiveProvider(certificates, host="other.test")
    try:
        with pytest.raises(Unfetched, match="does not verify"):
            Web(ca=ca_file, seconds=1.0).get(other.url + "/keys")
    finally:
        other.stop()


def test_the_public_cas_are_trusted_where_no_bundle_is_given(live):
    with pytest.raises(Unfetched, match="does not verify"):
        Web(seconds=1.0).get(live.url + "/keys")


def test_connections_may_be_sent_elsewhere_and_tls_still_proves_the_host(certificates, ca_file):
    provider = LiveProvider(certificates, host="id.private.test")
    try:
        web = Web(ca=ca_file, redirects={("id.private.test", 443): ("127.0.0.1", provider.port)}, seconds=1.0)
        assert web.get("https://id.private.test/keys") == provider.provider.jwks()
        assert provider.requests[0][1]["Host"] == "id.private.test"
    finally:
        provider.stop()


def test_no_thread_stays_behind(live, web):
    before = threading.active_count()
    for _ in range(5):
        web.get(live.url + "/keys")
    time.sleep(0.1)
    assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
    assert threading.active_count() <= before + 5
