"""Secrets and their versions: write-only, one current version, and nothing half-changed."""

import pytest

from addon.binding import Binding, Placement
from addon.errors import Conflict, Corrupt, Fault, NotFound, Usage
from addon.pipeline import Authorized, inject
from addon.vault import Vault, log
from addon.vault.database import query

HOSTS = (("api.stripe.test", 443),)
BINDING = Binding(hosts=HOSTS)


@pytest.fixture
def secrets(story):
    return story.vault.secrets


def sent(story, **changes):
    """The credential that the next request carries."""
    outcome = story.decide(**changes)
    assert isinstance(outcome, Authorized), outcome
    return dict(inject(outcome, vault=story.vault).head.headers)[b"Authorization"].decode().removeprefix("Bearer ")


def versions(story, name="stripe"):
    return [v.version for v in story.vault.secrets.get(name).versions]


def counts(story):
    tables = ("secrets", "versions", "wraps", "destinations", "grants", "admin_log")
    return {table: query(story.vault.database, f"SELECT count(*) FROM {table}", {})[0][0] for table in tables}


# ── storing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_everything_but_the_value_may_be_told(story, secrets):
    told = secrets.put(
        "new", kind="bearer", binding=BINDING, values={"token": "new-canary"}, now=story.now, provider="p", note="n"
    )
    assert (told.name, told.kind, told.provider, told.note, told.state, told.current) == (
        "new",
        "bearer",
        "p",
        "n",
        "active",
        1,
    )
    assert told.binding.placements == (Placement("header", "Authorization", "Bearer {token}"),)
    assert (told.created_at, told.updated_at) == (story.now, story.now)
    assert "new-canary" not in repr(told) + repr(secrets.list())


def test_secrets_are_listed_by_name(secrets):
    assert [secret.name for secret in secrets.list()] == ["openai", "stripe"]


REFUSED = {
    "a name that is taken": ({"name": "stripe"}, Conflict),
    "a name with a blank": ({"name": "a b"}, Usage),
    "a name that is a path": ({"name": "../x"}, Usage),
    "no name": ({"name": ""}, Usage),
    "a kind that is none": ({"kind": "rot13"}, Usage),
    "no value": ({"values": {}}, Usage),
    "a field that is none": ({"values": {"token": "x", "other": "y"}}, Usage),
    "an empty value": ({"values": {"token": ""}}, Usage),
    "a line break in a value": ({"values": {"token": "canary-x\r\nX-Evil: 1"}}, Usage),
    "a NUL in a value": ({"values": {"token": "canary-x\0"}}, Usage),
    "a blank around a value": ({"values": {"token": " canary-x"}}, Usage),
    "a value that is too long": ({"values": {"token": "canary-x" * 2000}}, Usage),
    "a value that is not ASCII": ({"values": {"token": "canary-x\u00e9"}}, Usage),
    "no host": ({"binding": Binding(hosts=())}, Usage),
    "no method": ({"binding": Binding(hosts=HOSTS, methods=())}, Usage),
    "no path": ({"binding": Binding(hosts=HOSTS, paths=())}, Usage),
    "an empty host": ({"binding": Binding(hosts=(("", 443),))}, Usage),
    "port 0": ({"binding": Binding(hosts=(("a.test", 0),))}, Usage),
    "a host that is not ASCII": ({"binding": Binding(hosts=(("\u0430.test", 443),))}, Usage),
    "a flag that is none": ({"binding": Binding(hosts=HOSTS, flags=frozenset({"redact-nothing"}))}, Usage),
    "plain http": ({"binding": Binding(hosts=HOSTS, scheme="http")}, Usage),
    "a place that frames the message": (
        {"kind": "header", "binding": Binding(hosts=HOSTS, placements=(Placement("header", "Host", "{token}"),))},
        Usage,
    ),
}


@pytest.mark.parametrize(("changes", "error"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_work_is_refused_with_a_hint_and_leaves_nothing(story, secrets, changes, error):
    before = counts(story)
    fields = {"name": "new", "kind": "bearer", "binding": BINDING, "values": {"token": "x"}} | changes
    with pytest.raises(error) as refused:
        secrets.put(fields.pop("name"), **fields, now=story.now)
    assert refused.value.hint
    assert "canary-x" not in refused.value.message + refused.value.hint + repr(refused.value.__cause__)
    assert counts(story) == before
    assert [secret.name for secret in secrets.list()] == ["openai", "stripe"]


@pytest.mark.parametrize("verb", ["rotate", "bind"])
def test_a_new_version_that_cannot_work_is_refused_likewise(story, secrets, verb):
    before = counts(story)
    extra = {"binding": Binding(hosts=())} if verb == "bind" else {}
    with pytest.raises(Usage):
        getattr(secrets, verb)("stripe", values={"token": "x" if verb == "bind" else "a\nb"}, now=story.now, **extra)
    assert counts(story) == before
    assert sent(story) == story.canary


def test_a_host_that_is_named_twice_is_one(story, secrets):
    secrets.put("twice", kind="bearer", binding=Binding(hosts=HOSTS * 2), values={"token": "x"}, now=story.now)
    assert story.vault.bound("api.stripe.test", 443) is False


@pytest.mark.parametrize("verb", ["rotate", "bind", "rollback", "delete", "get", "set_state"])
def test_a_secret_that_is_not_there_is_not_found(story, secrets, verb):
    arguments = {
        "rotate": {"values": {"token": "x"}, "now": story.now},
        "bind": {"values": {"token": "x"}, "binding": BINDING, "now": story.now},
        "get": {},
        "set_state": {"state": "disabled", "now": story.now},
    }.get(verb, {"now": story.now})
    for name in ("nowhere", "STRIPE", "stripe ", "%", ""):
        with pytest.raises(NotFound) as refused:
            getattr(secrets, verb)(name, **arguments)
        assert "vaultctl secret list" in refused.value.hint


# ── rotating ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_rotation_keeps_grant_and_binding_and_the_old_version(story, secrets):
    rotated = secrets.rotate("stripe", values={"token": "second"}, now=story.now + 1)
    assert (rotated.current, versions(story), rotated.updated_at) == (2, [1, 2], story.now + 1)
    assert rotated.binding == secrets.get("stripe").binding
    assert sent(story) == "second"


def test_a_new_binding_asks_for_the_value_and_closes_the_old_place(story, secrets):
    secrets.bind("stripe", binding=Binding(hosts=(("new.test", 443),)), values={"token": "moved"}, now=story.now)
    assert sent(story, url="https://new.test/") == "moved"
    assert story.decide().code == "destination_not_bound"


def test_a_rollback_makes_the_newest_older_version_current(story, secrets):
    for value in ("second", "third"):
        secrets.rotate("stripe", values={"token": value}, now=story.now)
    assert secrets.rollback("stripe", now=story.now).current == 2
    assert sent(story) == "second"
    assert secrets.rollback("stripe", now=story.now).current == 1
    assert sent(story) == story.canary
    with pytest.raises(NotFound, match="no older version"):
        secrets.rollback("stripe", now=story.now)
    assert secrets.rollback("stripe", now=story.now, to=3).current == 3
    assert sent(story) == "third"


@pytest.mark.parametrize("to", [1, 2, 0, -1, 99])
def test_a_rollback_to_what_is_current_or_was_never_there_is_not_found(story, secrets, to):
    if to == 1:
        secrets.rollback("stripe", now=story.now, to=1) if secrets.get("stripe").current != 1 else None
    with pytest.raises(NotFound):
        secrets.rollback("stripe", now=story.now, to=to)
    assert sent(story) == story.canary


def test_a_rollback_brings_the_binding_of_its_version_back(story, secrets):
    secrets.bind("stripe", binding=Binding(hosts=(("new.test", 443),)), values={"token": "moved"}, now=story.now)
    secrets.rollback("stripe", now=story.now)
    assert sent(story) == story.canary
    assert story.vault.bound("new.test", 443) is None


def test_during_its_grace_an_old_version_can_be_rolled_back_to(story, secrets):
    secrets.rotate("stripe", values={"token": "second"}, now=story.now, grace=60)
    assert [v.destroys_at for v in secrets.get("stripe").versions] == [story.now + 60, None]
    secrets.rollback("stripe", now=story.now + 59)
    assert sent(story) == story.canary
    assert [v.destroys_at for v in secrets.get("stripe").versions] == [None, None]


def test_after_its_grace_it_cannot_and_is_gone_with_the_next_change(story, secrets):
    secrets.rotate("stripe", values={"token": "second"}, now=story.now, grace=60)
    with pytest.raises(NotFound):
        secrets.rollback("stripe", now=story.now + 60)
    secrets.rotate("openai", values={"token": "x"}, now=story.now + 61)
    assert versions(story) == [2]
    assert query(story.vault.database, "SELECT count(*) FROM wraps w JOIN secrets s ON s.id = w.secret_id WHERE s.name = 'stripe'", {}) == [(1,)]  # fmt: skip


def test_a_proxy_destroys_it_by_itself_when_its_grace_is_over(story, secrets):
    secrets.rotate("stripe", values={"token": "second"}, now=story.now, grace=60)
    reader = Vault.connect(story.vault.home, writable=False)
    assert reader.destroy_expired(now=story.now + 59) == 0
    assert versions(story) == [1, 2]
    assert reader.destroy_expired(now=story.now + 60) == 1
    assert versions(story) == [2]
    assert reader.destroy_expired(now=story.now + 60) == 0
    assert story.vault.first_bad_change() is None
    assert log.entries(story.vault.database)[-1].action == "secret.expire"
    reader.close()


def test_without_a_grace_to_spend_the_old_version_is_gone_at_once(story, secrets):
    secrets.rotate("stripe", values={"token": "second"}, now=story.now, grace=0)
    assert versions(story) == [2]
    assert sent(story) == "second"


def test_a_second_rotation_does_not_lengthen_a_grace(story, secrets):
    secrets.rotate("stripe", values={"token": "second"}, now=story.now, grace=60)
    secrets.rotate("stripe", values={"token": "third"}, now=story.now + 30, grace=60)
    assert [v.destroys_at for v in secrets.get("stripe").versions] == [story.now + 60, story.now + 90, None]


def test_a_version_number_is_never_used_again(story, secrets):
    secrets.rotate("stripe", values={"token": "second"}, now=story.now)
    secrets.rollback("stripe", now=story.now)
    secrets.rotate("stripe", values={"token": "third"}, now=story.now, grace=0)
    assert versions(story) == [3]
    assert secrets.rotate("stripe", values={"token": "fourth"}, now=story.now, grace=0).current == 4


def test_a_deleted_secret_takes_everything_with_it(story, secrets):
    before = counts(story)
    secrets.delete("stripe", now=story.now)
    assert counts(story) == before | {
        "secrets": 1, "versions": 1, "wraps": 1, "destinations": 1, "grants": 1, "admin_log": before["admin_log"] + 1,
    }  # fmt: skip
    secrets.put("stripe", kind="bearer", binding=BINDING, values={"token": "again"}, now=story.now)
    assert story.decide().code == "grant_unavailable"


def test_a_disabled_secret_keeps_its_grants(story, secrets):
    secrets.set_state("stripe", "disabled", now=story.now)
    assert story.decide().code == "secret_disabled"
    secrets.set_state("stripe", "active", now=story.now)
    assert sent(story) == story.canary


def test_a_secret_that_cannot_be_read_hides_no_other_and_can_be_stopped_and_deleted(story, secrets):
    conn = story.vault.database.conn
    openai = secrets.find("openai")
    conn.execute("UPDATE versions SET binding = x'7b7d' WHERE secret_id = ?", (openai,))
    assert secrets.rotate("stripe", values={"token": "new"}, now=story.now).current == 2
    with pytest.raises(Fault):
        secrets.get("openai")
    with pytest.raises(Fault):
        secrets.set_state("openai", "disabled", now=story.now)
    assert story.decide(grant="openai", caller="helper").code == "secret_disabled"
    secrets.delete("openai", now=story.now)
    assert [secret.name for secret in secrets.list()] == ["stripe"]


def test_a_secret_whose_version_is_gone_is_called_damaged(story, secrets):
    story.vault.database.conn.execute("DELETE FROM versions WHERE secret_id = ?", (secrets.find("stripe"),))
    with pytest.raises(Corrupt, match="missing"):
        secrets.get("stripe")
    secrets.delete("stripe", now=story.now)
