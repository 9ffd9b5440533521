"""`import`: the keys of a `.env` file, each under the provider it belongs to."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click

from addon import credentials
from addon.credentials import providers
from addon.credentials.providers import Provider
from addon.errors import Usage
from addon.vault import Vault
from vaultctl import dotenv, values
from vaultctl.command import command
from vaultctl.console import Session, pass_session, table

_LARGEST = 1 << 20


@dataclass(frozen=True, slots=True)
class Find:
    """What a file holds for one provider. Prints without the values."""

    provider: Provider
    variables: dict[str, str]
    """Field → the variable it was found in."""
    values: dict[str, str] = field(repr=False)


@command("import", examples=["vaultctl import .env --dry-run", "vaultctl import .env"])
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE.env")
@click.option("--dry-run", is_flag=True, help="Say what would be stored, and store nothing.")
@pass_session
def import_(session: Session, *, file: Path, dry_run: bool) -> None:
    """
    Store the keys of a .env file under the providers they belong to.

    Recognised variables become secrets named after their providers; all of them, or none if one cannot be stored. What
    exists already or lacks a part is left out, and the file is not changed.
    """
    vault = session.vault(writable=not dry_run)
    finds = list(_finds(dotenv.parse(_read(file))))
    outcomes = [(find, _outcome(find, vault)) for find in finds]
    wanted = [find for find, outcome in outcomes if outcome == "stored"]
    for find in wanted:
        _check(find, session)
    if not dry_run:
        _store(wanted, vault, now=session.now)
    session.emit(
        [
            {
                "name": f.provider.slug,
                "provider": f.provider.slug,
                "variables": list(f.variables.values()),
                "outcome": o,
            }
            for f, o in outcomes
        ],
        table(
            ("SECRET", "VARIABLES", "WOULD BE" if dry_run else "OUTCOME"),
            [(f.provider.slug, ", ".join(f.variables.values()), o) for f, o in outcomes],
        ),
    )
    if not finds:
        session.note("no variable there is of a provider in the catalog; see `vaultctl provider list`")
    elif wanted and not dry_run:
        session.note("the vault has them now: remove these variables from the file, and issue grants")


def _read(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return opened.read(_LARGEST).decode("utf-8")
    except (OSError, UnicodeDecodeError):
        raise Usage(f"{file} cannot be read as text", hint="name a .env file of NAME=VALUE lines") from None


def _finds(variables: dict[str, str]) -> Iterator[Find]:
    """By provider, in the order of the file. Raises Usage where two variables disagree about one field."""
    found: dict[str, Find] = {}
    for name, value in variables.items():
        known = providers.by_variable(name)
        if known is None or not value:
            continue
        provider, part = known
        find = found.setdefault(provider.slug, Find(provider, {}, {}))
        if find.values.get(part, value) != value:
            raise Usage(
                f"{find.variables[part]} and {name} are both the {part} of {provider.title}, and differ",
                hint="remove the wrong one, or store it with `vaultctl secret set`",
            )
        find.variables.setdefault(part, name)
        find.values[part] = value
    yield from found.values()


def _outcome(find: Find, vault: Vault) -> str:
    provider = find.provider
    if any(secret.name == provider.slug for secret in vault.secrets.list()):
        return "exists already"
    if not provider.hosts:
        return f"needs a host: vaultctl secret set {provider.slug} --provider {provider.slug} --host {provider.host_example}"
    fields = credentials.kind(provider.kind).fields(provider.binding())
    missing = [each.name for each in fields if each.required and each.name not in find.values]
    return f"lacks its {' and '.join(missing)}" if missing else "stored"


def _check(find: Find, session: Session) -> None:
    """Raises Usage, before anything is stored, for a value that cannot be."""
    for part, value in find.values.items():
        values.check(part, value)
        if doubt := find.provider.check_shape(part, value):
            session.note(f"warning: {find.variables[part]}: {doubt}")
    credentials.kind(find.provider.kind).check_values(find.provider.binding(), find.values)


def _store(finds: Iterable[Find], vault: Vault, *, now: float) -> None:
    stored: list[str] = []
    try:
        for find in finds:
            slug, kind = find.provider.slug, find.provider.kind
            vault.secrets.put(
                slug, kind=kind, binding=find.provider.binding(), values=find.values, now=now, provider=slug
            )
            stored.append(slug)
    except BaseException:
        for slug in stored:
            vault.secrets.delete(slug, now=now)
        raise
