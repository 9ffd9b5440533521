"""
The catalog of providers: bindings and hints that nobody should have to look up. The data is providers.toml.

A provider is only a way to write a binding. What is stored is the binding, so a later catalog changes no secret.
"""

import difflib
import functools
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from addon import credentials, hosts
from addon.binding import Binding, Placement
from addon.credentials import placement
from addon.errors import NotFound, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Hint:
    """What is known of a field: variables that usually hold it, its shape, and what its beginning looks like."""

    env: tuple[str, ...] = ()
    shape: re.Pattern[str] | None = None
    example: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One entry. `hosts` are patterns with ports; none means that the operator has a host of their own."""

    slug: str
    title: str
    kind: str
    hosts: tuple[tuple[str, int], ...]
    host_example: str
    placements: tuple[Placement, ...]
    constants: tuple[tuple[str, str], ...]
    service: str | None
    region: str | None
    docs: str
    fields: Mapping[str, Hint]

    def binding(self, *, hosts: Iterable[tuple[str, int]] = ()) -> Binding:
        """A binding to `hosts`, or to the provider's own. Raises Usage where the provider has none."""
        bound = tuple(hosts) or self.hosts
        if not bound:
            raise Usage(f"{self.title} has no host of its own", hint=f"name yours, as in --host {self.host_example}")
        return credentials.kind(self.kind).check_binding(
            Binding(
                hosts=bound,
                placements=self.placements,
                constants=self.constants,
                services=(self.service,) if self.service else (),
                regions=(self.region,) if self.region else (),
            )
        )

    def check_shape(self, field: str, value: str) -> str | None:
        """A warning, without the value, if it does not look like one of this provider's; None if it may."""
        hint = self.fields.get(field)
        if hint is None or hint.shape is None or hint.shape.fullmatch(value):
            return None
        return f"this does not look like the {field} of {self.title}: {hint.example}"


@functools.cache
def catalog() -> Mapping[str, Provider]:
    """Every provider by slug, in alphabetical order."""
    raw = tomllib.loads(Path(__file__).with_name("providers.toml").read_text(encoding="utf-8"))
    return MappingProxyType({slug: _parse(slug, dict(entry)) for slug, entry in sorted(raw.items())})


def get(slug: str) -> Provider:
    """The provider of that slug. Raises NotFound, with the nearest slugs as the hint."""
    if provider := catalog().get(slug):
        return provider
    near = difflib.get_close_matches(slug.lower(), catalog(), cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "`vaultctl provider list` shows them all"
    raise NotFound(f"no such provider: {slug!r}", hint=hint)


def by_variable(name: str) -> tuple[Provider, str] | None:
    """The provider and field that an environment variable of this name usually holds."""
    return _variables().get(name)


@functools.cache
def _variables() -> dict[str, tuple[Provider, str]]:
    return {
        name: (provider, field)
        for provider in catalog().values()
        for field, hint in provider.fields.items()
        for name in hint.env
    }


def _parse(slug: str, entry: dict[str, Any]) -> Provider:
    """Raises for a member that is missing or unknown: the file ships with the code."""
    placements = [placement.parse_header(*_halves(text, ": ")) for text in entry.pop("headers", [])]
    placements += [placement.parse_query(*_halves(text, "=")) for text in entry.pop("query", [])]
    if pair := entry.pop("pair", None):
        placements.append(placement.parse_header("Authorization", pair))
    return Provider(
        slug=slug,
        hosts=tuple(map(hosts.parse_pattern, entry.pop("hosts", []))),
        host_example=entry.pop("host_example", ""),
        placements=tuple(placements),
        constants=tuple(map(placement.parse_constant, entry.pop("constants", []))),
        service=entry.pop("service", None),
        region=entry.pop("region", None),
        fields={name: _hint(**hint) for name, hint in entry.pop("fields").items()},
        **entry,
    )


def _halves(text: str, mark: str) -> tuple[str, str]:
    name, _, format_ = text.partition(mark)
    return name, format_


def _hint(*, env: list[str], shape: str | None = None, example: str = "") -> Hint:
    return Hint(env=tuple(env), shape=re.compile(shape) if shape else None, example=example)
