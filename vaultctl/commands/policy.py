"""`policy`: what narrows the whole vault, an app, an agent, a secret or a delegation. All layers must pass."""

from typing import Any

import click

from addon.errors import Usage
from addon.policies import Policies
from addon.vault.layers import LAYERS
from vaultctl import cases, explanations, rules, tokens
from vaultctl.command import noun
from vaultctl.console import Session, pass_session, table

_HINT = "write vault, secret:NAME, app:NAME, agent:NAME or delegation:ID; the policies of a grant are given when it is issued"

policy = noun("policy", help="What narrows the whole vault, an app, an agent, a secret or a delegation.", default=None)


@policy.command(
    "set",
    examples=[
        "vaultctl policy set vault --cidr 10.0.0.0/8",
        "vaultctl policy set secret:stripe --method GET --path /v1/charges",
        """vaultctl policy set secret:openai --json-member 'model in ["gpt-4o", "gpt-4o-mini"]' --json-member 'max_tokens <= 1000'""",
        "vaultctl policy set agent:researcher --hours 'Mon-Fri 09:00-18:00 Europe/Berlin' --require-reason",
    ],
)
@click.argument("subject")
@rules.options
@click.option("--expires", metavar="WHEN", help="Until a duration from now has passed, or a TIME. Then nothing passes.")
@pass_session
def set_(session: Session, /, subject: str, *, expires: str | None, **typed: Any) -> None:
    """Replace the policies of SUBJECT: vault, secret:NAME, app:NAME, agent:NAME or delegation:ID."""
    layer, name = _parse(subject)
    chosen = rules.read(typed, now=session.now, expires=expires)
    if not chosen:
        raise Usage("no policy was given", hint="`vaultctl policy clear` takes all away")
    session.vault(writable=True).layers.put(layer, name, chosen, now=session.now)
    session.emit(_document(layer, name, chosen), rules.words(chosen))
    session.note("effective from the next request on")


@policy.command("show", examples=["vaultctl policy show vault", "vaultctl policy show secret:stripe --json"])
@click.argument("subject")
@pass_session
def show(session: Session, subject: str) -> None:
    """The policies of SUBJECT."""
    layer, name = _parse(subject)
    found = session.vault().layers.get(layer, name)
    session.emit(
        _document(layer, name, found), table(("KIND", "PASSES"), [line.split(": ", 1) for line in rules.words(found)])
    )
    if not found:
        session.note("no policies here; those of other layers still hold")


@policy.command("clear", examples=["vaultctl policy clear app:billing --yes"])
@click.argument("subject")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_session
def clear(session: Session, subject: str, *, yes: bool) -> None:
    """Take all policies of SUBJECT away. Those of other layers stay."""
    layer, name = _parse(subject)
    vault = session.vault(writable=True)
    if vault.layers.stored(layer, name) != "[]":
        session.confirm(f"let {subject} do again what its policies forbid?", yes=yes)
    vault.layers.put(layer, name, (), now=session.now)
    session.emit(_document(layer, name, ()))
    session.note("cleared, effective from the next request on")


@policy.command(
    "test",
    examples=[
        "vaultctl policy test policies.toml",
        "vaultctl policy test policies.yaml",
        "vaultctl policy test - --json < policies.toml",
    ],
)
@click.argument("file")
@pass_session
def test(session: Session, file: str) -> None:
    """
    Decide the cases in FILE (TOML, or YAML in .yaml and .yml; `-` is stdin) and compare: a test of the policies, for your own CI.

    Nothing is sent, opened, recorded or used up. Exit code 0: all came out as expected; 4: not.
    """
    text = tokens.read_file(file, what="the file of cases", limit=1 << 20).decode("utf-8", "replace")
    yaml = file.lower().endswith((".yaml", ".yml"))
    vault = session.vault()
    ran = [(case, *cases.run(case, vault, now=session.now)) for case in cases.read(text, yaml=yaml)]
    failed = [case for case, _, wrong in ran if wrong]
    session.emit(
        {
            "passed": len(ran) - len(failed),
            "failed": len(failed),
            "cases": [
                {"name": case.name, "passed": not wrong, "problems": wrong, **explanations.document(result)}
                for case, result, wrong in ran
            ],
        },
        table(
            ("CASE", "RESULT", "DECISION"),
            [
                (case.name, "; ".join(wrong) or "ok", f"{result.decision} {result.code}".strip())
                for case, result, wrong in ran
            ],
        ),
    )
    if failed:
        session.note(f"{len(failed)} of {len(ran)} cases did not come out as expected")
        click.get_current_context().exit(explanations.DENIED)


def _parse(subject: str) -> tuple[str, str]:
    layer, colon, name = subject.partition(":")
    if layer not in LAYERS or bool(name) is (layer == "vault") or bool(colon) is not bool(name):
        raise Usage(f"not something with policies: {subject!r}", hint=_HINT)
    return layer, name


def _document(layer: str, name: str, chosen: Policies) -> dict[str, object]:
    return {"layer": layer, "name": name or None, "policies": rules.document(chosen)}
