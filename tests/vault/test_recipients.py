"""A new key pair for the proxy: everything opens before, during and after, and nobody else is sealed to."""

import os

import pytest

from addon import credentials, files
from addon.binding import Binding
from addon.callers.idp import Idp
from addon.errors import Conflict, Corrupt, Fault, Locked, NotFound
from addon.model import Head
from addon.vault import Vault, recipients
from addon.vault.database import write
from addon.vault.keyring import Keyring, PrivateKey

NOW = 1_800_000_000.0
BINDING = credentials.kind("bearer").check_binding(Binding(hosts=(("api.example.com", 443),)))
SHARED = b"Zk3vX0q7Pw1sYt9uBn4mLc8dRf2hGj6aEoViTyUbNxQ="


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


@pytest.fixture
def vault(home):
    vault = Vault.create(home, now=NOW)
    store(vault, "first")
    vault.secrets.rotate("first", values={"token": "first, the second time"}, now=NOW, grace=1e6)
    yield vault
    vault.close()


def store(vault, name):
    vault.secrets.put(name, kind="bearer", binding=BINDING, values={"token": name}, now=NOW)


def ring(home):
    return Keyring.load(home / "proxy.key")


def opened(home, keyring):
    """What a proxy with these keys reads in the vault; None for what does not open."""
    vault = Vault.connect(home, keyring=keyring, writable=False)
    try:
        rows = vault.database.query("SELECT secret_id, version FROM versions ORDER BY rowid")
        return [value(vault, row["secret_id"], row["version"]) for row in rows]
    finally:
        vault.close()


def value(vault, secret_id, version):
    try:
        return next(iter(vault._reveal(secret_id, version)[1]))
    except Fault:
        return None


def test_everything_opens_with_either_key_until_the_old_one_is_retired(home, vault):
    old = ring(home)
    (first,) = old.recipients
    kid = vault.recipients.rotate(now=NOW + 1)
    store(vault, "second")
    new = Keyring([ring(home).key(kid)])
    everything = ["first", "first, the second time", "second"]
    assert opened(home, old) == opened(home, new) == opened(home, ring(home)) == everything
    assert [(key.kid, key.sealed, key.alone) for key in vault.recipients.list()] == [(first.kid, 3, 0), (kid, 3, 0)]
    vault.recipients.retire(first.kid, now=NOW + 2)
    assert [each.kid for each in ring(home).recipients] == [kid]
    assert opened(home, ring(home)) == everything
    assert opened(home, old) == [None] * 3
    listed = vault.recipients.list()
    assert [(key.kid, key.retired_at, key.sealed, key.alone) for key in listed] == [(first.kid, NOW + 2, 0, 0), (kid, None, 3, 3)]  # fmt: skip
    assert vault.first_bad_change() is None


def test_no_value_is_opened(home, vault, monkeypatch):
    def never(*_, **__):
        raise AssertionError

    monkeypatch.setattr("addon.vault.seal._cipher", never)
    payloads = [row["payload"] for row in vault.database.query("SELECT payload FROM versions ORDER BY rowid")]
    (first,) = ring(home).recipients
    vault.recipients.rotate(now=NOW)
    vault.recipients.retire(first.kid, now=NOW)
    assert [row["payload"] for row in vault.database.query("SELECT payload FROM versions ORDER BY rowid")] == payloads


def test_the_shared_secret_of_a_provider_moves_along(home, vault):
    idp = Idp(name="acme", issuer="https://acme.example/", audiences=("x",), source="shared", algorithms=("HS256",))
    vault.idps.add(idp, keys=SHARED, now=NOW)
    (first,) = ring(home).recipients
    vault.recipients.rotate(now=NOW)
    vault.recipients.retire(first.kid, now=NOW)
    proxy = Vault.connect(home, keyring=ring(home), writable=False)
    assert proxy.idps.keys(proxy.idps.find("https://acme.example/")) == SHARED
    proxy.close()


def test_a_key_that_somebody_wrote_into_the_vault_is_sealed_to_by_nobody(home, vault):
    """Whoever can write the database must not get every value at the next rotation."""
    thief = PrivateKey.generate()
    with write(vault.database) as connection:
        connection.execute(
            "INSERT INTO recipients (kid, suite, public, created_at) VALUES (?, ?, ?, ?)",
            (thief.recipient.kid, 1, thief.recipient.public, NOW),
        )
    with pytest.raises(Corrupt, match="a key that is not in the key file"):
        vault.recipients.rotate(now=NOW)
    assert opened(home, Keyring([thief])) == [None, None]
    (first,) = [each for each in ring(home).recipients if each.kid in {row["kid"] for row in vault.database.query("SELECT kid FROM wraps")}]  # fmt: skip
    with pytest.raises(Corrupt):
        vault.recipients.retire(first.kid, now=NOW)


def test_a_public_key_that_was_exchanged_in_its_row_is_not_used(home, vault):
    thief = PrivateKey.generate()
    with write(vault.database) as connection:
        connection.execute("UPDATE recipients SET public = ?", (thief.recipient.public,))
    kid = vault.recipients.rotate(now=NOW)
    assert opened(home, Keyring([ring(home).key(kid)])) == ["first", "first, the second time"]
    assert opened(home, Keyring([thief])) == [None, None]


def test_a_value_that_does_not_open_stops_it_and_the_vault_is_as_it_was(home, vault):
    with write(vault.database) as connection:
        connection.execute(
            "UPDATE versions SET binding = CAST(replace(binding, 'example', 'elsewhere') AS BLOB) WHERE version = 2"
        )
    before = vault.recipients.list()
    with pytest.raises(Corrupt, match="version 2 of first"):
        vault.recipients.rotate(now=NOW)
    assert vault.recipients.list() == before
    vault.secrets.delete("first", now=NOW)
    kid = vault.recipients.rotate(now=NOW)
    assert [each.kid for each in ring(home).recipients] == [before[0].kid, kid], "the key that was made first is used"


def test_a_rotation_that_was_cut_short_is_finished_by_the_next(home, vault, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(recipients, "rewrap", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            vault.recipients.rotate(now=NOW)
    assert opened(home, ring(home)) == ["first", "first, the second time"]
    prepared = ring(home).recipients[-1].kid
    assert vault.recipients.rotate(now=NOW) == prepared
    assert len(ring(home).recipients) == 2


def test_a_retirement_that_was_cut_short_is_finished_by_the_next(home, vault, monkeypatch):
    (first,) = ring(home).recipients
    kid = vault.recipients.rotate(now=NOW)
    with monkeypatch.context() as patched:
        patched.setattr(files, "replace", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            vault.recipients.retire(first.kid, now=NOW)
    assert opened(home, ring(home)) == ["first", "first, the second time"]
    vault.recipients.retire(first.kid, now=NOW)
    assert [each.kid for each in ring(home).recipients] == [kid]


def test_a_key_is_not_retired_while_something_opens_with_it_alone(home, vault):
    (first,) = ring(home).recipients
    with pytest.raises(Conflict, match="the only key"):
        vault.recipients.retire(first.kid, now=NOW)
    kid = vault.recipients.rotate(now=NOW)
    with write(vault.database) as connection:
        connection.execute("DELETE FROM wraps WHERE kid = ? AND version = 1", (kid,))
    with pytest.raises(Conflict, match="1 values open with this key alone"):
        vault.recipients.retire(first.kid, now=NOW)
    assert opened(home, ring(home)) == ["first", "first, the second time"]
    vault.recipients.rotate(now=NOW)
    vault.recipients.retire(first.kid, now=NOW)
    with pytest.raises(NotFound):
        vault.recipients.retire("0" * 32, now=NOW)


def test_a_key_file_of_somebody_else_is_left_alone(home, vault, monkeypatch):
    """Replaced by root it would be root's, and the proxy could not read it any more."""
    before = (home / "proxy.key").read_bytes()
    monkeypatch.setattr(recipients.os, "getuid", lambda: os.geteuid() + 1)
    monkeypatch.setattr(recipients.Keyring, "load", classmethod(lambda cls, path: cls.parse(path.read_bytes())))
    with pytest.raises(Locked, match="belongs to another user"):
        vault.recipients.rotate(now=NOW)
    assert (home / "proxy.key").read_bytes() == before


def test_what_is_sealed_to_a_new_key_is_recognised_once_the_key_is_taken_over(home, vault):
    """Though nothing is stored between the refusal and the taking over."""
    value = "a-value-0f-the-new-key-alone"
    proxy = Vault.connect(home, keyring=ring(home), writable=False)
    (first,) = ring(home).recipients
    vault.recipients.rotate(now=NOW)
    vault.recipients.retire(first.kid, now=NOW)
    vault.secrets.put("late", kind="bearer", binding=BINDING, values={"token": value}, now=NOW)
    head = Head("GET", b"/?k=" + value.encode(), ())

    def recognised():
        proxy.lookup(digest=b"", tag="")
        return proxy.recognise(head)

    assert recognised() is None
    proxy.take(ring(home))
    assert recognised() == "late"
    proxy.close()


def test_keys_of_another_vault_are_not_taken_over(home, vault):
    proxy = Vault.connect(home, keyring=ring(home), writable=False)
    with pytest.raises(Locked, match="does not belong"):
        proxy.take(Keyring.generate())
    proxy.self_test()
    proxy.close()
