"""A user decides in a real browser without JavaScript, which has no key, through the real proxy over both engines."""

import urllib.parse

import pytest

from tests.e2e import test_identity
from tests.e2e.browser import MISSING, Browser
from tests.e2e.stage import HOSTS, refusal

INSIDE = "https://alter.internal"
BACK = f"https://{HOSTS['bearer']}/echo?state=s1"

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")

_people, people = test_identity._people, test_identity.people  # a proxy with users of their own


@pytest.fixture
def browser(people, tmp_path):
    ca = people.vaultctl.run("ca", "export").encode()
    with Browser(tmp_path, proxy=people.stage.proxy.address, ca=ca) as browser:
        yield browser


def ask(people, **order):
    """The link an app gets for its user."""
    with people.stage.client() as app:
        answer = app.post(
            f"{INSIDE}/v1/consents",
            headers={"X-Alter-User-Token": people.token()},
            json={"grant_id": people.ada, "agent": "assistant", "ttl_seconds": 600} | order,
        )
    assert answer.status_code == 201, answer.text
    return answer.json()["url"]


def delegations(people):
    with people.stage.client() as app:
        answer = app.get(f"{INSIDE}/v1/delegations", headers={"X-Alter-User-Token": people.token()})
    return {each["id"] for each in answer.json()["delegations"]}


def test_a_click_on_approve_lets_the_agent_in_and_leads_back_to_the_app(people, browser, upstream):
    browser.open(ask(people, return_to=BACK))
    text = browser.text()
    for told in ("assistant", "billing", "ada (acme)", "bearer", HOSTS["bearer"], "UTC"):
        assert told in text
    assert browser.style("h1", "font-size") == "24px"  # the style is allowed, by its hash
    before = delegations(people)
    browser.click("button[value=approve]")
    assert browser.url.startswith(f"{BACK}&delegation_id=")
    [made] = delegations(people) - before
    assert urllib.parse.parse_qs(urllib.parse.urlsplit(browser.url).query)["delegation_id"] == [made]
    arrived = next(request for request in upstream.seen() if made.encode() in request.target)
    assert arrived.header("referer") is None
    assert not [request for request in upstream.seen() if b"ticket" in request.target]
    with people.stage.proxy.client("assistant", people.agent_key) as agent:
        assert people.ask(agent, made).status_code == 200


def test_a_click_on_decline_gives_nothing_and_the_link_is_over(people, browser):
    link, before = ask(people), delegations(people)
    browser.open(link)
    browser.click("button[value=decline]")
    assert browser.title == "Declined"
    browser.open(link)
    assert browser.title == "Nothing to decide"
    assert delegations(people) == before


def test_without_a_way_back_the_page_tells_the_delegation(people, browser):
    before = delegations(people)
    browser.open(ask(people))
    browser.click("button[value=approve]")
    assert browser.title == "Approved"
    [made] = delegations(people) - before
    assert made in browser.text()


def test_another_site_can_neither_send_the_form_nor_frame_the_page(people, browser):
    link, before = ask(people), delegations(people)
    ticket = link.partition("=")[2]
    forged = (
        f'<form method=post action="{INSIDE}/consent"><input name=ticket value="{ticket}">'
        "<button name=decision value=approve>Win</button></form>"
    )
    browser.open("data:text/html," + urllib.parse.quote(forged))
    browser.click("button")
    assert browser.url == f"{INSIDE}/consent"
    assert browser.title == "Nothing to decide"
    assert delegations(people) == before
    browser.open("data:text/html," + urllib.parse.quote(f'<iframe src="{link}"></iframe>'))
    browser.enter("iframe")
    assert "Approve" not in browser.source
    browser.open("data:text/html," + urllib.parse.quote("<title>still</title><script>document.title='ran'</script>"))
    assert browser.title == "still"  # no JavaScript in this browser
    browser.open(link)
    browser.click("button[value=approve]")
    assert len(delegations(people) - before) == 1


def test_a_browser_has_the_page_and_nothing_else_of_the_proxy(people):
    with people.stage.proxy.client() as nobody:
        refusal(nobody.get(f"{INSIDE}/v1/consents"), "caller_required", status=407)
        for _ in range(2):
            answer = nobody.get(f"{INSIDE}/consent?ticket={'A' * 43}")
            assert (answer.status_code, answer.headers["x-alter-error"]) == (404, "not_found")
            assert answer.headers["content-type"] == "text/html; charset=utf-8"
    record = people.stage.audit(answer.headers["x-alter-request-id"])
    assert (record["code"], record["decision"], record["path"]) == ("not_found", "refused", "/consent")


def test_nothing_of_it_is_in_the_audit_log_but_that_it_happened(people):
    link = ask(people)
    with people.stage.proxy.client() as nobody:
        assert nobody.get(link).status_code == 200
        assert (
            nobody.post(f"{INSIDE}/consent", data={"ticket": link.partition("=")[2], "decision": "approve"}).status_code
            == 200
        )
    written = b"".join(path.read_bytes() for path in (people.vaultctl.home / "audit").rglob("*") if path.is_file())
    assert link.partition("=")[2].encode() not in written
    assert link.partition("=")[2] not in people.stage.proxy.log
