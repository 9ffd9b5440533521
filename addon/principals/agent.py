"""`agent:NAME`: an AI agent, or any worker that acts under a name of its own."""

from typing import ClassVar

from addon.model import Caller
from addon.principals.principal import PrincipalKind, parse_name


class Agent:
    """Matches the agent of that name, proved by its key."""

    tag: ClassVar[str] = "agent"
    form: ClassVar[str] = "agent:NAME"
    caller_type: ClassVar[str | None] = "agent"

    def matches(self, identity: str, caller: Caller) -> bool:
        """Whether `identity` is this caller."""
        return caller.type == "agent" and caller.name == identity

    def parse(self, identity: str) -> str:
        """The identity as stored. Raises Usage."""
        return parse_name(identity, what="an agent")


KIND: PrincipalKind = Agent()
