"""
The credential goes to its own host and nowhere else, whatever the names in a request say.

Each case is a CONNECT, an SNI and a request. The bearer secret is bound to https api.stripe.test:443 alone; `evil` is a
genuine upstream of somebody else. `{tag}` becomes the header that asks for the grant.
"""

import random
import string

import pytest

from tests.e2e.stage import VALUES
from tests.e2e.wire import Wire

API, EVIL = "api.stripe.test", "evil.test"
BEARER = f"Bearer {VALUES['bearer']['token']}"
PLAIN = f"GET /echo HTTP/1.1\r\nHost: {API}\r\n{{tag}}\r\n"


def get(host, *, target="/echo", method="GET", more=""):
    return f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{{tag}}{more}\r\n"


INJECTED = {
    "plain": (f"{API}:443", API, PLAIN),
    "the port in Host": (f"{API}:443", API, get(f"{API}:443")),
    "another case": ("API.Stripe.TEST:443", "API.stripe.test", get("aPi.StRiPe.TeSt")),
    "no SNI": (f"{API}:443", None, PLAIN),
    "OPTIONS with Max-Forwards": (f"{API}:443", API, get(API, method="OPTIONS", more="Max-Forwards: 0\r\n")),
    "absolute form of itself": (f"{API}:443", API, get(API, target=f"https://{API}/echo")),
    "absolute form with the port": (f"{API}:443", API, get(API, target=f"https://{API}:443/echo")),
}

NOWHERE = {
    "a trailing dot in CONNECT": (f"{API}.:443", API, PLAIN),
    "a trailing dot in Host": (f"{API}:443", API, get(f"{API}.")),
    "CONNECT with a leading zero in the port": (f"{API}:0443", API, PLAIN),
    "the tag listed in Connection": (f"{API}:443", API, get(API, more="Connection: close, X-Alter-Grant\r\n")),
}
"""May be injected or refused, but leads nowhere else."""

REFUSED = {
    "CONNECT evil with SNI and Host api": (f"{EVIL}:443", API, PLAIN),
    "fronting": (f"{EVIL}:443", EVIL, PLAIN),
    "fronting with absolute form": (f"{EVIL}:443", EVIL, get(EVIL, target=f"https://{API}/echo")),
    "honestly to evil": (f"{EVIL}:443", EVIL, get(EVIL)),
    "reverse fronting": (f"{API}:443", API, get(EVIL)),
    "SNI evil": (f"{API}:443", EVIL, PLAIN),
    "CONNECT to an address": ("127.0.0.1:443", API, PLAIN),
    "CONNECT to an address, named": ("127.0.0.1:443", None, get("127.0.0.1")),
    "another port": (f"{API}:8443", API, get(f"{API}:8443")),
    "another port, unnamed": (f"{API}:8443", API, PLAIN),
    "another port in Host": (f"{API}:443", API, get(f"{API}:8443")),
    "an empty port in Host": (f"{API}:443", API, get(f"{API}:")),
    "a port with a leading sign": (f"{API}:443", API, get(f"{API}:+443")),
    "two Hosts, ours first": (f"{API}:443", API, get(API, more=f"Host: {EVIL}\r\n")),
    "two Hosts, ours last": (f"{API}:443", API, get(EVIL, more=f"Host: {API}\r\n")),
    "two equal Hosts": (f"{API}:443", API, get(API, more=f"Host: {API}\r\n")),
    "a comma in Host": (f"{API}:443", API, get(f"{API}, {EVIL}")),
    "an empty Host": (f"{API}:443", API, get("")),
    "no Host": (f"{API}:443", API, "GET /echo HTTP/1.0\r\n{tag}\r\n"),
    "absolute form to evil": (f"{API}:443", API, get(API, target=f"https://{EVIL}/echo")),
    "absolute form to evil, Host too": (f"{API}:443", API, get(EVIL, target=f"https://{EVIL}/echo")),
    "absolute form with http": (f"{API}:443", API, get(API, target=f"http://{API}/echo")),
    "absolute form with userinfo": (f"{API}:443", API, get(API, target=f"https://{API}@{EVIL}/echo")),
    "absolute form with a fragment": (f"{API}:443", API, get(API, target=f"https://{EVIL}#{API}/echo")),
    "userinfo in Host": (f"{API}:443", API, get(f"{API}@{EVIL}")),
    "userinfo in Host, reversed": (f"{API}:443", API, get(f"{EVIL}@{API}")),
    "api as a prefix": (f"{API}.{EVIL}:443", f"{API}.{EVIL}", get(f"{API}.{EVIL}")),
    "api as a suffix": (f"evil{API}:443", f"evil{API}", get(f"evil{API}")),
    "two labels under a wildcard": ("a.b.wild.test:443", "a.b.wild.test", get("a.b.wild.test")),
    "no label under a wildcard": ("wild.test:443", "wild.test", get("wild.test")),
    "a homoglyph": ("api.stri\xd1\x80e.test:443", API, PLAIN),
    "a homoglyph in Host": (f"{API}:443", API, get("api.stri\xd1\x80e.test")),
    "brackets": (f"[{API}]:443", API, get(f"[{API}]")),
    "brackets in Host": (f"{API}:443", API, get(f"[{API}]")),
    "a blank in Host": (f"{API}:443", API, get(f"{API} {EVIL}")),
    "a slash in Host": (f"{API}:443", API, get(f"{API}/@{EVIL}")),
    "TRACE": (f"{API}:443", API, get(API, method="TRACE")),
    "TRACK": (f"{API}:443", API, get(API, method="TRACK")),
    "CONNECT inside": (f"{API}:443", API, get(API, method="CONNECT", target=f"{EVIL}:443")),
    "a method override": (f"{API}:443", API, get(API, more="X-HTTP-Method-Override: TRACE\r\n")),
    "Authorization in Connection": (f"{API}:443", API, get(API, more="Connection: Authorization\r\n")),
    "two tags": (f"{API}:443", API, get(API, more="{tag}")),
    "two tags in one": (f"{API}:443", API, get(API).replace("{tag}", "X-Alter-Grant: {id}, {id}\r\n")),
    "a tag with underscores": (f"{API}:443", API, get(API).replace("{tag}", "X_Alter_Grant: {id}\r\n")),
    "CONNECT without a port": (API, API, PLAIN),
    "CONNECT with an odd port": (f"{API}:+443", API, PLAIN),
    "CONNECT with userinfo": (f"{API}@{EVIL}:443", EVIL, PLAIN),
    "CONNECT with a path": (f"{API}/x:443", API, PLAIN),
}


@pytest.fixture(scope="module")
def wild(_stage):
    """A grant for a wildcard."""
    _stage.vaultctl.secret("wild", "--kind", "bearer", "--host", "*.wild.test", token="wild")
    return _stage.vaultctl.grant("wild", "system:billing")


@pytest.fixture
def attempt(stage, wild):
    """`attempt(connect, sni, request)`: the answer to the request, or to a CONNECT that was refused."""

    def attempt(connect, sni, request):
        grant = wild if "wild.test" in connect else stage.grants["bearer"]
        with stage.wire(timeout=3) as wire:
            opened = wire.connect(connect)
            if opened.status != 200:
                return opened
            try:
                wire.encrypt(sni)
            except OSError:
                return opened
            return wire.ask(request.replace("{tag}", f"X-Alter-Grant: {grant}\r\n").replace("{id}", grant))

    return attempt


def check_clean(*upstreams):
    """No upstream saw a tag, or anything else of ours."""
    for seen in [seen for each in upstreams for seen in each.seen()]:
        names = [name.lower() for name, _ in seen.headers]
        assert not [name for name in names if name.replace(b"_", b"-").startswith((b"x-alter", b"proxy-"))]
        assert b"x-alter" not in seen.raw.lower()


@pytest.mark.parametrize("case", INJECTED)
def test_is_injected(attempt, upstream, evil, case):
    assert attempt(*INJECTED[case]).status == 200
    assert upstream.last.values("authorization") == [BEARER]
    assert upstream.last.values("host") in ([API], [f"{API}:443"], ["aPi.StRiPe.TeSt"])
    assert upstream.last.target == b"/echo"
    assert upstream.last.sni == API
    check_clean(upstream)
    assert evil.untouched(after=0)


@pytest.mark.parametrize("case", NOWHERE)
def test_leads_nowhere_else(attempt, upstream, evil, case):
    answer = attempt(*NOWHERE[case])
    assert (answer.status == 200) == bool(upstream.seen())
    assert answer.status == 200 or answer.code
    check_clean(upstream)
    assert evil.untouched()


@pytest.mark.parametrize("case", REFUSED)
def test_is_refused(stage, attempt, upstream, evil, case):
    answer = attempt(*REFUSED[case])
    assert answer.status in {0, 400, 403}, answer
    assert answer.status == 0 or answer.code
    assert evil.untouched(after=0)
    assert upstream.untouched()


EXACT = {
    "fronting": "authority_mismatch",
    "reverse fronting": "authority_mismatch",
    "SNI evil": "authority_mismatch",
    "another port in Host": "authority_mismatch",
    "two Hosts, ours first": "authority_mismatch",
    "absolute form to evil": "authority_mismatch",
    "userinfo in Host": "authority_mismatch",
    "honestly to evil": "destination_not_bound",
    "another port": "destination_not_bound",
    "api as a suffix": "destination_not_bound",
    "two labels under a wildcard": "destination_not_bound",
    "TRACE": "method_not_bound",
    "absolute form with http": "cleartext_upstream",
}


@pytest.mark.parametrize("case", EXACT)
def test_says_which_rule_was_broken(stage, attempt, case):
    assert attempt(*REFUSED[case]).code == EXACT[case]


def test_a_tag_in_a_trailer_is_no_tag_and_stays_here(attempt, upstream):
    request = f"POST /echo HTTP/1.1\r\nHost: {API}\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n{{tag}}\r\n"
    assert attempt(f"{API}:443", API, request).status in {200, 400}
    for seen in upstream.seen():
        assert not seen.trailers
        assert not seen.values("authorization")
    check_clean(upstream)


def test_requests_to_the_proxy_itself(stage, upstream, evil):
    for request in [
        f"GET http://{API}/echo HTTP/1.1\r\nHost: {API}\r\n{{tag}}\r\n",
        f"GET https://{EVIL}/echo HTTP/1.1\r\nHost: {API}\r\n{{tag}}\r\n",
        f"GET https://{API}/echo HTTP/1.1\r\nHost: {EVIL}\r\n{{tag}}\r\n",
        f"GET /echo HTTP/1.1\r\nHost: {API}\r\n{{tag}}\r\n",
        f"GET ftp://{API}/echo HTTP/1.1\r\nHost: {API}\r\n{{tag}}\r\n",
        "GET * HTTP/1.1\r\n{tag}\r\n",
    ]:
        key = f"X-Alter-Key: {stage.key}\r\nX-Alter-Grant: {stage.grants['bearer']}\r\n"
        with stage.wire() as wire:
            answer = wire.ask(request.replace("{tag}", key))
        assert answer.status in {0, 400, 403}, request
    assert upstream.untouched()
    assert evil.untouched(after=0)


@pytest.mark.parametrize("port", [80, 443])
def test_a_tunnel_without_tls(stage, upstream, port):
    with stage.wire() as wire:
        assert wire.connect(f"{API}:{port}").status == 200
        answer = wire.ask(PLAIN.replace("{tag}", f"X-Alter-Grant: {stage.grants['bearer']}\r\n"))
        assert answer.code == "cleartext_upstream"
    assert upstream.untouched()


RAW = {
    "ssh": b"SSH-2.0-OpenSSH_9.6\r\n",
    "smtp": b"EHLO x\r\nMAIL FROM:<a@b>\r\n",
    "redis": b"*1\r\n$4\r\nPING\r\n",
    "garbage": bytes(range(256)) * 4,
    "http/2 without TLS": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0",
    "a ClientHello cut short": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 32,
    "an alert": b"\x15\x03\x01\x00\x02\x02\x28",
    "a record of length 0": b"\x16\x03\x01\x00\x00" * 100,
}


@pytest.mark.parametrize("inside", ["tunnel", "tls"])
@pytest.mark.parametrize("data", RAW)
def test_what_is_not_http_goes_nowhere(stage, upstream, data, inside):
    with stage.wire(timeout=0.3) as wire:
        if inside == "tls":
            wire.tunnel(API)
        else:
            assert wire.connect(f"{API}:443").status == 200
        wire.send(RAW[data])
        wire.rest(within=0.1)
    assert upstream.untouched()


class TestHttp2:
    """Frames written with header validation off in the client."""

    @pytest.fixture
    def ask(self, stage):
        def ask(headers=None, *, tunnel=API, tags=1, **options):
            with stage.h2wire(timeout=3) as wire:
                wire.tunnel(tunnel)
                wire.authority = API
                tag = [("x-alter-grant", stage.grants["bearer"])] * tags
                return wire.ask(path=options.pop("path", "/echo"), headers=[*tag, *(headers or [])], **options)

        return ask

    def test_the_correct_request(self, ask, upstream):
        assert ask().status == 200
        assert upstream.last.values("authorization") == [BEARER]
        check_clean(upstream)

    @pytest.mark.parametrize(
        ("code", "options"),
        [
            ("authority_mismatch", {"pseudo": {":authority": EVIL}}),
            ("authority_mismatch", {"pseudo": {":authority": f"{API}:8443"}}),
            ("authority_mismatch", {"tunnel": EVIL}),
            ("cleartext_upstream", {"pseudo": {":scheme": "http"}}),
            ("tag_repeated", {"tags": 2}),
            ("method_not_bound", {"method": "TRACE"}),
            ("header_forbidden", {"headers": [("x-http-method-override", "TRACE")]}),
        ],
    )
    def test_is_refused(self, ask, upstream, evil, code, options):
        assert ask(**options).code == code
        assert upstream.untouched()
        assert evil.untouched(after=0)

    @pytest.mark.parametrize(
        "options",
        [
            {"pseudo": {":authority": f"{API}@{EVIL}"}},
            {"headers": [("host", EVIL)]},
            {"headers": [("host", API), ("host", API)]},
            {"headers": [(":x-alter-grant", "0" * 36)]},
            {"headers": [("X-ALTER-GRANT", "0" * 36)]},
            {"headers": [("x-alter-grant", "0" * 16 + "\r\nx-alter-grant: 1")], "tags": 0},
            {"headers": [("x-other", "a\r\nx-alter-grant: 1")]},
            {"headers": [("x-other", "a\0b")]},
            {"headers": [("x other", "a")]},
            {"headers": [("transfer-encoding", "chunked")]},
            {"headers": [("connection", "close")]},
            {"headers": [("content-length", "5")], "body": b"hello, world"},
            {"headers": [("content-length", "-1")]},
            {"headers": [("content-length", "5"), ("content-length", "6")], "body": b"hello"},
            {"pseudo": {":authority": ""}},
            {"pseudo": {":path": ""}},
            {"pseudo": {":path": f"https://{EVIL}/"}},
            {"pseudo": {":path": "echo"}},
            {"pseudo": {":path": "/echo HTTP/1.1\r\nX: y"}},
            {"pseudo": {":method": "GET /x"}},
            {"pseudo": {":scheme": "https://evil.test/"}},
            {"method": "CONNECT"},
        ],
    )
    def test_does_not_pass(self, ask, upstream, evil, options):
        answer = ask(**options)
        assert answer.status in {0, 400, 403}
        assert evil.untouched(after=0)
        assert all(not seen.complete for seen in upstream.seen())
        check_clean(upstream)

    def test_a_tag_in_a_trailer_is_no_tag_and_stays_here(self, stage, ask, upstream):
        answer = ask(method="POST", tags=0, body=b"abc", trailers=[("x-alter-grant", stage.grants["bearer"])])
        assert answer.status in {0, 200, 400}
        for seen in upstream.seen():
            assert not seen.trailers
            assert not seen.values("authorization")

    def test_hostile_header_lists_get_no_credential_out_and_kill_nobody(self, stage, upstream, evil):
        """Seeded, so that what fails once can be seen again."""
        dice = random.Random(20_06)
        texts = [API, EVIL, f"{API}:443", "", " ", "\r\n", "\0", "é", "a" * 5000, *string.punctuation]
        names = [":path", ":authority", ":scheme", "host", "x-alter-grant", "X-Alter-Grant", "connection", "te",
                 "content-length", "transfer-encoding", "upgrade", "cookie", "proxy-authorization", "", ":", "a b"]  # fmt: skip
        for _ in range(150):
            pairs = [(dice.choice(names), dice.choice(texts)) for _ in range(dice.randrange(6))]
            pseudo = {dice.choice(names[:3]): dice.choice(texts) for _ in range(dice.randrange(2))}
            with stage.h2wire(timeout=3) as wire:
                wire.tunnel(dice.choice([API, EVIL]))
                wire.authority = dice.choice([API, EVIL])
                tag = [("x-alter-grant", stage.grants["bearer"])]
                wire.ask(path="/echo", headers=[*tag, *pairs], pseudo=pseudo)
        for seen in upstream.seen():
            assert seen.values("host") in ([API], [f"{API}:443"], [API, API])
        assert not [seen for seen in evil.seen() if BEARER.encode() in b"".join(value for _, value in seen.headers)]
        check_clean(upstream, evil)
        assert stage.proxy.process.poll() is None
        assert "ended with code" not in stage.proxy.log


def test_a_tunnel_opened_by_one_app_is_not_open_to_requests_of_none(stage, upstream):
    """The key on CONNECT holds for its tunnel and for no other connection."""
    request = PLAIN.replace("{tag}", f"X-Alter-Grant: {stage.grants['bearer']}\r\n")
    with stage.wire() as first, Wire(stage.proxy) as second:
        assert first.tunnel(API).ask(request).status == 200
        assert second.tunnel(API).ask(request).code == "caller_required"
    assert len(upstream.seen()) == 1
