"""`status`: one question, whether a request could be served now."""

from addon.errors import Locked, NotFound, OperatorError
from vaultctl import proxy, trust
from vaultctl.command import command
from vaultctl.console import Session, facts, pass_session


@command("status", examples=["vaultctl status", "vaultctl status --proxy http://10.0.0.5:8080 --json"])
@proxy.option
@pass_session
def status(session: Session, *, proxy_url: str) -> None:
    """
    Ready, or why not.

    Exit code 0: ready; 5: the vault or the CA cannot be used; 8: no proxy answers.
    """
    server = proxy.parse(proxy_url)
    document: dict[str, object] = {"ready": False, "home": str(session.home), "proxy": str(server)}
    try:
        _look(session, document)
        server.check()
    except OperatorError as problem:
        session.emit(document | {"problem": problem.message, "hint": problem.hint})
        raise
    document["ready"] = True
    session.emit(document, ["ready", *facts(item for item in document.items() if item[0] != "ready")])


def _look(session: Session, document: dict[str, object]) -> None:
    """Fill in what there is. Raises Locked."""
    vault = session.vault()
    document["vault_id"] = vault.id
    document["secrets"] = len(vault.secrets.list())
    document["grants"] = len(vault.grants.list(state="active", now=session.now))
    try:
        trust.certificate(session.home)
    except NotFound as problem:
        raise Locked(problem.message, hint=problem.hint) from None
