"""The frame around every command: loading, shared options, errors and exit codes."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import click
import pytest

from addon.errors import Conflict, Corrupt, Fault, Locked, NotFound, Unreachable, Usage
from vaultctl import cli as root
from vaultctl.console import Session, printable, table


def commands():
    """Every command there is, with the words that call it."""

    def walk(group, words):
        context = click.Context(group)
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            yield (*words, name), command
            if isinstance(command, click.Group):
                yield from walk(command, (*words, name))

    return list(walk(root.main, ("vaultctl",)))


def shell(*args, **kwargs):
    command = [sys.executable, "-m", "vaultctl", *args]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, **kwargs)


# ── loading ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_help_loads_click_and_nothing_else():
    code = (
        "import sys; before = set(sys.modules)\n"
        "from vaultctl.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(*{name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names), file=sys.stderr)\n"
        "print(*[name for name in sys.modules if name.startswith(('addon.', 'vaultctl.commands'))], file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    third_party, ours = ran.stderr.splitlines()
    assert {name for name in third_party.split() if not name.startswith(("_", "sitecustomize"))} == {
        "click",
        "addon",
        "vaultctl",
    }
    assert set(ours.split()) == {"addon.errors", "addon.homes"}
    assert "Usage: vaultctl" in ran.stdout


def test_help_names_every_command_as_it_describes_itself():
    for name, (_, short) in root.COMMANDS.items():
        command = root.main.get_command(click.Context(root.main), name)
        assert short == command.get_short_help_str(200)
        assert command.name == name


@pytest.mark.parametrize(
    ("words", "command"), commands(), ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_every_command_has_help_and_an_example(words, command):
    assert command.help
    assert all(param.help for param in command.params if isinstance(param, click.Option))
    if not isinstance(command, click.Group):
        assert command.examples
        assert any(" ".join(words) in example for example in command.examples)


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_completion_comes_with_the_program(name):
    ran = shell(env=os.environ | {"_VAULTCTL_COMPLETE": f"{name}_source"})
    assert ran.returncode == 0
    assert "_VAULTCTL_COMPLETE" in ran.stdout


def test_completion_knows_commands_and_options():
    environment = os.environ | {"_VAULTCTL_COMPLETE": "bash_complete", "COMP_WORDS": "vaultctl se", "COMP_CWORD": "1"}
    assert "secret" in shell(env=environment).stdout
    environment |= {"COMP_WORDS": "vaultctl grant issue --ex", "COMP_CWORD": "3"}
    assert "--expires" in shell(env=environment).stdout


# ── shared options ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_home_and_json_are_understood_before_and_after_every_word(bare, home, monkeypatch):
    monkeypatch.delenv("ALTER_HOME")
    at = ("--home", str(home))
    for args in [(*at, "--json", "app", "list"), ("app", *at, "--json", "list"), ("app", "list", *at, "--json")]:
        ran = bare(*args)
        assert (ran.code, ran.json) == (0, [])


def test_the_home_nearest_to_the_verb_wins(bare, home, tmp_path):
    assert bare("--home", str(tmp_path / "nowhere"), "app", "list", "--home", str(home)).code == 0


@pytest.mark.parametrize("noun", ["secret", "app", "agent", "grant", "audit", "provider", "ca"])
def test_a_bare_noun_lists(cli, noun):
    verb = "show" if noun == "ca" else "list"
    assert cli(noun, "--json").json == cli(noun, verb, "--json").json


def test_the_default_home_is_the_platforms_data_folder(monkeypatch):
    monkeypatch.delenv("ALTER_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    monkeypatch.setattr(sys, "platform", "linux")
    assert Session().home == Path("/data/alter-egress")
    monkeypatch.delenv("XDG_DATA_HOME")
    assert Session().home == Path.home() / ".local/share/alter-egress"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert Session().home == Path.home() / "Library/Application Support/alter-egress"


def test_a_tilde_that_the_shell_left_alone_is_the_home_folder(monkeypatch):
    monkeypatch.setenv("ALTER_HOME", "~/vault")
    assert Session().home == Path.home() / "vault"


# ── errors ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def raising(monkeypatch, bare):
    def run(error):
        @click.command("broken")
        def broken():
            raise error

        monkeypatch.setattr(root.Root, "get_command", lambda *_: broken)
        return bare("broken")

    return run


@pytest.mark.parametrize(
    ("kind", "code"), [(Usage, 2), (NotFound, 3), (Locked, 5), (Corrupt, 6), (Conflict, 7), (Unreachable, 8)]
)
def test_an_error_is_two_lines_and_its_own_exit_code(raising, kind, code):
    ran = raising(kind("it went wrong", hint="do this"))
    assert (ran.code, ran.err, ran.out) == (code, "error: it went wrong\nhint: do this\n", "")


def test_a_fault_of_the_kernel_is_a_locked_vault(raising):
    ran = raising(Fault("vault_unavailable", "OperationalError"))
    assert ran.code == 5
    assert "vault_unavailable" in ran.error


def test_an_unexpected_exception_shows_its_type_and_nothing_it_holds(raising, canary):
    ran = raising(RuntimeError(f"could not use {canary}"))
    assert ran.code == 1
    assert ran.error == "unexpected RuntimeError"
    assert canary not in ran.err


def test_a_failure_of_the_system_names_the_file(raising):
    ran = raising(OSError(28, "No space left on device", "/somewhere"))
    assert (ran.code, ran.error) == (1, "no space left on device: /somewhere")


def test_a_full_disk_leaves_the_vault_as_it_was(cli, home):
    limited = shell("app", "create", "x", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)))
    assert limited.returncode == 5
    assert limited.stderr.startswith("error: the vault ")
    assert limited.stdout == ""
    assert cli("app", "list", "--json").json == []


def test_an_interrupt_is_130(raising):
    ran = raising(KeyboardInterrupt())
    assert (ran.code, ran.error) == (130, "interrupted")


def test_an_error_stays_on_its_two_lines_whatever_was_typed(cli):
    ran = cli("secret", "show", "a\nerror: b\x1b[31m")
    assert ran.code == 3
    assert len(ran.err.splitlines()) == 2
    assert "\x1b" not in ran.err


@pytest.mark.parametrize(
    "args",
    [("nonsense",), ("app", "nonsense"), ("--nonsense",), ("app", "create"), ("grant", "list", "--state", "odd"),
     ("audit", "list", "--limit", "none"), ("grant", "issue", "x")],
)  # fmt: skip
def test_a_wrong_command_line_is_exit_code_2_and_points_to_help(cli, args):
    ran = cli(*args)
    assert ran.code == 2
    assert ran.error
    assert "--help" in ran.err


def test_a_surplus_argument_is_not_repeated_since_it_may_be_a_pasted_value(cli, canary):
    ran = cli("secret", "set", "stripe", canary)
    assert ran.code == 2
    assert canary not in ran.err
    assert "a secret value is never an argument" in ran.err


def test_called_with_nothing_it_helps(bare):
    ran = bare()
    assert ran.code == 2
    assert "Usage: vaultctl" in ran.err


@pytest.mark.parametrize(
    "args",
    [
        ("status",),
        ("secret", "list"),
        ("app", "create", "x"),
        ("grant", "list"),
        ("audit", "list"),
        ("migrate",),
        ("backup", "x"),
    ],
)
def test_a_missing_home_is_exit_code_5_and_says_how_to_make_one(bare, args):
    ran = bare(*args)
    assert ran.code == 5
    assert "vaultctl init" in ran.err


def test_a_reader_that_leaves_early_is_no_error(cli, home):
    command = f"{sys.executable} -m vaultctl audit export --json | true; exit ${{PIPESTATUS[0]}}"
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode in {0, 1}
    assert "error" not in ran.stderr


# ── text ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_text_from_outside_cannot_drive_the_terminal():
    assert printable("a\x1b[2Jb\nc\u202ed") == r"a\x1b[2Jb\nc\u202ed"
    assert printable("größe …") == "größe …"


def test_a_table_is_aligned_and_empty_without_rows():
    assert list(table(("A", "B"), [("xx", None), (1, "\x07")])) == ["A   B", "xx  -", r"1   \x07"]
    assert list(table(("A", "B"), [])) == []
