import shutil
import ssl
import stat

import pytest


@pytest.fixture
def without_ca(home):
    shutil.rmtree(home / "ca")
    return home


def test_show_tells_what_identifies_it(cli):
    document = cli("ca", "show", "--json").json
    assert set(document) == {"ca_cert", "subject", "sha256", "not_after", "constraints"}
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
