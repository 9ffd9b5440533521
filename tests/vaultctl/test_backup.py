import os
import shutil
import sqlite3
import stat

import pytest

from addon.vault import Vault
from addon.vault.keyring import Keyring
from addon.vault.migrations import MIGRATIONS


@pytest.fixture
def copy(cli, stripe, tmp_path):
    path = tmp_path / "copy.db"
    assert cli("backup", str(path)).code == 0
    return path


def test_a_backup_is_private_and_holds_no_key(copy, home):
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    keys = [line.split()[2] for line in (home / "proxy.key").read_text().splitlines()[1:] if not line.startswith("#")]
    data = copy.read_bytes()
    assert keys
    assert not any(bytes.fromhex(key) in data or key.encode() in data for key in keys)


def test_a_backup_overwrites_nothing(cli, copy):
    before = copy.read_bytes()
    assert cli("backup", str(copy)).code == 7
    assert copy.read_bytes() == before


def test_a_restored_vault_opens_with_the_key_that_was_kept(cli, copy, home, tmp_path, stripe, canary):
    ran = cli("restore", str(copy), "--home", str(tmp_path / "new"), "--json")
    assert ran.code == 0
    assert ran.json["vault_id"]
    assert "proxy.key" in ran.err
    shutil.copy2(home / "proxy.key", tmp_path / "new/proxy.key")
    vault = Vault.connect(tmp_path / "new", keyring=Keyring.load(tmp_path / "new/proxy.key"))
    vault.self_test()
    grant = vault.lookup(digest=b"", tag=stripe).grant
    assert vault.open(grant)["token"] == canary
    assert vault.first_bad_change() is None
    vault.close()


def test_restore_replaces_no_vault(cli, copy, home):
    before = (home / "vault.db").read_bytes()
    assert cli("restore", str(copy)).code == 7
    assert (home / "vault.db").read_bytes() == before


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text", "another database"])
def test_what_is_no_whole_backup_leaves_nothing(cli, copy, tmp_path, damage):
    data = copy.read_bytes()
    copy.unlink()
    if damage == "another database":
        other = sqlite3.connect(copy)
        other.execute("CREATE TABLE meta (name, value)")
        other.commit()
        other.close()
    else:
        middle = len(data) // 2
        copy.write_bytes(
            {
                "cut": data[:middle],
                "flipped": data[:200] + bytes(byte ^ 255 for byte in data[200:]),
                "empty": b"",
                "text": b"hello",
            }[damage]
        )
    ran = cli("restore", str(copy), "--home", str(tmp_path / "new"))
    assert ran.code == 6
    assert ran.error
    assert list((tmp_path / "new").iterdir()) == []


def test_a_file_that_is_not_there_is_a_wrong_command(cli, tmp_path):
    assert cli("restore", "nothing.db", "--home", str(tmp_path / "new")).code == 2
    assert not (tmp_path / "new").exists()


def test_migrate_says_when_there_is_nothing_to_do(cli):
    ran = cli("migrate", "--json")
    assert (ran.code, ran.json) == (0, {"steps": []})
    assert "up to date" in ran.err


@pytest.fixture
def newer_software(monkeypatch):
    """This software, after one more step was added to the format."""
    later = type(MIGRATIONS)("alter_egress")
    for step in MIGRATIONS._migrations:
        later(name=step.name)(step.fn)
    later(name="9999_later")(lambda db: db.conn.execute("CREATE TABLE later (x INTEGER) STRICT"))
    monkeypatch.setattr("addon.vault.migrations.MIGRATIONS", later)


def test_a_vault_of_an_older_format_is_brought_up_to_date(cli, home, stripe, newer_software):
    ran = cli("secret", "list")
    assert ran.code == 5
    assert "vaultctl migrate" in ran.err
    assert cli("migrate", "--json").json == {"steps": ["9999_later"]}
    assert len(cli("secret", "list", "--json").json) == 1


def test_a_vault_of_a_newer_format_is_left_alone(cli, home, stripe, newer_software, monkeypatch):
    assert cli("migrate").code == 0
    monkeypatch.undo()
    before = (home / "vault.db").read_bytes()
    for command in ("migrate", "status"):
        ran = cli(command, "--home", str(home))
        assert ran.code == 5
        assert "newer format" in ran.error
    assert (home / "vault.db").read_bytes() == before


def test_an_older_backup_is_brought_up_to_date_as_it_is_restored(cli, copy, tmp_path, newer_software):
    at = ("--home", str(tmp_path / "new"))
    assert cli("restore", str(copy), *at).code == 0
    assert len(cli("secret", "list", *at, "--json").json) == 1


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_reported(cli, stripe, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    ran = cli("backup", str(tmp_path / "closed/copy.db"))
    assert ran.code == 1
    assert "permission denied" in ran.error
