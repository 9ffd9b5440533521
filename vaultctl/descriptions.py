"""What may be told about a secret: for programs, and for people."""

from collections.abc import Iterator
from dataclasses import asdict

from addon.binding import Binding
from addon.vault.secrets import Secret
from vaultctl import times


def summarize(each: Secret) -> dict[str, object]:
    """One line of a list."""
    return {
        "name": each.name,
        "secret_id": each.id,
        "kind": each.kind,
        "provider": each.provider,
        "state": each.state,
        "version": each.current,
        "hosts": hosts(each.binding),
        "note": each.note,
        "created_at": times.rfc3339(each.created_at),
        "updated_at": times.rfc3339(each.updated_at),
    }


def document(each: Secret) -> dict[str, object]:
    """Everything, binding and versions included."""
    binding = each.binding
    return {
        **summarize(each),
        "methods": list(binding.methods),
        "paths": list(binding.paths),
        "placements": [{"where": p.where, "name": p.name, "format": p.format} for p in binding.placements],
        "constants": [{"name": name, "value": value} for name, value in binding.constants],
        "services": list(binding.services),
        "regions": list(binding.regions),
        "role": asdict(binding.role) if binding.role else None,
        "flags": sorted(binding.flags),
        "versions": [
            {
                "version": version.version,
                "current": version.version == each.current,
                "created_at": times.rfc3339(version.created_at),
                "destroys_at": times.rfc3339_or_none(version.destroys_at),
            }
            for version in each.versions
        ],
    }


def lines(each: Secret) -> Iterator[tuple[str, object]]:
    """The same as pairs to read."""
    members = document(each)
    for name in ("name", "secret_id", "kind", "provider", "state", "note", "hosts", "methods", "paths"):
        yield name, members[name]
    binding = each.binding
    yield "placements", [f"{p.where} {p.name}: {p.format}" for p in binding.placements]
    yield "constants", [f"{name}: {value}" for name, value in binding.constants]
    if each.kind == "sigv4":
        services, regions = (" or ".join(names) or "by host" for names in (binding.services, binding.regions))
        yield "scope", f"service {services}, region {regions}"
        if binding.role:
            yield "role", f"{binding.role.arn}, sessions of {binding.role.seconds} s"
    yield "flags", sorted(binding.flags)
    for version in each.versions:
        state = "current" if version.version == each.current else "kept"
        if version.destroys_at is not None:
            state = f"until {times.readable(version.destroys_at)}"
        yield f"version {version.version}", f"{times.readable(version.created_at)}, {state}"


def hosts(binding: Binding) -> list[str]:
    """As they would be typed."""
    return [pattern if port == 443 else f"{pattern}:{port}" for pattern, port in binding.hosts]
