"""The one spelling of a target."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addon.credentials.aws_wire import read_query, write_path, write_query


@pytest.mark.parametrize(
    ("sent", "s3", "others"),
    [
        (b"", "/", "/"),
        (b"/", "/", "/"),
        (b"/a/b", "/a/b", "/a/b"),
        (b"/a%2Fb", "/a/b", "/a%2Fb"),
        (b"/a+b", "/a%2Bb", "/a%2Bb"),
        (b"/a%20b", "/a%20b", "/a%20b"),
        (b"/%7Ea%2dz", "/~a-z", "/~a-z"),
        (b"/k:=@,()!*'", "/k%3A%3D%40%2C%28%29%21%2A%27", "/k%3A%3D%40%2C%28%29%21%2A%27"),
        (b"/%e1%88%b4\xe1\x88\xb4", "/%E1%88%B4%E1%88%B4", "/%E1%88%B4%E1%88%B4"),
        (b"/%zz%", "/%25zz%25", "/%25zz%25"),
        (b"/a//b/./../c", "/a//b/./../c", "/a//b/./../c"),
        (b"/%2e%2E/x/%2e", "/../x/.", "/%2E%2E/x/%2E"),
        (b"/a#b", "/a%23b", "/a%23b"),
        (b"/%00%0d%0a\xff", "/%00%0D%0A%FF", "/%00%0D%0A%FF"),
    ],
)
def test_a_path_has_one_spelling_per_family(sent, s3, others):
    assert write_path(sent, "s3") == s3
    assert write_path(sent, "aws") == others


@pytest.mark.parametrize(
    ("sent", "written"),
    [
        (b"", ""),
        (b"acl", "acl"),
        (b"acl=", "acl="),
        (b"b=2&a=1&b=1", "b=2&a=1&b=1"),
        (b"&&a=1&", "a=1"),
        (b"k+1=a+b%2Bc", "k%201=a%20b%2Bc"),
        (b"k=a=b?/:~%7e", "k=a%3Db%3F%2F%3A~~"),
        (b"=x", "=x"),
        (b"q=\xc3\xa9%ff", "q=%C3%A9%FF"),
    ],
)
def test_a_query_has_one_spelling(sent, written):
    assert write_query(read_query(sent)) == written


@given(st.binary(max_size=40))
def test_writing_again_changes_nothing(raw):
    for family in ("s3", "aws"):
        once = write_path(b"/" + raw, family)
        assert write_path(once.encode(), family) == once
    once = write_query(read_query(raw))
    assert write_query(read_query(once.encode())) == once
