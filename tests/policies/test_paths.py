"""`paths`: prefixes of the path as it will be sent, and no path that a server could read as another."""

import urllib.parse

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from addon.errors import Usage
from addon.policies import paths
from addon.policies.paths import covers, parse_paths, prefix_of


@pytest.mark.parametrize(
    ("prefix", "path", "under"),
    [
        ("/v1", b"/v1", True),
        ("/v1", b"/v1/", True),
        ("/v1", b"/v1/x", True),
        ("/v1", b"/v10", False),
        ("/v1", b"/v1.json", False),
        ("/v1", b"/V1/x", False),
        ("/v1", b"/", False),
        ("/v1", b"", False),
        ("/v1", b"v1", False),
        ("/v1", b"/x/v1", False),
        ("/v1/", b"/v1/", True),
        ("/v1/", b"/v1", False),
        ("/v1/", b"/v1/x", True),
        ("/v1", b"/v1/a%20b/%C3%A9", True),
        ("/v1", b"/v1/...", True),
        ("/v1", b"/v1/.well-known", True),
        ("/v1", b"/v1/a..b", True),
    ],
)
def test_a_prefix_covers_itself_and_what_lies_below(prefix, path, under):
    assert covers((prefix,), path) is under


AMBIGUOUS = {
    b"/v1/../admin": "dot segments",
    b"/v1/..": "dot segments at the end",
    b"/v1/./admin": "a single dot",
    b"/v1//admin": "an empty segment",
    b"//v1/admin": "which some read as a host",
    b"/v1/..;/admin": "a parameter, which Tomcat drops before it resolves dots",
    b"/v1/a;b": "a parameter",
    b"/v1/%2e%2e/admin": "encoded dots",
    b"/v1/%2E./admin": "half of them",
    b"/v1/.%2e/admin": "the other half",
    b"/v1/..%2fadmin": "an encoded slash",
    b"/v1/..%5Cadmin": "an encoded backslash",
    b"/v1/..\\admin": "a backslash",
    b"/v1/%252e%252e/admin": "encoded twice",
    b"/v1/%25%32%65/admin": "encoded twice, in parts",
    b"/v1/%%32%65%%32%65/admin": "encoded twice, around a stray percent sign",
    b"/v1/%2/admin": "half an encoding",
    b"/v1/%": "a stray percent sign",
    b"/v1/%zz": "an encoding of nothing",
    b"/v1/%u002e%u002e/admin": "the encoding of old IIS",
    b"/v1/%c0%ae%c0%ae/admin": "overlong dots",
    b"/v1/%C1%9cadmin": "an overlong backslash",
    b"/v1/%00": "NUL",
    b"/v1/.%00./admin": "NUL between the dots",
    b"/v1/.%09./admin": "a tab between the dots, which URL parsers drop",
    b"/v1/.%0d%0a./admin": "a line break between the dots, which URL parsers drop",
    b"/v1/%7f": "DEL",
    b"/v1/a%3fb": "an encoded question mark",
    b"/v1/a%23b": "an encoded number sign",
    b"/v1/a%3Bb": "an encoded semicolon",
    b"/v1/a b": "a blank",
    b"/v1/\t": "a tab",
    b"/v1/\n": "a line break",
    b"/v1/\xff": "not ASCII",
    "/v1/\uff0e\uff0e/admin".encode(): "full-width dots",
    "/v1/\u2024/".encode(): "a one dot leader",
}


@pytest.mark.parametrize("path", AMBIGUOUS, ids=AMBIGUOUS.values())
def test_a_path_that_a_server_could_read_as_another_is_under_no_prefix(path):
    assert not covers(("/v1", "/v1/", "/admin", "/v"), path)
    assert covers(("/",), path)


@pytest.mark.parametrize(
    "prefix",
    ["", "v1", "*", "/v1?", "/v1?a=b", "/v1#a", "//", "/v1//", "/v1/..", "/./", "/v1/../", "/%76", "/v1;a", "/a b", "/\u00e9", "/v1\n", "/a\\b", "/a{b}"],
)  # fmt: skip
def test_a_prefix_that_could_not_be_compared_byte_by_byte_is_refused(prefix):
    with pytest.raises(Usage, match="not a path prefix"):
        parse_paths(("/ok", prefix))


def test_prefixes_are_stored_once_and_in_order():
    assert parse_paths(("/b", "/a/", "/b")) == ("/b", "/a/")
    assert paths.KIND.parse(("/a",)) == {"paths": ["/a"]}


def test_the_query_is_no_part_of_the_path(attempt):
    params = {"paths": ["/v1"]}
    assert paths.KIND.check(params, attempt(target=b"/v1?/../..//%2f")) is None
    assert "not under" in paths.KIND.check(params, attempt(target=b"/v2?x=/v1"))


def routed(path):
    """Where servers of the most lenient kind end up: decode until nothing changes, drop parameters, resolve."""
    text = path.decode("latin-1")
    for _ in range(4):
        text = urllib.parse.unquote(text, encoding="latin-1")
    text = "".join(c for c in text.replace("\\", "/") if c > "\x20")
    done = []
    for segment in text.split("/"):
        name = segment.partition(";")[0]
        if name == "..":
            done = done[:-1]
        elif name not in {"", "."}:
            done.append(name)
    return done


PIECES = st.sampled_from(
    ["/", "v1", "admin", "..", ".", "%2e", "%2f", "%5c", "\\", ";", "%252e", "%", "25", "2e", "%00", "%09", "a", "%41", "//", "%c0%ae"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=9).map(lambda pieces: ("/" + "".join(pieces)).encode()))
@example(b"/v1/%%32%65%%32%65/admin")
@example(b"/v1/.%09./admin")
def test_a_covered_path_is_routed_below_its_prefix_by_the_most_lenient_server(path):
    if covers(("/v1",), path):
        assert routed(path)[:1] == ["v1"]


@pytest.mark.parametrize(
    ("prefix", "inside", "outside"),
    [
        ("/v1/*/refunds", [b"/v1/a/refunds", b"/v1/*/refunds", b"/v1/a/refunds/b"], [b"/v1/refunds", b"/v1/a/b/refunds", b"/v1/a/refunds2", b"/v1//refunds", b"/v2/a/refunds"]),
        ("/v1/*/", [b"/v1/a/", b"/v1/a/b"], [b"/v1/a", b"/v1/", b"/v1", b"/v2/a/b"]),
        ("/*", [b"/a", b"/a/b"], [b"/", b"*"]),
        ("/*/*/c", [b"/a/b/c", b"/a/b/c/d"], [b"/a/c", b"/a/b/d", b"/a/b/c2"]),
    ],
)  # fmt: skip
def test_a_star_stands_for_one_segment_and_no_more(prefix, inside, outside):
    assert parse_paths((prefix,)) == (prefix,)
    assert [path for path in inside if not covers((prefix,), path)] == []
    assert [path for path in outside if covers((prefix,), path)] == []


@pytest.mark.parametrize(
    "path", [b"/v1/../refunds", b"/v1/%2e%2e/refunds", b"/v1/a%2fb/refunds", b"/v1/;/refunds", b"/v1//refunds"]
)
def test_a_star_takes_nothing_that_could_be_read_as_another_path(path):
    assert not covers(("/v1/*/refunds",), path)


@pytest.mark.parametrize("prefix", ["/a*", "/*a", "/v1/a*b", "/**", "/v1/*.json"])
def test_a_star_is_a_whole_segment(prefix):
    with pytest.raises(Usage, match="not a path prefix"):
        parse_paths((prefix,))


def test_the_prefix_of_a_path_is_that_path_and_nothing_wider():
    assert prefix_of("/v1/refunds") == "/v1/refunds"
    for path in ("/v1/*", "/*", "/v1/a*b", "/v1/%41", "/v1//x", "/v1/../x", "*", ""):
        with pytest.raises(Usage):
            prefix_of(path)
