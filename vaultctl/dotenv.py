"""
Variables of a `.env` file, as its common readers agree on them.

    line   = ["export"] NAME "=" value
    value  = 'text as it stands' / "text with \\" and \\\\ escaped" / bare text up to " #"

Lines that say something else are passed over. Nothing is expanded.
"""

import re

_LINE = re.compile(
    r"""\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(?:'([^']*)'|"((?:[^"\\]|\\.)*)"|([^'"\s#][^\n]*?)?)\s*(?:\s#.*)?"""
)
_ESCAPE = re.compile(r"\\(.)")


def parse(text: str) -> dict[str, str]:
    """Name → value. A name that stands twice has its last value."""
    found = {}
    for line in text.splitlines():
        if match := _LINE.fullmatch(line):
            name, single, double, bare = match.groups()
            found[name] = single if single is not None else _ESCAPE.sub(r"\1", double) if double else bare or ""
    return found
