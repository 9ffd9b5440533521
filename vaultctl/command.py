"""
Commands and groups of them, in our dialect of click.

* `--home` and `--json` are understood before and after every word of a command.
* A group called without a verb runs its default, which lists.
* A command carries examples, which its help shows.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from addon.errors import Usage
from vaultctl.console import Session


def _set_home(context: click.Context, _: click.Parameter, value: Path | None) -> None:
    if value is not None:
        context.ensure_object(Session).chosen_home = value


def _set_json(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        context.ensure_object(Session).json = True


def shared_options(*, json: bool = True) -> list[click.Parameter]:
    """`--home`, and `--json` for what prints data."""
    home = click.Option(
        ["--home"],
        type=click.Path(path_type=Path),
        metavar="DIR",
        expose_value=False,
        callback=_set_home,
        help="Where the vault is (also ALTER_HOME).",
    )
    as_json = click.Option(
        ["--json"], is_flag=True, expose_value=False, callback=_set_json, help="Print one JSON document."
    )
    return [home, as_json] if json else [home]


class Command(click.Command):
    """One command. `examples` are shown in its help; without `prints`, it has no data and no `--json`."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), prints: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)
        self.params += shared_options(json=prints)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """click would repeat surplus arguments in its message, and one of them may be a pasted secret."""
        ctx.allow_extra_args = True
        rest = super().parse_args(ctx, args)
        if rest and not ctx.resilient_parsing:
            raise Usage(
                f"{ctx.command_path}: one argument too many"
                if len(rest) == 1
                else f"{ctx.command_path}: too many arguments",
                hint=f"a secret value is never an argument; `{ctx.command_path} --help` shows what is",
            )
        return rest

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The examples, one a line, as they would be typed."""
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write(f"{'':{formatter.current_indent}}{example}\n")


class Noun(click.Group):
    """A group named after what it is about."""

    command_class = Command

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += shared_options()


def noun(name: str, *, help: str, default: str | None = "list") -> Noun:  # noqa: A002  click's word
    """A group that runs its command `default` when no verb is given."""

    def show() -> None:
        context = click.get_current_context()
        group = context.command
        if context.invoked_subcommand is None and default is not None and isinstance(group, click.Group):
            command = group.get_command(context, default)
            if command is not None:
                context.invoke(command)

    return Noun(name=name, help=help, callback=show, invoke_without_command=default is not None)


def command(name: str, **attributes: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """A command that stands for itself, outside every group."""
    return click.command(name, cls=Command, **attributes)
