"""What is refused before the shell has seen it: heads that cannot be read, requests without a destination (P7)."""

import secrets
from dataclasses import dataclass, field

from mitmproxy.connection import Client
from mitmproxy.proxy import commands

from addon.refusals import Answer, answer


@dataclass
class Unjudged:
    """
    A refusal with `code`, of a request to `destination` (host and port) as far as that is known.

    `answer` is what the client will be told; whoever records it may change it.
    """

    client: Client
    destination: tuple[str, int]
    code: str
    answer: Answer = field(init=False)

    def __post_init__(self) -> None:
        self.fail(self.code)

    def fail(self, code: str) -> None:
        """Answer with `code` instead."""
        self.answer = answer(code, secrets.token_hex(16))


@dataclass
class AlterUnjudgedHook(commands.StartHook):
    """`alter_unjudged`: before the client is answered. To record the refusal, and to say so in the answer."""

    refusal: Unjudged
