"""`demo`: both sides of the proxy, next to each other."""

import contextlib
import signal
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from itertools import zip_longest

import click

from addon.audit.entry import Row
from addon.errors import OperatorError
from vaultctl import client, demonstration
from vaultctl.command import command
from vaultctl.console import Session, pass_session, printable, table
from vaultctl.demonstration import Exchange, Report

_LEFT, _RIGHT = 32, 62

_INTRODUCTION = (
    "A throw-away vault, the real proxy, and an app that has a key for the proxy and no secret at all.",
    "The host names are real, the servers are not: all of them are one program on 127.0.0.1, with",
    "certificates of a CA made for this run. It answers 401 to anything but exactly the right credential.",
    "Nothing leaves this machine.",
)

_STORIES = {
    "rotation": "a new value is stored; the app and its grant stay as they are",
    "revocation": "the grant is revoked",
    "wrong destination": "a grant for another host, sent to {host}",
}


@command("demo", examples=["vaultctl demo", "vaultctl demo --json"])
@pass_session
def demo(session: Session) -> None:
    """
    See it work: a throw-away vault, the real proxy and a local upstream that takes nothing but the right credential.

    One request for each kind of credential, then a rotation, a revocation and a wrong destination, with what the app
    sent beside what the upstream received. Needs no vault, touches none, and stays on this machine. The exit code is 1
    if anything went differently than it should.
    """
    started = time.monotonic()
    name, chosen = client.choose()

    def tell(lines: Iterable[str]) -> None:
        if not session.json:
            for line in lines:
                click.echo(line)

    with _interruptible() as pause:
        tell(
            [
                *_INTRODUCTION,
                "",
                click.style(f"    {f'the app sent ({name})':<{_LEFT}}  the upstream received", bold=True),
            ]
        )
        report = demonstration.perform(
            client=chosen, now=session.now, tell=lambda each: tell(_both_sides(each)), pause=pause
        )
    seconds = time.monotonic() - started
    session.emit(_document(report, client=name, seconds=seconds), _closing(report, seconds=seconds))
    if report.problems:
        raise OperatorError(
            f"the demo did not go as it should: {report.problems[0]}",
            hint="run it again; if it stays so, please report what --json prints",
        )


@contextlib.contextmanager
def _interruptible() -> Iterator[Callable[[], None]]:
    """
    Ctrl-C, SIGTERM and SIGHUP are only noted; the function that is yielded acts on them, by SystemExit.

    So nothing is ever left half-started or half-stopped.
    """
    noted: list[int] = []
    watched = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda number, _: noted.append(number)) for number in watched}

    def pause() -> None:
        if noted:
            raise SystemExit(128 + noted[0])

    try:
        yield pause
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _both_sides(exchange: Exchange) -> Iterator[str]:
    """A heading, then what was sent beside what arrived."""
    colour = "red" if exchange.problem else "yellow" if exchange.code else "green"
    story = _STORIES.get(exchange.title, "").format(host=exchange.host) or exchange.request
    status = click.style(f"{exchange.status or '---'}", fg=colour)
    yield f"{status} {click.style(exchange.title, bold=True)}: {printable(story)}"
    short = f"{exchange.grant_id[:13]}..."
    left = [line for text in exchange.sent for line in _lines(text.replace(exchange.grant_id, short), _LEFT)]
    nothing = f"nothing ({exchange.reached} requests); the app was told {exchange.code or 'nothing'}"
    right = [line for text in exchange.received or (nothing,) for line in _lines(text, _RIGHT)]
    for sent, received in zip_longest(left, right, fillvalue=""):
        yield f"    {sent:<{_LEFT}}  {received}".rstrip()


def _lines(text: str, width: int) -> list[str]:
    wrapped = textwrap.wrap(
        printable(text), width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
    return [line if len(line) <= width else f"{line[: width - 3]}..." for line in wrapped]


def _closing(report: Report, *, seconds: float) -> Iterator[str]:
    """The audit trail, both records of a request in one line, and what is to be said of the whole."""
    yield ""
    uses: dict[object, list[Row]] = {}
    for row in report.audit:
        uses.setdefault(row["id"], []).append(row)
    yield from table(("AUDIT: INTENT", "SECRET", "REQUEST", "OUTCOME"), map(_use, uses.values()))
    bad = report.verdict.first_bad
    found = f"{bad.file} line {bad.line}: {bad.problem}" if bad else "every line is as it was written"
    yield f"audit verify: {report.verdict.records} records, {found}"
    for problem in report.problems:
        yield click.style(f"FAILED {printable(problem)}", fg="red")
    if not report.problems:
        yield click.style(f"all {len(report.exchanges)} requests went as they should, in {seconds:.1f} s", fg="green")


def _use(rows: list[Row]) -> tuple[object, ...]:
    first, last = rows[0], rows[-1]
    intent = str(first["at"])[11:23] if first["phase"] == "intent" else None
    secret = f"{last['secret']} v{last['version']}" if last["secret"] else None
    outcome = last["code"] or f"{last['status']}, {last['duration_ms']} ms"
    return intent, secret, f"{last['method']} {last['host']}{last['path']}", outcome


def _document(report: Report, *, client: str, seconds: float) -> dict[str, object]:
    bad = report.verdict.first_bad
    return {
        "ok": not report.problems,
        "problems": list(report.problems),
        "seconds": round(seconds, 3),
        "client": client,
        "exchanges": [asdict(each) for each in report.exchanges],
        "audit": list(report.audit),
        "verify": {
            "ok": report.verdict.ok,
            "records": report.verdict.records,
            "first_bad": asdict(bad) if bad else None,
        },
    }
