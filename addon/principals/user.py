"""`user:IDP/SUBJECT`: one user of one identity provider."""

import re
from typing import ClassVar

from addon.errors import Usage
from addon.model import Caller
from addon.model import User as Person
from addon.principals.principal import PrincipalKind, parse_name

_SUBJECT = re.compile(r"[\x21-\x7e]{1,256}")


class User:
    """Matches the user whose token came with the request of an app. What an agent brings never counts: it delegates."""

    tag: ClassVar[str] = "user"
    form: ClassVar[str] = "user:IDP/SUBJECT"
    caller_type: ClassVar[str | None] = None

    def matches(self, identity: str, caller: Caller) -> bool:
        """Whether `identity` is the user behind this caller."""
        return caller.type == "app" and caller.user is not None and includes(identity, caller.user)

    def parse(self, identity: str) -> str:
        """The identity as stored. Raises Usage."""
        idp, slash, subject = identity.partition("/")
        parse_name(idp, what="an identity provider")
        if not slash or not _SUBJECT.fullmatch(subject):
            raise Usage(
                f"not a user: {identity!r}",
                hint="write user:IDP/SUBJECT, with the subject exactly as the provider's tokens have it",
            )
        return identity


def includes(identity: str, person: Person) -> bool:
    """Whether `identity` is this user, of this provider."""
    return identity == f"{person.idp}/{person.subject}"


KIND: PrincipalKind = User()
