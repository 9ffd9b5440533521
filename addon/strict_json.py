"""
JSON (RFC 8259) in the one reading that every parser has of it.

Refused is what two parsers could take for two documents: bytes that are not UTF-8, a BOM, a member twice in one object,
NaN and Infinity, a name that holds a NUL or half a surrogate pair, and nesting that some would give up on.
"""

import functools
import json
from collections.abc import Callable, Iterable
from typing import Any

Number = Callable[[str], Any]


class Ambiguous(ValueError):
    """Says why, and never what."""


def parse(raw: bytes, *, depth: int, number: Number | None = None) -> Any:
    """
    The value in `raw`, whose objects and lists nest at most `depth` deep, the outermost counted. Raises Ambiguous.

    `number` makes a number of its text, in place of int and float.
    """
    try:
        value = _decoder(number).decode(raw.decode("utf-8"))
    except (ValueError, ArithmeticError, RecursionError):
        raise Ambiguous("not JSON, or a member is there twice") from None
    if raw.count(b"{") + raw.count(b"[") > depth and _deeper([value], depth):
        raise Ambiguous(f"nested more than {depth} deep")
    return value


@functools.cache
def _decoder(number: Number | None) -> json.JSONDecoder:
    return json.JSONDecoder(
        object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=number, parse_float=number
    )


def _unique(members: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(members)
    if len(made) != len(members) or any("\0" in name for name in made):
        raise ValueError
    "".join(made).encode()  # raises for half a surrogate pair
    return made


def _no_constant(_: str) -> None:
    raise ValueError


def _deeper(values: Iterable[Any], levels: int) -> bool:
    """Whether objects and lists nest in `values` more than `levels` deep."""
    inner = (each.values() if isinstance(each, dict) else each for each in values if isinstance(each, dict | list))
    return any(levels == 0 or _deeper(each, levels - 1) for each in inner)
