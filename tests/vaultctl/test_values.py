"""How secret values get in: by prompt, pipe or file, never on the command line, and never back out in an error."""

import io
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addon.credentials import Field
from addon.errors import OperatorError, Usage
from vaultctl import values

TOKEN = Field("token", "token")
USER = Field("user", "user", secret=False)
PASSWORD = Field("password", "password")
SESSION = Field("session", "session token", required=False)


@pytest.fixture
def notes():
    return []


@pytest.fixture
def read(monkeypatch, notes):
    def call(*fields, given=(), fields_from=None, stdin=b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        return values.read(fields, given=given, fields_from=fields_from, note=lambda *lines: notes.extend(lines))

    return call


@pytest.fixture
def file(tmp_path):
    def write(data, mode=0o600):
        path = tmp_path / "value"
        path.write_bytes(data)
        path.chmod(mode)
        return path

    return write


def test_the_one_secret_field_comes_from_stdin(read):
    assert read(TOKEN, stdin=b"s3cret") == {"token": "s3cret"}


@pytest.mark.parametrize("typed", [b"s3cret\n", b"s3cret\r\n", b"s3cret"])
def test_one_newline_at_the_end_is_dropped(read, typed):
    assert read(TOKEN, stdin=typed) == {"token": "s3cret"}


@pytest.mark.parametrize("typed", [b" s3cret ", "pässwörd".encode()])
def test_nothing_else_is_changed(read, typed):
    assert read(TOKEN, stdin=typed + b"\n") == {"token": typed.decode()}


@pytest.mark.parametrize(
    ("stdin", "reason"),
    [
        (b"", "empty"),
        (b"\n", "empty"),
        (b"\r\n", "empty"),
        (b"a\nb\n", "control character or a second line"),
        (b"a\n\n", "control character or a second line"),
        (b"a\rb", "control character"),
        (b"a\0b", "control character"),
        (b"a\x7fb", "control character"),
        ("a\x85b".encode(), "control character"),
        (b"\xff\xfe", "not UTF-8"),
        (b"x" * 8193, "longer than 8192 bytes"),
        (b"x" * 200_000, "too long"),
    ],
)
def test_what_cannot_be_a_credential_is_refused_with_the_reason(read, stdin, reason):
    with pytest.raises(Usage, match=reason):
        read(TOKEN, stdin=stdin)


def test_the_longest_value_is_accepted(read):
    assert len(read(TOKEN, stdin=b"x" * 8192 + b"\n")["token"]) == 8192


def test_a_field_is_read_from_a_file(read, file, notes):
    assert read(TOKEN, given=[f"token=@{file(b's3cret\n')}"]) == {"token": "s3cret"}
    assert notes == []


def test_a_file_that_others_can_read_is_pointed_out(read, file, notes):
    read(TOKEN, given=[f"token=@{file(b's3cret', mode=0o644)}"])
    assert "read by others" in notes[0]


def test_a_field_that_is_not_secret_may_be_written_out(read):
    assert read(USER, PASSWORD, given=["user=bot"], stdin=b"pw\n") == {"user": "bot", "password": "pw"}


def test_a_secret_field_may_not_and_is_not_repeated(read):
    with pytest.raises(Usage) as refused:
        read(TOKEN, given=["token=s3cret"])
    assert "s3cret" not in refused.value.message + refused.value.hint
    assert "--field token=@FILE" in refused.value.hint


@pytest.mark.parametrize("given", ["s3cret", "other=@x", "=s3cret", "token"])
def test_a_field_there_is_not_is_refused_without_repeating_it(read, given):
    with pytest.raises(Usage) as refused:
        read(TOKEN, given=[given])
    assert "s3cret" not in str(refused.value) + refused.value.hint
    assert "the fields are token" in refused.value.hint


def test_a_file_that_cannot_be_read_is_not_named_since_it_may_be_the_value(read):
    with pytest.raises(Usage) as refused:
        read(TOKEN, given=["token=@s3cret"])
    assert "s3cret" not in refused.value.message + refused.value.hint
    assert "no such file" in refused.value.message


def test_fields_come_from_one_json_object(read, file):
    path = file(json.dumps({"user": "bot", "password": "pw"}).encode())
    assert read(USER, PASSWORD, fields_from=str(path)) == {"user": "bot", "password": "pw"}
    assert read(USER, PASSWORD, fields_from="-", stdin=path.read_bytes()) == {"user": "bot", "password": "pw"}


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b'"pw"',
        b'[["password", "pw"]]',
        b'{"password": 1}',
        b'{"password": null}',
        b'{"password": {"a": "b"}}',
        b"{",
    ],
)
def test_anything_but_one_object_of_texts_is_refused(read, document):
    with pytest.raises(Usage, match="not one JSON object"):
        read(PASSWORD, fields_from="-", stdin=document)


def test_a_field_given_twice_is_refused(read):
    with pytest.raises(Usage, match="twice"):
        read(PASSWORD, fields_from="-", stdin=b'{"password": "a", "password": "b"}')
    with pytest.raises(Usage, match="twice"):
        read(USER, PASSWORD, given=["user=a", "user=b"], stdin=b"pw")


def test_an_unknown_field_in_the_object_is_refused(read):
    with pytest.raises(Usage, match="no such field"):
        read(PASSWORD, fields_from="-", stdin=b'{"passwort": "a"}')


def test_a_lone_surrogate_is_no_text(read):
    with pytest.raises(Usage, match="not UTF-8"):
        read(PASSWORD, fields_from="-", stdin=b'{"password": "\\ud800"}')


def test_two_secret_fields_cannot_share_stdin(read):
    with pytest.raises(Usage, match="token, password cannot all come from stdin"):
        read(TOKEN, PASSWORD, stdin=b"x")


def test_a_missing_field_that_is_not_secret_is_named(read):
    with pytest.raises(Usage, match="no value for user"):
        read(USER, PASSWORD, stdin=b"pw")


def test_an_optional_field_is_left_out_where_nobody_is_asked(read):
    assert read(TOKEN, SESSION, stdin=b"s3cret") == {"token": "s3cret"}


@given(st.text(min_size=12, max_size=200))
def test_no_input_comes_back_out_in_an_error(text):
    with pytest.raises(OperatorError) as refused:
        values.check("token", text + "\0")
    assert text not in refused.value.message + refused.value.hint
