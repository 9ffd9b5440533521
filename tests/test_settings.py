"""What an operator may choose, and what no run of the proxy starts with."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addon import homes
from addon.errors import Usage
from addon.settings import MEBIBYTE, Settings, parse_listen, parse_size


def test_the_defaults_are_safe():
    settings = Settings(home="/home")
    settings.check()
    assert (settings.listen_host, settings.audit_durability) == ("127.0.0.1", "power")
    assert settings.allow_private == settings.connect_to == ()


def test_a_worker_reads_what_the_supervisor_wrote():
    settings = Settings(
        home="/h\u00f6me", allow_private=("10.0.0.0/8", "::1/128"), connect_to=("a:1:127.0.0.1:2",), workers=3
    )
    assert Settings.load(settings.dump()) == settings
    assert "\n" not in settings.dump()


@pytest.mark.parametrize("address", ["127.0.0.1", "127.255.0.1", "::1", "::ffff:127.0.0.1"])
def test_loopback_may_be_listened_on(address):
    Settings(home="/home", listen_host=address).check()


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "10.0.0.1", "192.0.2.1", "169.254.0.1", "2001:db8::1"])
def test_keys_never_cross_a_network_in_clear(address):
    with pytest.raises(Usage, match="reachable from other machines"):
        Settings(home="/home", listen_host=address).check()


@pytest.mark.parametrize(
    "changes",
    [
        {"untagged": "allow"},
        {"untagged": ""},
        {"audit_durability": "none"},
        {"engine": "fast"},
        {"mode": "transparent:"},
        {"mode": "reverse:http://api.test"},
        {"intercept": "none"},
        {"passthrough": ("*.example.com",)},
        {"passthrough": ("10.0.0.1",)},
        {"allow_private": ("10.0.0.1/8",)},
        {"allow_private": ("10.0.0.0/8", "private")},
        {"connect_to": ("api.test:443:other.test:443",)},
        {"upstream_ca": "/nowhere/ca.pem"},
        {"upstream_ca": "/"},
    ],
)
def test_what_makes_no_sense_is_refused_with_a_hint(changes):
    with pytest.raises(Usage) as refused:
        Settings(home="/home", **changes).check()
    assert refused.value.hint


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("localhost:8080", ("127.0.0.1", 8080)),
        (":8080", ("127.0.0.1", 8080)),
        ("[::1]:0", ("::1", 0)),
        ("::1:8080", ("::1", 8080)),
        ("0.0.0.0:65535", ("0.0.0.0", 65535)),
    ],
)
def test_an_address_to_listen_on(text, parsed):
    assert parse_listen(text) == parsed


@pytest.mark.parametrize(
    "text",
    ["", "8080", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1: 80", "127.0.0.1:8_0", "127.0.0.1:+80",
     "127.0.0.1:http", "example.com:80", "127.1:80", "127.0.0.1:٨٠", "127.0.0.1:" + "9" * 5000, "127.0.0.1:80\n"],
)  # fmt: skip
def test_anything_else_is_no_address_to_listen_on(text):
    with pytest.raises(Usage, match="not an address to listen on"):
        parse_listen(text)


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("1024", 1024), ("512KiB", 512 << 10), ("64MiB", 64 * MEBIBYTE), ("2GiB", 2 << 30)]
)
def test_a_size(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["", "MiB", "-1", "1.5MiB", "64MB", "64mib", "64 MiB", "64MiBMiB", "0x10", "٦٤", "9" * 5000, "1_000", "64MiB\n"],
)
def test_anything_else_is_no_size(text):
    with pytest.raises(Usage, match="not a size"):
        parse_size(text)


@given(st.text(max_size=20))
def test_any_text_is_read_or_refused(text):
    for parse in (parse_listen, parse_size):
        try:
            parse(text)
        except Usage as refused:
            hint = refused.hint
        else:
            hint = "none needed"
        assert hint


# ── homes ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def environment(monkeypatch, tmp_path):
    for name in ("ALTER_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return monkeypatch


def test_the_home_that_is_named_wins(environment, tmp_path):
    environment.setenv("ALTER_HOME", str(tmp_path / "environment"))
    assert homes.locate(str(tmp_path / "option")) == tmp_path / "option"
    assert homes.locate(None) == tmp_path / "environment"
    assert homes.locate("") == tmp_path / "environment"


def test_without_a_name_it_is_the_data_folder_of_the_user(environment, tmp_path):
    environment.setattr("sys.platform", "linux")
    assert homes.locate(None) == tmp_path / ".local" / "share" / "alter-egress"
    environment.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert homes.locate(None) == tmp_path / "data" / "alter-egress"
    environment.setattr("sys.platform", "darwin")
    assert homes.locate(None) == tmp_path / "Library" / "Application Support" / "alter-egress"


def test_a_home_is_absolute_whatever_was_typed(environment, tmp_path):
    environment.chdir(tmp_path)
    assert homes.locate("here") == tmp_path / "here"
    assert homes.locate("~/there") == tmp_path / "there"
