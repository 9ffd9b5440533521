"""`system:APP`: an application that calls for itself."""

from typing import ClassVar

from addon.model import Caller
from addon.principals.principal import PrincipalKind, parse_name


class System:
    """Matches the app of that name, proved by its key."""

    tag: ClassVar[str] = "system"
    form: ClassVar[str] = "system:APP"
    caller_type: ClassVar[str | None] = "app"

    def matches(self, identity: str, caller: Caller) -> bool:
        """Whether `identity` is this caller."""
        return caller.type == "app" and caller.name == identity

    def parse(self, identity: str) -> str:
        """The identity as stored. Raises Usage."""
        return parse_name(identity, what="an app")


KIND: PrincipalKind = System()
