"""A value of the vault is recognised in a request, wherever a client would put it, and nothing else is."""

import base64
import re
from urllib.parse import quote, quote_plus, unquote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from addon.audit import entry
from addon.binding import Binding
from addon.callers import key
from addon.errors import Fault
from addon.model import Head
from addon.pipeline import Refused, Untagged
from addon.vault import Vault, known, lookup
from addon.vault.database import Unanswered
from addon.vault.keyring import Keyring
from addon.vault.known import Known
from tests.conftest import CANARY

ONE, TWO = "sk_live_51Habcdefghijkl", "p4ss/w0rd+with==signs&more"
BLANKS = "horse battery? staple"

PLACES = {
    "alone": ("/", b"X-Api-Key", "{}"),
    "bearer": ("/", b"Authorization", "Bearer {}"),
    "token": ("/", b"Authorization", 'Token token="{}", nonce="1"'),
    "cookie": ("/", b"Cookie", "a=1; session={}; b=2"),
    "json": ("/", b"X-Meta", '{{"key":"{}"}}'),
    "beside others": ("/", b"X-Meta", "key:{}/v1"),
}


def written(place, value):
    target, name, text = PLACES[place]
    return Head("GET", target.encode(), ((b"Host", b"api.test"), (name, text.format(value).encode())))


@pytest.fixture
def vault(tmp_path):
    home = tmp_path / "home"
    Vault.create(home, now=1.0).close()
    vault = Vault.connect(home, keyring=Keyring.load(home / "proxy.key"))
    for name, value in (("one", ONE), ("two", TWO)):
        put(vault, name, value)
    yield vault
    vault.close()


def put(vault, name, value):
    binding = Binding(hosts=(("api.test", 443),))
    vault.secrets.put(name, kind="bearer", binding=binding, values={"token": value}, now=1.0)


def recognised(vault, head):
    vault.lookup(digest=b"", tag="")
    return vault.recognise(head)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("name", "value"), [("one", ONE), ("two", TWO)])
def test_a_value_is_recognised_wherever_a_client_would_put_it(vault, place, name, value):
    assert recognised(vault, written(place, value)) == name


@pytest.mark.parametrize("target", ["/?key={}", "/?a=1&key={}&b=2", "/bot{}/send", "/?a={}"])
def test_a_value_is_recognised_in_the_target_percent_encoded_or_not(vault, target):
    for value in (quote(TWO, safe=""), quote(TWO), TWO):
        assert recognised(vault, Head("GET", target.format(value).encode(), ())) == "two"


@pytest.mark.parametrize("place", PLACES)
def test_a_value_is_recognised_percent_encoded_in_a_header(vault, place):
    assert recognised(vault, written(place, quote(TWO, safe=""))) == "two"


def test_a_value_with_a_blank_is_recognised_as_a_form_writes_it(vault):
    put(vault, "three", BLANKS)
    for value in (quote_plus(BLANKS), quote(BLANKS, safe=""), BLANKS.replace(" ", "+")):
        assert recognised(vault, Head("GET", f"/?a=1&key={value}&b=2".encode(), ())) == "three"


@pytest.mark.parametrize("pair", ["user:{}", "{}:", "{}:x"])
@pytest.mark.parametrize("scheme", ["Basic", "basic", "BASIC"])
def test_a_value_is_recognised_inside_basic_credentials(vault, pair, scheme):
    encoded = base64.b64encode(pair.format(ONE).encode()).decode()
    head = Head("GET", b"/", ((b"Authorization", f"{scheme} {encoded}".encode()),))
    assert recognised(vault, head) == "one"


@pytest.mark.parametrize("value", [b"Basic" + b" " * (1 << 20) + b"!", b"Basic " + b"A" * (1 << 20) + b"!"])
def test_what_only_begins_like_basic_credentials_is_passed_over_at_any_length(vault, value):
    """Going back over it again and again would take an hour."""
    assert recognised(vault, Head("GET", b"/", ((b"Authorization", value),))) is None


@pytest.mark.parametrize("almost", [ONE[:-1], ONE[1:], ONE.upper(), ONE[:-1] + "X", "51Habcdefghijkl", ONE[::-1]])
def test_what_is_not_the_whole_value_is_not_recognised(vault, almost):
    assert recognised(vault, written("bearer", almost)) is None


def test_a_retired_value_is_recognised_until_its_secret_is_deleted(vault):
    vault.secrets.rotate("one", values={"token": "sk_live_52anotherone0000"}, now=2.0, grace=0.0)
    vault.secrets.rotate("one", values={"token": "sk_live_53anotherone0000"}, now=3.0)
    for value in (ONE, "sk_live_52anotherone0000", "sk_live_53anotherone0000"):
        known_before = recognised(vault, written("bearer", value))
        assert known_before == (None if value == ONE else "one")  # never seen, and destroyed at once
    vault.secrets.delete("one", now=4.0)
    assert recognised(vault, written("bearer", "sk_live_53anotherone0000")) is None


def test_a_value_that_was_seen_is_recognised_after_it_was_destroyed(vault):
    assert recognised(vault, written("bearer", ONE)) == "one"
    vault.secrets.rotate("one", values={"token": "sk_live_52anotherone0000"}, now=2.0, grace=0.0)
    assert len(vault.secrets.get("one").versions) == 1
    assert recognised(vault, written("bearer", ONE)) == "one"


def test_a_short_value_is_not_recognised_since_it_may_be_anybodys_word(vault):
    put(vault, "word", "administrator")
    assert recognised(vault, written("bearer", "administrator")) is None


def test_a_version_that_does_not_open_keeps_nobody_from_being_recognised(vault):
    vault.database.conn.execute(
        "UPDATE versions SET payload = zeroblob(99) WHERE secret_id = (SELECT id FROM secrets WHERE name = 'one')"
    )
    assert recognised(vault, written("bearer", ONE)) is None
    assert recognised(vault, written("bearer", TWO)) == "two"


def test_without_the_private_key_nothing_is_recognised(vault):
    with_no_key = Vault.connect(vault.home)
    assert recognised(with_no_key, written("bearer", ONE)) is None
    with_no_key.close()


def test_what_is_kept_of_a_value_is_neither_the_value_nor_the_same_in_another_process(vault):
    indexes = []
    for _ in range(2):
        index = Known(vault.database, reveal=vault._reveal)
        index.refresh()
        assert index.find(written("bearer", ONE)) == "one"
        kept = repr(vars(index) | {"_database": None, "_reveal": None})
        assert ONE not in kept
        assert "51Habcdefghijkl" not in kept
        indexes.append(set(index._by_run))
    assert not indexes[0] & indexes[1]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(
    value=st.from_regex(r"[!-~]{16,60}", fullmatch=True),
    before=st.from_regex(r"([ -~]*[ =\":,;&/])?", fullmatch=True),
    after=st.from_regex(r"([ =\":,;&/][ -~]*)?", fullmatch=True),
)
@example(value="-" * 16, before="", after="")
def test_a_value_with_a_run_of_five_is_found_between_any_separators(value, before, after):
    index = Known.__new__(Known)
    index.__init__(None, reveal=lambda *_: ("name", [value]))
    index._take([("id", 1)])
    found = index.find(Head("GET", b"/", ((b"X-Any", f"{before}{value}{after}".encode()),)))
    assert found == ("name" if re.search("[A-Za-z0-9]{5}", value) else None)
    assert len(value) >= known.SHORTEST


PIECES = sorted({piece for at in range(len(ONE) + 1) for piece in (ONE[:at], ONE[at:])} | {" ", "%", "=", "x", "/"})


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(pieces=st.lists(st.sampled_from(PIECES) | st.from_regex(r"[ -~]{1,12}", fullmatch=True), max_size=8))
def test_nothing_is_recognised_that_is_not_there(pieces):
    index = Known.__new__(Known)
    index.__init__(None, reveal=lambda *_: ("name", [ONE]))
    index._take([("id", 1)])
    text = "".join(pieces)
    for head in (Head("GET", b"/", ((b"X-Any", text.encode()),)), Head("GET", f"/{text}".encode(), ())):
        assert index.find(head) is None or ONE in text + unquote(text)


@pytest.mark.parametrize("grant", ["stripe", None])
def test_a_request_that_holds_a_value_is_refused_with_a_grant_or_without(story, grant):
    outcome = story.decide(grant=grant, headers=[(b"X-Mine", story.canary.encode())])
    assert isinstance(outcome, Refused)
    assert (outcome.code, outcome.record.secret, outcome.record.caller) == (
        "secret_in_request",
        "stripe",
        "app:billing",
    )


def test_another_secrets_value_is_refused_as_well_and_the_record_names_that_secret(story):
    outcome = story.decide(url="https://api.stripe.test/v1/charges?k=sk-openai-canary-77")
    assert (outcome.code, outcome.record.secret) == ("secret_in_request", "openai")


def test_a_value_that_a_stranger_sends_is_refused_as_well(story):
    assert isinstance(story.decide(grant=None, caller=None), Untagged)
    outcome = story.decide(grant=None, caller=None, headers=[(b"X-Mine", story.canary.encode())])
    assert outcome.code == "secret_in_request"


@pytest.mark.parametrize(
    "what",
    [
        {"target": b"/bot" + CANARY.encode() + b"/send"},
        {"headers": [(b"X-Alter-Reason", b"with " + CANARY.encode())]},
        {"headers": [(b"X-Alter-Context", b'{"key":"' + CANARY.encode() + b'"}')]},
    ],
)
def test_no_record_of_such_a_request_holds_the_value_whoever_sent_it(story, what):
    for caller, code in (("billing", "secret_in_request"), (key.mint("app")[0], "caller_invalid")):
        outcome = story.decide(caller=caller, **what)
        assert (outcome.code, outcome.record.secret) == (code, "stripe")
        assert CANARY not in repr(outcome.record) + entry.record(outcome.record).decode()


@pytest.mark.parametrize("when", ["versions are listed", "a version is read"])
def test_a_vault_that_cannot_tell_is_a_fault_until_it_can(story, monkeypatch, when):
    def fail(*_):
        raise Unanswered("vault_unavailable")

    with monkeypatch.context() as patch:
        patch.setattr(*((known, "query", fail) if when == "versions are listed" else (lookup, "version", fail)))
        for _ in range(2):
            with pytest.raises(Fault, match="vault_unavailable"):
                story.decide()
    outcome = story.decide(grant=None, headers=[(b"X-Mine", story.canary.encode())])
    assert isinstance(outcome, Refused)
    assert outcome.code == "secret_in_request"
