"""`backup`, `restore`, `migrate`: the vault as a file. The key that opens it is never part of any of them."""

from pathlib import Path

import click

from addon.errors import Usage
from addon.vault import Vault
from addon.vault.vault import DATABASE, KEY
from vaultctl.command import command
from vaultctl.console import Session, pass_session

_file = click.argument("file", type=click.Path(path_type=Path))


@command("backup", examples=["vaultctl backup /backups/vault-2026-12-01.db"])
@_file
@pass_session
def backup(session: Session, *, file: Path) -> None:
    """
    Write a copy of the vault to a new file.

    The proxy may run meanwhile. The copy is useless without the proxy's key, and that is not in it: keep a copy of the key elsewhere, once.
    """
    session.vault(writable=True).back_up(file)
    session.emit({"file": str(file)})
    session.note(f"wrote {file}; {session.home / KEY} is not in it")


@command("restore", examples=["vaultctl restore /backups/vault-2026-12-01.db --home /var/lib/alter-egress"])
@_file
@pass_session
def restore(session: Session, *, file: Path) -> None:
    """
    Make the vault from a backup, where there is none.

    What was revoked, disabled or deleted after the backup was made is as it was before.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise Usage(
            f"{file} cannot be read: {(error.strerror or '').lower()}", hint="name a file that `vaultctl backup` wrote"
        ) from None
    vault = Vault.restore(session.home, data, now=session.now)
    document = {"home": str(session.home), "vault_id": vault.id}
    vault.close()
    session.emit(document)
    session.note(f"restored {session.home / DATABASE}", "revoke again what was revoked since the backup was made")
    if not (session.home / KEY).exists():
        session.note(f"next: put the proxy's key back as {session.home / KEY}, mode 600")


@command("migrate", examples=["vaultctl backup before.db && vaultctl migrate"])
@pass_session
def migrate(session: Session) -> None:
    """
    Bring a vault of an older format up to date.

    All of it or nothing; take a backup first.
    """
    steps = Vault.upgrade(session.home)
    session.emit({"steps": list(steps)}, steps)
    session.note(f"{len(steps)} steps taken" if steps else "up to date")
