"""
`Authorization: Basic` of user and password (RFC 7617), encoded here so that nobody encodes by hand.

The placement's format is the text before Base64: `{user}:{password}` unless the binding says otherwise. APIs that want
the key as the user and no password take `{token}:`, those with a fixed user `api:{token}`; a field is never empty, so
an empty half is written into the format. Text is UTF-8 (RFC 7617 2.1) and may hold anything but control characters.
"""

import base64
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from addon.binding import Binding, Placement
from addon.credentials import placement
from addon.errors import Fault, Usage
from addon.model import Head, Values

_DEFAULT = Placement("header", "Authorization", "{user}:{password}")
_WRITTEN = Placement("header", "Authorization", "Basic {encoded}")
_HINT = f"paste the value alone: no line breaks or other control characters, at most {placement.LIMIT} characters"
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class Basic(placement.Placed):
    """The fields `user` (not secret) and `password`, or those of the format."""

    tag: ClassVar[str] = "basic"

    def check_binding(self, binding: Binding) -> Binding:
        placements = binding.placements or (_DEFAULT,)
        if len(placements) != 1 or (placements[0].where, placements[0].name) != ("header", "Authorization"):
            raise Usage("basic is written into Authorization alone", hint="leave out --header and --query-param")
        if ":" not in placements[0].format:
            raise Usage("the format of basic has a colon", hint="it is 'USER:PASSWORD', as in --format '{token}:'")
        return placement.check_binding(replace(binding, placements=placements))

    def check_values(self, binding: Binding, values: dict[str, str]) -> None:
        placement.check_fields(placement.fields(binding.placements), values)
        for name, value in values.items():
            placement.check_value(name, _problem(binding, name, value), hint=_HINT)
        if len(_encode(binding, values)) > placement.LIMIT:
            raise Usage("user and password are too long together", hint=f"at most {placement.LIMIT} characters encoded")

    def hidden(self, values: Values, *, binding: Binding) -> tuple[str, ...]:
        """And user and password together, since it is they that are encoded."""
        alone = super().hidden(values, binding=binding)
        return (*alone, placement.substitute(binding.placements[0].format, values)) if binding.placements else alone

    def write(self, head: Head, *, binding: Binding, values: Values) -> Head:
        if not binding.placements or any(_problem(binding, name, value) for name, value in values.items()):
            raise Fault("fault", "a stored value cannot be written")
        written = replace(binding, placements=(_WRITTEN,))
        return placement.write(head, written, {"encoded": _encode(binding, values)})


def _encode(binding: Binding, values: Mapping[str, str]) -> str:
    return base64.b64encode(placement.substitute(binding.placements[0].format, values).encode()).decode()


def _problem(binding: Binding, name: str, value: str) -> str | None:
    if not value:
        return "is empty"
    if len(value) > placement.LIMIT:
        return f"is longer than {placement.LIMIT} characters"
    if _CONTROL.search(value):
        return "holds a control character"
    if ":" in value and f"{{{name}}}" in binding.placements[0].format.partition(":")[0]:
        return "holds a colon, which would end the user"
    return None


KIND = Basic()
