"""A user decides on a page: one answer per ticket, judged when it is given, and nothing else in it than what was asked."""

import contextlib
import html
import html.parser
import json
import re
import urllib.parse
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addon import consent, pipeline
from addon.binding import Binding
from addon.callers.key_sets import KeySets
from addon.consent import Shown, parse_return
from addon.errors import Fault, NotFound, Refusal
from addon.hosts import NotAName
from addon.pipeline import Local
from addon.selfservice import HOST, SelfService
from addon.vault import Vault, log
from tests.provider import NOW, Provider

BACK = "https://app.test/done?state=s1"
JSON, FORM = (b"Content-Type", b"application/json"), (b"Content-Type", b"application/x-www-form-urlencoded")


class Office:
    """The story's vault with a provider; an app that asks, and a browser without any key."""

    def __init__(self, story):
        self.story, self.vault = story, story.vault
        self.acme = Provider()
        self.vault.idps.add(self.acme.idp(), keys=self.acme.jwks(), now=NOW)
        self.key_sets = KeySets(self.vault.idps, connect=lambda: contextlib.nullcontext(self.vault.idps), web=None)
        self.service = SelfService(self.vault, key_sets=self.key_sets)
        self.grant = self.issue("user:acme/ada")

    def issue(self, principal, **options):
        return self.vault.grants.issue("stripe", principal=principal, now=NOW, **({"delegable": True} | options)).id

    def send(self, method, target, body=b"", *, caller=None, headers=(), later=0.0, service=None):
        """(code, answer): the code of a refusal, or nothing."""
        request = self.story.request(
            grant=None, caller=caller, url=f"https://{HOST}{target}", method=method, headers=list(headers)
        )
        local = pipeline.receive(request, vault=self.vault, now=NOW + later, key_sets=self.key_sets)
        if not isinstance(local, Local):
            return local.code, None
        try:
            return "", (service or self.service).answer(request, body, caller=local.caller, now=NOW + later)
        except Shown as shown:
            return shown.code, shown.answer
        except Refusal as refusal:
            return refusal.code, None

    def ask(self, *, user="ada", caller="billing", later=0.0, claims=(), **members):
        """What the app is told when it asks for consent."""
        order = {"grant_id": self.grant, "agent": "helper"} | members
        token = [(b"X-Alter-User-Token", self.acme.token(sub=user, **dict(claims)).encode())] if user else []
        body = json.dumps({name: value for name, value in order.items() if value is not ...}).encode()
        return self.send("POST", "/v1/consents", body, caller=caller, headers=[JSON, *token], later=later)

    def ticket(self, **options):
        code, answer = self.ask(**options)
        assert (code, answer.status) == ("", 201)
        url = json.loads(answer.body)["url"]
        assert url.startswith("https://alter.internal/consent?ticket=")
        assert (b"Location", url.encode()) in answer.headers
        return url.partition("=")[2]

    def view(self, ticket, **options):
        return self.send("GET", f"/consent?ticket={ticket}", **options)

    def decide(self, ticket, decision="approve", *, headers=(FORM,), **options):
        body = f"ticket={ticket}&decision={decision}".encode()
        return self.send("POST", "/consent", body, headers=headers, **options)

    def delegations(self):
        return self.vault.delegations.list()

    def log(self):
        return [entry for entry in log.entries(self.vault.database) if entry.action.startswith("consent.")]


@pytest.fixture
def office(story):
    return Office(story)


class Page(html.parser.HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, answer):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(answer.body.decode())

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def header(answer, name):
    [value] = [value.decode() for key, value in answer.headers if key.decode().lower() == name]
    return value


# ── asking ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_app_with_its_user_gets_a_link_that_ends_in_ten_minutes(office):
    code, answer = office.ask()
    assert (code, answer.status) == ("", 201)
    assert json.loads(answer.body)["expires_at"] == NOW + 600


def test_a_link_ends_with_the_token_of_the_user(office):
    _, answer = office.ask(claims={"exp": NOW + 60})
    assert json.loads(answer.body)["expires_at"] == NOW + 60
    assert office.ask(claims={"exp": NOW - 5})[0] == "user_token_invalid"


def test_neither_ticket_nor_token_is_kept(office):
    ticket = office.ticket()
    rows = repr(office.vault.database.conn.execute("SELECT * FROM consents").fetchall())
    logged = repr(log.entries(office.vault.database))
    for text in (ticket, *office.acme.token().split(".")[1:]):
        assert text not in rows
        assert text not in logged


def test_tickets_are_long_and_never_the_same(office):
    tickets = {office.ticket() for _ in range(20)}
    assert len(tickets) == 20
    assert {len(ticket) for ticket in tickets} == {43}


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"user": None}, "user_token_required"), ({"caller": None}, "caller_required"), ({"caller": "helper"}, "grant_unavailable"),
        ({"user": "eve"}, "not_found"), ({"agent": "nobody"}, "not_found"), ({"grant_id": "0" * 36}, "not_found"),
        ({"agent": ...}, "request_malformed"), ({"ttl_seconds": 0}, "request_malformed"), ({"extra": 1}, "request_malformed"),
        ({"access_token": "x"}, "request_malformed"), ({"return_to": 1}, "request_malformed"),
        ({"return_to": "http://app.test/"}, "request_malformed"), ({"return_to": "javascript:alert(1)"}, "request_malformed"),
    ],
)  # fmt: skip
def test_what_could_not_be_delegated_is_not_asked(office, options, code):
    assert office.ask(**options)[0] == code
    assert office.log() == []


def test_a_grant_that_is_not_delegable_is_not_asked_for(office):
    assert office.ask(grant_id=office.issue("user:acme/ada", delegable=False))[0] == "not_delegable"


def test_a_session_asks_for_its_own_grants_alone(office):
    _, key = office.vault.callers.mint_key(
        "app", "billing", now=NOW, session=True, grants=(office.story.grants["stripe"],)
    )
    assert office.ask(caller=key)[0] == "not_found"


# ── asking with a form ───────────────────────────────────────────────────────────────────────────────────────────────


def post(office, *, caller="billing", headers=(), **fields):
    order = {"access_token": office.acme.token(), "grant_id": office.grant, "agent": "helper"} | fields
    body = urllib.parse.urlencode({name: value for name, value in order.items() if value is not ...}).encode()
    return office.send("POST", "/v1/consents", body, caller=caller, headers=[FORM, *headers])


def test_a_page_of_the_app_posts_the_token_and_the_browser_goes_on(office):
    code, answer = post(office, ttl_seconds="60", return_to=BACK)
    assert (code, answer.status) == ("", 303)
    office.decide(header(answer, "location").partition("=")[2])
    [made] = office.delegations()
    assert (made.user, made.expires_at) == ("user:acme/ada", NOW + 60)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"access_token": ...}, "user_token_required"), ({"access_token": "a.b.c"}, "user_token_invalid"),
        ({"ttl_seconds": "1e3"}, "request_malformed"), ({"ttl_seconds": "٣"}, "request_malformed"),
        ({"other": "x"}, "request_malformed"), ({"caller": None}, "caller_required"), ({"caller": "helper"}, "grant_unavailable"),
    ],
)  # fmt: skip
def test_a_form_is_held_to_the_same_rules(office, fields, code):
    assert post(office, **fields)[0] == code
    assert office.log() == []


def test_two_tokens_in_one_request_are_one_too_many(office):
    header = (b"X-Alter-User-Token", office.acme.token(sub="ada").encode())
    assert post(office, headers=[header])[0] == "request_malformed"


@pytest.mark.parametrize("body", [b"", b"grant_id", b"a=1&a=2", b"grant_id=a&grant_id=b&agent=c", b"\xff=1", b"a=%ff", b"&".join([b"a=1"] * 50)])  # fmt: skip
def test_what_is_no_form_asks_for_nothing(office, body):
    code, _ = office.send("POST", "/v1/consents", body, caller="billing", headers=[FORM])
    assert code in {"request_malformed", "user_token_required"}


# ── the page ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_page_tells_who_asks_for_what_and_until_when(office):
    code, answer = office.view(office.ticket(ttl_seconds=3600))
    assert (code, answer.status, header(answer, "content-type")) == ("", 200, "text/html; charset=utf-8")
    text = Page(answer).text
    for told in ("helper", "billing", "ada (acme)", "stripe", "api.stripe.test", "POST", "2027-01-15 09:00 UTC"):
        assert told in text
    assert office.story.canary not in text


def test_the_page_shows_the_end_that_the_delegation_would_have(office):
    grant = office.issue("user:acme/ada", delegation_seconds=60.0)
    assert "2027-01-15 08:01 UTC" in Page(office.view(office.ticket(grant_id=grant))[1]).text


def test_the_page_has_one_form_two_buttons_and_nothing_that_runs_or_comes_from_elsewhere(office):
    page = Page(office.view(office.ticket())[1])
    assert page.all("form") == [{"method": "post", "action": "/consent"}]
    assert [button["value"] for button in page.all("button")] == ["approve", "decline"]
    assert {tag for tag, _ in page.elements} == {"html", "head", "meta", "title", "style", "body", "main", "h1", "p", "dl", "dt", "dd", "form", "input", "button"}  # fmt: skip
    names = {name for _, attributes in page.elements for name in attributes}
    assert not names & {"src", "href", "style", "http-equiv"}
    assert not [name for name in names if name.startswith("on")]


@pytest.mark.parametrize("what", ["question", "approved", "declined", "nothing"])
def test_every_page_is_sealed_off(office, what):
    ticket = office.ticket()
    _, answer = {
        "question": lambda: office.view(ticket),
        "approved": lambda: office.decide(ticket),
        "declined": lambda: office.decide(ticket, "decline"),
        "nothing": lambda: office.view("A" * 43),
    }[what]()
    policy = dict(part.strip().partition(" ")[::2] for part in header(answer, "content-security-policy").split(";"))
    action = policy.pop("form-action")
    assert action == ("'self'" if what == "question" else "'none'")
    assert re.fullmatch(r"'sha256-[A-Za-z0-9+/]{43}='", policy.pop("style-src"))
    assert policy == {"default-src": "'none'", "frame-ancestors": "'none'", "base-uri": "'none'"}
    assert header(answer, "referrer-policy") == "no-referrer"
    assert header(answer, "cache-control") == "no-store"
    assert header(answer, "x-content-type-options") == "nosniff"
    assert header(answer, "x-frame-options") == "DENY"


def test_the_browser_may_go_back_to_the_app_and_nowhere_else(office):
    _, answer = office.view(office.ticket(return_to=BACK))
    assert "form-action 'self' https://app.test;" in header(answer, "content-security-policy")


def test_whatever_names_say_they_are_text(office):
    hostile = "\"><script>alert('1')</script>&amp;"
    grant = office.issue(f"user:acme/{hostile}")
    _, answer = office.view(office.ticket(user=hostile, grant_id=grant))
    page = Page(answer)
    assert hostile in page.text
    assert page.all("script") == []
    assert html.escape(hostile).encode() in answer.body


def test_methods_and_paths_are_those_the_secret_is_bound_to(office):
    office.vault.secrets.put(
        "narrow", kind="bearer", values={"token": "x"}, now=NOW,
        binding=Binding(hosts=(("*.a.test", 8443),), methods=("GET",), paths=("/v1/<b>",)),
    )  # fmt: skip
    grant = office.vault.grants.issue("narrow", principal="user:acme/ada", now=NOW, delegable=True).id
    text = Page(office.view(office.ticket(grant_id=grant))[1]).text
    assert "*.a.test:8443" in text
    assert "/v1/<b>…" in text
    assert "POST" not in text


def test_looking_decides_nothing_however_often(office):
    ticket = office.ticket()
    assert {office.view(ticket)[1].status for _ in range(3)} == {200}
    assert office.send("HEAD", f"/consent?ticket={ticket}")[1].status == 200
    assert office.delegations() == []


# ── deciding ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_approval_makes_the_delegation_and_it_works(office):
    code, answer = office.decide(office.ticket(ttl_seconds=600))
    assert (code, answer.status) == ("", 200)
    [made] = office.delegations()
    assert (made.user, made.agent, made.expires_at, made.token_id) == ("user:acme/ada", "helper", NOW + 600, "t-1")
    assert made.id in Page(answer).text
    assert isinstance(office.story.decide(grant=made.id, caller="helper"), pipeline.Authorized)


def test_time_runs_from_the_approval(office):
    office.decide(office.ticket(ttl_seconds=600), later=300)
    assert office.delegations()[0].expires_at == NOW + 900


def test_the_app_is_told_by_the_way_back(office):
    _, answer = office.decide(office.ticket(return_to=BACK))
    assert (answer.status, answer.body) == (303, b"")
    assert header(answer, "location") == f"{BACK}&delegation_id={office.delegations()[0].id}"
    assert header(answer, "referrer-policy") == "no-referrer"
    _, answer = office.decide(office.ticket(return_to="https://app.test"), "decline")
    assert (answer.status, header(answer, "location")) == (303, "https://app.test/?error=access_denied")


def test_an_invented_ticket_never_waits_for_the_vault(office):
    with contextlib.closing(Vault.connect(office.vault.home)) as other:
        other.database.conn.execute("BEGIN IMMEDIATE")
        assert office.decide("A" * 43, "decline")[0] == office.decide("A" * 43)[0] == "not_found"


def test_a_busy_vault_leaves_the_ticket(office):
    ticket = office.ticket()
    with contextlib.closing(Vault.connect(office.vault.home)) as other:
        other.database.conn.execute("BEGIN IMMEDIATE")
        with pytest.raises(Fault) as fault:
            office.decide(ticket)
    assert fault.value.code == "vault_unavailable"
    assert office.decide(ticket)[0] == ""


def test_declining_makes_nothing_and_ends_the_ticket(office):
    ticket = office.ticket()
    assert office.decide(ticket, "decline")[1].status == 200
    assert office.decide(ticket)[0] == office.view(ticket)[0] == "not_found"
    assert office.delegations() == []


def test_a_ticket_is_good_for_one_answer(office):
    ticket = office.ticket()
    assert office.decide(ticket)[0] == ""
    assert office.decide(ticket)[0] == office.decide(ticket, "decline")[0] == office.view(ticket)[0] == "not_found"
    assert len(office.delegations()) == 1


def test_of_two_workers_one_gets_the_answer(office):
    ticket, home = office.ticket(), office.vault.home

    def answer(number):
        with contextlib.closing(Vault.connect(home)) as vault:
            try:
                (vault.consents.approve if number % 2 else vault.consents.decline)(ticket, now=NOW)
            except NotFound:
                return 0
        return 1

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(answer, range(16))) == 1
    assert len(office.delegations()) <= 1
    assert len(office.log()) == 2


def test_every_step_is_logged_with_app_user_and_agent_and_chained(office):
    office.decide(office.ticket())
    office.decide(office.ticket(), "decline")
    entries = office.log()
    assert [entry.action for entry in entries] == ["consent.request", "consent.approve", "consent.request", "consent.decline"]  # fmt: skip
    for entry in entries:
        assert entry.detail["app"] == "billing"
        assert (entry.detail["user"], entry.detail["agent"], entry.detail["grant"]) == ("user:acme/ada", "helper", office.grant)  # fmt: skip
    assert entries[0].subject == entries[1].subject != entries[2].subject == entries[3].subject
    assert entries[1].detail["delegation"] == office.delegations()[0].id
    assert office.vault.first_bad_change() is None


# ── what ends a ticket, and what it cannot do any more ───────────────────────────────────────────────────────────────


def revoke_key(office):
    office.vault.callers.revoke_key("app", office.vault.callers.keys("app", "billing")[0].id, now=NOW)


ENDS = {
    "app": lambda office: office.vault.callers.set_state("app", "billing", "disabled", now=NOW),
    "provider": lambda office: office.vault.idps.remove("acme", now=NOW),
    "key": revoke_key,
    "secret deleted": lambda office: office.vault.secrets.delete("stripe", now=NOW),
}


@pytest.mark.parametrize("event", ENDS)
def test_a_ticket_ends_with(office, event):
    ticket = office.ticket()
    ENDS[event](office)
    assert office.view(ticket)[0] == office.decide(ticket)[0] == "not_found"
    assert office.delegations() == []


def test_a_ticket_ends_in_ten_minutes(office):
    ticket = office.ticket()
    assert office.view(ticket, later=599.0)[0] == ""
    assert office.view(ticket, later=600.0)[0] == office.decide(ticket, later=600.0)[0] == "not_found"


def test_a_ticket_ends_with_the_token(office):
    ticket = office.ticket(claims={"exp": NOW + 60})
    assert office.view(ticket, later=59)[0] == ""
    assert office.decide(ticket, later=60)[0] == "not_found"


LOST = {
    "grant revoked": lambda office: office.vault.grants.revoke(ids=(office.grant,), now=NOW),
    "agent disabled": lambda office: office.vault.callers.set_state("agent", "helper", "disabled", now=NOW),
    "secret disabled": lambda office: office.vault.secrets.set_state("stripe", "disabled", now=NOW),
}


@pytest.mark.parametrize("event", LOST)
def test_approval_is_judged_when_it_is_given(office, event):
    ticket = office.ticket(return_to=BACK)
    LOST[event](office)
    code, answer = office.decide(ticket)
    assert (code, answer.status) == ("not_delegable", 409)
    assert "Nothing was changed" in Page(answer).text
    assert office.view(ticket)[0] == "not_delegable"
    assert office.delegations() == []
    assert office.decide(ticket, "decline")[0] == ""


def test_a_group_that_a_newer_token_does_not_list_cannot_be_delegated(office):
    grant = office.issue("group:acme/staff")
    assert office.decide(office.ticket(grant_id=grant))[0] == ""
    ticket = office.ticket(grant_id=grant)
    token = (b"X-Alter-User-Token", office.acme.token(groups=[], iat=NOW - 5).encode())
    office.send("GET", "/v1/whoami", caller="billing", headers=[token])
    assert office.decide(ticket)[0] == "not_delegable"
    assert len(office.delegations()) == 1


def test_what_is_kept_of_the_groups_is_the_one_that_counts(office):
    office.ticket(grant_id=office.issue("group:acme/staff"), claims={"groups": ["staff", "private"]})
    office.ticket(claims={"groups": ["private"]})
    rows = office.vault.database.conn.execute("SELECT groups FROM consents ORDER BY groups").fetchall()
    assert rows == [('["staff"]',), ("[]",)]


def test_old_tickets_are_swept_away(office):
    office.ticket()
    office.ticket(later=590, claims={"exp": NOW + 3000})
    office.ticket(later=601, claims={"exp": NOW + 3000})
    assert office.vault.database.conn.execute("SELECT count(*) FROM consents").fetchone() == (2,)


# ── who else might send a form ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("site", [b"cross-site", b"same-site", b"none", b"SAME-ORIGIN"])
def test_a_form_that_comes_from_elsewhere_decides_nothing(office, site):
    ticket = office.ticket()
    assert office.decide(ticket, headers=[FORM, (b"Sec-Fetch-Site", site)])[0] == "not_found"
    assert office.decide(ticket, headers=[FORM, (b"Sec-Fetch-Site", b"same-origin")])[0] == ""


@pytest.mark.parametrize("headers", [[], [JSON], [(b"Content-Type", b"text/plain")], [FORM, FORM]])
def test_nothing_but_a_form_decides(office, headers):
    ticket = office.ticket()
    assert office.decide(ticket, headers=headers)[0] == "not_found"
    assert office.delegations() == []


def test_all_that_is_wrong_looks_the_same(office):
    used, ended, elsewhere, live = office.ticket(), office.ticket(), office.ticket(), office.ticket()
    office.decide(used)
    seen = [
        office.view(used), office.decide(used), office.view(ended, later=601), office.decide(ended, later=601),
        office.view("A" * 43), office.decide("A" * 43), office.view(""), office.view(live + "x"), office.view(live[:-1]),
        office.decide(elsewhere, headers=[FORM, (b"Sec-Fetch-Site", b"cross-site")]), office.send("GET", "/consent"),
        office.send("POST", "/consent", b""), office.send("DELETE", "/consent"), office.send("PUT", f"/consent?ticket={live}"),
        office.send("GET", f"/consent?ticket={live}&x=1"), office.send("POST", f"/consent?ticket={live}", b"", headers=[FORM]),
        office.send("POST", "/consent", f"ticket={live}&decision=approve&decision=decline".encode(), headers=[FORM]),
        office.send("POST", "/consent", f"ticket={live}&decision=maybe".encode(), headers=[FORM]),
    ]  # fmt: skip
    assert {code for code, _ in seen} == {"not_found"}
    assert {(answer.status, answer.body, answer.headers) for _, answer in seen} == {
        (404, seen[0][1].body, seen[0][1].headers)
    }
    assert (b"X-Alter-Error", b"not_found") in seen[0][1].headers
    assert office.view(live)[0] == ""


def test_a_page_needs_no_key_but_a_bad_one_is_refused(office):
    ticket = office.ticket()
    assert office.view(ticket, caller="other")[0] == ""
    assert office.view(ticket, caller="garbage")[0] == "caller_invalid"


@pytest.mark.parametrize("path", ["/consent/", "/Consent", "/v1/consents", "/consent;x", "//consent", "/v1/../consent"])
def test_nothing_else_is_answered_to_nobody(office, path):
    assert office.send("GET", path)[0] in {"caller_required", "path_not_bound", "header_forbidden"}


@given(st.binary(max_size=120))
def test_no_body_breaks_the_page(body):
    assert consent._FORM.fullmatch(body) is None or b"&decision=" in body


# ── the way back ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "origin", "url"),
    [
        ("https://app.test", "https://app.test", "https://app.test/"),
        ("https://App.Test./x?y=1", "https://app.test", "https://app.test/x?y=1"),
        ("https://app.test:443/", "https://app.test", "https://app.test/"),
        ("https://app.test:8443/a", "https://app.test:8443", "https://app.test:8443/a"),
    ],
)
def test_a_way_back_has_one_spelling(text, origin, url):
    assert (parse_return(text).origin, parse_return(text).url) == (origin, url)


@pytest.mark.parametrize(
    "text",
    ["", "app.test", "//app.test/", "http://app.test/", "HTTPS://app.test/", "https://", "https:///x", "https://u@app.test/",
     "https://u:p@app.test/", "https://127.0.0.1/", "https://[::1]/", "https://app.test:0/", "https://app.test:99999/", "https://a:b:c/",
     "https://app.test/#x", "https://app.test\\@evil.test/", "https://app.test/\\evil", "https://app.test/a b", "https://app.test/\r\nX: y",
     "https://app.test/\n", "https://app.test?x", "https://äpp.test/", "https://app.test/ä", "https://app.test; script-src *", "https://app.test/" + "a" * 2048],
)  # fmt: skip
def test_anything_else_is_none(text):
    with pytest.raises(NotAName):
        parse_return(text)


@given(st.text(max_size=60), st.sampled_from(["https://", "https://app.test", "https://app.test/", ""]))
def test_no_way_back_leaves_its_origin_or_its_line(text, prefix):
    try:
        back = parse_return(prefix + text)
    except NotAName:
        return
    parts = urllib.parse.urlsplit(back.to("delegation_id", "x").decode())
    assert f"{parts.scheme}://{parts.netloc}" == back.origin
    assert not set(back.url) & set("\r\n\\# \"'<") - {"'", '"', "<"}
    assert re.fullmatch(r"https://[a-z0-9._-]+(:[0-9]+)?", back.origin)
