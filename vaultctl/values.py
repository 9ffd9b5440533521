"""
How the fields of a secret get in.

A value is never an argument and never an option: both are visible to other processes and end up in shell histories. In
order, each field comes from

    1 --fields-from FILE|-      one JSON object of strings
    2 --field NAME=@FILE        the contents of a file; `@-` is stdin
      --field NAME=TEXT         only for fields that are not secret, such as a user name
    3 a terminal                a prompt, hidden and confirmed for secret fields
    4 stdin                     when exactly one secret field is left

One newline at the end is dropped, nothing else. Nothing here repeats what was given, not even in an error.
"""

import getpass
import json
import stat
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from addon.credentials import Field
from addon.errors import Usage

LIMIT = 8 * 1024
"""The longest value, in bytes of UTF-8."""

_TERMINAL_LIMIT = 1023 if sys.platform == "darwin" else 4094
"""What a terminal in line mode hands over at most (MAX_CANON); it cuts the rest off without a word."""

Note = Callable[..., None]


def read(fields: Sequence[Field], *, given: Sequence[str], fields_from: str | None, note: Note) -> dict[str, str]:
    """
    The values of `fields`, those left empty that are not required. Raises Usage.

    `given` are the texts of `--field`, `fields_from` that of `--fields-from`; `note` tells people on stderr.
    """
    known = {field.name: field for field in fields}
    found: dict[str, str] = {}
    for name, value in (*_from_object(fields_from, note), *(_from_option(text, known, note) for text in given)):
        if name not in known:
            raise Usage("there is no such field here", hint="the fields are " + ", ".join(known))
        if name in found:
            raise Usage(f"the field {name} is given twice", hint="give each field once")
        found[name] = check(name, value)
    missing = [field for field in fields if field.name not in found]
    if not found or any(field.required for field in missing):
        found |= _asked(missing) if sys.stdin.isatty() else _piped(missing, note)
    return {field.name: found[field.name] for field in fields if field.name in found}


def check(name: str, value: str) -> str:
    """The value without one newline at its end. Raises Usage for one that cannot be a credential."""
    value = value.removesuffix("\r\n") if value.endswith("\r\n") else value.removesuffix("\n")
    if not value:
        raise Usage(f"the field {name} is empty", hint="give the value; only one newline at its end is dropped")
    if any(ord(c) < 32 or 127 <= ord(c) < 160 for c in value):
        raise Usage(
            f"the field {name} holds a control character or a second line",
            hint="give the bare value: printf '%s' … instead of echo, or check the file for a stray line",
        )
    if len(_encoded(name, value)) > LIMIT:
        raise Usage(f"the field {name} is longer than {LIMIT} bytes", hint="give the credential itself, not a document")
    return value


def _encoded(name: str, value: str) -> bytes:
    try:
        return value.encode("utf-8")
    except UnicodeEncodeError:
        raise Usage(f"the field {name} is not UTF-8 text", hint="give the value as text") from None


def _from_object(source: str | None, note: Note) -> tuple[tuple[str, str], ...]:
    if source is None:
        return ()
    try:
        pairs = json.loads(_read(source, what="--fields-from", note=note), object_pairs_hook=tuple)
    except ValueError:
        pairs = None
    if not isinstance(pairs, tuple) or not all(isinstance(value, str) for _, value in pairs):
        raise Usage("--fields-from is not one JSON object of texts", hint='write {"NAME": "VALUE", …}')
    return pairs


def _from_option(text: str, known: dict[str, Field], note: Note) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    field = known.get(name)
    if field is None or not equals:
        raise Usage("--field is not NAME=@FILE for a field there is", hint="the fields are " + ", ".join(known))
    if value.startswith("@"):
        return name, _read(value[1:], what=f"the file for the field {name}", note=note)
    if field.secret:
        raise Usage(
            f"the field {name} is secret and cannot be given on the command line",
            hint=f"write --field {name}=@FILE, pipe the value in, or leave it out and type it; what you just typed is in the shell's history",
        )
    return name, value


def _asked(fields: Sequence[Field]) -> dict[str, str]:
    found = {}
    for field in fields:
        label = field.prompt if field.required else f"{field.prompt} (optional, Enter for none)"
        value = _prompt(f"{label}: ", hidden=field.secret)
        if not value and not field.required:
            continue
        found[field.name] = check(field.name, value)
        if field.secret and _prompt("again, to confirm: ", hidden=True) != value:
            raise Usage(f"the two entries of {field.name} differ", hint="run it again; nothing was stored")
    return found


def _prompt(label: str, *, hidden: bool) -> str:
    if not hidden:
        return str(click.prompt(label, prompt_suffix="", err=True, default="", show_default=False))
    value = getpass.getpass(label, stream=sys.stderr)
    if len(value.encode("utf-8", "surrogateescape")) >= _TERMINAL_LIMIT:
        raise Usage(
            "a value this long may have been cut off by the terminal", hint="pipe it in, or use --field NAME=@FILE"
        )
    return value


def _piped(fields: Sequence[Field], note: Note) -> dict[str, str]:
    required = [field for field in fields if field.required]
    secret = [field for field in required if field.secret]
    plain = [field.name for field in required if not field.secret]
    if plain:
        raise Usage("no value for " + ", ".join(plain), hint="add " + " ".join(f"--field {name}=…" for name in plain))
    if not secret:
        return {}
    if len(secret) > 1:
        names = ", ".join(field.name for field in secret)
        raise Usage(
            f"{names} cannot all come from stdin",
            hint="pipe one JSON object in with --fields-from -, or use --field NAME=@FILE for each",
        )
    return {secret[0].name: check(secret[0].name, _read("-", what="stdin", note=note))}


def _read(source: str, *, what: str, note: Note) -> str:
    """A file or stdin as text. The name is not repeated: people put values where file names belong."""
    limit = 16 * LIMIT
    if source == "-" and sys.stdin.isatty():
        raise Usage("a value typed here would be shown", hint="leave the option out, and be asked for it hidden")
    try:
        if source == "-":
            data = sys.stdin.buffer.read(limit + 1)
        else:
            with Path(source).open("rb") as file:
                data = file.read(limit + 1)
            status = Path(source).stat()
            if stat.S_ISREG(status.st_mode) and status.st_mode & 0o077:
                note(f"note: {what} can be read by others; remove it when it is stored")
    except (OSError, ValueError) as error:
        reason = (error.strerror or "").lower() if isinstance(error, OSError) else "not a file name"
        raise Usage(f"{what} cannot be read: {reason}", hint="check the name and its mode; `-` is stdin") from None
    if len(data) > limit:
        raise Usage(f"{what} is too long", hint=f"a value has at most {LIMIT} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise Usage(f"{what} is not UTF-8 text", hint="give the value as text") from None
