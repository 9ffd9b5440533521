"""Write the pages of `docs/` that come from tables in the code: `python tools/build_docs.py [--check]`."""

import sys
from pathlib import Path

from addon.credentials import providers
from addon.refusals import CODES

DOCS = Path(__file__).resolve().parent.parent / "docs"
NOTE = "<!-- Written by tools/build_docs.py; edit the table in the code instead. -->\n\n"


def refusals() -> str:
    """Every answer the proxy makes itself."""
    lines = [
        "# Refusals",
        "",
        "Every response made by the proxy itself is `application/problem+json` (RFC 9457) with the members",
        "`type`, `title`, `status`, `code`, `detail`, `hint` and `request_id` (and `policy` where one denied).",
        "The headers `X-Alter-Error` and `X-Alter-Request-Id` repeat code and id;",
        "`vaultctl audit show REQUEST_ID` finds the record.",
        "A response without `X-Alter-Error` came from the upstream, whose status and body are never altered.",
        "",
        "| status | code | what happened | what mends it |",
        "|---|---|---|---|",
    ]
    ordered = sorted(CODES.items(), key=lambda item: (item[1].status, item[0]))
    lines += [f"| {entry.status} | `{code}` | {entry.detail} | {entry.hint} |" for code, entry in ordered]
    return "\n".join(lines) + "\n"


def catalog() -> str:
    """Every provider of the catalog."""
    lines = [
        "# Providers",
        "",
        "`vaultctl secret set NAME --provider SLUG` knows where these keys go and in which form.",
        "Where no host is listed, give yours with `--host`.",
        "",
        "| slug | service | kind | hosts |",
        "|---|---|---|---|",
    ]
    for slug, provider in sorted(providers.catalog().items()):
        hosts = ", ".join(f"`{host}`" for host in provider.hosts) or "yours"
        lines.append(f"| `{slug}` | {provider.title} | {provider.kind} | {hosts} |")
    return "\n".join(lines) + "\n"


PAGES = {"refusals.md": refusals, "providers.md": catalog}


def main() -> int:
    """Write the pages, or with --check only tell which of them are stale."""
    stale = []
    for name, build in PAGES.items():
        path, text = DOCS / name, NOTE + build()
        if path.exists() and path.read_text() == text:
            continue
        stale.append(name)
        if "--check" not in sys.argv:
            path.write_text(text)
    if stale and "--check" in sys.argv:
        sys.stderr.write(f"stale: {', '.join(stale)}; run python tools/build_docs.py\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
