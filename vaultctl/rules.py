"""The options that narrow a layer, alike wherever policies are set."""

from collections.abc import Callable
from typing import Any

import click

from addon.errors import Usage
from addon.policies import KINDS, Policies, describe
from addon.settings import parse_size
from vaultctl import times

_OPTIONS = (
    click.option("--method", "methods", multiple=True, metavar="M", help="Only these methods. May be repeated."),
    click.option("--path", "paths", multiple=True, metavar="P", help="Only paths under this prefix. May be repeated."),
    click.option("--cidr", "cidr", multiple=True, metavar="C", help="Only from this network. May be repeated."),
    click.option("--hours", "hours", multiple=True, metavar="H", help="Only then, as 'Mon-Fri 09:00-18:00 Europe/Berlin'. May be repeated."),
    click.option("--not-before", "not_before", metavar="WHEN", help="Not before a duration from now has passed, or a TIME."),
    click.option("--max-body", "max_body", metavar="SIZE", help="Only bodies stated to be this long at most, as 64KiB."),
    click.option("--content-type", "content_type", multiple=True, metavar="T", help="Only bodies of this media type. May be repeated."),
    click.option("--json-member", "json_member", multiple=True, metavar="RULE", help="""Only JSON bodies with such a member, as 'model in ["a", "b"]' or 'max_tokens <= 1000'. May be repeated; all must hold."""),
    click.option("--require-reason", "reason", is_flag=True, help="Only with a reason, in X-Alter-Reason."),
    click.option("--rate", "rate", multiple=True, metavar="N/UNIT", help="So many in any second, minute, hour or day on end. May be repeated."),
    click.option("--max-uses", "quota", multiple=True, metavar="N[/UNIT]", help="So many ever, or in each hour, day or month (UTC). May be repeated."),
    click.option("--approval", is_flag=True, help="Only what a person approves, one by one, with `vaultctl approval`."),
    click.option("--approval-within", metavar="D", help="How long a request may wait for that. Otherwise 10m."),
)  # fmt: skip


def options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add every option; `read` takes what they give."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def read(typed: dict[str, Any], *, now: float, expires: str | None = None) -> Policies:
    """The policies that were typed. `expires` is when they end to let anything pass. Raises Usage."""
    period = (typed.pop("not_before"), expires)
    approval, within = typed.pop("approval"), typed.pop("approval_within")
    if within and not approval:
        raise Usage("a time to approve within, but nothing is to be approved", hint="add --approval")
    values: dict[str, tuple[str, ...]] = {
        "methods": typed.pop("methods"),
        "paths": typed.pop("paths"),
        "cidr": typed.pop("cidr"),
        "hours": typed.pop("hours"),
        "period": tuple("" if when is None else repr(times.deadline(when, now=now)) for when in period) if any(period) else (),
        "max_body": tuple(str(parse_size(size)) for size in (typed.pop("max_body"),) if size is not None),
        "content_type": typed.pop("content_type"),
        "json": typed.pop("json_member"),
        "reason": ("1",) if typed.pop("reason") else (),
        "rate": typed.pop("rate"),
        "quota": typed.pop("quota"),
        "approval": (str(int(times.parse_duration(within or "10m"))),) if approval else (),
    }  # fmt: skip
    return tuple((kind, KINDS[kind].parse(given)) for kind, given in values.items() if given)


def document(rules: Policies) -> list[dict[str, object]]:
    """For programs."""
    return [{"kind": kind, **params} for kind, params in rules]


def words(rules: Policies) -> list[str]:
    """For people, one a line."""
    return [f"{kind}: {describe(kind, params)}" for kind, params in rules]
