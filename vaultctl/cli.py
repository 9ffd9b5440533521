"""
The root of the commands, and the one place where an error becomes two lines and an exit code.

Commands are named here and loaded when used: `vaultctl --help` and completion import click and nothing else.

    0 done    1 failed       2 wrong command   3 not found   4 denied
    5 locked  6 damaged      7 in the way      8 no answer   125 to 127 see `run`    130 interrupted
"""

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import click

from addon.errors import Fault, OperatorError
from vaultctl.command import shared_options
from vaultctl.console import Session, printable

COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("init:init", "Make a vault, the proxy's key and a local CA."),
    "status": ("status:status", "Ready, or why not."),
    "doctor": ("doctor:doctor", "Check everything around the vault, with the mend for each problem."),
    "secret": ("secret:secret", "Credentials, sealed in the vault."),
    "app": ("caller:app", "Applications that call through the proxy, and their keys."),
    "agent": ("caller:agent", "AI agents and workers that call under names of their own, and their keys."),
    "idp": ("idp:idp", "Identity providers, whose tokens prove who a user is."),
    "grant": ("grant:grant", "Who may use which secret, how and until when."),
    "policy": ("policy:policy", "What narrows the whole vault, an app, an agent, a secret or a delegation."),
    "approval": ("approval:approval", "Requests that wait for a person's yes."),
    "delegation": ("delegation:delegation", "What users let agents do with their access, and until when."),
    "audit": ("audit:audit", "What went through the proxy, and whether the log is whole."),
    "provider": ("provider:provider", "The catalog of known APIs."),
    "import": ("import_:import_", "Store the keys of a .env file under the providers they belong to."),
    "ca": ("ca:ca", "The local certificate authority of the proxy."),
    "key": ("key:key", "The key pair of the proxy, which everything is sealed to."),
    "backup": ("backup:backup", "Write a copy of the vault to a new file."),
    "restore": ("backup:restore", "Make the vault from a backup, where there is none."),
    "migrate": ("backup:migrate", "Bring a vault of an older format up to date."),
    "run": ("run:run", "Run a program through the proxy, with a short-lived key."),
    "env": ("run:env", "Print the environment that `run` would give, with a new key in it."),
    "demo": (
        "demo:demo",
        "See it work: a throw-away vault, the real proxy and a local upstream that takes nothing but the right credential.",
    ),
}
"""Name → (module:attribute in vaultctl.commands, short help)."""


class Root(click.Group):
    """`vaultctl` itself."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += shared_options()

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        """In the order in which a newcomer meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the one module that has it."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name][0].split(":")
        found: click.Command = getattr(importlib.import_module(f"vaultctl.commands.{module}"), attribute)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """From the table, without loading anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """The same for completion."""
        from click.shell_completion import CompletionItem  # noqa: PLC0415  only when a shell asks

        names = [CompletionItem(name, help=text) for name, (_, text) in COMMANDS.items() if name.startswith(incomplete)]
        return names + click.Command.shell_complete(self, ctx, incomplete)

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any) -> NoReturn:  # type: ignore[override]  # noqa: ARG002
        """Run a command line and exit with its code. No exception gets past here."""
        session = Session()
        session.umask = os.umask(0o077)
        try:
            with _failures(session):
                code = super().main(args, "vaultctl", standalone_mode=False, obj=session, **extra)
                sys.exit(code or 0)
        finally:
            os.umask(session.umask)


@contextlib.contextmanager
def _failures(session: Session) -> Iterator[None]:
    """Say what went wrong in two lines, and exit."""
    try:
        yield
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(session.failure or error.exit_code)
    except Exception as error:  # noqa: BLE001  the last resort: never a traceback, which may hold what was typed
        message, hint, code = _explain(error)
        click.echo(f"error: {printable(message)}", err=True)
        click.echo(f"hint: {printable(hint)}", err=True)
        sys.exit(session.failure or code)


def _explain(error: Exception) -> tuple[str, str, int]:
    """Message, hint and exit code."""
    match error:
        case OperatorError():
            return error.message, error.hint, error.exit_code
        case Fault():
            return f"the vault cannot be used ({error})", "`vaultctl doctor` says what is wrong", 5
        case click.ClickException():
            context = getattr(error, "ctx", None)
            command = context.command_path if context else "vaultctl"
            message = " ".join(error.format_message().split()).rstrip(".")
            return message[:1].lower() + message[1:], f"`{command} --help` shows how it is written", error.exit_code
        case click.Abort():
            return "interrupted", "nothing more was done", 130
        case OSError(errno=int(number)):
            return f"{os.strerror(number).lower()}: {error.filename or 'unknown file'}", "check the path, its owner and mode, and the free space", 1  # fmt: skip
        case _:
            return f"unexpected {type(error).__name__}", "this is a defect of vaultctl; please report the command and its version", 1  # fmt: skip


@click.group(
    "vaultctl",
    cls=Root,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="alter-egress", message="%(version)s")
def main() -> None:
    """
    Manage the vault of alter-egress: secrets that apps use through the proxy without ever holding them.

    A value goes in and never comes out: it is typed at a hidden prompt, piped in, or read from a file, and sealed to
    the proxy's public key. Start with `vaultctl init`, or see it work with `vaultctl demo`.
    """
