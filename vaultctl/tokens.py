"""
A user's token at the command line: read from a file, and verified with the provider's keys as they are now.

The token itself is never an argument, is never shown, and is never kept.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from addon.callers.idp import Registration
from addon.callers.jwt import Check, Invalid, KeySet, Unusable, explain, read
from addon.errors import OperatorError, Usage
from addon.model import User
from addon.vault import Vault


class Unproved(OperatorError):
    """The token proves nobody."""

    exit_code = 4


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the verifier makes of a token: every check, and the user if all passed."""

    checks: tuple[Check, ...]
    user: User | None

    @property
    def problem(self) -> str:
        """The first check that failed, in words."""
        failed = [check for check in self.checks if check.verdict == "failed"]
        return f"{failed[0].name}: {failed[0].detail}" if failed else ""


@dataclass(frozen=True, slots=True)
class Means:
    """How keys are come by at the command line."""

    upstream_ca: Path | None
    shared_secret_file: str | None


def means(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every command that verifies a token."""
    for option in (
        click.option(
            "--shared-secret-file",
            metavar="F",
            help="The shared secret of the provider, where it has one: it lies sealed, and only the proxy opens it.",
        ),
        click.option(
            "--upstream-ca",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            metavar="FILE",
            help="CAs to trust besides the public ones when keys are fetched.",
        ),
    ):
        function = option(function)
    return function


def read_file(source: str, *, what: str, limit: int) -> bytes:
    """A file, or stdin for `-`. Raises Usage without repeating the name: people put values where file names belong."""
    try:
        if source == "-":
            data = sys.stdin.buffer.read(limit + 1)
        else:
            with Path(source).open("rb") as file:
                data = file.read(limit + 1)
    except (OSError, ValueError) as error:
        reason = (error.strerror or "").lower() if isinstance(error, OSError) else "not a file name"
        raise Usage(f"{what} cannot be read: {reason}", hint="check the name and its mode; `-` is stdin") from None
    if len(data) > limit:
        raise Usage(f"{what} is too long", hint=f"it has at most {limit} bytes")
    return data


def read_token(source: str) -> str:
    """The token in a file. Raises Usage."""
    data = read_file(source, what="the token", limit=64 * 1024).removesuffix(b"\n").removesuffix(b"\r")
    if not data or not data.isascii():
        raise Usage("the file holds no token", hint="put the bare token into it, three parts with dots between")
    return data.decode("ascii")


def read_secret(source: str) -> bytes:
    """A shared secret in a file, without one newline at its end. Raises Usage."""
    data = read_file(source, what="the shared secret", limit=4096)
    return data.removesuffix(b"\n").removesuffix(b"\r")


def check(vault: Vault, token: str, registration: Registration, *, means: Means, now: float) -> Verdict:
    """Every check of a token against one provider, that of having its keys first."""
    keys, found = _keys(vault, registration, means)
    checks, user = explain(token, idp=registration.idp, keys=keys, now=now)
    return Verdict((found, *checks), user if keys else None)


def verify(vault: Vault, token: str, *, means: Means, now: float) -> User:
    """The user a token proves. Raises Unproved, naming the check that failed."""
    try:
        issuer = read(token).issuer
    except Invalid as problem:
        raise _unproved(str(problem)) from None
    registration = vault.idps.find(issuer)
    if registration is None:
        raise _unproved("its issuer is not a registered identity provider")
    verdict = check(vault, token, registration, means=means, now=now)
    if verdict.user is None:
        raise _unproved(verdict.problem, f"`vaultctl idp check {registration.idp.name} --token-file F` explains it")
    return verdict.user


def fetch(registration: Registration, *, upstream_ca: Path | None) -> KeySet:
    """The keys of a provider, over the network. Raises Unusable, Unfetched."""
    from addon.callers.key_sets import parse  # noqa: PLC0415  http and ssl, only where something is fetched
    from addon.callers.web import Web  # noqa: PLC0415

    return parse(registration, Web(ca=str(upstream_ca or "")).key_set(registration.idp))


def _keys(vault: Vault, registration: Registration, means: Means) -> tuple[KeySet | None, Check]:
    from addon.callers.key_sets import parse  # noqa: PLC0415
    from addon.callers.web import Unfetched  # noqa: PLC0415

    source = registration.idp.source
    try:
        if source == "shared":
            if means.shared_secret_file is None:
                return None, Check("keys", "failed", "give the shared secret with --shared-secret-file")
            keys = parse(registration, read_secret(means.shared_secret_file))
        elif source == "file":
            keys = parse(registration, vault.idps.keys(registration))
        else:
            keys = fetch(registration, upstream_ca=means.upstream_ca)
    except (Unusable, Unfetched) as problem:
        return None, Check("keys", "failed", str(problem))
    count = len(keys.named) + (keys.sole is not None)
    return keys, Check("keys", "passed", f"{count} by {source}")


def _unproved(reason: str, hint: str = "get a fresh token of the user from its provider") -> Unproved:
    return Unproved(f"the token proves no user: {reason}", hint=hint)
