"""Where a request carries its key, and that two proofs never leave a choice."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addon.callers import key as keys
from addon.callers.proof import find, parse_basic
from addon.errors import Refusal
from addon.model import Request

TEXT, KEY = keys.mint("app")
OTHER, _ = keys.mint("app")


def request(*headers, **changes):
    fields = {
        "id": "r", "scheme": "https", "host": "api.test", "port": 443, "method": "GET", "target": b"/", "headers": headers,
        "authorities": (), "sni": None, "client_ip": "127.0.0.1",
    }  # fmt: skip
    return Request(**(fields | changes))


def basic(key, name="billing"):
    return b"Basic " + base64.b64encode(f"{name}:{key}".encode())


def test_without_a_key_there_is_no_proof():
    assert find(request((b"Host", b"api.test"), (b"Authorization", basic(TEXT)))) is None


def test_proxy_credentials_prove_key_and_name():
    for value in (basic(TEXT), b"basic " + basic(TEXT)[6:], b"BASIC   " + basic(TEXT)[6:] + b" "):
        proof = find(request((b"proxy-AUTHORIZATION", value)))
        assert (proof.key, proof.name) == (KEY, "billing")


def test_proxy_credentials_of_the_tunnel_hold_for_what_is_in_it():
    proof = find(request(tunnel_key=parse_basic(basic(TEXT))))
    assert (proof.key, proof.name) == (KEY, "billing")


def test_the_header_proves_the_key_alone():
    proof = find(request((b"x-ALTER-key", b" " + TEXT.encode() + b"\t")))
    assert (proof.key, proof.name) == (KEY, None)


def test_both_may_come_if_they_carry_the_same_key():
    assert find(request((b"Proxy-Authorization", basic(TEXT)), (b"X-Alter-Key", TEXT.encode()))).name == "billing"
    assert find(request((b"X-Alter-Key", TEXT.encode()), tunnel_key=parse_basic(basic(TEXT)))).name == "billing"


INVALID = {
    "two keys by header": request((b"X-Alter-Key", TEXT.encode()), (b"x-alter-key", TEXT.encode())),
    "two proxy credentials": request((b"Proxy-Authorization", basic(TEXT)), (b"Proxy-Authorization", basic(TEXT))),
    "credentials again inside a tunnel": request(
        (b"Proxy-Authorization", basic(OTHER)), tunnel_key=parse_basic(basic(TEXT))
    ),
    "header and credentials that disagree": request(
        (b"Proxy-Authorization", basic(TEXT)), (b"X-Alter-Key", OTHER.encode())
    ),
    "header and tunnel that disagree": request((b"X-Alter-Key", OTHER.encode()), tunnel_key=parse_basic(basic(TEXT))),
    "a mistyped key": request((b"X-Alter-Key", TEXT[:-1].encode())),
    "an empty key": request((b"X-Alter-Key", b"")),
    "a key that is not ASCII": request((b"X-Alter-Key", b"\xff")),
    "two keys in one value": request((b"X-Alter-Key", f"{TEXT}, {OTHER}".encode())),
    "a good header beside bad credentials": request(
        (b"Proxy-Authorization", b"Basic x"), (b"X-Alter-Key", TEXT.encode())
    ),
    "good credentials beside a bad header": request((b"Proxy-Authorization", basic(TEXT)), (b"X-Alter-Key", b"x")),
}


@pytest.mark.parametrize("bad", INVALID.values(), ids=INVALID)
def test_what_is_malformed_repeated_or_contradictory_proves_nothing(bad):
    with pytest.raises(Refusal) as refused:
        find(bad)
    assert refused.value.code == "caller_invalid"


@pytest.mark.parametrize(
    "value",
    [
        b"", b"Basic", b"Basic ", b"Bearer " + TEXT.encode(), b"Digest x", b"Basic !!!", b"Basic\t" + basic(TEXT)[6:],
        b"Basic " + base64.b64encode(TEXT.encode()), b"Basic " + base64.b64encode(b"billing"), basic(""), basic("x"),
        basic(TEXT + "\n"), basic(":" + TEXT), b"Basic " + base64.b64encode(b"\xff:" + TEXT.encode()),
        basic(TEXT) + b"!", basic(TEXT).replace(b"=", b"") + b"=", b"Basic " + base64.b64encode(TEXT.encode() + b":"),
    ],
)  # fmt: skip
def test_credentials_of_another_form_prove_nothing(value):
    with pytest.raises(Refusal, match="caller_invalid"):
        parse_basic(value)


@given(st.binary(max_size=80) | st.binary(max_size=80).map(lambda raw: b"Basic " + base64.b64encode(raw)))
def test_no_bytes_but_a_key_prove_anything(value):
    with pytest.raises(Refusal, match="caller_invalid"):
        parse_basic(value)
    with pytest.raises(Refusal, match="caller_invalid"):
        find(request((b"X-Alter-Key", value)))


def test_a_refused_key_is_in_no_message():
    with pytest.raises(Refusal) as refused:
        find(request((b"X-Alter-Key", TEXT[:-1].encode())))
    chain = []
    error = refused.value
    while error is not None:
        chain.append(f"{error!r}")
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    assert TEXT[10:40] not in "".join(chain)
