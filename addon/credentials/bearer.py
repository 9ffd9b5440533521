"""`Authorization: Bearer {token}` (RFC 6750 2.1)."""

from dataclasses import replace
from typing import ClassVar

from addon.binding import Binding, Placement
from addon.credentials import placement
from addon.errors import Usage

_PLACEMENTS = (Placement("header", "Authorization", "Bearer {token}"),)


class Bearer(placement.Placed):
    """One secret field, `token`, in one place."""

    tag: ClassVar[str] = "bearer"

    def check_binding(self, binding: Binding) -> Binding:
        if binding.placements not in ((), _PLACEMENTS):
            raise Usage(
                "a bearer token has its own place, Authorization: Bearer {token}",
                hint="use --kind header for another header or format, --kind query for a parameter",
            )
        return placement.check_binding(replace(binding, placements=_PLACEMENTS))


KIND = Bearer()
