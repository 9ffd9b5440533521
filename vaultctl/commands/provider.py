"""`provider`: the catalog of known APIs."""

import click

from addon.credentials import providers
from addon.credentials.providers import Provider
from vaultctl.command import noun
from vaultctl.console import Session, facts, pass_session, table

provider = noun("provider", help="The catalog of known APIs.")


@provider.command("list", examples=["vaultctl provider list"])
@pass_session
def list_(session: Session) -> None:
    """Every API that `secret set --provider` knows."""
    found = providers.catalog().values()
    session.emit(
        [_document(each) for each in found],
        table(
            ("SLUG", "TITLE", "KIND", "HOSTS"),
            [(p.slug, p.title, p.kind, ", ".join(_hosts(p)) or f"yours, like {p.host_example}") for p in found],
        ),
    )


@provider.command("show", examples=["vaultctl provider show datadog"])
@click.argument("slug")
@pass_session
def show(session: Session, *, slug: str) -> None:
    """Where the key of one API goes, and what it looks like."""
    found = providers.get(slug)
    document = _document(found)
    lines = dict(document)
    lines["placements"] = [f"{p.where} {p.name}: {p.format}" for p in found.placements]
    lines["constants"] = [f"{name}: {value}" for name, value in found.constants]
    lines["fields"] = [
        f"{name}: {hint.example or 'any value'}; usually in {', '.join(hint.env) or 'no variable'}"
        for name, hint in found.fields.items()
    ]
    session.emit(document, facts((name, value) for name, value in lines.items() if value))


def _document(each: Provider) -> dict[str, object]:
    return {
        "slug": each.slug,
        "title": each.title,
        "kind": each.kind,
        "hosts": _hosts(each),
        "host_example": each.host_example,
        "placements": [{"where": p.where, "name": p.name, "format": p.format} for p in each.placements],
        "constants": [{"name": name, "value": value} for name, value in each.constants],
        "service": each.service,
        "region": each.region,
        "fields": [
            {"name": name, "variables": list(hint.env), "example": hint.example} for name, hint in each.fields.items()
        ],
        "docs": each.docs,
    }


def _hosts(each: Provider) -> list[str]:
    return [pattern if port == 443 else f"{pattern}:{port}" for pattern, port in each.hosts]
