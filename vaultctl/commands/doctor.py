"""`doctor`: every condition the promises rest on, each with its mend. Looks, and changes nothing."""

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from addon import ca, files
from addon.audit import chain
from addon.errors import Fault, OperatorError
from addon.vault import database
from addon.vault.vault import KEY
from vaultctl import proxy, times, trust
from vaultctl.command import command
from vaultctl.commands.audit import FOLDER as AUDIT
from vaultctl.console import Session, pass_session, printable

_SOON = 30 * 86_400
_AHEAD = 60.0


@dataclass(frozen=True, slots=True)
class Check:
    """`level` is `ok`, `warn` or `fail`; `mend` is empty where nothing needs doing."""

    name: str
    level: str
    detail: str
    mend: str = ""


@command("doctor", examples=["vaultctl doctor", "vaultctl doctor --json"])
@proxy.option
@pass_session
def doctor(session: Session, *, proxy_url: str) -> None:
    """
    Check everything around the vault, with the mend for each problem.

    Exit code 1 if a check fails; a warning names a promise that this setup cannot keep.
    """
    server = proxy.parse(proxy_url)
    checks = list(_examine(session, server))
    session.emit({"checks": [asdict(check) for check in checks]}, _lines(checks))
    if any(check.level == "fail" for check in checks):
        click.get_current_context().exit(1)


def _lines(checks: list[Check]) -> Iterator[str]:
    for check in checks:
        yield f"{check.level:<4}  {check.name:<9}  {printable(check.detail)}"
        if check.mend:
            yield f"{'':<17}→ {printable(check.mend)}"


def _examine(session: Session, server: proxy.Proxy) -> Iterator[Check]:
    home = session.home
    yield _tried("home", lambda: _home(home))
    vault = _tried("vault", lambda: _vault(session))
    yield vault
    if vault.level == "ok":
        yield _tried("changes", lambda: _changes(session))
        yield _tried("clock", lambda: _clock(session))
    yield _key(home)
    yield _sqlite()
    yield _tried("ca", lambda: _authority(home, session.now))
    yield _tried("trust", lambda: _trust(home))
    yield _tried("audit", lambda: _audit(home))
    yield _tried("proxy", lambda: _proxy(server), otherwise="warn")


def _tried(name: str, look: Callable[[], Check], *, otherwise: str = "fail") -> Check:
    """The check, or the error that kept it from being made."""
    try:
        return look()
    except OperatorError as problem:
        return Check(name, otherwise, problem.message, problem.hint)
    except Fault as fault:
        return Check(name, "fail", f"the vault cannot be read ({fault})", "restore a backup")


def _home(home: Path) -> Check:
    files.check_folder(home)
    return Check("home", "ok", f"{home}, closed to other users")


def _vault(session: Session) -> Check:
    vault = session.vault()
    return Check("vault", "ok", f"{vault.id}, {len(vault.secrets.list())} secrets, {len(vault.grants.list())} grants")


def _changes(session: Session) -> Check:
    bad = session.vault().first_bad_change()
    if bad is None:
        return Check("changes", "ok", "the log of changes is whole")
    return Check(
        "changes",
        "fail",
        f"entry {bad} of the log of changes is not as it was written",
        "keep vault.db as evidence, restore a backup, and look at who can write the folder",
    )


def _key(home: Path) -> Check:
    """By its file status alone: vaultctl never opens it."""
    path = home / KEY
    try:
        status = path.lstat()
    except OSError:
        return Check(
            "key",
            "warn",
            f"no {KEY} beside the vault",
            "right if the proxy gets it from elsewhere; otherwise put back the copy you keep",
        )
    if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077:
        return Check("key", "fail", f"{path} is not a private file", f"close it: chmod 600 {path}")
    if os.access(path, os.R_OK):
        return Check(
            "key",
            "warn",
            "the user that runs vaultctl can also read the proxy's key, and so every secret",
            "run the proxy as a user of its own that alone owns the key, or accept it on a machine of your own",
        )
    return Check("key", "ok", "out of reach of the user that runs vaultctl")


def _sqlite() -> Check:
    version, safe = database.engine()
    if safe:
        return Check("sqlite", "ok", f"{version}, write-ahead log")
    return Check(
        "sqlite",
        "warn",
        f"{version}, rollback journal: readers wait for writers",
        "use a Python with SQLite 3.51.3 or later",
    )


def _clock(session: Session) -> Check:
    vault = session.vault()
    latest = [secret.updated_at for secret in vault.secrets.list()] + [
        grant.created_at for grant in vault.grants.list()
    ]
    if latest and max(latest) > session.now + _AHEAD:
        return Check(
            "clock",
            "fail",
            f"it shows {times.readable(session.now)}, before a change at {times.readable(max(latest))}",
            "set the clock: grants and keys expire by it",
        )
    return Check("clock", "ok", times.readable(session.now))


def _authority(home: Path, now: float) -> Check:
    described = ca.describe(trust.certificate(home))
    mode = (
        (home / trust.FOLDER / trust.AUTHORITY).stat().st_mode
        if (home / trust.FOLDER / trust.AUTHORITY).exists()
        else 0
    )
    if not mode:
        return Check(
            "ca", "warn", f"no {trust.AUTHORITY} beside its certificate", "right if the proxy has it elsewhere"
        )
    if mode & 0o077:
        path = home / trust.FOLDER / trust.AUTHORITY
        return Check("ca", "fail", f"{path} can be read by others", f"close it: chmod 600 {path}")
    until = described["not_after"]
    if until < now + _SOON:
        level = "fail" if until < now else "warn"
        return Check(
            "ca", level, f"good until {times.readable(until)}", "replace it before that: vaultctl ca rotate --prepare"
        )
    return Check("ca", "ok", f"{described['subject']}, good until {times.readable(until)}")


def _trust(home: Path) -> Check:
    if trust.trusted_by_machine(home):
        return Check(
            "trust",
            "warn",
            "the whole machine trusts the CA: whoever gets its key can stand in for any site here",
            "take it out of the system's store; `vaultctl run` gives trust to one process",
        )
    return Check("trust", "ok", "given per process, by `vaultctl run` and `vaultctl env`")


def _audit(home: Path) -> Check:
    folder = home / AUDIT
    heads = chain.heads(folder)
    if not heads:
        return Check("audit", "ok", "nothing recorded yet")
    return Check("audit", "ok", f"{len(heads)} streams; `vaultctl audit verify` reads every line")


def _proxy(server: proxy.Proxy) -> Check:
    server.check()
    return Check("proxy", "ok", f"answers at {server}")
