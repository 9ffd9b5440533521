"""`audit`: what went through the proxy. Names, ids and outcomes; there are no values in these records."""

import contextlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

import click

from addon import files
from addon.audit import chain, reader
from addon.audit import export as exporter
from addon.audit.entry import Row
from addon.errors import NotFound, Usage
from vaultctl import explanations, records, times
from vaultctl.command import noun
from vaultctl.console import Session, facts, pass_session, printable, table

FOLDER = "audit"

BROKEN = 6

_WIDTHS = (20, 7, 20, 16, 48, 24, 0)
_HEADERS = ("TIME", "PHASE", "CALLER", "SECRET", "REQUEST", "RESULT", "ID")

audit = noun("audit", help="What went through the proxy, and whether the log is whole.")


@audit.command("list", examples=["vaultctl audit list --since 1h", "vaultctl audit list --code policy_denied --json"])
@click.option("--since", metavar="WHEN", help="A duration such as 1h, or a TIME.")
@click.option("--grant", metavar="G", help="Only uses of this grant.")
@click.option("--principal", metavar="P", help="Only uses of grants to this principal.")
@click.option("--code", metavar="C", help="Only refusals with this code.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, metavar="N", help="The last N.")
@pass_session
def list_(
    session: Session, *, since: str | None, grant: str | None, principal: str | None, code: str | None, limit: int
) -> None:
    """Records, the newest last: one before anything left, one after."""
    rows = list(
        reader.read(
            _folder(session),
            limit=limit,
            since=_since(since, session),
            grant=grant,
            principal=principal,
            code=code,
        )
    )
    session.emit(rows, table(_HEADERS, map(_cells, rows)))
    if not rows:
        session.note("no such records")


@audit.command("tail", examples=["vaultctl audit tail", "vaultctl audit tail -f"])
@click.option("-f", "--follow", is_flag=True, help="Go on with each record as it is written. --json: one a line.")
@pass_session
def tail(session: Session, *, follow: bool) -> None:
    """The last ten records."""
    folder = _folder(session)
    if not follow:
        rows = list(reader.read(folder, limit=10))
        session.emit(rows, table(_HEADERS, map(_cells, rows)))
        return
    if not session.json:
        click.echo(_fixed(_HEADERS))
    with contextlib.suppress(KeyboardInterrupt):
        for row in reader.follow(folder):
            click.echo(json.dumps(row) if session.json else _fixed(_cells(row)))


@audit.command("show", examples=["vaultctl audit show 0198c0de-7a51-7cc0-8000-3d1f2a4b5c6d"])
@click.argument("request_id")
@pass_session
def show(session: Session, *, request_id: str) -> None:
    """Everything recorded about one request. The id is in X-Alter-Request-Id of a refusal."""
    rows = list(reader.read(_folder(session), request_id=request_id))
    if not rows:
        raise _no_record(request_id)
    session.emit(rows, _blocks(rows))


@audit.command(
    "explain",
    examples=[
        "vaultctl audit explain 0198c0de-7a51-7cc0-8000-3d1f2a4b5c6d",
        "vaultctl audit explain 0198c0de-7a51-7cc0-8000-3d1f2a4b5c6d --json",
    ],
)
@click.argument("request_id")
@pass_session
def explain(session: Session, *, request_id: str) -> None:
    """
    Walk through the decision about a request that was made, with the vault as it is now.

    Nothing is opened, recorded or used up. Exit code 0: it was let through; 4: not.
    """
    rows = list(reader.read(_folder(session), request_id=request_id))
    if not rows:
        raise _no_record(request_id)
    told = records.explain(session.vault(), rows)
    lines = table(("STEP", "VERDICT", "DETAIL", "COMPARED"), explanations.rows(told.result.steps))
    session.emit(
        {
            "request_id": request_id,
            "recorded": {name: told.row[name] for name in ("at", "decision", "code", "policy")},
            **explanations.document(told.result),
        },
        [*lines, "", *explanations.verdict(told.result)],
    )
    if told.result.policy.endswith(".json"):
        session.note("the body is not recorded: `vaultctl grant explain` with --body says which rule one breaks")
    if not told.same:
        session.note(
            f"recorded was {told.row['code'] or told.row['decision']}: the vault has changed since, or it depended on"
            " what records do not keep (headers, query, body, counts)"
        )
    if told.denied:
        click.get_current_context().exit(explanations.DENIED)


@audit.command("head", examples=["vaultctl audit head --json > heads-2026-12-01.json"])
@pass_session
def head(session: Session) -> None:
    """
    The last line of each stream, to be kept where nobody who can write here can change it.

    `audit verify --against` then shows whether anything up to there was cut off or rewritten.
    """
    heads = chain.heads(_folder(session))
    session.emit(
        [asdict(each) for each in heads],
        table(("STREAM", "SLOT", "SEQ", "HASH"), ((each.stream, each.slot, each.seq, each.hash) for each in heads)),
    )
    if not heads:
        session.note("nothing is recorded yet")


@audit.command(
    "verify", examples=["vaultctl audit verify", "vaultctl audit verify --against heads-2026-12-01.json --json"]
)
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Heads kept from `audit head --json`, which must be there still.",
)
@pass_session
def verify(session: Session, *, against: Path | None) -> None:
    """
    Read every line and check that it is as it was written.

    Exit code 6 if one is not; the first is named. Lines cut off at the end, and a tail that was rewritten as a whole, are
    seen only --against heads that were kept elsewhere.
    """
    verdict = chain.verify(_folder(session), noted=[] if against is None else _kept(against))
    bad = verdict.first_bad
    session.emit(
        {"ok": verdict.ok, "records": verdict.records, "first_bad": asdict(bad) if bad else None},
        [f"ok: {verdict.records} records are as they were written"] if bad is None else [],
    )
    if bad:
        session.note(
            f"error: {bad.file} line {bad.line}: {bad.problem}",
            "hint: keep the folder as evidence; every record before that line is intact",
        )
        click.get_current_context().exit(BROKEN)


@audit.command(
    "export",
    examples=["vaultctl audit export --since 24h > today.jsonl", "vaultctl audit export --format csv -o audit.csv"],
)
@click.option("--format", "form", type=click.Choice(tuple(exporter.FORMS)), help="How. Otherwise jsonl.")
@click.option("--since", metavar="WHEN", help="A duration such as 24h, or a TIME. Otherwise everything.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Write a new file instead of stdout."
)
@pass_session
def export(session: Session, *, form: str | None, since: str | None, output: Path | None) -> None:
    """Write records for other programs. --json without a file is one array of them."""
    rows = reader.read(_folder(session), since=_since(since, session))
    if session.json and output is None:
        if form is not None:
            raise Usage("--json and --format are two formats", hint="leave one of them out")
        session.emit(list(rows))
        return
    pieces = exporter.export(rows, form or "jsonl")
    if output is None:
        for piece in pieces:
            click.echo(piece.encode(), nl=False)
        return
    _write(output, pieces)
    session.emit({"file": str(output)})
    session.note(f"wrote {output}")


def _kept(path: Path) -> list[chain.Head]:
    try:
        heads = [chain.Head(**each) for each in json.loads(path.read_bytes())]
    except OSError as error:
        raise NotFound(f"{path} cannot be read", hint="name a file that `audit head --json` wrote") from error
    except (ValueError, TypeError, RecursionError):
        heads = []
    if not heads or not all(
        (type(each.stream), type(each.slot), type(each.seq), type(each.hash)) == (str, int, int, str) for each in heads
    ):
        raise Usage(f"{path} holds no heads", hint="name a file that `audit head --json` wrote")
    return heads


def _write(path: Path, pieces: Iterable[str]) -> None:
    """A new private file, or none."""
    files.create(path, b"")
    try:
        with path.open("wb") as file:
            file.writelines(piece.encode() for piece in pieces)
    except BaseException:
        path.unlink()
        raise


def _no_record(request_id: str) -> NotFound:
    return NotFound(f"no record of a request {request_id}", hint="`vaultctl audit list` shows the latest")


def _folder(session: Session) -> Path:
    files.check_folder(session.home)
    return session.home / FOLDER


def _since(text: str | None, session: Session) -> float | None:
    return None if text is None else times.past(text, now=session.now)


def _cells(row: Row) -> tuple[object, ...]:
    result = row["code"] or row["status"] or row["decision"]
    if row["policy"]:
        result = f"{result} ({row['policy']})"
    return (
        str(row["at"])[:19].replace("T", " ") + "Z",
        row["phase"],
        row["caller"],
        row["secret"],
        f"{row['method']} {row['host']}{row['path']}",
        result,
        row["id"],
    )


def _fixed(cells: Iterable[object]) -> str:
    """A line of columns that keep their place while more lines come."""
    return "  ".join(printable(str(cell or "-")).ljust(width) for cell, width in zip(cells, _WIDTHS, strict=True))


def _blocks(rows: list[Row]) -> Iterator[str]:
    for row in rows:
        members = {**row, "context": [f"{name}: {value}" for name, value in dict(row["context"] or {}).items()]}  # type: ignore[call-overload]
        yield from facts((name, value) for name, value in members.items() if value not in ("", None, []))
        yield ""
