"""What is an address of a proxy, and where its credentials may come from."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addon import next_proxy
from addon.errors import Locked, Usage
from addon.next_proxy import NextProxy
from addon.settings import Settings


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("http://proxy.test:3128", ("http", "proxy.test", 3128)),
        ("http://proxy.test", ("http", "proxy.test", 80)),
        ("https://Proxy.Test/", ("https", "proxy.test", 443)),
        ("http://127.0.0.1:8", ("http", "127.0.0.1", 8)),
        ("http://[::1]:3128", ("http", "::1", 3128)),
    ],
)
def test_an_address(text, parsed):
    proxy = next_proxy.parse(text)
    assert (proxy.scheme, proxy.host, proxy.port) == parsed
    assert proxy.authorization == ""


def test_credentials_are_decoded_and_do_not_print():
    proxy = next_proxy.parse("http://user:p%40ss%3A%2F@proxy.test:3128")
    assert proxy.authorization == "Basic dXNlcjpwQHNzOi8="
    settings = Settings(home="/home", upstream_proxy=proxy.dump())
    assert Settings.load(settings.dump()).next_proxy == proxy
    assert "dXNlcjp" not in repr(proxy) + repr(settings) + str(settings)


@pytest.mark.parametrize(
    "text",
    ["", "proxy.test:3128", "socks5://proxy.test:1080", "http://", "http://:3128", "http://proxy.test:0", "http://proxy.test:99999",
     "http://proxy.test/path", "http://proxy.test?x", "http://a b", "http://canary@proxy.test", "http://u:canary%0d%0aX@proxy.test",
     "http://u:canary@x@proxy.test", "http://u:canary%00@proxy.test", "http://pr\u00f6xy.test", "http://127.1:80", "http://proxy.test\n"],
)  # fmt: skip
def test_anything_else_is_refused_and_not_repeated(text):
    with pytest.raises(Usage) as refused:
        next_proxy.parse(text)
    assert "canary" not in refused.value.message + refused.value.hint


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text):
    for candidate in (text, "http://" + text, f"http://u:{text}@proxy.test"):
        try:
            head = next_proxy.parse(candidate).connect_head("api.test", 443)
        except Usage:
            continue
        assert head.count(b"\r\n") == head.count(b"\n") <= 4


def test_a_connect():
    assert NextProxy("http", "p", 1, "Basic x").connect_head("api.test", 443) == (
        b"CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\nProxy-Authorization: Basic x\r\n\r\n"
    )
    assert NextProxy("http", "p", 1).connect_head("::1", 80) == b"CONNECT [::1]:80 HTTP/1.1\r\nHost: [::1]:80\r\n\r\n"


def test_the_option_comes_before_the_variable():
    chosen = next_proxy.read("http://one.test", variable="http://two.test")
    assert chosen is not None
    assert chosen.host == "one.test"
    assert next_proxy.read("", variable="http://u:p@two.test\n") == next_proxy.parse("http://u:p@two.test")
    assert next_proxy.read("", variable="") is None


def test_credentials_come_from_a_file_that_nobody_else_reads(tmp_path):
    file = tmp_path / "url"
    file.touch(0o600)
    file.write_text("http://u:canary@proxy.test\n")
    assert next_proxy.read(f"@{file}", variable="") == next_proxy.parse("http://u:canary@proxy.test")
    file.chmod(0o640)
    with pytest.raises(Locked):
        next_proxy.read(f"@{file}", variable="")
    with pytest.raises(Usage) as refused:
        next_proxy.read("http://u:canary@proxy.test", variable="")
    assert "canary" not in str(refused.value) + refused.value.hint
