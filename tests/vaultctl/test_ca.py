import shutil
import ssl
import stat
import time

import pytest

from addon import ca, files
from vaultctl import trust
from vaultctl.proxy import Proxy


@pytest.fixture
def without_ca(home):
    shutil.rmtree(home / "ca")
    return home


def test_show_tells_what_identifies_it(cli):
    document = cli("ca", "show", "--json").json
    assert set(document) == {"ca_cert", "subject", "sha256", "not_after", "constraints", "handed_out_too"}
    assert document["sha256"].count(":") == 31


def test_export_prints_the_certificate_alone(cli, home):
    ran = cli("ca", "export")
    assert ran.out == (home / "ca/ca-cert.pem").read_text()
    assert "PRIVATE" not in ran.out


def test_export_writes_a_new_file_that_clients_can_read_and_no_other(cli, home, tmp_path):
    path = tmp_path / "out.pem"
    assert cli("ca", "export", "-o", str(path)).code == 0
    assert path.read_bytes() == (home / "ca/ca-cert.pem").read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert cli("ca", "export", "-o", str(path)).code == 7


def test_the_bundle_holds_the_public_roots_and_ours(cli, home):
    pem = cli("ca", "export", "--bundle", "--json").json["pem"]
    context = ssl.create_default_context(cadata=pem)
    subjects = [str(root["subject"]) for root in context.get_ca_certs()]
    assert len(subjects) > 50
    assert sum("alter-egress" in subject for subject in subjects) == 1


def test_init_makes_one_where_there_is_none(cli, without_ca):
    ran = cli("ca", "init", "--constrain", "api.stripe.com", "--json")
    assert ran.code == 0
    assert ran.json["constraints"] == ["api.stripe.com"]
    assert stat.S_IMODE((without_ca / "ca/mitmproxy-ca.pem").stat().st_mode) == 0o600


@pytest.mark.parametrize("left", ["mitmproxy-ca.pem", "ca-cert.pem"])
def test_init_never_replaces_one(cli, home, left):
    for path in (home / "ca").iterdir():
        if path.name != left:
            path.unlink()
    before = (home / "ca" / left).read_bytes()
    ran = cli("ca", "init")
    assert ran.code == 7
    assert (home / "ca" / left).read_bytes() == before
    assert len(list((home / "ca").iterdir())) == 1


def test_a_constraint_that_is_no_host_makes_nothing(cli, without_ca):
    assert cli("ca", "init", "--constrain", "https://x").code == 2
    assert not (without_ca / "ca").exists()


@pytest.mark.parametrize("verb", ["show", "export"])
def test_a_missing_ca_is_exit_code_3_and_says_how_to_make_one(cli, without_ca, verb):
    ran = cli("ca", verb)
    assert ran.code == 3
    assert "vaultctl ca init" in ran.err


def test_a_damaged_one_is_exit_code_6(cli, home):
    (home / "ca/ca-cert.pem").write_text("not a certificate")
    assert cli("ca", "show").code == 6


def certificates(path):
    return ca.split(path.read_bytes())


def test_a_prepared_ca_is_handed_out_and_not_used(cli, home):
    used, (before,) = (home / "ca/mitmproxy-ca.pem").read_bytes(), certificates(home / "ca/ca-cert.pem")
    ran = cli("ca", "rotate", "--prepare", "--json")
    assert ran.code == 0
    assert (home / "ca/mitmproxy-ca.pem").read_bytes() == used
    first, second = certificates(home / "ca/ca-cert.pem")
    assert first == before
    assert ran.json["sha256"] == ca.describe(before)["sha256"]
    assert ran.json["handed_out_too"] == [ca.describe(second)["sha256"]]
    assert stat.S_IMODE((home / "ca/next-ca.pem").stat().st_mode) == 0o600
    assert cli("ca", "rotate", "--prepare").code == 7


def test_rotate_takes_the_prepared_one_into_use_and_hands_out_both(cli, home):
    cli("ca", "rotate", "--prepare")
    prepared, (old, new) = (home / "ca/next-ca.pem").read_bytes(), certificates(home / "ca/ca-cert.pem")
    assert cli("ca", "rotate").code == 0
    assert (home / "ca/mitmproxy-ca.pem").read_bytes() == prepared
    assert certificates(home / "ca/ca-cert.pem") == [new, old]
    assert not (home / "ca/next-ca.pem").exists()
    pem = cli("ca", "export", "--bundle", "--json").json["pem"]
    subjects = [str(root["subject"]) for root in ssl.create_default_context(cadata=pem).get_ca_certs()]
    assert sum("alter-egress" in subject for subject in subjects) == 2
    assert (home / "ca/bundle.pem").read_text() == pem


def test_rotate_without_a_prepared_one_asks_first(cli, home):
    before = certificates(home / "ca/ca-cert.pem")
    assert cli("ca", "rotate").code == 2
    assert certificates(home / "ca/ca-cert.pem") == before
    assert cli("ca", "rotate", "--yes").code == 0
    new, old = certificates(home / "ca/ca-cert.pem")
    assert [old] == before
    assert new in (home / "ca/mitmproxy-ca.pem").read_bytes()


@pytest.mark.parametrize("done", ["handed out", "in place"])
def test_a_rotation_that_was_cut_short_is_finished_by_the_next(cli, home, monkeypatch, done):
    cli("ca", "rotate", "--prepare")
    old, new = certificates(home / "ca/ca-cert.pem")
    with monkeypatch.context() as patched:
        if done == "handed out":
            original = files.replace

            def replace(path, *arguments, **options):
                if path.name == "mitmproxy-ca.pem":
                    raise KeyboardInterrupt
                original(path, *arguments, **options)

            patched.setattr(files, "replace", replace)
        else:
            patched.setattr(trust.Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            trust.rotate(home, now=time.time())
    assert set(certificates(home / "ca/ca-cert.pem")) == {old, new}, "both are trusted whichever is in use"
    assert cli("ca", "rotate").code == 0
    assert certificates(home / "ca/ca-cert.pem") == [new, old]
    assert new in (home / "ca/mitmproxy-ca.pem").read_bytes()


def test_retire_hands_out_the_one_in_use_alone(cli, home):
    cli("ca", "rotate", "--yes")
    new, _old = certificates(home / "ca/ca-cert.pem")
    assert cli("ca", "retire").code == 2, "it asks"
    assert cli("ca", "retire", "--yes").code == 0
    assert certificates(home / "ca/ca-cert.pem") == [new]
    cli("ca", "rotate", "--prepare")
    assert cli("ca", "retire", "--yes").code == 7, "it would forget the next one"


def test_a_new_ca_keeps_the_constraints_of_the_old_one(cli, without_ca):
    cli("ca", "init", "--constrain", "api.stripe.com")
    assert cli("ca", "rotate", "--yes", "--json").json["constraints"] == ["api.stripe.com"]
    assert cli("ca", "rotate", "--yes", "--constrain", "x.test", "--json").json["constraints"] == ["x.test"]
    cli("ca", "rotate", "--prepare")
    assert cli("ca", "rotate", "--constrain", "y.test").code == 2


def test_a_prepared_ca_that_is_damaged_is_not_taken_into_use(cli, home):
    cli("ca", "rotate", "--prepare")
    used = (home / "ca/mitmproxy-ca.pem").read_bytes()
    (home / "ca/next-ca.pem").write_bytes(ca.mint(now=0).cert_pem)
    assert cli("ca", "rotate").code == 6
    assert (home / "ca/mitmproxy-ca.pem").read_bytes() == used


def test_trust_names_existing_files_for_the_variables_of_each_client(cli, home):
    listed = cli("ca", "trust", "--json").json
    variables = {name: value for each in listed for name, value in each["variables"].items()}
    given = trust.environment(
        home, proxy=Proxy("http", "127.0.0.1:8080", "127.0.0.1", 8080), name="a", key="b"
    ).variables
    assert variables == {name: given[name] for name in variables}
    assert all(trust.Path(path).is_file() for path in variables.values())
    assert "SSL_CERT_FILE=" in cli("ca", "trust").out


@pytest.mark.parametrize("options", [("--prepare",), ("--yes",)])
def test_the_ca_of_another_user_is_left_alone(cli, home, monkeypatch, options):
    """Replaced by root it would be root's, and the proxy could not read it any more."""
    before = {path.name: path.read_bytes() for path in (home / "ca").iterdir()}
    getuid = trust.os.getuid
    monkeypatch.setattr(trust.os, "getuid", lambda: getuid() + 1)
    monkeypatch.setattr(files, "check_folder", lambda _: None)
    assert cli("ca", "rotate", *options).code == 5
    assert {path.name: path.read_bytes() for path in (home / "ca").iterdir()} == before
