"""
A secret that an upstream sends back does not reach the caller: not in the status text, a header, a trailer or the body,
in no spelling, whatever the pieces and the compression, and whichever engine carries it.
"""

import asyncio
import base64
import gzip
import itertools
import json
import threading
import time
import zlib
from urllib.parse import quote

import brotli
import pytest

from addon.redaction.decoding import zstd
from tests.e2e.behaviours import BEHAVIOURS, reply
from tests.e2e.stage import AWS_SECRET, HOSTS, VALUES, refusal
from tests.e2e.upstream import Upstream

HOST = HOSTS["bearer"]
TOKEN = VALUES["bearer"]["token"]
STARS = "*" * len(TOKEN)

PAIR = "{user}:{password}".format(**VALUES["basic"])
SECRETS = {
    "bearer": [TOKEN],
    "header": list(VALUES["header"].values()),
    "query": [VALUES["query"]["token"], quote(VALUES["query"]["token"], safe="")],
    "basic": [VALUES["basic"]["password"], base64.b64encode(PAIR.encode()).decode(), PAIR],
    "sigv4": [AWS_SECRET],
}

CODINGS = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstd.compress,
}


@pytest.fixture
def played(upstream):
    """`played(function)`: the path at which the upstream does what `function(exchange)` says."""

    def played(function):
        upstream.scripts["played"] = function
        return "/script/played"

    return played


@pytest.fixture
def ask(stage):
    """`ask(path)`: the answer to a tagged request, over HTTP/1.1."""

    def ask(path, headers="", *, kind="bearer", method="GET"):
        with stage.wire() as wire:
            wire.tunnel(HOSTS[kind])
            tag = f"X-Alter-Grant: {stage.grants[kind]}\r\n"
            return wire.ask(f"{method} {path} HTTP/1.1\r\nHost: {HOSTS[kind]}\r\n{tag}{headers}\r\n")

    return ask


@pytest.fixture
def ask_h2(stage):
    """The same over HTTP/2."""

    def ask_h2(path, *, kind="bearer"):
        with stage.h2wire() as wire:
            return wire.tunnel(HOSTS[kind]).ask(path=path, headers=[("x-alter-grant", stage.grants[kind])])

    return ask_h2


def answering(*pieces, status=200, headers=(), trailers=()):
    """A function that sends these pieces, each by itself."""

    async def function(exchange):
        await exchange.start(status, list(headers))
        for piece in pieces:
            await exchange.write(piece)
            await asyncio.sleep(0.002)
        await exchange.end(trailers)

    return function


def text(answer):
    """Everything that the caller gets to see."""
    return json.dumps([answer.headers, answer.body.decode("latin-1")])


@pytest.mark.parametrize("kind", SECRETS)
def test_an_echo_of_the_request_shows_no_secret(ask, upstream, kind):
    answer = ask("/echo?a=b", kind=kind)
    assert answer.status == 200
    assert answer.json["method"] == "GET"
    assert not [secret for secret in SECRETS[kind] if secret in text(answer)]
    assert kind == "sigv4" or "*******" in text(answer)
    assert int(answer.header("content-length")) == len(answer.body)


def test_what_a_sigv4_upstream_knows_from_elsewhere_is_not_shown_either(ask, played):
    assert ask(played(answering(AWS_SECRET.encode())), kind="sigv4").body == b"*" * len(AWS_SECRET)


@pytest.mark.parametrize("kind", ["bearer", "basic"])
def test_an_echo_over_http_2_shows_no_secret(ask_h2, kind):
    answer = ask_h2("/echo", kind=kind)
    assert answer.status == 200
    assert answer.json["version"] == "HTTP/2"
    assert not [secret for secret in SECRETS[kind] if secret in text(answer)]
    assert "*******" in text(answer)


def test_status_text_header_names_and_values_are_searched(stage, upstream):
    upstream.scripts["head"] = (
        f"HTTP/1.1 401 bad key {TOKEN}\r\nX-Key: {TOKEN}\r\n{TOKEN}: 1\r\n"
        f"Location: https://a.test/?k={TOKEN}\r\nContent-Length: 0\r\n\r\n"
    ).encode()
    with stage.wire() as wire:
        wire.tunnel(HOST).send(
            f"GET /script/head HTTP/1.1\r\nHost: {HOST}\r\nX-Alter-Grant: {stage.grants['bearer']}\r\n\r\n"
        )
        raw = b""
        while b"\r\n\r\n" not in raw:
            raw += wire.read()
    assert raw.startswith(f"HTTP/1.1 401 bad key {STARS}\r\n".encode())
    assert TOKEN.encode() not in raw
    assert f"X-Key: {STARS}\r\n".encode() in raw
    assert f"{STARS}: 1\r\n".encode() in raw
    assert f"k={STARS}\r\n".encode() in raw


def test_trailers_over_http_2_are_searched(stage, played):
    path = played(answering(b"body", trailers=[(b"x-checksum", b"abc"), (b"x-key", TOKEN.encode())]))
    with stage.client(http2=True) as client:
        assert client.get(f"https://{HOST}{path}", headers=stage.tag()).text == "body"
    # httpx does not show trailers, and neither does H2Wire: so the frames themselves.
    import h2.events  # noqa: PLC0415

    with stage.h2wire() as wire:
        stream = wire.tunnel(HOST).begin(path=path, headers=[("x-alter-grant", stage.grants["bearer"])])
        seen = []
        while not any(isinstance(event, h2.events.StreamEnded) and event.stream_id == stream for event in seen):
            seen += wire.h2.receive_data(wire.read())
            wire.flush()
    (trailers,) = [dict(event.headers) for event in seen if isinstance(event, h2.events.TrailersReceived)]
    assert trailers == {"x-checksum": "abc", "x-key": STARS}


@pytest.mark.parametrize("at", range(1, len(TOKEN), 3))
def test_a_secret_split_over_pieces_does_not_get_through(ask, played, at):
    secret = TOKEN.encode()
    answer = ask(played(answering(b"key=" + secret[:at], secret[at:] + b" and ", secret[:at], b"-other")))
    assert answer.whole
    assert answer.body == b"key=" + STARS.encode() + b" and " + secret[:at] + b"-other"


def test_a_secret_byte_by_byte_does_not_get_through(ask, ask_h2, played):
    path = played(answering(*(bytes([byte]) for byte in f"<{TOKEN}>".encode())))
    assert ask(path).body == ask_h2(path).body == f"<{STARS}>".encode()


def test_the_beginning_of_a_secret_at_the_very_end_arrives(ask, ask_h2, played):
    path = played(answering(b"ends with ", TOKEN.encode()[:9]))
    assert ask(path).body == ask_h2(path).body == b"ends with " + TOKEN.encode()[:9]


def test_a_body_that_ends_with_the_connection_is_searched(ask, upstream):
    upstream.scripts["until-close"] = b"HTTP/1.1 200 OK\r\n\r\nkey=" + TOKEN.encode()
    answer = ask("/script/until-close?close")
    assert answer.body == b"key=" + STARS.encode()


@pytest.mark.parametrize("coding", CODINGS)
def test_a_compressed_body_is_decoded_searched_and_framed_anew(ask, ask_h2, played, upstream, coding):
    plain = b"<" + TOKEN.encode() + b">" + b"filler " * 5000
    coded = CODINGS[coding](plain)
    headers = [(b"content-encoding", coding.encode()), (b"content-length", b"%d" % len(coded)), (b"x-other", b"1")]
    path = played(answering(coded[:20], coded[20:], headers=headers))
    for answer in (ask(path, "Accept-Encoding: gzip, br, zstd\r\n"), ask_h2(path)):
        assert answer.whole
        assert answer.body == plain.replace(TOKEN.encode(), STARS.encode())
        assert answer.header("content-encoding") is None
        assert answer.header("content-length") is None
        assert answer.header("x-other") == "1"
        assert upstream.last.values("accept-encoding") == ["identity"]


@pytest.mark.parametrize(
    "headers",
    [[(b"content-encoding", b"gzip, br")], [(b"content-encoding", b"gzip"), (b"content-encoding", b"br")],
     [(b"content-encoding", b"compress")], [(b"content-encoding", b"aws-chunked")]],
    ids=["two", "two lines", "an old one", "an unknown one"],
)  # fmt: skip
def test_a_compression_that_cannot_be_undone_is_refused(stage, ask, ask_h2, played, headers):
    path = played(answering(TOKEN.encode(), headers=headers))
    for answer in (ask(path), ask_h2(path)):
        assert (answer.status, answer.code) == (502, "response_undecodable")
        assert TOKEN not in text(answer)
        assert answer.json["code"] == "response_undecodable"
        record = stage.audit(answer.json["request_id"])
        assert (record["status"], record["code"]) == (502, "response_undecodable")


@pytest.mark.parametrize(
    "body",
    [TOKEN.encode() * 3, gzip.compress(TOKEN.encode() * 3)[:-9], gzip.compress(bytes(20 << 20))],
    ids=["a lie", "cut short", "a bomb"],
)
def test_a_body_that_is_not_what_it_says_is_refused_or_broken_off(stage, ask, ask_h2, played, body):
    path = played(answering(body, headers=[(b"content-encoding", b"gzip"), (b"content-length", b"%d" % len(body))]))
    for answer in (ask(path), ask_h2(path)):
        assert TOKEN not in text(answer)
        assert answer.status == 502 or not answer.whole
        assert len(answer.body) < 10 << 20
    assert ask("/echo").status == 200


def test_an_empty_body_may_call_itself_compressed(ask, ask_h2, played):
    path = played(answering(headers=[(b"content-encoding", b"gzip"), (b"content-length", b"0")]))
    for answer in (ask(path), ask_h2(path)):
        assert (answer.status, answer.body, answer.whole) == (200, b"", True)


@pytest.mark.parametrize("status", [204, 304])
def test_a_response_without_a_body_keeps_its_headers(ask, played, status):
    path = played(answering(status=status, headers=[(b"content-encoding", b"gzip"), (b"etag", TOKEN.encode())]))
    answer = ask(path)
    assert (answer.status, answer.header("content-encoding"), answer.header("etag")) == (status, "gzip", STARS)
    assert ask("/bytes/12345", method="HEAD").header("content-length") == "12345"


@pytest.mark.parametrize("kind", ["bearer", "sigv4"])
def test_no_part_of_a_response_can_be_asked_for_unless_the_secret_is_never_sent(ask, upstream, kind):
    ask("/echo", "Range: bytes=0-9\r\nIf-Range: x\r\n", kind=kind)
    found = [upstream.last.values("range"), upstream.last.values("if-range")]
    assert found == ([[], []] if kind == "bearer" else [["bytes=0-9"], ["x"]])


def test_cookies_and_ways_around_the_proxy_are_dropped(ask, ask_h2, stage, played):
    headers = [(b"set-cookie", b"session=1"), (b"alt-svc", b'h3=":443"'), (b"x-kept", b"1")]
    path = played(answering(b"ok", headers=headers))
    for answer in (ask(path), ask_h2(path)):
        names = {name.lower() for name, _ in answer.headers}
        assert not names & {"set-cookie", "alt-svc"}
        assert "x-kept" in names
    with stage.wire() as wire:
        untagged = wire.tunnel("api.unbound.test").ask(f"GET {path} HTTP/1.1\r\nHost: api.unbound.test\r\n\r\n")
    assert {"set-cookie", "alt-svc"} <= {name.lower() for name, _ in untagged.headers}


def test_events_come_one_by_one_unless_their_end_could_be_the_beginning_of_the_secret(stage, played):
    """The upstream sends an event only when the one before has arrived, so none can wait for another."""
    events = [b"data: %d\n\n" % number for number in range(5)] + [b"data: " + TOKEN.encode()[:8] + b"\n\n"]
    arrived = threading.Semaphore(0)

    async def function(exchange):
        await exchange.start(200, [(b"content-type", b"text/event-stream")])
        for event in events:
            await exchange.write(event)
            assert await asyncio.to_thread(arrived.acquire, timeout=5), "an event was held back"
        await exchange.end()

    path = played(function)
    for http2 in (False, True):
        with (
            stage.client(http2=http2) as client,
            client.stream("GET", f"https://{HOST}{path}", headers=stage.tag()) as answer,
        ):
            got = b""
            for piece in answer.iter_raw():
                got += piece
                if got.endswith(b"\n\n"):
                    arrived.release()
        assert got == b"".join(events)


def test_a_redaction_is_counted_recorded_and_logged_without_the_value(stage, played):
    path = played(answering(f"{TOKEN} {TOKEN}".encode(), headers=[(b"x-key", TOKEN.encode())]))
    with stage.client() as client:
        assert client.get(f"https://{HOST}{path}", headers=stage.tag()).text == f"{STARS} {STARS}"
        assert client.get(f"https://{HOST}/status/200", headers=stage.tag() | {"X-Alter-Reason": "plain"}).is_success
    rows = [row for row in stage.records() if row["phase"] == "outcome" and row["path"] == path]
    while not rows or rows[-1]["redactions"] is None:
        rows = [row for row in stage.records() if row["phase"] == "outcome" and row["path"] == path]
    assert rows[-1]["redactions"] == 3
    plain = [row for row in stage.records() if row["phase"] == "outcome" and row["reason"] == "plain"]
    assert {row["redactions"] for row in plain} <= {None}
    assert "repeated the secret bearer" in stage.proxy.log
    assert TOKEN not in stage.proxy.log


@pytest.mark.parametrize("carried", ["X-Key: {}\r\n", "Cookie: a=1; k={}\r\n", "Authorization: Bearer {}\r\n"])
def test_a_caller_that_already_has_the_secret_is_refused(stage, ask, upstream, carried):
    answer = ask("/echo", carried.format(TOKEN))
    refusal(answer, "secret_in_request", status=403, stage=stage)
    assert upstream.untouched(HOST)


def test_a_value_of_the_vault_leaves_in_no_request_at_all(engine, launch, upstream):
    """Neither to another host, nor without a grant, nor after it was rotated; and the operator is told which it is."""
    stage = launch(engine=engine)
    host, old, new = HOSTS["header"], TOKEN, "sk_test_rotated_0123456789abcdef"
    stage.vaultctl.rotate("bearer", token=new)
    with stage.wire() as wire:
        wire.tunnel(host)
        for value, tag in itertools.product((old, new), ("", f"X-Alter-Grant: {stage.grants['header']}\r\n")):
            answer = wire.ask(f"GET /echo HTTP/1.1\r\nHost: {host}\r\n{tag}Authorization: Bearer {value}\r\n\r\n")
            refusal(answer, "secret_in_request", status=403, stage=stage)
            assert "bearer" not in answer.body.decode()
    assert upstream.untouched(host)
    rows = stage.records(code="secret_in_request")
    assert [(row["secret"], row["host"]) for row in rows] == [("bearer", host)] * 4
    assert "has a value of the secret bearer" in stage.proxy.log
    assert not [value for value in (old, new) if value in stage.proxy.log]


@pytest.mark.parametrize("redact", ["used", "bound"])
def test_what_was_ever_bound_to_a_host_can_be_hidden_as_well(engine, launch, played, redact):
    """Created with one secret, or before it was rotated, and read with another."""
    stage = launch("--redact", redact, engine=engine)
    stage.vaultctl.rotate("bearer", token="sk_test_rotated_0123456789abcdef")
    path = played(answering(f"{TOKEN} {VALUES['header']['api_key']}".encode()))
    with stage.client() as client:
        got = client.get(f"https://{HOST}{path}", headers=stage.tag()).text
    assert got == f"{STARS if redact == 'bound' else TOKEN} {VALUES['header']['api_key']}"


def test_a_session_of_a_role_is_hidden_as_well_as_the_key_it_was_made_with(
    engine, launch, upstream, authority, monkeypatch
):
    """The upstream plays STS as well."""
    session = {"SecretAccessKey": "session/secret+canary", "SessionToken": "session-token-canary=="}
    end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
    members = {"AccessKeyId": "ASIACANARY", "Expiration": end} | session
    given = "".join(f"<{name}>{value}</{name}>" for name, value in members.items())
    monkeypatch.setitem(BEHAVIOURS, "", lambda exchange, *_: reply(exchange, 200, given.encode()))
    with Upstream(["sts.eu-west-1.amazonaws.com", HOSTS["sigv4"]], authority=authority) as aws:
        stage = launch(engine=engine, leads_to=(aws,))
        role = ["--assume-role", "arn:aws:iam::123456789012:role/reports"]
        stage.vaultctl.secret("role", "--kind", "sigv4", "--host", HOSTS["sigv4"], *role, **VALUES["sigv4"])
        tag = {"X-Alter-Grant": stage.vaultctl.grant("role", "system:billing")}
        with stage.client() as client:
            echoed = client.get(f"https://{HOSTS['sigv4']}/echo", headers=tag)
            shown = client.get(f"https://{HOSTS['sigv4']}/", headers=tag).text
            aws.scripts["key"] = answering(AWS_SECRET.encode())
            stored = client.get(f"https://{HOSTS['sigv4']}/script/key", headers=tag).text
        assert "ASIACANARY/" in dict(aws.last.headers)[b"Authorization"].decode()
    assert "ASIACANARY/" in echoed.text
    assert not [value for value in session.values() if value in echoed.text + shown]
    assert shown.count("*") == sum(map(len, session.values()))
    assert stored == "*" * len(AWS_SECRET)


def test_a_query_that_holds_the_secret_is_refused(stage, ask, upstream):
    refusal(ask(f"/echo?key={TOKEN}"), "secret_in_request", status=403, stage=stage)
    assert upstream.untouched(HOST)


def test_a_binding_can_let_everything_through(engine, launch, played, upstream):
    stage = launch(engine=engine)
    stage.vaultctl.secret("open", "--kind", "bearer", "--host", HOST, "--no-redact", "--allow-cookies", token=TOKEN)
    grant = stage.vaultctl.grant("open", "system:billing")
    coded = gzip.compress(TOKEN.encode())
    headers = [(b"content-encoding", b"gzip"), (b"set-cookie", b"a=1"), (b"content-length", b"%d" % len(coded))]
    path = played(answering(coded, headers=headers))
    sent = {"X-Alter-Grant": grant, "Range": "bytes=0-", "Accept-Encoding": "gzip"}
    with stage.client() as client:
        answer = client.get(f"https://{HOST}{path}", headers=sent)
    assert answer.text == TOKEN
    assert answer.headers["set-cookie"] == "a=1"
    assert (upstream.last.values("range"), upstream.last.values("accept-encoding")) == (["bytes=0-"], ["gzip"])
