"""Requests out of the audit log, made again on paper."""

from typing import NamedTuple

from addon.audit import entry
from addon.audit.entry import Row
from addon.explanation import Explanation
from addon.model import Headers, Request, User
from addon.pipeline import Step
from addon.refusals import CODES
from addon.vault import Vault
from addon.vault.ledger import Preview
from vaultctl import callers, explanations


class Told(NamedTuple):
    """The last record of a request, and why it says what it says."""

    row: Row
    result: Explanation

    @property
    def denied(self) -> bool:
        """Whether nothing was to leave."""
        return self.row["decision"] in {"refused", "fault"}

    @property
    def same(self) -> bool:
        """Whether it comes out now as it did then."""
        if self.denied:
            return self.result.code == self.row["code"]
        return self.result.decision != "refused"


def explain(vault: Vault, rows: list[Row]) -> Told:
    """
    Walk through the decision that was recorded.

    As if nothing had been used up: what was counted then is not known any more, and what the record says of it is told
    last, like everything that happened after the decision. Raises NotFound when the caller is gone.
    """
    last, code = rows[-1], str(rows[-1]["code"])
    if not last["grant_id"]:
        # No record says which grant was asked for unless it was the caller's to use.
        return Told(
            last, explanations.refused("record", code, CODES[code].detail) if code in CODES else _untagged(last)
        )
    result = explanations.explain(
        vault,
        _request(last),
        named=callers.parse(str(last["caller"])) if last["caller"] else None,
        user=_user(last),
        now=entry.seconds(str(rows[0]["at"])),
        limits=Preview(None),
    )
    told = Told(last, result)
    if told.denied and code in CODES and result.decision == "authorized":
        counted = code in {"rate_limited", "quota_exceeded"}
        detail = str(last["policy"]) if counted else CODES[code].detail
        step = Step("limits" if counted else "record", code, detail, remedy=CODES[code].hint)
        told = Told(last, Explanation("refused", code, (*result.steps, step), str(last["policy"])))
    return told


def _untagged(row: Row) -> Explanation:
    decision = str(row["decision"])
    return Explanation(decision, str(row["code"]), (Step("record", decision, "no grant was named"),))


def _request(row: Row) -> Request:
    """The request, as far as it is recorded."""
    host = str(row["host"])
    port = row["port"] if isinstance(row["port"], int) else 443
    authority = (host if port == 443 else f"{host}:{port}").encode("ascii", "replace")
    headers: Headers = ((b"Host", authority), (b"X-Alter-Grant", str(row["delegation_id"] or row["grant_id"]).encode()))
    if row["reason"]:
        headers = (*headers, (b"X-Alter-Reason", str(row["reason"]).encode()))
    return Request(
        id=str(row["id"]),
        scheme="https",
        host=host,
        port=port,
        method=str(row["method"]),
        target=str(row["path"]).encode("latin-1", "replace") or b"/",
        headers=headers,
        authorities=(authority,),
        sni=host,
        client_ip=str(row["client_ip"]),
    )


def _user(row: Row) -> User | None:
    """Who sat before the caller. Of the groups, the one that made the grant work."""
    idp, slash, subject = str(row["user"]).removeprefix("user:").partition("/")
    if not slash or row["delegation_id"]:
        return None
    principal = str(row["principal"])
    groups = {principal.partition("/")[2]} if principal.startswith("group:") else set()
    return User(idp=idp, subject=subject, groups=frozenset(groups))
