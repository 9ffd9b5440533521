"""
Every command is run with a canary in the vault, and whatever any of them wrote anywhere is searched for it: as it is, in
base64, percent-encoded, in hexadecimal and escaped as JSON.
"""

import base64
import json
from urllib.parse import quote

import pytest

VALUE = 'sk_live_51"Canary\\+/=%?&'


def forms(value):
    raw = value.encode()
    encoded = [base64.b64encode(prefix + raw)[4:-4] for prefix in (b"", b"a", b"ab")]
    texts = [value, quote(value), quote(value, safe=""), raw.hex(), json.dumps(value)[1:-1]]
    return [text.encode() for text in texts] + encoded


def leaks(data):
    return [form for form in forms(VALUE) if form in data]


@pytest.fixture
def story(cli, home, tmp_path):
    """Most of what can be done, with all that was printed."""
    file = tmp_path / "fields.json"
    file.write_text(json.dumps({"user": "bot", "password": VALUE}))
    file.chmod(0o600)
    dotenv = tmp_path / ".env"
    dotenv.write_text(f"OPENAI_API_KEY='{VALUE}'\nRESEND_API_KEY='{VALUE}'\n")
    printed = []

    def run(*args, stdin=None):
        for form in ((), ("--json",)):
            ran = cli(*args, *form, input=stdin)
            printed.append((args, ran.out + ran.err))
        return ran

    def once(*args, stdin=None):
        ran = cli(*args, input=stdin)
        assert ran.code == 0, ran.err
        printed.append((args, ran.out + ran.err))
        return ran.out.strip()

    once("secret", "set", "one", "--provider", "stripe", stdin=VALUE)
    once("secret", "set", "two", "--kind", "basic", "--host", "h.example.com", "--fields-from", str(file))
    once(
        "secret", "set", "three", "--kind", "bearer", "--host", "h.example.com", "--field", f"token=@{_file(tmp_path)}"
    )
    once("import", str(dotenv))
    once("app", "create", "billing")
    grant = once("grant", "issue", "one", "--to", "system:billing")
    run("secret", "rotate", "one", stdin=VALUE)
    run("secret", "bind", "one", "--path", "/v1/", stdin=VALUE)
    run("secret", "rollback", "one")
    # wrong in every way that touches a value
    run("secret", "set", "one", "--kind", "bearer", "--host", "h.example.com", stdin=VALUE)
    run("secret", "set", "four", "--kind", "bearer", "--host", "h.example.com", stdin=VALUE + "\nmore")
    run("secret", "set", "four", "--kind", "bearer", "--host", "h.example.com", "--field", f"token={VALUE}")
    run("secret", "set", "four", "--kind", "bearer", "--host", "h.example.com", "--field", f"token=@{VALUE}")
    run(
        "secret", "set", "four", "--kind", "bearer", "--host", "h.example.com", "--fields-from", "-", stdin=f'"{VALUE}"'
    )
    run("secret", "set", "four", "--kind", "bearer", "--host", "h.example.com", VALUE)
    run("secret", "set", "four", VALUE)
    run("secret", "set", "four", "--provider", "github", stdin="" + VALUE + " ")
    # everything that shows something
    for args in [
        ("status",), ("doctor",), ("secret", "list"), ("secret", "show", "one"), ("secret", "access", "one"),
        ("secret", "disable", "one"), ("secret", "enable", "one"), ("app", "list"), ("app", "key", "list", "billing"),
        ("grant", "list"), ("grant", "show", grant), ("grant", "explain", grant, "--url", "https://api.stripe.com/v1/x"),
        ("audit", "list"), ("audit", "verify"), ("audit", "export"), ("ca", "show"), ("ca", "export"),
        ("env", "--as", "billing"), ("env", "--grant", grant, "--shell", "dotenv"), ("migrate",),
        ("backup", str(tmp_path / "copy.db")), ("secret", "delete", "two", "--yes"), ("grant", "revoke", grant),
    ]:  # fmt: skip
        run(*args)
    return printed


def _file(folder):
    path = folder / "value"
    path.write_text(VALUE)
    path.chmod(0o600)
    return path


def test_no_command_prints_a_value(story):
    assert [(args, form) for args, text in story for form in leaks(text.encode())] == []


def test_no_file_of_the_vault_and_no_backup_holds_a_value(story, home, tmp_path):
    files = [path for path in home.rglob("*") if path.is_file()] + [tmp_path / "copy.db"]
    assert len(files) > 5
    assert [(path.name, form) for path in files for form in leaks(path.read_bytes())] == []


def test_the_search_would_find_one(tmp_path):
    """The check checked."""
    for form in forms(VALUE):
        assert leaks(b"x" + form + b"x")
    assert leaks(base64.b64encode(b"user:" + VALUE.encode()))


def test_every_file_is_private(story, home):
    public = {"ca-cert.pem", "bundle.pem", "wgetrc"}
    modes = {path: path.stat().st_mode & 0o777 for path in home.rglob("*")}
    assert all(mode == 0o700 for path, mode in modes.items() if path.is_dir())
    assert all(mode == (0o644 if path.name in public else 0o600) for path, mode in modes.items() if path.is_file())
