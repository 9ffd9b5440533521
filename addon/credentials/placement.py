"""
Where a value goes: into headers and query parameters, and never anywhere else.

    format      literal text and `{field}` markers, at least one; a field is 1 to 32 of a-z, 0-9 and "_", letter first.
                Braces have no escape: "{{", "}}" and a lone brace are refused.
    header name RFC 9110 token, not one that frames the message, steers the connection or belongs to the proxy
    written     printable ASCII (0x20 to 0x7E), no blank at either end, 1 to 8192 characters; checked when a value is
                stored, and again after every substitution

A name is compared without case and with "_" read as "-", because CGI and WSGI servers read it that way.
"""

import abc
import re
from collections.abc import Iterable, Mapping
from typing import ClassVar, Final, NamedTuple
from urllib.parse import quote, unquote_to_bytes

from addon.binding import Binding, Placement
from addon.credentials.kind import Field, Target
from addon.errors import Fault, Usage
from addon.model import Head, Headers, Outgoing, Values

LIMIT: Final = 8192
"""The longest value, in characters, as stored and as written."""

PUBLIC_FIELDS: Final = frozenset({"user"})
"""Field names that are not secret in any format."""

_MARKER = re.compile(r"\{([a-z][a-z0-9_]{0,31})\}")
_FORMAT = re.compile(r"(?:[ -z|~]|\{[a-z][a-z0-9_]{0,31}\})+")
_WRITABLE = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_PARAMETER = re.compile(r"[A-Za-z0-9._~$\[\]-]{1,128}")

_FOLD = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ_", b"abcdefghijklmnopqrstuvwxyz-")
_NOISE = bytes(range(0x21)) + b"\x7f"

_HINT = "paste the value alone: printable ASCII, no line breaks, no blanks around it, at most 8 KiB"
_RESERVED = frozenset({
    "host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "keep-alive", "expect",
    "content-encoding", "http2-settings", "max-forwards",
    "x-http-method", "x-http-method-override", "x-method-override",
})  # fmt: skip
_RESERVED_PREFIXES = ("proxy-", "x-alter-")


def canonical(name: bytes) -> bytes:
    """A header name as it is compared: lower-case, "-" for "_", without anything invisible."""
    return name.translate(_FOLD, _NOISE)


def parse_header(name: str, format: str = "{token}") -> Placement:  # noqa: A002  the word of the option
    """`--header NAME --format FORMAT`. Raises Usage."""
    return check(Placement("header", name.strip(), format))


def parse_query(name: str, format: str = "{token}") -> Placement:  # noqa: A002
    """`--query-param NAME --format FORMAT`. Raises Usage."""
    return check(Placement("query", name.strip(), format))


def parse_constant(text: str) -> tuple[str, str]:
    """`--constant 'Name: value'` → (name, value). Raises Usage."""
    name, colon, value = text.partition(":")
    if not colon:
        raise Usage(
            "a constant has the form 'Name: value'", hint="for example --constant 'anthropic-version: 2023-06-01'"
        )
    return check_constant(name.strip(), value.strip())


def check(placement: Placement) -> Placement:
    """The placement itself. Raises Usage for a name or format that cannot be written safely."""
    if placement.where == "header":
        _check_header_name(placement.name)
    elif not _PARAMETER.fullmatch(placement.name):
        raise Usage(
            f"not a query parameter name: {placement.name!r}",
            hint="use letters, digits and . _ ~ $ [ ] -, as in --query-param api_key",
        )
    text = placement.format
    if not _MARKER.search(text) or not _FORMAT.fullmatch(text) or text != text.strip(" ") or len(text) > LIMIT:
        raise Usage(
            f"not a format: {text!r}",
            hint="write plain text with {field} markers, as in --format 'Token {token}'; single braces mark a field only",
        )
    return placement


def check_constant(name: str, value: str) -> tuple[str, str]:
    """The pair itself. Raises Usage for one that cannot be written safely, and for one that would be a credential."""
    _check_header_name(name)
    if canonical(name.encode()) in (b"authorization", b"cookie"):
        raise Usage(f"{name} cannot be a constant", hint="a credential is a field: use --kind bearer, basic or header")
    if problem := unwritable(value):
        raise Usage(f"the constant {name} {problem}", hint="use printable ASCII text")
    return name, value


def _check_header_name(name: str) -> None:
    if not _TOKEN.fullmatch(name):
        raise Usage(f"not a header name: {name!r}", hint="use letters, digits and '-', as in --header X-API-Key")
    folded = canonical(name.encode()).decode()
    if folded in _RESERVED or folded.startswith(_RESERVED_PREFIXES):
        raise Usage(
            f"{name} cannot carry a credential", hint="it steers the connection or the proxy; name another header"
        )


def check_binding(binding: Binding) -> Binding:
    """The binding itself. Raises Usage for a bad placement or constant, and for two that write the same thing."""
    written: set[tuple[str, str]] = set()
    for where, name in [(p.where, p.name) for p in map(check, binding.placements)] + [
        ("header", check_constant(*constant)[0]) for constant in binding.constants
    ]:
        key = (where, canonical(name.encode()).decode() if where == "header" else name)
        if key in written:
            raise Usage(f"{name} is written twice", hint="give each header and query parameter once")
        written.add(key)
    return binding


def markers(placements: Iterable[Placement]) -> tuple[str, ...]:
    """The fields that the formats ask for, each once, in order."""
    return tuple(dict.fromkeys(name for p in placements for name in _MARKER.findall(p.format)))


def fields(placements: Iterable[Placement]) -> tuple[Field, ...]:
    """One required field per marker."""
    return tuple(Field(n, n.replace("_", " "), secret=n not in PUBLIC_FIELDS) for n in markers(placements))


def check_fields(expected: Iterable[Field], values: Mapping[str, str]) -> None:
    """Raises Usage unless `values` has every required field and no other."""
    known = {field.name: field for field in expected}
    for name in values:
        if name not in known:
            raise Usage(f"there is no field {name!r} here", hint=f"the fields are: {', '.join(known)}")
    for field in known.values():
        if field.required and field.name not in values:
            raise Usage(
                f"the field {field.name} is missing", hint=f"give it with --field {field.name}=@FILE, or type it"
            )


def check_values(binding: Binding, values: Mapping[str, str]) -> None:
    """
    Raises Usage, naming the field and the reason, unless every field can be written where the binding says.

    Checked alone and in its format, so that `write` never fails on what was stored.
    """
    check_fields(fields(binding.placements), values)
    for name, value in values.items():
        check_value(name, unwritable(value))
    for p in binding.placements:
        check_value(" and ".join(markers([p])), unwritable(substitute(p.format, values)))


def check_value(field: str, problem: str | None, *, hint: str = _HINT) -> None:
    """Raises Usage if there is a problem. The message never holds the value."""
    if problem:
        raise Usage(f"the field {field} {problem}", hint=hint)


def unwritable(value: str) -> str | None:
    """What keeps `value` from being written into a header, or None."""
    if not value:
        return "is empty"
    if len(value) > LIMIT:
        return f"is longer than {LIMIT} characters"
    if _WRITABLE.fullmatch(value):
        return None
    if value != value.strip(" "):
        return "starts or ends with a blank"
    if any(ord(c) < 0x20 or ord(c) == 0x7F for c in value):
        return "holds a control character"
    return "holds a character outside printable ASCII"


def render(template: str, values: Mapping[str, str]) -> str:
    """The format with its fields filled in, as it may be written. Raises Fault."""
    text = substitute(template, values)
    if len(text) > LIMIT or not _WRITABLE.fullmatch(text):
        raise Fault("fault", "a stored value cannot be written")
    return text


def substitute(template: str, values: Mapping[str, str]) -> str:
    """The format with its fields filled in. Raises Fault for a missing field."""
    try:
        return _MARKER.sub(lambda marker: values[marker[1]], template)
    except KeyError:
        raise Fault("fault", "a stored secret lacks a field") from None


def write(head: Head, binding: Binding, values: Mapping[str, str]) -> Head:
    """
    The head with every placement and constant of the binding written.

    First goes what the caller sent in the same places, in all spellings and copies, and every `Authorization`. Other
    headers keep their bytes and order; ours come last. Raises Fault, as `render`.
    """
    if not binding.placements:
        raise Fault("fault", "a stored binding says nowhere to write")
    ours: list[tuple[bytes, bytes]] = []
    parameters: list[tuple[str, str]] = []
    for p in binding.placements:
        text = render(p.format, values)
        if p.where == "header":
            ours.append((p.name.encode(), text.encode()))
        else:
            parameters.append((p.name, text))
    headers = without(head.headers, {b"authorization", *(canonical(name) for name, _ in ours)})
    headers = add_constants(headers, binding.constants) + tuple(ours)
    target = merge_query(head.target, parameters) if parameters else head.target
    return Head(head.method, target, headers)


def without(headers: Headers, names: set[bytes] | frozenset[bytes]) -> Headers:
    """The headers less those whose canonical name is in `names`."""
    return tuple([pair for pair in headers if pair[0].translate(_FOLD, _NOISE) not in names])


def add_constants(headers: Headers, constants: Iterable[tuple[str, str]]) -> Headers:
    """The headers and each constant that is not among them yet."""
    if not constants:
        return headers
    sent = {name.lower() for name, _ in headers}
    return headers + tuple([(n.encode(), v.encode()) for n, v in constants if n.lower().encode() not in sent])


def merge_query(target: bytes, parameters: Iterable[tuple[str, str]]) -> bytes:
    """
    The target with each parameter set once: where the first of that name stood, else at the end.

    Names are compared percent-decoded. All other parameters keep their bytes and order; ours are percent-encoded.
    """
    path, _, query = target.partition(b"?")
    pairs = query.split(b"&") if query else []
    for name, value in parameters:
        raw = name.encode()
        ours = f"{quote(name, safe='-._~')}={quote(value, safe='-._~')}".encode()
        places = [i for i, pair in enumerate(pairs) if _decoded_name(pair) == raw]
        if places:
            pairs[places[0]] = ours
            pairs = [pair for i, pair in enumerate(pairs) if i not in places[1:]]
        else:
            pairs.append(ours)
    return path + b"?" + b"&".join(pairs)


def _decoded_name(pair: bytes) -> bytes:
    return unquote_to_bytes(pair.partition(b"=")[0].replace(b"+", b" "))


class Placed(abc.ABC):
    """What the kinds have in common whose whole work is to fill in formats. They differ in which bindings they take."""

    tag: ClassVar[str]
    sent: ClassVar[bool] = True

    def fields(self, binding: Binding) -> tuple[Field, ...]:
        return fields(self.check_binding(binding).placements)

    @abc.abstractmethod
    def check_binding(self, binding: Binding) -> Binding: ...

    def check_values(self, binding: Binding, values: dict[str, str]) -> None:
        check_values(binding, values)

    def hidden(self, values: Values, *, binding: Binding) -> tuple[str, ...]:  # noqa: ARG002
        return tuple(value for name, value in values.items() if name not in PUBLIC_FIELDS)

    def plan(self, head: Head, *, binding: Binding, host: str) -> "Filling":  # noqa: ARG002
        return Filling(self, head, binding)

    def write(self, head: Head, *, binding: Binding, values: Values) -> Head:
        """The head with the values in their places."""
        return write(head, binding, values)


class Filling(NamedTuple):
    """The plan of a kind that asks nothing of the body."""

    kind: Placed
    head: Head
    binding: Binding

    @property
    def needs_body(self) -> bool:
        return False

    def apply(self, values: Values, *, target: Target, body_sha256: str | None) -> Outgoing:  # noqa: ARG002
        return Outgoing(self.kind.write(self.head, binding=self.binding, values=values))
