"""What a kind of principal must be able to do."""

import re
from typing import ClassVar, Protocol

from addon.errors import Usage
from addon.model import Caller

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class PrincipalKind(Protocol):
    """
    A kind of principal. `tag` is stored with each grant; `caller_type` is set where it names one caller, and is None
    where it names people of an identity provider.
    """

    tag: ClassVar[str]
    form: ClassVar[str]
    caller_type: ClassVar[str | None]

    def matches(self, identity: str, caller: Caller) -> bool:
        """Whether `identity` is this caller."""

    def parse(self, identity: str) -> str:
        """The identity as stored. Raises Usage."""


def parse_name(text: str, *, what: str) -> str:
    """A name of an app, agent or secret. Raises Usage."""
    if not _NAME.fullmatch(text):
        raise Usage(
            f"not a name for {what}: {text!r}",
            hint="use 1 to 64 letters, digits, '.', '_' or '-', starting with a letter or digit",
        )
    return text
