"""A vault of the first format becomes one that knows identity providers, and nothing in it is lost."""

import pytest

from addon.errors import Locked
from addon.vault import Vault, database, migrations
from addon.vault.migrations import MIGRATIONS
from tests.provider import NOW, Provider


@pytest.fixture
def old(tmp_path, monkeypatch):
    """A vault whose database was made by the first step alone, with one grant in it."""
    home = tmp_path / "home"
    with monkeypatch.context() as patched:
        patched.setattr(database, "migrate", _first_step)
        patched.setattr(migrations, "check", lambda _: None)
        vault = Vault.create(home, now=NOW)
    connection = vault.database.conn
    connection.execute("INSERT INTO secrets VALUES ('s-1', 'stripe', 'bearer', '', '', 'active', 1, 0, 0)")
    connection.execute(
        "INSERT INTO versions (secret_id, version, binding, payload, created_at) VALUES ('s-1', 1, ?, x'00', 0)",
        (b'{"hosts":[["a.test",443]]}',),
    )
    connection.execute(
        "INSERT INTO grants (id, secret_id, principal, created_at) VALUES ('g-1', 's-1', 'system:billing', 0)"
    )
    vault.close()
    return home


def _first_step(data):
    with database.write(data):
        MIGRATIONS.apply(data, stop_before="0002_identity")


def test_it_is_refused_until_it_is_migrated(old):
    with pytest.raises(Locked, match="older format"):
        Vault.connect(old)
    assert Vault.upgrade(old)[0] == "0002_identity"
    assert Vault.upgrade(old) == ()


def test_its_grants_are_there_and_not_delegable(old):
    Vault.upgrade(old)
    vault = Vault.connect(old)
    [row] = vault.database.conn.execute("SELECT id, delegable, delegation_seconds, proof_seconds FROM grants").fetchall()  # fmt: skip
    assert row == ("g-1", 0, None, 86400.0)
    assert vault.lookup(digest=b"", tag="g-1").grant.principal == "system:billing"
    provider = Provider()
    vault.idps.add(provider.idp(), keys=provider.jwks(), now=NOW)
    assert vault.idps.find(provider.issuer)
    vault.close()
