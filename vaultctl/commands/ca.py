"""`ca`: the local certificate authority. Its key is only ever read by the proxy."""

from pathlib import Path

import click

from addon import ca as authority
from addon import files
from vaultctl import times, trust
from vaultctl.command import noun
from vaultctl.console import Session, facts, pass_session

ca = noun("ca", help="The local certificate authority of the proxy.", default="show")


@ca.command(
    "init", examples=["vaultctl ca init", "vaultctl ca init --constrain api.stripe.com --constrain *.internal.example"]
)
@click.option("--constrain", multiple=True, metavar="HOST", help="Let it speak for this host only. May be repeated.")
@pass_session
def init(session: Session, constrain: tuple[str, ...]) -> None:
    """
    Make a CA where there is none.

    `vaultctl init` has made one already. With --constrain, clients accept it for the named hosts and what is below
    them, and refuse it for all others: let only those hosts go through the proxy.
    """
    session.vault()
    path = trust.create(session.home, now=session.now, constrain=constrain)
    session.emit(_document(session.home), facts(_document(session.home).items()))
    session.note(f"clients must trust {path}; `vaultctl run` sees to it")


@ca.command("show", examples=["vaultctl ca show", "vaultctl ca --json"])
@pass_session
def show(session: Session) -> None:
    """What identifies the CA, and until when it is good."""
    document = _document(session.home)
    session.emit(document, facts(document.items()))


@ca.command(
    "export", examples=["vaultctl ca export -o alter-ca.pem", "vaultctl ca export --bundle -o /etc/my-image/bundle.pem"]
)
@click.option("--bundle", is_flag=True, help="With the public roots of this machine, for clients that take one file.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Write a new file instead of stdout."
)
@pass_session
def export(session: Session, bundle: bool, output: Path | None) -> None:
    """Print the certificate of the CA (PEM), for clients to trust."""
    pem = trust.bundle(session.home) if bundle else trust.certificate(session.home)
    if output is None:
        session.emit({"pem": pem.decode("utf-8", "replace")}, [pem.decode("utf-8", "replace").rstrip("\n")])
        return
    files.create(output, pem, mode=0o644)
    session.emit({"file": str(output)})
    session.note(f"wrote {output}")


def _document(home: Path) -> dict[str, object]:
    described = authority.describe(trust.certificate(home))
    return {
        "ca_cert": str(home / trust.FOLDER / trust.CERTIFICATE),
        "subject": described["subject"],
        "sha256": described["sha256"],
        "not_after": times.rfc3339(described["not_after"]),
        "constraints": described["constraints"],
    }
