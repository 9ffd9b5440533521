"""
Cases of `vaultctl policy test`: who would ask for what, and what must be decided.

    [[case]]
    name = "nobody refunds at night"
    given = { secret = "stripe", to = "system:billing", url = "https://api.stripe.com/v1/refunds", method = "POST", at = 2027-01-04T03:00:00Z }
    expect = { code = "policy_denied", policy = "grant.hours" }

The same in YAML is a list under `case`. A `body` is text as it would be sent, or a table or list, which is sent as JSON.
"""

import json
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from addon import principals
from addon.errors import NotFound, OperatorError, Usage
from addon.explanation import Explanation, attempt
from addon.model import User
from addon.vault import Vault
from addon.vault.ledger import Preview
from vaultctl import callers, explanations, times

_GIVEN = {"grant", "secret", "to", "url", "method", "as", "user", "groups", "ip", "at", "headers", "body"}
_EXPECT = {"decision", "code", "policy"}
_HINT = (
    "a case has name, given (grant, or secret and to; url, method, as, user, groups, ip, at, headers, body) and"
    " expect (decision, code, policy)"
)


@dataclass(frozen=True, slots=True)
class Case:
    """One case as it was written."""

    name: str
    given: dict[str, Any]
    expect: dict[str, str]


def read(text: str, *, yaml: bool = False) -> list[Case]:
    """The cases of a file. Raises Usage: a member that is not known would be an expectation that nobody checks."""
    members = _read_yaml(text) if yaml else _read_toml(text)
    found = members.pop("case", None) if isinstance(members, dict) else None
    if members or not isinstance(found, list) or not found:
        raise Usage("the file is not a list of cases", hint=_HINT)
    return [_case(each, number) for number, each in enumerate(found, 1)]


def run(case: Case, vault: Vault, *, now: float) -> tuple[Explanation, list[str]]:
    """What is decided, and every way in which that is not what is expected. Limits are judged as if unused."""
    try:
        result = _explain(case, vault, now=now)
    except OperatorError as error:
        raise type(error)(f"{case.name}: {error.message}", hint=error.hint) from None
    got = {"decision": result.decision, "code": result.code, "policy": result.policy}
    wrong = [name for name, value in case.expect.items() if got[name] != value]
    return result, [f"{name} is {got[name] or 'none'}, not {case.expect[name] or 'none'}" for name in wrong]


def _read_toml(text: str) -> object:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise Usage(f"not TOML: {error}", hint="`vaultctl policy test --help` shows a case") from None


def _read_yaml(text: str) -> object:
    from ruamel.yaml import YAML  # noqa: PLC0415  only where it is needed
    from ruamel.yaml.error import YAMLError  # noqa: PLC0415

    try:
        # A tag makes no objects (safe), and a member that is there twice is an error, as in TOML.
        return YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError, RecursionError) as error:
        place = " ".join(str(error).split())[:300]
        raise Usage(f"not YAML: {place}", hint="write a list of cases under `case:`") from None


def _case(members: object, number: int) -> Case:
    label = f"case {number}"
    if isinstance(members, dict) and not members.keys() - {"name", "given", "expect"}:
        name, given, expect = members.get("name", label), members.get("given"), members.get("expect")
        if isinstance(name, str) and isinstance(given, dict) and isinstance(expect, dict) and _sound(given, expect):
            return Case(name, given, expect)
    if isinstance(members, dict) and isinstance(members.get("name"), str):
        label = f"{label} ({members['name']})"
    raise Usage(f"{label} is not written as one", hint=_HINT)


def _sound(given: dict[str, object], expect: dict[str, object]) -> bool:
    texts = [*expect.values(), *(given[key] for key in given.keys() - {"groups", "at", "headers", "body"})]
    return (
        bool(expect)
        and not given.keys() - _GIVEN
        and not expect.keys() - _EXPECT
        and all(isinstance(text, str) for text in texts)
        and "url" in given
        and given.keys() & {"grant", "secret", "to"} in ({"grant"}, {"secret", "to"})
    )


def _explain(case: Case, vault: Vault, *, now: float) -> Explanation:
    given = case.given
    tag = given.get("grant") or _grant(vault, given["secret"], given["to"], now=now)
    body = _body(given)
    headers = explanations.parse_headers(_headers(given))
    request = attempt(
        tag,
        url=given["url"],
        method=given.get("method", "GET"),
        client_ip=given.get("ip", "127.0.0.1"),
        headers=explanations.describe_body(headers, body),
    )
    return explanations.explain(
        vault,
        request,
        named=callers.parse(given["as"]) if "as" in given else callers.named_by(vault, tag),
        user=_user(given),
        now=_time(given.get("at"), now=now),
        limits=Preview(None),
        body=body or b"",
    )


def _grant(vault: Vault, secret: str, principal: str, *, now: float) -> str:
    """The one active grant of a secret to a principal, so that a case outlives its being issued anew."""
    found = vault.grants.list(secret=secret, principal=principals.parse(principal), state="active", now=now)
    if len(found) != 1:
        raise NotFound(
            f"{len(found)} active grants of {secret} to {principal}",
            hint="name the one that is meant by its id, with grant = …",
        )
    return found[0].id


def _headers(given: dict[str, Any]) -> Iterator[str]:
    headers = given.get("headers", {})
    if not isinstance(headers, dict):
        raise Usage("headers is not a table", hint='write headers = { Content-Type = "application/json" }')
    return (f"{name}: {value}" for name, value in headers.items())


def _body(given: dict[str, Any]) -> bytes | None:
    try:
        match given.get("body"):
            case None:
                return None
            case str(text):
                return text.encode()
            case (dict() | list()) as value:
                return json.dumps(value, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError):
        pass
    raise Usage("the body is not one that could be sent", hint="write text, or a table or list of what JSON has")


def _user(given: dict[str, Any]) -> User | None:
    if "user" not in given:
        return None
    idp, slash, subject = str(given["user"]).removeprefix("user:").partition("/")
    groups = given.get("groups", [])
    if not slash or not isinstance(groups, list) or not all(isinstance(group, str) for group in groups):
        raise Usage(
            f"not a user with groups: {given['user']!r}", hint='write user = "user:IDP/SUBJECT", groups = ["a", "b"]'
        )
    return User(idp=idp, subject=subject, groups=frozenset(groups))


def _time(value: object, *, now: float) -> float:
    match value:
        case None:
            return now
        case str():
            return times.parse_time(value)
        case datetime() if value.tzinfo is not None:
            return value.timestamp()
        case _:
            raise Usage(f"not a time: {value}", hint="write RFC 3339 with its offset, as 2027-01-04T03:00:00Z")
