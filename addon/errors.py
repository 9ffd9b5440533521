"""
Everything that can go wrong, and whose turn it is.

    AlterError
    ├── Refusal          a request: understood, and the answer is no (4xx)       → refusals.CODES
    ├── Fault            a request: could not be decided or recorded (503)       → refusals.CODES
    └── OperatorError    a command: says what is wrong and how to mend it        exit code
        ├── Usage            the command or a value in it is wrong               2
        ├── NotFound         no such thing                                       3
        ├── Locked           the vault or its key cannot be used                 5
        ├── Corrupt          data failed an integrity check                      6
        ├── Conflict         exists already, or is in the way                    7
        └── Unreachable      a server that must answer does not                  8

Nothing here ever carries a secret value: messages are fixed texts plus names the operator chose.
"""

from typing import ClassVar


class AlterError(Exception):
    """Never raised itself."""


class Refusal(AlterError):
    """
    The request may not go out. `code` is one of `refusals.CODES`; `policy` names layer and kind where one denied.

    `retry_after` is in seconds; `limit`, the amount and the seconds (or None) of a limit that has no room. `found` and
    `remedy` are for the operator who asks why, never for the client.
    """

    def __init__(
        self,
        code: str,
        *,
        policy: str | None = None,
        retry_after: int | None = None,
        limit: tuple[int, int | None] | None = None,
        found: str = "",
        remedy: str = "",
    ) -> None:
        super().__init__(code)
        self.code = code
        self.policy = policy
        self.retry_after = retry_after
        self.limit = limit
        self.found = found
        self.remedy = remedy


class Fault(AlterError):
    """We could not decide or record. `code` is one of `refusals.CODES` with status 503."""

    def __init__(self, code: str = "fault", detail: str = "") -> None:
        super().__init__(code if not detail else f"{code}: {detail}")
        self.code = code


class OperatorError(AlterError):
    """A command failed: one line that says what, one `hint` line that says how to mend it."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Usage(OperatorError):
    """The command, or a value given to it, is wrong."""

    exit_code = 2


class NotFound(OperatorError):
    """No such secret, grant, app, agent, key, record or provider."""

    exit_code = 3


class Locked(OperatorError):
    """The vault, or the key that opens it, cannot be used: missing, unreadable, unsafe modes, newer format."""

    exit_code = 5


class Corrupt(OperatorError):
    """Stored data failed an integrity check."""

    exit_code = 6


class Conflict(OperatorError):
    """It exists already, or something else stands in the way."""

    exit_code = 7


class Unreachable(OperatorError):
    """The proxy, or another server that must answer, does not."""

    exit_code = 8
