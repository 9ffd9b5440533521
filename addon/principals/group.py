"""`group:IDP/GROUP`: whoever's token lists the group, at the moment of the request."""

import re
from typing import ClassVar

from addon.errors import Usage
from addon.model import Caller
from addon.model import User as Person
from addon.principals.principal import PrincipalKind, parse_name

_GROUP = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,254}[\x21-\x7e])?")


class Group:
    """Matches users whose token, come with the request of an app, lists the group. Agents as in `user`."""

    tag: ClassVar[str] = "group"
    form: ClassVar[str] = "group:IDP/GROUP"
    caller_type: ClassVar[str | None] = None

    def matches(self, identity: str, caller: Caller) -> bool:
        """Whether the user behind this caller is in the group `identity`."""
        return caller.type == "app" and caller.user is not None and includes(identity, caller.user)

    def parse(self, identity: str) -> str:
        """The identity as stored. Raises Usage."""
        idp, slash, name = identity.partition("/")
        parse_name(idp, what="an identity provider")
        if not slash or not _GROUP.fullmatch(name):
            raise Usage(
                f"not a group: {identity!r}",
                hint="write group:IDP/GROUP, with the group exactly as the provider's tokens have it",
            )
        return identity


def includes(identity: str, person: Person) -> bool:
    """Whether this user's token lists the group `identity`, of the same provider."""
    idp, _, name = identity.partition("/")
    return person.idp == idp and name in person.groups


KIND: PrincipalKind = Group()
