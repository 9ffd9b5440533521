"""Any number of headers, each with its own format: `X-API-Key: {token}`, `Authorization: Token {token}`, two keys at once."""

from typing import ClassVar

from addon.binding import Binding
from addon.credentials import placement
from addon.errors import Usage


class Header(placement.Placed):
    """One field per marker in the formats."""

    tag: ClassVar[str] = "header"

    def check_binding(self, binding: Binding) -> Binding:
        if not binding.placements:
            raise Usage("no header is named", hint="name it, as in --header X-API-Key [--format 'Token {token}']")
        if any(p.where != "header" for p in binding.placements):
            raise Usage("a query parameter is not a header", hint="use --kind query, which may write headers as well")
        return placement.check_binding(binding)


KIND = Header()
