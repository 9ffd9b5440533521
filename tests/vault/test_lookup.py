"""What one request reads: now, in one statement, and the same work for whoever must not learn a difference."""

import json
import subprocess
import sys

import pytest

from addon.binding import Binding
from addon.callers import key as keys
from addon.errors import Fault
from addon.pipeline import Authorized, Refused, inject
from addon.vault import lookup


def found(story, *, key=None, tag=""):
    digest = keys.parse(story.keys[key]).digest if key else b""
    return story.vault.lookup(digest=digest, tag=story.grants.get(tag, tag))


def test_a_key_and_a_grant_are_found_together(story):
    both = found(story, key="billing", tag="stripe")
    assert (both.key.caller_type, both.key.caller_name, both.key.caller_state, both.key.grants) == (
        "app", "billing", "active", (),
    )  # fmt: skip
    assert (both.grant.id, both.grant.principal, both.grant.secret_name, both.grant.version) == (
        story.grants["stripe"], "system:billing", "stripe", 1,
    )  # fmt: skip
    assert story.canary not in repr(both)


def test_each_is_found_alone(story):
    assert found(story, key="billing").grant is None
    assert found(story, tag="stripe").key is None
    nothing = found(story)
    assert (nothing.key, nothing.grant) == (None, None)


@pytest.mark.parametrize("tag", ["0" * 36, "' OR 1=1 --", "%", "*", "\0", "", "a" * 100_000, "ü"])
def test_an_unknown_tag_finds_nothing_and_is_never_read_as_sql(story, tag):
    assert found(story, key="billing", tag=tag).grant is None


@pytest.mark.parametrize("digest", [b"", b"\0" * 32, b"' OR 1=1 --", b"x" * 32])
def test_an_unknown_digest_finds_nothing(story, digest):
    assert story.vault.lookup(digest=digest, tag=story.grants["stripe"]).key is None


def test_the_text_of_a_key_is_not_its_digest(story):
    assert story.vault.lookup(digest=story.keys["billing"].encode(), tag="").key is None


def test_the_wraps_of_all_recipients_are_found(story):
    conn = story.vault.database.conn
    conn.execute("INSERT INTO wraps SELECT secret_id, version, 'x' || substr(kid, 2), suite, wrapped FROM wraps")
    assert len(found(story, tag="stripe").grant.sealed.wraps) == 2
    assert isinstance(story.decide(), Authorized)


def test_a_version_that_is_gone_makes_a_grant_that_cannot_be_used(story):
    story.vault.database.conn.execute("DELETE FROM versions")
    assert found(story, tag="stripe").grant is None


@pytest.mark.parametrize("column", ["grants", "cidrs"])
@pytest.mark.parametrize(
    "stored", ["", "null", "{}", '""', '"10.0.0.0/8"', "[1]", "[null]", "[[]]", "[ ]", "[", "1", "[" * 100_000]
)
def test_a_stored_list_that_cannot_be_read_is_a_fault_and_not_an_empty_one(story, column, stored):
    table = "keys" if column == "grants" else "callers"
    story.vault.database.conn.execute(f"UPDATE {table} SET {column} = ?", (stored,))
    with pytest.raises(Fault, match="vault_unavailable"):
        story.decide()


# ── the same work (E2) ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def refused(story):
    """Every way in which a grant is not there for the caller `other`."""
    issue, now = story.vault.grants.issue, story.now
    grants = {
        "unknown": "0" * 36,
        "foreign": story.grants["stripe"],
        "expired": issue("stripe", principal="system:billing", expires_at=now + 1, now=now - 10).id,
        "revoked": issue("stripe", principal="system:billing", now=now).id,
        "disabled": "",
    }
    story.vault.grants.revoke(ids=(grants["revoked"],), now=now)
    story.vault.secrets.put(
        "off", kind="bearer", binding=Binding(hosts=(("api.stripe.test", 443),)), values={"token": "x"}, now=now
    )
    grants["disabled"] = issue("off", principal="system:billing", now=now).id
    story.vault.secrets.set_state("off", "disabled", now=now)
    return grants


def told(outcome):
    """What the client learns of a refusal."""
    return outcome.code, outcome.policy, outcome.retry_after, outcome.limit


def executed(story, action):
    """The statements that an action runs, values left out."""
    statements = []
    conn = story.vault.database.conn
    conn.set_trace_callback(lambda text: statements.append(text.partition("'")[0]))
    try:
        result = action()
    finally:
        conn.set_trace_callback(None)
    return result, statements


@pytest.mark.parametrize("asked_before", [False, True])
def test_whoever_a_grant_does_not_name_learns_nothing_by_answer_or_by_work(story, refused, asked_before):
    story.decide(grant=story.grants["openai"], caller="other")  # statements are prepared once
    story.decide()  # what its owner asked is remembered for its owner alone
    for grant in refused.values() if asked_before else ():
        story.decide(grant=grant, caller="other", later=5.0)
    seen = {
        name: executed(story, lambda g=grant: story.decide(grant=g, caller="other", later=5.0))
        for name, grant in refused.items()
    }
    first, work = seen["unknown"]
    assert isinstance(first, Refused)
    assert first.code == "grant_unavailable"
    assert len(work) == (1 if asked_before else 2)
    for name, (outcome, statements) in seen.items():
        assert told(outcome) == told(first), name
        assert statements == work, name


def test_an_unknown_key_costs_as_much_as_a_known_one(story):
    story.decide(caller="other")
    known = executed(story, story.decide)[1]
    unknown = executed(story, lambda: story.decide(caller=keys.mint("app")[0]))
    assert unknown[0].code == "caller_invalid"
    assert unknown[1] == known


def test_what_was_read_is_not_read_again_before_something_is_committed(story):
    first = executed(story, story.decide)[1]
    again = executed(story, story.decide)[1]
    assert len(first) > len(again) == 1
    story.vault.secrets.set_state("stripe", "disabled", now=story.now)
    assert story.decide().code == "secret_disabled"


# ── now ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

CHANGE = """
import json, sys
from pathlib import Path
from addon.vault import Vault
vault = Vault.connect(Path(sys.argv[1]))
for line in sys.stdin:
    name, arguments = json.loads(line)
    part, _, verb = name.partition(".")
    getattr(getattr(vault, part), verb)(*arguments[0], **arguments[1])
    print("done", flush=True)
"""


@pytest.fixture
def operator(story):
    """`operator("secrets.rotate", "stripe", …)` commits a change in another process, and returns when it has."""
    process = subprocess.Popen(
        [sys.executable, "-c", CHANGE, str(story.vault.home)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip

    def commit(name, *args, **kwargs):
        process.stdin.write(json.dumps([name, [args, kwargs | {"now": story.now}]]) + "\n")
        process.stdin.flush()
        assert process.stdout.readline() == "done\n"

    yield commit
    process.stdin.close()
    assert process.wait(10) == 0
    process.stdout.close()


def sent(story):
    outcome = story.decide()
    if isinstance(outcome, Refused):
        return outcome.code
    return dict(inject(outcome, vault=story.vault).head.headers)[b"Authorization"].decode()


def test_what_another_process_commits_holds_for_the_very_next_request(story, operator):
    assert sent(story) == f"Bearer {story.canary}"
    for n in range(10):
        operator("secrets.rotate", "stripe", values={"token": f"value-{n}"})
        assert sent(story) == f"Bearer value-{n}"
        operator("secrets.set_state", "stripe", "disabled")
        assert sent(story) == "secret_disabled"
        operator("secrets.set_state", "stripe", "active")
        operator("callers.set_state", "app", "billing", "disabled")
        assert sent(story) == "caller_invalid"
        operator("callers.set_state", "app", "billing", "active")
        operator("secrets.rollback", "stripe")
        assert sent(story) == (f"Bearer value-{n - 1}" if n else f"Bearer {story.canary}")
    operator("grants.revoke", ids=[story.grants["stripe"]])
    assert sent(story) == "grant_revoked"
    operator("secrets.delete", "stripe")
    assert sent(story) == "grant_unavailable"


# ── destinations ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_destination_is_bound_privately_openly_or_not_at_all(story):
    put, now = story.vault.secrets.put, story.now
    put("wild", kind="bearer", binding=Binding(hosts=(("*.wild.test", 443), ("p.test", 1)), flags=frozenset({"private"})), values={"token": "x"}, now=now)  # fmt: skip
    bound = story.vault.bound
    assert bound("api.stripe.test", 443) is False
    assert bound("a.wild.test", 443) is True
    assert bound("p.test", 1) is True
    for host, port in (
        ("api.stripe.test", 444), ("stripe.test", 443), ("wild.test", 443), ("a.b.wild.test", 443), ("p.test", 443),
        ("", 443), ("*.wild.test.", 443), ("x" * 10_000, 443), ("' OR 1=1 --", 443), ("::1", 443),
    ):  # fmt: skip
        assert bound(host, port) is None
    story.vault.secrets.set_state("wild", "disabled", now=now)
    assert bound("a.wild.test", 443) is None
    story.vault.secrets.bind("stripe", binding=Binding(hosts=(("new.test", 443),)), values={"token": "x"}, now=now)
    assert (bound("api.stripe.test", 443), bound("new.test", 443)) == (None, False)
    story.vault.secrets.delete("stripe", now=now)
    assert bound("new.test", 443) is None


def test_a_vault_that_is_gone_is_a_fault(story):
    story.vault.database.conn.close()
    with pytest.raises(Fault, match="vault_unavailable"):
        lookup.read(story.vault.database, digest=b"", tag="")
    with pytest.raises(Fault, match="vault_unavailable"):
        lookup.bound(story.vault.database, "a.test", 443)
