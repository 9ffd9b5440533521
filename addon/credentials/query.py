"""
Query parameters, and headers beside them where an API wants both.

A URL ends up in more logs than a header does: where an API takes the key in a header, use kind `header`.
"""

from typing import ClassVar

from addon.binding import Binding
from addon.credentials import placement
from addon.errors import Usage


class Query(placement.Placed):
    """One field per marker in the formats."""

    tag: ClassVar[str] = "query"

    def check_binding(self, binding: Binding) -> Binding:
        if not any(p.where == "query" for p in binding.placements):
            raise Usage("no query parameter is named", hint="name it, as in --query-param api_key")
        return placement.check_binding(binding)


KIND = Query()
