"""`ca`: the local certificate authority. Its key is only ever read by the proxy."""

from pathlib import Path

import click

from addon import ca as authority
from addon import files
from addon.errors import Usage
from vaultctl import times, trust
from vaultctl.command import noun
from vaultctl.console import Session, facts, pass_session, table

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
    """
    Print the certificate of the CA (PEM), for clients to trust.

    While one CA takes the place of another, both are in it.
    """
    pem = trust.bundle(session.home) if bundle else trust.certificate(session.home)
    if output is None:
        session.emit({"pem": pem.decode("utf-8", "replace")}, [pem.decode("utf-8", "replace").rstrip("\n")])
        return
    files.create(output, pem, mode=0o644)
    session.emit({"file": str(output)})
    session.note(f"wrote {output}")


@ca.command("rotate", examples=["vaultctl ca rotate --prepare", "vaultctl ca rotate"])
@click.option("--prepare", is_flag=True, help="Make the next CA and hand out its certificate; do not use it yet.")
@click.option("--constrain", multiple=True, metavar="HOST", help="Let it speak for this host only. May be repeated.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_session
def rotate(session: Session, prepare: bool, constrain: tuple[str, ...], yes: bool) -> None:
    """
    Put a new CA in the place of the one in use, or with --prepare make the one that will come next.

    A client that trusts only one of two CAs fails while the proxy uses the other. So prepare the next one, give clients
    `ca export` again, and rotate when all have it: until `vaultctl ca retire` both are handed out. A running proxy takes
    the new CA on SIGHUP; tunnels that are open go on. Constraints are kept unless others are named.
    """
    session.vault()
    prepared = trust.is_prepared(session.home)
    if not prepare and not prepared:
        session.confirm("Clients that do not trust the new CA yet will fail. Rotate now?", yes=yes)
    if prepare or not prepared:
        trust.prepare_next(session.home, now=session.now, constrain=constrain)
    elif constrain:
        raise Usage("the next CA is made already", hint="name its hosts when it is prepared")
    if not prepare:
        trust.rotate(session.home, now=session.now)
    trust.prepare(session.home)
    document = _document(session.home)
    session.emit(document, facts(document.items()))
    session.note(
        "clients must trust the new one as well before it is used: `vaultctl ca trust`"
        if prepare
        else "a running proxy goes on with the CA before until it gets SIGHUP: kill -HUP PID"
    )


@ca.command("retire", examples=["vaultctl ca retire --yes"])
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_session
def retire(session: Session, yes: bool) -> None:
    """
    Hand out the certificate of the CA in use alone, and no longer that of the one before.

    At once if the key of the one before was stolen; else when every proxy has taken the new one. Clients forget the old
    one when they are given the new file.
    """
    session.vault()
    session.confirm("Stop handing out the certificate of the CA before?", yes=yes)
    trust.forget_others(session.home)
    trust.prepare(session.home)
    document = _document(session.home)
    session.emit(document, facts(document.items()))


@ca.command("trust", examples=["vaultctl ca trust", "vaultctl ca trust --json"])
@pass_session
def trust_(session: Session) -> None:
    """How each client is told to trust the CA, with the files of this vault."""
    trust.prepare(session.home)
    means = trust.means(session.home)
    session.emit(
        [{"client": client, "variables": variables} for client, variables in means],
        table(
            ("CLIENT", "SET"),
            ((client, f"{name}={value}") for client, variables in means for name, value in variables.items()),
        ),
    )
    session.note(
        "", "a variable takes the place of a client's own bundle, so it names one with the public roots in it;"
    )
    session.note("`vaultctl run` and `vaultctl env` set them all")


def _document(home: Path) -> dict[str, object]:
    pem = trust.certificate(home)
    described = authority.describe(pem)
    return {
        "ca_cert": str(home / trust.FOLDER / trust.CERTIFICATE),
        "subject": described["subject"],
        "sha256": described["sha256"],
        "not_after": times.rfc3339(described["not_after"]),
        "constraints": described["constraints"],
        "handed_out_too": [authority.describe(other)["sha256"] for other in authority.split(pem)[1:]],
    }
