import os
import stat

import pytest

from addon import ca
from vaultctl import trust


def test_it_makes_a_vault_a_key_and_a_ca_that_only_the_owner_can_read(bare, tmp_path):
    ran = bare("init", "--json")
    assert ran.code == 0
    assert set(ran.json) == {"home", "vault_id", "ca_cert"}
    home = tmp_path / "home"
    modes = {path.relative_to(home).as_posix(): stat.S_IMODE(path.stat().st_mode) for path in [home, *home.rglob("*")]}
    assert modes == {
        ".": 0o700,
        "vault.db": 0o600,
        "proxy.key": 0o600,
        "ca": 0o700,
        "ca/mitmproxy-ca.pem": 0o600,
        "ca/ca-cert.pem": 0o644,
    }


def test_the_ca_is_what_mitmproxy_loads_and_clients_trust(home):
    certificate = (home / "ca/ca-cert.pem").read_bytes()
    assert "alter-egress" in ca.describe(certificate)["subject"]
    pair = (home / "ca/mitmproxy-ca.pem").read_bytes()
    assert b"PRIVATE KEY" in pair
    assert pair.endswith(certificate)
    assert b"PRIVATE KEY" not in certificate


def test_it_says_what_to_do_next_on_stderr(bare):
    ran = bare("init")
    assert "vaultctl secret set" in ran.err
    assert "next:" in ran.err
    assert len(ran.out.splitlines()) == 3


@pytest.mark.parametrize("present", ["vault.db", "proxy.key", "ca/ca-cert.pem", "ca/other"])
def test_it_overwrites_nothing(bare, tmp_path, present):
    path = tmp_path / "home" / present
    path.parent.mkdir(parents=True, mode=0o700)
    path.write_bytes(b"precious")
    ran = bare("init")
    assert ran.code == 7
    assert ran.error
    assert path.read_bytes() == b"precious"
    assert [each for each in (tmp_path / "home").rglob("*") if each.is_file()] == [path]


def test_a_second_run_is_refused_and_the_vault_still_works(cli, home):
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    assert cli("init").code == 7
    assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("step", ["addon.vault.vault.Keyring.dump", "addon.ca.mint", "addon.files.sync_folder"])
def test_a_failure_at_any_step_leaves_nothing(bare, tmp_path, monkeypatch, step, existing):
    home = tmp_path / "home"
    if existing:
        home.mkdir(mode=0o700)

    def fail(*args, **kwargs):
        raise OSError(28, os.strerror(28), "somewhere")

    monkeypatch.setattr(step, fail)
    ran = bare("init")
    assert ran.code == 1
    assert "no space left" in ran.error
    assert home.exists() == existing
    assert not existing or list(home.iterdir()) == []
    monkeypatch.undo()
    assert bare("init", "--home", str(home)).code == 0


def test_two_at_once_make_one(bare, tmp_path, monkeypatch):
    """The one that comes second removes nothing of the first."""
    home = tmp_path / "home"
    create = trust.create

    def interleaved(*args, **kwargs):
        monkeypatch.setattr(trust, "create", create)
        assert bare("init", "--home", str(home)).code == 7
        return create(*args, **kwargs)

    monkeypatch.setattr(trust, "create", interleaved)
    assert bare("init").code == 0
    assert (home / "proxy.key").exists()


@pytest.mark.parametrize("mode", [0o755, 0o777])
def test_a_home_that_others_can_enter_is_refused_with_the_mend(bare, tmp_path, mode):
    (tmp_path / "home").mkdir()
    (tmp_path / "home").chmod(mode)
    ran = bare("init")
    assert ran.code == 5
    assert "chmod 700" in ran.err
