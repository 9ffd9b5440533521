"""The real program on a real terminal: what it asks, what the screen shows, what it keeps."""

import os
import pty
import select
import signal
import sys
import time

import pytest

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

TYPED = "s3cret-typed-4711"
STORE = ("secret", "set", "example", "--kind", "bearer", "--host", "api.example.com")


@pytest.fixture
def terminal(home):
    """Run vaultctl on a pty, typing an answer whenever it has stopped at a prompt: (exit code, the screen)."""

    def run(*args, answers=()):
        child, screen = pty.fork()
        if child == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # whoever runs the tests in the background ignores it
            os.execve(sys.executable, [sys.executable, "-m", "vaultctl", *args], os.environ)
        shown, prompt, waiting, deadline = "", 0, list(answers), time.monotonic() + 30
        while time.monotonic() < deadline:
            ready, _, _ = select.select([screen], [], [], 0.05)
            if ready:
                try:
                    data = os.read(screen, 65536)
                except OSError:
                    break
                shown += data.decode()
            elif waiting and len(shown) > prompt and shown.endswith((": ", "]: ")):
                prompt = len(shown)
                os.write(screen, waiting.pop(0).encode())
        _, status = os.waitpid(child, 0)
        os.close(screen)
        assert not waiting, shown
        return os.waitstatus_to_exitcode(status), shown

    return run


def test_a_secret_is_asked_for_twice_and_never_on_the_screen(terminal, cli):
    code, screen = terminal(*STORE, answers=[TYPED + "\n", TYPED + "\n"])
    assert code == 0, screen
    assert "again, to confirm" in screen
    assert TYPED not in screen
    assert cli("secret", "show", "example", "--json").json["version"] == 1


def test_what_is_not_secret_is_shown_and_asked_for_once(terminal):
    store = ("secret", "set", "wiki", "--kind", "basic", "--host", "wiki.example.com")
    code, screen = terminal(*store, answers=["bot\n", TYPED + "\n", TYPED + "\n"])
    assert code == 0, screen
    assert "bot" in screen
    assert TYPED not in screen


@pytest.mark.parametrize(
    ("answers", "problem"),
    [
        ([TYPED + "\n", TYPED + "x\n"], "error: the two entries of token differ"),
        (["\n"], "error: the field token is empty"),
        (["\x04"], "error: interrupted"),
        (["\x03"], "error: interrupted"),
        ([4094 * "x" + "\n"], "error: a value this long may have been cut off by the terminal"),
    ],
)
def test_a_bad_entry_stores_nothing(terminal, cli, answers, problem):
    code, screen = terminal(*STORE, answers=answers)
    assert code in {2, 130}
    assert problem in screen
    assert "Traceback" not in screen
    assert TYPED not in screen
    assert cli("secret", "list", "--json").json == []


def test_only_what_is_missing_is_asked_for(terminal, tmp_path):
    fields = tmp_path / "aws.json"
    fields.write_text(f'{{"access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": "{TYPED}"}}')
    aws = ("secret", "set", "aws", "--kind", "sigv4", "--host", "sqs.eu-west-1.amazonaws.com")
    code, screen = terminal(*aws, "--fields-from", str(fields))
    assert code == 0, screen
    code, screen = terminal(
        *STORE[:2], "wiki", *STORE[3:], "--kind", "basic", "--field", "user=bot", answers=[TYPED + "\n"] * 2
    )
    assert code == 0, screen
    assert TYPED not in screen


def test_stdin_is_not_read_from_a_terminal_that_would_show_it(terminal):
    for source in (("--fields-from", "-"), ("--field", "token=@-")):
        code, screen = terminal(*STORE, *source)
        assert code == 2
        assert "error: a value typed here would be shown" in screen


def test_a_value_that_does_not_look_right_is_asked_about(terminal, cli):
    store = ("secret", "set", "stripe", "--provider", "stripe")
    code, screen = terminal(*store, answers=["pk_live_1\n", "pk_live_1\n", "n\n"])
    assert code == 1
    assert "does not look like the token of Stripe" in screen
    assert cli("secret", "list", "--json").json == []
    code, screen = terminal(*store, answers=["pk_live_1\n", "pk_live_1\n", "y\n"])
    assert code == 0, screen


def test_destroying_asks_and_no_means_no(terminal, cli, stripe):
    code, screen = terminal("secret", "delete", "stripe", answers=["n\n"])
    assert code == 1
    assert "error: nothing was changed" in screen
    assert len(cli("secret", "list", "--json").json) == 1
    code, screen = terminal("secret", "delete", "stripe", answers=["y\n"])
    assert code == 0, screen
    assert cli("secret", "list", "--json").json == []
