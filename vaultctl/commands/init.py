"""`init`: everything a new installation needs, or nothing."""

from pathlib import Path

from addon.errors import Conflict
from addon.vault import Vault
from addon.vault.vault import DATABASE, KEY
from vaultctl import trust
from vaultctl.command import command
from vaultctl.console import Session, facts, pass_session


@command("init", examples=["vaultctl init", "vaultctl init --home ./vault --json"])
@pass_session
def init(session: Session) -> None:
    """Make a vault, the proxy's key and a local CA. Nothing that exists is overwritten."""
    home = session.home
    for name in (DATABASE, KEY):
        if (home / name).exists():
            raise Conflict(f"a vault exists already at {home}", hint="use another --home, or move the old one away")
    if (home / trust.FOLDER).exists() and any((home / trust.FOLDER).iterdir()):
        raise Conflict(
            f"a CA exists already at {home / trust.FOLDER}", hint="use another --home, or move the old one away"
        )
    made = not home.exists()
    try:
        vault = Vault.create(home, now=session.now)
        vault_id = vault.id
        vault.close()
        certificate = trust.create(home, now=session.now)
    except Conflict:
        raise  # somebody else is making one here at this moment: what is there is theirs
    except BaseException:
        _remove(home, made=made)
        raise
    document = {"home": str(home), "vault_id": vault_id, "ca_cert": str(certificate)}
    session.emit(document, facts(document.items()))
    session.note(
        "",
        "next:",
        "  vaultctl secret set stripe --provider stripe        store a key; you are asked for it",
        "  vaultctl app create billing                         an app, and its key",
        "  vaultctl grant issue stripe --to system:billing     the app may use the secret",
        "  alter-egress                                        start the proxy",
        f"keep {home / KEY} safe and apart from backups: it opens every secret, and nothing can replace it",
    )


def _remove(home: Path, *, made: bool) -> None:
    """Take away what a failed run made; nothing of it was there before."""
    for path in (*home.glob(f"{DATABASE}*"), home / KEY, *(home / trust.FOLDER).glob("*.pem")):
        path.unlink(missing_ok=True)
    for folder in (home / trust.FOLDER, home):
        if folder.exists() and not any(folder.iterdir()) and (made or folder != home):
            folder.rmdir()
