"""Names of destinations: one normal form, and nothing that a resolver could read as an address."""

import contextlib
from importlib import resources

import publicsuffixlist
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from addon import hosts
from addon.errors import Usage

LABEL = st.from_regex(r"[a-z0-9_]([a-z0-9_-]{0,8}[a-z0-9_])?", fullmatch=True)
NAME = st.lists(LABEL, min_size=1, max_size=5).map(".".join).filter(lambda name: not _numeric(name))


def _numeric(name):
    last = name.rpartition(".")[2]
    return last.isdigit() or (last.startswith("0x") and all(c in "0123456789abcdef" for c in last[2:]))


# ── one form ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("typed", "normal"),
    [
        ("api.test", "api.test"),
        ("API.Test", "api.test"),
        ("api.test.", "api.test"),
        (b"API.test.", "api.test"),
        ("_dmarc.a_b.test", "_dmarc.a_b.test"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("1.test", "1.test"),
        ("1.2.3.4a", "1.2.3.4a"),
        ("0xg.test", "0xg.test"),
        ("a" * 63 + ".test", "a" * 63 + ".test"),
    ],
)
def test_a_name_has_one_form(typed, normal):
    assert hosts.normalize(typed) == normal


LITERALS = {
    # libc turns these into 169.254.169.254, 127.0.0.1 or 0.0.0.0
    "2852039166": "an IPv4 address as one number",
    "0xa9fea9fe": "the same in hexadecimal",
    "0XA9FEA9FE": "and in capitals",
    "0251.0376.0251.0376": "octal parts",
    "0xa9.0xfe.0xa9.0xfe": "hexadecimal parts",
    "169.254.43518": "three parts",
    "169.16689662": "two parts",
    "0177.0.0.1": "octal loopback",
    "127.1": "short loopback",
    "0": "the address of nobody",
    "0x": "libc reads this as 0",
    "0x7f.1": "hexadecimal and short",
    "①⑥⑨.254.169.254": "IDNA maps the circled digits",
    "169。254。169。254": "IDNA maps the ideographic full stops",
    "169.254.169.254": "an address is not a name",
    "169.254.169.254.": "nor with a root dot",
    "[::ffff:a9fe:a9fe]": "brackets",
    "[::]": "brackets",
    "[fe80::1%25eth0]": "brackets and a zone",
    "::1": "colons",
    "fe80::1%eth0": "a zone",
    "api.test@169.254.169.254": "userinfo",
    "api.test#@evil": "a fragment",
    "api.test\\@evil": "a backslash, which some parsers read as a slash",
    "api.test%00.evil": "percent-encoding",
    "api.test%2eevil": "percent-encoding",
    "api.test\t": "a tab",
    "api.test\r\n": "a line break",
    "api.test\n": "what `$` would let through",
    " api.test": "a blank",
    "api.test/": "a path",
    "api.test:443": "a port",
    "[api.test]": "brackets around a name",
    "xn--": "an empty A-label",
    "a..b": "an empty label",
    "api.test..": "two root dots",
    ".": "the root",
    "": "nothing",
    ".api.test": "an empty first label",
    "-api.test": "a leading hyphen",
    "api-.test": "a trailing hyphen",
    "*.api.test": "a pattern is not a name",
    "\u0430pi.test": "a Cyrillic letter",
    "api.o\u212ata.test": "the Kelvin sign, whose lower case is an ASCII k",
    "ap\u0131.test": "a dotless i",
    "api.test\0": "NUL",
    "a" * 64 + ".test": "a label of 64",
    ".".join(["a" * 49] * 6): "more than 253",
}


@pytest.mark.parametrize("literal", LITERALS, ids=LITERALS.values())
def test_what_is_not_a_plain_name_has_no_form_and_cannot_be_bound(literal):
    with pytest.raises(hosts.NotAName):
        hosts.normalize(literal)
    with pytest.raises(hosts.NotAName):
        hosts.normalize(literal.encode())
    bindable = {"api.test\t", "api.test\n", "api.test\r\n", " api.test", "api.test:443", "*.api.test"}  # as typed
    bindable |= {"\u0430pi.test", "api.o\u212ata.test", "ap\u0131.test"}  # an operator's IDN becomes A-labels
    if literal not in bindable:
        with pytest.raises(Usage):
            hosts.parse_pattern(literal)


NAMES_FOR_THE_RESOLVER = [
    "localhost", "localhost.", "LOCALHOST", "ip6-localhost", "metadata", "metadata.google.internal",
    "metadata.google.internal.", "169.254.169.254.nip.io", "api_.test",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES_FOR_THE_RESOLVER)
def test_a_name_that_leads_somewhere_forbidden_is_a_name_like_others_and_its_address_is_judged(name):
    assert hosts.normalize(name) == name.lower().removesuffix(".")


@given(NAME)
def test_normalising_twice_changes_nothing(name):
    once = hosts.normalize(name.upper() + ".")
    assert hosts.normalize(once) == once == name


@given(st.one_of(st.text(max_size=30), NAME, NAME.map(str.upper)))
@example("api.o\u212ata.test")
@example("127.0.0.1")
@example("EVIL.test.")
def test_folding_never_makes_a_name_of_what_is_none(text):
    folded = hosts.fold(text)
    try:
        assert folded == hosts.normalize(text)
    except hosts.NotAName:
        with pytest.raises(hosts.NotAName):
            hosts.normalize(folded)


@given(st.binary(max_size=40))
def test_any_bytes_are_a_name_or_refused(raw):
    try:
        name = hosts.normalize(raw)
    except hosts.NotAName:
        return
    assert name.isascii()
    assert raw.decode("ascii").lower().removesuffix(".") == name


# ── authorities ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("authority", "parts"),
    [
        (b"api.test", (b"api.test", None)),
        (b"api.test:443", (b"api.test", 443)),
        (b"[::1]", (b"[::1]", None)),
        (b"[::1]:8443", (b"[::1]", 8443)),
        (b"127.0.0.1:80", (b"127.0.0.1", 80)),
    ],
)
def test_an_authority_is_a_host_and_perhaps_a_port(authority, parts):
    assert hosts.split_authority(authority) == parts


@pytest.mark.parametrize(
    "authority",
    [
        b"", b":443", b"api.test:", b"api.test:0", b"api.test:65536", b"api.test:443443", b"api.test:+443",
        b"api.test:4 43", b"api.test:443 ", b"api.test:443\n", b"api.test:0x1bb", b"api.test:443:443", b"::1",
        b"user@api.test", b"api.test, evil.test", b"[api.test]", b"[api.test]:443", b"[::1", b"[::1]443", b"[]",
        b"[::1]:", b"\xd0\xb0pi.test", b"api.test:\xd9\xa4",
    ],
)  # fmt: skip
def test_a_strange_authority_is_refused(authority):
    with pytest.raises(hosts.NotAName):
        hosts.split_authority(authority)


@given(st.binary(max_size=30))
def test_any_bytes_are_an_authority_or_refused(raw):
    try:
        host, port = hosts.split_authority(raw)
    except hosts.NotAName:
        return
    assert host
    assert port is None or 0 < port < 65536


# ── patterns ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("typed", "pattern"),
    [
        ("api.test", ("api.test", 443)),
        (" API.Test. ", ("api.test", 443)),
        ("api.test:8443", ("api.test", 8443)),
        ("*.example.com", ("*.example.com", 443)),
        ("*.bücher.example.com:65535", ("*.xn--bcher-kva.example.com", 65535)),
        ("bücher.example", ("xn--bcher-kva.example", 443)),
        ("\uff21\uff30\uff29.example", ("api.example", 443)),
        ("localhost:8443", ("localhost", 8443)),
    ],
)
def test_a_typed_pattern_is_stored_in_its_normal_form_with_its_port(typed, pattern):
    assert hosts.parse_pattern(typed) == pattern


@pytest.mark.parametrize(
    ("typed", "mend"),
    [
        ("https://api.test/v1", "--host api.test"),
        ("://", "--host api.example.com"),
        ("api.test/v1", "--path"),
        ("10.0.0.1", "name that its certificate carries"),
        ("10.0.0.1:443", "name that its certificate carries"),
        ("[::1]:443", "name that its certificate carries"),
        ("fe80::1%eth0", "name that its certificate carries"),
        ("api.test:", "1 to 65535"),
        ("api.test:0", "1 to 65535"),
        ("api.test:65536", "1 to 65535"),
        ("api.test:https", "1 to 65535"),
        ("api.test:٤٤٣", "1 to 65535"),
        ("api.test:-1", "1 to 65535"),
        ("", "full name"),
        ("*", "full name"),
        ("*.", "full name"),
        ("**.example.com", "full name"),
        ("*.*.example.com", "full name"),
        ("a.*.example.com", "full name"),
        ("*example.com", "full name"),
        ("api*.example.com", "full name"),
        ("*.com", "yours alone"),
        ("*.localhost", "yours alone"),
        ("①⑥⑨.254.169.254", "full name"),
        ("xn--a\u0301", "full name"),
        ("\udcff.test", "full name"),
    ],
)
def test_a_pattern_that_says_too_much_or_too_little_is_refused_with_its_mend(typed, mend):
    with pytest.raises(Usage) as refused:
        hosts.parse_pattern(typed)
    assert mend in refused.value.hint


@pytest.fixture
def suffixes(monkeypatch):
    """The rules of the public suffix list, private section included; the list is parsed once for all of them."""
    shared = publicsuffixlist.PublicSuffixList()
    monkeypatch.setattr(publicsuffixlist, "PublicSuffixList", lambda: shared)
    data = resources.files(publicsuffixlist).joinpath("public_suffix_list.dat").read_text(encoding="utf-8")
    rules = [line.strip() for line in data.splitlines() if line.strip() and not line.startswith("//")]
    assert len(rules) > 9000
    assert {"com", "co.uk", "github.io", "*.ck", "!www.ck"} <= set(rules)
    return rules


def test_no_wildcard_covers_a_public_suffix_be_it_of_a_registry_or_of_a_company(suffixes):
    accepted = []
    for rule in suffixes:
        if rule.startswith("!"):
            continue
        for typed in (f"*.{rule.removeprefix('*.')}", f"*.any.{rule[2:]}" if rule.startswith("*.") else ""):
            with contextlib.suppress(Usage):
                accepted += [hosts.parse_pattern(typed)] if typed else []
    assert accepted == []


@pytest.mark.parametrize(
    "typed",
    [
        "*.s3.amazonaws.com",
        "*.github.io",
        "*.herokuapp.com",
        "*.vercel.app",
        "*.compute-1.amazonaws.com",
        "*.kawasaki.jp",
    ],
)
def test_a_wildcard_over_the_customers_of_a_company_is_refused(typed):
    with pytest.raises(Usage, match="strangers"):
        hosts.parse_pattern(typed)


def test_a_wildcard_under_an_exception_of_the_list_is_somebodys_own():
    assert hosts.parse_pattern("*.city.kawasaki.jp") == ("*.city.kawasaki.jp", 443)


def test_a_wildcard_over_strangers_is_taken_where_it_is_said_to_do_no_harm():
    pattern = "*.s3.eu-west-1.amazonaws.com"
    with pytest.raises(Usage, match="hosts of strangers"):
        hosts.parse_pattern(pattern, shared=lambda base: base == "s3.us-east-1.amazonaws.com")
    assert hosts.parse_pattern(pattern, shared=lambda base: base == pattern[2:]) == (pattern, 443)


@pytest.mark.parametrize(
    ("pattern", "host", "covered"),
    [
        ("api.test", "api.test", True),
        ("api.test", "evilapi.test", False),
        ("api.test", "api.test.evil.test", False),
        ("api.test", "x.api.test", False),
        ("*.example.com", "a.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", ".example.com", False),
        ("*.example.com", "a.b.example.com", False),
        ("*.example.com", "a.evilexample.com", False),
        ("*.example.com", "*.example.com", True),
        ("*.example.com", "a", False),
        ("*.example.com", "", False),
    ],
)
def test_a_pattern_covers_itself_or_exactly_one_label_more(pattern, host, covered):
    assert hosts.matches(pattern, host) is covered


@given(NAME, NAME)
def test_a_name_covers_nothing_but_itself(pattern, host):
    assume(pattern != host)
    assert not hosts.matches(pattern, host)


@given(NAME, LABEL)
def test_a_wildcard_covers_every_name_one_label_below_and_none_deeper(base, label):
    assert hosts.matches(f"*.{base}", f"{label}.{base}")
    assert not hosts.matches(f"*.{base}", f"{label}.{label}.{base}")
    assert not hosts.matches(f"*.{base}", base)


@pytest.mark.parametrize(
    ("text", "address"),
    [("127.0.0.1", True), ("[::1]", True), ("fe80::1%eth0", True), ("127.1", False), ("api.test", False), ("", False)],
)
def test_an_address_is_recognised_in_its_standard_notation(text, address):
    assert hosts.is_address(text) is address
