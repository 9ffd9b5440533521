"""
What every command shares: where the vault is, what time it is, and how to talk.

Rules of the interface:

* stdout is for data: one JSON document with `--json`, otherwise plain aligned text. Everything else goes to stderr.
* A message begins in lower case and ends without a full stop. An error is one line `error: …`, then one line `hint: …`
  that says what to do about it.
* No stored value is ever printed; there is none to print. A new key is printed once, on stdout, by the command that
  made it.
* Text from outside (paths, labels, reasons) is shown with control characters escaped: it may have been written by
  somebody who wants to drive the reader's terminal.
* Whatever destroys something asks on a terminal, and elsewhere does nothing without `--yes`.
"""

import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from addon import homes
from addon.errors import OperatorError, Usage

if TYPE_CHECKING:
    from addon.vault import Vault

DEFAULT_PROXY = "http://127.0.0.1:8080"


class Session:
    """One run of vaultctl. `now` is read once, so that everything a command does happens at one time."""

    def __init__(self) -> None:
        self.chosen_home: Path | None = None
        self.json = False
        self.now = time.time()
        self.umask = 0o077
        """What the mask was before ours, for a child."""
        self.failure: int | None = None
        """The exit code of every error of ours, where a command must leave the ordinary ones to its child."""

    @property
    def home(self) -> Path:
        """`--home`, else ALTER_HOME, else the platform's folder for user data."""
        return homes.locate(None if self.chosen_home is None else str(self.chosen_home))

    def vault(self, *, writable: bool = False) -> "Vault":
        """
        The vault at home, closed when the command ends. Raises Locked.

        Whoever may change it first destroys the versions whose grace is over: there need not be a proxy that does.
        """
        from addon.vault import Vault  # noqa: PLC0415  `--help` must not wait for it

        vault = Vault.connect(self.home, writable=writable)
        click.get_current_context().call_on_close(vault.close)
        if writable:
            vault.destroy_expired(now=self.now)
        return vault

    def emit(self, document: object, lines: Iterable[str] = ()) -> None:
        """The result: `document` with `--json`, otherwise `lines`."""
        if self.json:
            click.echo(json.dumps(document, indent=2))
            return
        for line in lines:
            click.echo(line)

    def note(self, *lines: str) -> None:
        """Something for people, on stderr."""
        for line in lines:
            click.echo(printable(line), err=True)

    def confirm(self, question: str, *, yes: bool) -> None:
        """Return only if the operator agreed. Raises Usage where nobody can be asked."""
        if yes:
            return
        if not sys.stdin.isatty():
            raise Usage("this needs a confirmation and there is no terminal to ask on", hint="add --yes")
        if not click.confirm(question, err=True):
            raise OperatorError("nothing was changed", hint="answer y, or add --yes")


pass_session = click.make_pass_decorator(Session, ensure=True)


def printable(text: str) -> str:
    """The text with everything that is not printable escaped, so that it stays on its line."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """Aligned columns, headers in capitals. Nothing at all when there are no rows."""
    cells = [[_cell(value) for value in row] for row in rows]
    if not cells:
        return
    cells.insert(0, list(headers))
    widths = [max(len(row[column]) for row in cells) for column in range(len(headers))]
    for row in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def facts(pairs: Iterable[tuple[str, object]]) -> Iterator[str]:
    """`name  value` lines, aligned. A sequence is one value per line."""
    listed = [(name, value if isinstance(value, list | tuple) else [value]) for name, value in pairs]
    width = max((len(name) for name, _ in listed), default=0)
    for name, values in listed:
        for position, value in enumerate(values or [None]):
            yield f"{name if position == 0 else '':<{width}}  {_cell(value)}".rstrip()


def _cell(value: object) -> str:
    return "-" if value is None or value == "" else printable(str(value))
