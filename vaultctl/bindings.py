"""The options that say where and how a secret may be used, for `secret set` and `secret bind`."""

from collections.abc import Callable
from dataclasses import replace
from itertools import zip_longest
from typing import Any, NotRequired, TypedDict

import click

from addon.binding import Binding, Placement, Role
from addon.credentials import aws_scope, placement
from addon.errors import Usage
from addon.hosts import parse_pattern
from addon.policies.methods import parse_methods
from addon.policies.paths import parse_paths
from vaultctl import times


class Typed(TypedDict):
    """What was typed; empty where nothing was."""

    hosts: tuple[str, ...]
    methods: tuple[str, ...]
    paths: tuple[str, ...]
    headers: tuple[str, ...]
    query_params: tuple[str, ...]
    formats: tuple[str, ...]
    constants: tuple[str, ...]
    services: tuple[str, ...]
    regions: tuple[str, ...]
    role_arn: str | None
    external_id: str | None
    duration: str | None
    no_role: NotRequired[bool]
    private: bool | None
    minting: bool | None
    no_redact: bool | None
    cookies: bool | None
    websocket: bool | None


_OF_AWS = ("services", "regions", "role_arn", "external_id", "duration", "minting")


def options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Everything in Typed but the switches, which the two commands word differently."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def _many(flag: str, name: str, metavar: str, text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(flag, name, multiple=True, metavar=metavar, help=f"{text} May be repeated.")


_OPTIONS = (
    _many("--host", "hosts", "H[:PORT]", "Where it may go: a name, or *.NAME for one label. Port 443 unless given."),
    _many("--method", "methods", "M", "Only requests with this method."),
    _many("--path", "paths", "PREFIX", "Only requests to paths under this prefix."),
    _many("--header", "headers", "NAME", "Write the value into this header."),
    _many("--query-param", "query_params", "NAME", "Write the value into this query parameter."),
    _many("--format", "formats", "TEXT", "What is written, with {field} markers; one for each header, then parameter."),
    _many("--constant", "constants", "'NAME: VALUE'", "A header to add unless the caller sends it; not a secret."),
    _many("--service", "services", "S", "sigv4: sign for this AWS service only. Otherwise the host tells."),
    _many("--region", "regions", "R", "sigv4: sign for this AWS region only. Otherwise the host tells."),
    click.option("--assume-role", "role_arn", metavar="ARN", help="sigv4: sign with sessions of this role."),
    click.option("--external-id", metavar="X", help="sigv4: what the role wants to hear from third parties."),
    click.option("--duration", metavar="D", help="sigv4: how long a session of the role lives; 1h unless given."),
)


_SWITCHES = {
    "private": "private",
    "allow-credential-minting": "minting",
    "no-redact": "no_redact",
    "cookies": "cookies",
    "websocket": "websocket",
}
"""Flags of a binding → their names in Typed."""


def change(binding: Binding, typed: Typed, *, kind: str) -> Binding:
    """The binding with what was typed in the place of what it had. Raises Usage."""
    if kind != "sigv4" and any(typed[name] for name in _OF_AWS):  # type: ignore[literal-required]
        raise Usage(
            f"a secret of kind {kind} does not sign for AWS",
            hint="--service, --region, --assume-role and --allow-credential-minting go with --kind sigv4",
        )
    changes: dict[str, Any] = {
        "hosts": hosts(typed, kind=kind),
        "methods": parse_methods(typed["methods"]),
        "paths": parse_paths(typed["paths"]),
        "placements": _placements(typed, kind=kind),
        "constants": tuple(map(placement.parse_constant, typed["constants"])),
        "services": tuple(dict.fromkeys(typed["services"])),
        "regions": tuple(dict.fromkeys(typed["regions"])),
    }
    changed = replace(
        binding,
        role=_role(binding.role, typed),
        flags=_flags(binding.flags, {flag: typed[name] for flag, name in _SWITCHES.items()}),  # type: ignore[literal-required]
        **{name: value for name, value in changes.items() if value},
    )
    if not changed.hosts:
        raise Usage("no host is named", hint="say where the secret may go, as in --host api.example.com")
    return changed


def _role(had: Role | None, typed: Typed) -> Role | None:
    """The role it had, with what was typed in the place of what that said."""
    had = None if typed.get("no_role") else had
    arn = typed["role_arn"] or (had.arn if had else None)
    if arn is None:
        if typed["external_id"] or typed["duration"]:
            raise Usage("no role is named", hint="--external-id and --duration go with --assume-role ARN")
        return None
    role = Role(arn=arn) if had is None else replace(had, arn=arn)
    if typed["external_id"]:
        role = replace(role, external_id=typed["external_id"])
    return replace(role, seconds=int(times.parse_duration(typed["duration"]))) if typed["duration"] else role


def _flags(had: frozenset[str], typed: dict[str, bool | None]) -> frozenset[str]:
    """Those it had, less those that were taken back, and those that were given."""
    taken = {name for name, given in typed.items() if given is False}
    return (had - taken) | {name for name, given in typed.items() if given}


def hosts(typed: Typed, *, kind: str) -> tuple[tuple[str, int], ...]:
    """What was typed as hosts. A signature is good for nobody else, so it may go to buckets and APIs of strangers."""
    shared = aws_scope.is_aws if kind == "sigv4" else None
    return tuple(dict.fromkeys(parse_pattern(text, shared=shared) for text in typed["hosts"]))


def _placements(typed: Typed, *, kind: str) -> tuple[Placement, ...]:
    headers, parameters, formats = typed["headers"], typed["query_params"], typed["formats"]
    if kind == "basic" and not headers and not parameters:
        headers = ("Authorization",) * len(formats)
    count = len(headers) + len(parameters)
    if len(formats) not in {0, len(headers), count}:
        raise Usage(
            "the formats do not match the places",
            hint="give none, or one --format for each --header and then for each --query-param, in that order",
        )
    parsers = [placement.parse_header] * len(headers) + [placement.parse_query] * len(parameters)
    places = zip_longest(parsers, (*headers, *parameters), formats)
    return tuple(parse(name) if text is None else parse(name, text) for parse, name, text in places)
