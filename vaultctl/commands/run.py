"""
`run` and `env`: an unchanged program uses the proxy.

Both mint a key of type `run` for one caller, limited to the named grants and to a short time, and put it into the
environment with everything else the program needs. The key outlives nothing: when its time is over, the proxy refuses
it, and a program that still runs must be started again.
"""

import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click

from addon.errors import OperatorError, Unreachable, Usage
from addon.vault import Vault
from vaultctl import aws, callers, proxy, times, trust
from vaultctl.command import Command, command
from vaultctl.console import Session, pass_session
from vaultctl.trust import Environment

OURS, NOT_EXECUTABLE, NOT_FOUND = 125, 126, 127
"""Exit codes as of a shell and of `docker run`; every other one is the child's."""


class RunCommand(Command):
    """Errors of ours exit with 125: the ordinary codes belong to the child."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Before the first option is looked at."""
        if parent is not None:
            parent.ensure_object(Session).failure = OURS
        return super().make_context(info_name, args, parent=parent, **extra)


def _options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        proxy.option,
        click.option("--ttl", default="1h", show_default=True, metavar="D", help="How long the key works."),
        click.option(
            "--as",
            "caller_text",
            metavar="APP",
            help="Who calls: APP or agent:NAME. Otherwise the one the grants name.",
        ),
        click.option("--grant", "grant_ids", multiple=True, metavar="ID", help="Only this grant. May be repeated."),
    ):
        function = option(function)
    return function


@click.command(
    "run",
    cls=RunCommand,
    prints=False,
    context_settings={"allow_interspersed_args": False},
    examples=[
        "vaultctl run --as billing -- python report.py",
        "vaultctl run --grant 0b6f3c1e-9f53-4a53-9b36-6d0c9b6a8a51 -- curl https://api.stripe.com/v1/charges",
        "vaultctl run --grant 5d2a7c84-60b1-4a0e-8f6f-3f1c2b9d7e10 -- aws s3 ls",
    ],
)
@_options
@click.argument("words", metavar="[--] CMD...", nargs=-1, required=True, type=click.UNPROCESSED)
@pass_session
def run(
    session: Session,
    *,
    words: tuple[str, ...],
    grant_ids: tuple[str, ...],
    caller_text: str | None,
    ttl: str,
    proxy_url: str,
) -> None:
    """
    Run a program through the proxy, with a short-lived key.

    The program needs no change and holds no secret. Its environment gets the proxy with a key of its own, and a CA bundle. The key is for --as, or for the one app or
    agent that every --grant names; it stops working after --ttl, even if the program still runs. A request to a host
    that exactly one of the grants is bound to needs no tag. The exit code is that of CMD; 125 is an error of ours,
    126 CMD cannot be executed, 127 there is no CMD.
    """
    _check_command(words[0])
    made = _environment(session, grant_ids=grant_ids, caller_text=caller_text, ttl=ttl, server=proxy.parse(proxy_url))
    environment = {name: value for name, value in os.environ.items() if name not in made.without} | made.variables
    click.get_current_context().close()
    _become(words, environment, umask=session.umask)


@command(
    "env",
    examples=[
        'eval "$(vaultctl env --as billing)"',
        "vaultctl env --as billing --shell fish | source",
        "vaultctl env --as billing --ttl 8h --shell dotenv > .env.proxy",
    ],
)
@_options
@click.option(
    "--shell",
    type=click.Choice(["sh", "fish", "dotenv", "json"]),
    default="sh",
    show_default=True,
    help="How it is written. --json is the same as json.",
)
@pass_session
def env(
    session: Session, *, grant_ids: tuple[str, ...], caller_text: str | None, ttl: str, proxy_url: str, shell: str
) -> None:
    """
    Print the environment that `run` would give, with a new key in it.

    Variables that would undo it (SSL_CERT_DIR, and AWS_SESSION_TOKEN where a grant is for AWS) are unset for sh and fish; a dotenv file and JSON cannot say so.
    """
    made = _environment(session, grant_ids=grant_ids, caller_text=caller_text, ttl=ttl, server=proxy.parse(proxy_url))
    session.emit(made.variables, [WRITERS[shell](made)])


def _environment(
    session: Session, *, grant_ids: tuple[str, ...], caller_text: str | None, ttl: str, server: proxy.Proxy
) -> Environment:
    lifetime = times.parse_duration(ttl)
    if not lifetime:
        raise Usage("the key would expire at once", hint="give a duration such as --ttl 1h")
    vault = session.vault(writable=True)
    caller_type, name = _caller(vault, grant_ids, caller_text, now=session.now)
    trust.prepare(session.home)
    try:
        server.check()
    except Unreachable as problem:
        session.note(f"warning: {problem.message}", f"hint: {problem.hint}")
    _, key = vault.callers.mint_key(
        caller_type, name, now=session.now, expires_at=session.now + lifetime, session=True, grants=grant_ids
    )
    only = grant_ids[0] if len(grant_ids) == 1 else None
    made = trust.environment(session.home, proxy=server, name=name, key=key, grant_id=only)
    return aws.extend(made, vault, grant_ids)


def _caller(vault: Vault, grant_ids: tuple[str, ...], text: str | None, *, now: float) -> tuple[str, str]:
    """The one caller whose key it will be. Raises Usage unless it can use every grant."""
    chosen = callers.parse(text) if text else None
    for grant_id in grant_ids:
        named = callers.named_by(vault, grant_id)
        delegated = [each for each in vault.delegations.list() if each.id == grant_id]
        grant = delegated[0] if delegated else vault.grants.get(grant_id)
        if grant.state(now) != "active":
            raise Usage(
                f"the grant {grant_id} is {grant.state(now)}", hint="issue a new one with `vaultctl grant issue`"
            )
        if named is None:
            if chosen is None or chosen[0] != "app":
                raise Usage(f"the grant {grant_id} names no app or agent", hint="say which app calls with --as; it sends the user's token itself")  # fmt: skip
            continue
        if chosen is not None and chosen != named:
            raise Usage(
                f"the grant {grant_id} names {':'.join(named)}, not {':'.join(chosen)}",
                hint="all grants of one run belong to one caller",
            )
        chosen = named
    if chosen is None:
        raise Usage("nobody is named to call", hint="add --as APP, or --grant ID")
    if vault.callers.get(*chosen).state != "active":
        raise Usage(
            f"the {chosen[0]} {chosen[1]} is disabled", hint=f"`vaultctl {chosen[0]} enable {chosen[1]}` turns it on"
        )
    return chosen


def _become(words: tuple[str, ...], environment: dict[str, str], *, umask: int) -> NoReturn:
    """Turn into the program: same process, so signals and exit code need no passing on."""
    os.umask(umask)
    for number in (signal.SIGPIPE, getattr(signal, "SIGXFSZ", None)):
        if number is not None:
            signal.signal(number, signal.SIG_DFL)  # Python ignores them, and exec would pass that on
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execvpe(words[0], words, environment)  # noqa: S606  no shell is the point
    except OSError as error:
        _refuse(os.strerror(error.errno or 0).lower(), NOT_EXECUTABLE)


def _check_command(word: str) -> None:
    """Before a key is made for it."""
    if shutil.which(word) is None:
        if shutil.which(word, mode=os.F_OK) or Path(word).is_dir():
            _refuse("permission denied", NOT_EXECUTABLE)
        _refuse("not found", NOT_FOUND)


def _refuse(reason: str, code: int) -> NoReturn:
    click.echo(f"error: the command cannot be executed: {reason}\nhint: check its name, PATH and mode", err=True)
    sys.exit(code)


def _sh(made: Environment) -> str:
    lines = [f"export {name}={_single_quoted(value)}" for name, value in made.variables.items()]
    return "\n".join([*lines, *(f"unset {name}" for name in made.without)])


def _fish(made: Environment) -> str:
    quoted = {name: value.replace("\\", "\\\\").replace("'", "\\'") for name, value in made.variables.items()}
    lines = [f"set -gx {name} '{value}'" for name, value in quoted.items()]
    return "\n".join([*lines, *(f"set -e {name}" for name in made.without)])


def _dotenv(made: Environment) -> str:
    return "\n".join(f"{name}={_dotenv_value(value)}" for name, value in made.variables.items())


def _json(made: Environment) -> str:
    return json.dumps(made.variables, indent=2)


WRITERS: dict[str, Callable[[Environment], str]] = {"sh": _sh, "fish": _fish, "dotenv": _dotenv, "json": _json}


def _single_quoted(value: str) -> str:
    return "'" + value.replace("'", "'\\''") + "'"


def _dotenv_value(value: str) -> str:
    """Dialects of dotenv agree on bare words and on text in single quotes, and on no way to escape."""
    if re.fullmatch(r"[A-Za-z0-9_./:@%+,=-]*", value):
        return value
    if "'" in value or not value.isprintable():
        raise OperatorError(
            "a path of the vault cannot be written in dotenv", hint="use --shell json, or another --home"
        )
    return f"'{value}'"
