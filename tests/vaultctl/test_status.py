"""`status` and `doctor`."""

import builtins
import io
import os
import shutil
import socket
import sqlite3
import time

import pytest

from addon.errors import Usage
from vaultctl import trust
from vaultctl.proxy import parse


@pytest.fixture
def proxy():
    """Something that accepts connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def nothing():
    """A port where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"http://127.0.0.1:{port}"


def test_ready_is_exit_code_0(cli, proxy):
    ran = cli("status", "--proxy", proxy)
    assert (ran.code, ran.out.splitlines()[0], ran.err) == (0, "ready", "")
    document = cli("status", "--proxy", proxy, "--json").json
    assert document["ready"] is True
    assert document["proxy"] == proxy


def test_the_proxy_may_be_named_by_the_environment(cli, proxy, monkeypatch):
    monkeypatch.setenv("ALTER_PROXY", proxy)
    assert cli("status").code == 0


def test_no_proxy_is_exit_code_8(cli, nothing):
    ran = cli("status", "--proxy", nothing, "--json")
    assert ran.code == 8
    assert (ran.json["ready"], "alter-egress" in ran.json["hint"]) == (False, True)
    assert ran.error == ran.json["problem"]


@pytest.mark.parametrize("missing", ["vault.db", "ca"])
def test_a_missing_part_is_exit_code_5(cli, home, proxy, missing):
    path = home / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    ran = cli("status", "--proxy", proxy)
    assert (ran.code, ran.out, bool(ran.error)) == (5, "", True)


def test_a_vault_that_is_open_to_others_is_locked(cli, home, proxy):
    (home / "vault.db").chmod(0o604)
    ran = cli("status", "--proxy", proxy)
    assert ran.code == 5
    assert "chmod 600" in ran.err


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:8080", "ftp://h:1", "http://", "http://name:key@h:1", "http://h:0x1", "http://h:99999", "http://h:1/x",
     "http://h:1?x", "http://h:1#x", "http://h:0"],
)  # fmt: skip
def test_a_proxy_is_scheme_host_and_port(url):
    with pytest.raises(Usage):
        parse(url)


def test_a_key_in_the_proxy_url_is_not_repeated(cli):
    ran = cli("status", "--proxy", "http://billing:alter_app_canary@127.0.0.1:8080")
    assert ran.code == 2
    assert "canary" not in ran.err


def test_an_address_in_brackets_keeps_them():
    assert str(parse("http://[::1]:8080/")) == "http://[::1]:8080"
    assert parse("http://[::1]:8080").host == "::1"


def levels(ran):
    return {check["name"]: check["level"] for check in ran.json["checks"]}


def test_doctor_finds_a_fresh_vault_in_order(cli, proxy):
    ran = cli("doctor", "--proxy", proxy, "--json")
    assert ran.code == 0
    assert "fail" not in levels(ran).values()
    assert all(set(check) == {"name", "level", "detail", "mend"} for check in ran.json["checks"])
    assert all(check["mend"] for check in ran.json["checks"] if check["level"] != "ok")


def test_doctor_says_which_promise_one_user_for_everything_cannot_keep(cli):
    assert levels(cli("doctor", "--json"))["key"] == "warn"


@pytest.mark.parametrize(
    ("name", "level", "damage"),
    [
        ("home", "fail", lambda home: home.chmod(0o755)),
        ("vault", "fail", lambda home: (home / "vault.db").write_bytes(b"x" * 5000)),
        ("vault", "fail", lambda home: (home / "vault.db").unlink()),
        ("key", "fail", lambda home: (home / "proxy.key").chmod(0o644)),
        ("key", "warn", lambda home: (home / "proxy.key").unlink()),
        ("ca", "fail", lambda home: (home / "ca/mitmproxy-ca.pem").chmod(0o640)),
        ("ca", "warn", lambda home: (home / "ca/mitmproxy-ca.pem").unlink()),
        ("ca", "fail", lambda home: (home / "ca/ca-cert.pem").unlink()),
        ("ca", "fail", lambda home: (home / "ca/ca-cert.pem").write_text("x")),
    ],
)
def test_doctor_names_what_is_wrong_and_the_mend(cli, home, name, level, damage):
    damage(home)
    ran = cli("doctor", "--json")
    assert levels(ran)[name] == level
    assert ran.code == (1 if level == "fail" else 0)
    assert all(check["mend"] for check in ran.json["checks"] if check["level"] == "fail")


def test_doctor_finds_a_log_of_changes_that_was_edited(cli, home, stripe):
    database = sqlite3.connect(home / "vault.db")
    database.execute("UPDATE admin_log SET actor = 'somebody else' WHERE seq = 2")
    database.commit()
    database.close()
    ran = cli("doctor", "--json")
    assert levels(ran)["changes"] == "fail"
    assert "entry 2" in ran.out


def test_doctor_finds_a_clock_that_was_set_back(cli, stripe, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1_000_000_000.0)
    assert levels(cli("doctor", "--json"))["clock"] == "fail"


def test_doctor_warns_when_the_whole_machine_trusts_the_ca(cli, home, tmp_path, monkeypatch):
    roots = tmp_path / "roots.pem"
    roots.write_bytes(b"# roots\n" + (home / "ca/ca-cert.pem").read_bytes())
    monkeypatch.setattr(trust, "_SYSTEM_ROOTS", (str(roots),))
    assert levels(cli("doctor", "--json"))["trust"] == "warn"


def test_doctor_never_opens_the_key(cli, home, monkeypatch):
    opened = []
    for module, name in ((os, "open"), (builtins, "open"), (io, "open")):
        real = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda path, *a, real=real, **k: (opened.append(str(path)), real(path, *a, **k))[1]
        )
    cli("doctor")
    cli("status")
    assert opened
    assert not any(path.endswith("proxy.key") for path in opened)
