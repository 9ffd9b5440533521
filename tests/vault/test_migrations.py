"""The format of vault.db: named steps, all of them or none, and no guess about a format we do not know."""

import contextlib

import pytest
from sqlite_utils.migrations import Migrations

from addon.errors import Locked
from addon.vault import database, migrations
from addon.vault.database import connect, create, query, upgrade


@pytest.fixture
def path(tmp_path):
    tmp_path.chmod(0o700)
    create(tmp_path / "vault.db").close()
    return tmp_path / "vault.db"


def schema(path):
    with contextlib.closing(database._connect(path)) as data:
        return data.conn.execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall()


@pytest.fixture
def later(monkeypatch):
    """`later(*steps)` makes this software know more steps than the vault has taken."""

    def know(*steps):
        longer = Migrations("alter_egress")
        for step in migrations.MIGRATIONS._migrations:
            longer(name=step.name)(step.fn)
        for number, step in enumerate(steps):
            longer(name=f"9{number:03}_later")(step)
        monkeypatch.setattr(migrations, "MIGRATIONS", longer)

    return know


def test_a_new_vault_has_taken_every_step(path):
    with contextlib.closing(connect(path, writable=False)) as data:
        assert migrations.missing(data) == ()


def test_upgrading_what_is_up_to_date_changes_nothing(path):
    before = schema(path)
    assert upgrade(path) == ()
    assert schema(path) == before


def test_steps_are_named_in_order_and_once():
    names = [step.name for step in migrations.MIGRATIONS._migrations]
    assert names == sorted(set(names))
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))


@pytest.mark.parametrize("writable", [True, False])
def test_an_older_vault_is_not_opened_until_it_is_upgraded(path, later, writable):
    later(lambda db: db.conn.execute("CREATE TABLE later (a TEXT) STRICT"))
    with pytest.raises(Locked, match="older format") as refused:
        connect(path, writable=writable)
    assert "vaultctl migrate" in refused.value.hint
    assert upgrade(path) == ("9000_later",)
    connect(path, writable=writable).close()


@pytest.mark.parametrize("writable", [True, False])
def test_a_newer_vault_is_not_opened_at_all(path, writable):
    with contextlib.closing(database._connect(path)) as data:
        data.conn.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('alter_egress', '9999_newer', '')"
        )
    for attempt in (lambda: connect(path, writable=writable), lambda: upgrade(path)):
        with pytest.raises(Locked, match="newer format"):
            attempt()


def test_a_step_that_fails_takes_the_others_back_with_it(path, later):
    def good(db):
        db.conn.execute("CREATE TABLE later (a TEXT) STRICT")

    def bad(db):
        good(db)

    before = schema(path)
    later(good, bad)
    with pytest.raises(Locked):
        upgrade(path)
    assert schema(path) == before


def test_no_column_is_made_for_plaintext(path):
    with contextlib.closing(connect(path, writable=False)) as data:
        columns = query(
            data,
            "SELECT t.name, c.name FROM pragma_table_list t, pragma_table_info(t.name) c WHERE t.schema = 'main'",
            {},
        )
    assert not {name for _, name in columns} & {"value", "token", "password", "plaintext", "secret", "key", "seed"} - {
        "value"
    }
    assert [table for table, name in columns if name == "value"] == ["meta"]


def test_no_authorization_row_counts_its_uses(path):
    with contextlib.closing(connect(path, writable=False)) as data:
        for table in ("secrets", "versions", "grants", "callers", "keys"):
            columns = {name for (name,) in query(data, "SELECT name FROM pragma_table_info(:table)", {"table": table})}
            assert not columns & {"uses", "count", "last_used", "last_used_at", "used_at"}


def test_columns_that_allow_are_never_null(path):
    nullable = {"retired_at", "destroys_at", "expires_at", "revoked_at"}
    with contextlib.closing(connect(path, writable=False)) as data:
        for table in ("secrets", "versions", "wraps", "recipients", "callers", "keys", "grants"):
            rows = query(data, 'SELECT name, "notnull", pk FROM pragma_table_info(:table)', {"table": table})
            loose = {name for name, notnull, pk in rows if not notnull and not pk}
            assert loose <= nullable | {"delegation_seconds"}, table


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE secrets SET state = 'on'",
        "UPDATE callers SET state = NULL",
        "UPDATE callers SET type = 'admin'",
        "UPDATE keys SET type = 'adm'",
        "UPDATE grants SET policies = NULL",
        "UPDATE grants SET expires_at = 'never'",
        "UPDATE keys SET digest = 'text'",
        "UPDATE versions SET binding = '{}'",
        "UPDATE grants SET secret_id = 'nowhere'",
        "UPDATE keys SET caller_id = 'nowhere'",
    ],
)
def test_a_row_of_another_type_or_state_cannot_be_stored(story, statement):
    with pytest.raises(database.ERRORS):
        story.vault.database.conn.execute(statement)
