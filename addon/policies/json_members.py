"""
`json`: only requests whose JSON body has members with these values.

    MEMBER = VALUE                 the very text, number, true, false or null, written as in JSON
    MEMBER in [VALUE, VALUE, …]    one of them
    MEMBER <= NUMBER               a number from 0 to this one; below 0, many an upstream sees no limit at all

A member inside of objects is named with dots, as in `metadata.tier`. All rules must hold; a member that is missing, or of
another type (`true` is not 1), breaks its rule.

The body is judged as the upstream will read it, whichever parser it has: what `strict_json` refuses is refused, and so
are a member beside one on the way whose name differs from its own only in case, `_` or `-` (Go takes the one for the
other, as do readers of Protocol Buffers), a body that is encoded or not said to be JSON in UTF-8, and one of more than
`LONGEST` bytes.
"""

import functools
import json
import re
from decimal import Decimal
from typing import Any, ClassVar, NamedTuple

from addon import strict_json
from addon.errors import Usage
from addon.policies.policy import Attempt, BodyKind, listed

LONGEST = 1 << 20
"""Bytes. A body is read in one go, which takes up to a tenth of a second for one of that size."""

DEPTH = 64

_RULE = re.compile(
    r"([A-Za-z0-9_$@:-]{1,64}(?:\.[A-Za-z0-9_$@:-]{1,64}){0,15})\s*(=|<=|(?<=\s)in(?=[\s\[]))\s*(\S.*)", re.DOTALL
)
_MEDIA = re.compile(
    rb"\s*application/(?:json|[a-z0-9!#$&^_.+-]+\+json|x-amz-json-1\.[01])\s*(?:;(?!.*charset)|;\s*charset=\"?utf-?8\"?\s*$|$)",
    re.IGNORECASE,
)
_EXACT = 1 << 53
_MOST_SHOWN = 64


class Rule(NamedTuple):
    """`member` is the way to it; `at_most` is set for `<=`, otherwise it must be one of `values`."""

    member: tuple[str, ...]
    values: tuple[Any, ...] = ()
    at_most: Decimal | None = None

    def allows(self, value: object) -> bool:
        """Whether a member may have this value."""
        if self.at_most is not None:
            return isinstance(value, Decimal) and 0 <= value <= self.at_most
        return any(type(value) is type(each) and value == each for each in self.values)


class JsonMembers:
    """Passes when every rule holds. The head is judged first; the body by `examine`, when it has been received whole."""

    tag: ClassVar[str] = "json"

    def parse(self, values: tuple[str, ...]) -> dict[str, Any]:
        """The stored parameters, from rules as in the text above."""
        texts = [value.strip() for value in values]
        for text in texts or [""]:
            try:
                parse_rule(text)
            except ValueError:
                raise Usage(
                    f"not a rule about a member of a JSON body: {text!r}",
                    hint="""write 'model = "a"', 'model in ["a", "b"]', 'max_tokens <= 1000' or 'stream = false'; texts in double quotes""",
                ) from None
        return {"rules": texts}

    def check(self, params: dict[str, Any], attempt: Attempt) -> str | None:
        """None if the head lets the body be judged, otherwise why it does not."""
        _rules(params)
        request = attempt.request
        types = request.values(b"content-type")
        if len(types) != 1 or not _MEDIA.match(types[0]):
            return "the request does not say that its body is JSON in UTF-8"
        encodings = request.values(b"content-encoding")
        return "the body is encoded" if any(each.strip().lower() != b"identity" for each in encodings) else None

    def examine(self, params: dict[str, Any], body: Any) -> str | None:
        """None, or which rule does not hold. `body` is what `read` gave."""
        for text, rule in _rules(params):
            problem = _problem(rule, body)
            if problem:
                return f"{problem}: {text}"
        return None

    def describe(self, params: dict[str, Any]) -> str:
        """What passes."""
        return ", and ".join(listed(params, "rules"))


def read(body: bytes) -> Any:
    """The value of a body, its numbers as Decimal. Raises `strict_json.Ambiguous`."""
    if len(body) > LONGEST:
        raise strict_json.Ambiguous(f"longer than {LONGEST} bytes")
    return strict_json.parse(body, depth=DEPTH, number=Decimal)


@functools.lru_cache(maxsize=1024)
def parse_rule(text: str) -> Rule:
    """Raises ValueError."""
    match = _RULE.fullmatch(text)
    if match is None:
        raise ValueError(text)
    member, operator, written = tuple(match[1].split(".")), match[2], match[3]
    value = strict_json.parse(written.encode(), depth=1, number=_number)
    if operator == "<=":
        if not isinstance(value, Decimal) or value < 0:
            raise ValueError(text)
        return Rule(member, at_most=value)
    values = tuple(value) if operator == "in" and isinstance(value, list) else (value,)
    if (
        not values
        or (operator == "in") is not isinstance(value, list)
        or any(isinstance(each, list | dict) for each in values)
    ):
        raise ValueError(text)
    return Rule(member, values)


def _rules(params: dict[str, Any]) -> list[tuple[str, Rule]]:
    """Raises ValueError; also for no rules at all, which would let everything pass."""
    found = [(text, parse_rule(text)) for text in listed(params, "rules")]
    if not found:
        raise ValueError
    return found


def _number(text: str) -> Decimal:
    """A number of which there is no other that a parser with binary floats could take for it. Raises ValueError."""
    value = Decimal(text)
    if abs(value) > _EXACT or Decimal(repr(float(value))) != value:
        raise ValueError(text)
    return value


def _problem(rule: Rule, body: Any) -> str | None:
    value = body
    for name in rule.member:
        if not isinstance(value, dict):
            return "there is no such object"
        alike = _alike(name)
        if any(_alike(other) == alike and other != name for other in value):
            return "another member has nearly that name"
        if name not in value:
            return "there is no such member"
        value = value[name]
    return None if rule.allows(value) else f"it is {_show(value)}"


def _alike(name: str) -> str:
    """What names have in common that some parser takes for one."""
    return name.casefold().replace("_", "").replace("-", "")


def _show(value: object) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return (str(value) if isinstance(value, Decimal) else json.dumps(value))[:_MOST_SHOWN]


KIND: BodyKind = JsonMembers()
