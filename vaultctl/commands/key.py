"""`key`: the proxy's key pair, which every value is sealed to. The one place where vaultctl reads the private half."""

from collections.abc import Sequence

import click

from addon import process
from addon.vault.recipients import Key
from vaultctl import times
from vaultctl.command import noun
from vaultctl.console import Session, pass_session, table

key = noun("key", help="The key pair of the proxy, which everything is sealed to.")


@key.command("list", examples=["vaultctl key list", "vaultctl key --json"])
@pass_session
def list_(session: Session) -> None:
    """The keys there are and were, and how many values each opens; ALONE: that no other key opens."""
    keys = session.vault().recipients.list()
    session.emit([_document(each) for each in keys], _table(keys))


@key.command("rotate", examples=["vaultctl key rotate", "sudo -u alter-proxy vaultctl key rotate"])
@pass_session
def rotate(session: Session) -> None:
    """
    Add a new key and wrap everything to it as well.

    For whoever owns proxy.key: the keys of values are unwrapped and wrapped again, and no value is opened. Then tell the
    proxy, keep a copy of the new proxy.key, and retire the old key.
    """
    process.harden()
    recipients = session.vault(writable=True).recipients
    kid = recipients.rotate(now=session.now)
    session.emit({"kid": kid}, [kid])
    old = [each.kid for each in recipients.list() if each.retired_at is None and each.kid != kid]
    session.note(
        "keep a copy of the new proxy.key where the old one is kept; backups of the vault made before need the old one",
        "a running proxy takes the new key on SIGHUP: kill -HUP PID",
        *(f"when every proxy has it: vaultctl key retire {each}" for each in old),
    )


@key.command("retire", examples=["vaultctl key retire 0123456789abcdef0123456789abcdef --yes"])
@click.argument("kid")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_session
def retire(session: Session, kid: str, yes: bool) -> None:
    """
    Let a key open nothing any more, and take it out of proxy.key.

    Refused while a value opens with no other. A running proxy that was not told of the new key refuses requests from
    then on; backups from before open only with a copy of the old key.
    """
    session.confirm(f"Retire the key {kid}?", yes=yes)
    process.harden()
    recipients = session.vault(writable=True).recipients
    recipients.retire(kid, now=session.now)
    session.emit({"kid": kid})
    session.note(f"{kid} opens nothing in this vault any more")


def _table(keys: Sequence[Key]) -> list[str]:
    headers = ("KID", "SUITE", "STATE", "CREATED", "SEALED", "ALONE")
    return list(
        table(
            headers,
            (
                (each.kid, each.suite, _state(each), times.rfc3339(each.created_at), each.sealed, each.alone)
                for each in keys
            ),
        )
    )


def _document(each: Key) -> dict[str, object]:
    return {
        "kid": each.kid,
        "suite": each.suite,
        "state": _state(each),
        "created_at": times.rfc3339(each.created_at),
        "retired_at": None if each.retired_at is None else times.rfc3339(each.retired_at),
        "sealed": each.sealed,
        "alone": each.alone,
    }


def _state(each: Key) -> str:
    return "active" if each.retired_at is None else "retired"
