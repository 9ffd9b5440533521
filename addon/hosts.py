"""
Names of destinations: one normal form, and comparison only in that form.

    host     = label *("." label)         ASCII letters, digits, "-", "_" inside a label (RFC 1123, and "_" of the wild)
    pattern  = host / "*." host           one label, never under a public suffix
    port     = 1..65535, always explicit in a binding

An address is not a name: IP literals in any notation (`127.1`, `0x7f.1`, `[::1]`, full-width digits) have no normal
form here, because libc and IDNA turn them into addresses behind our back.
"""

import functools
import ipaddress
import re
from collections.abc import Callable

from addon.errors import Usage

_LABEL = re.compile(rb"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(rb"[0-9]+|0x[0-9a-f]*")


class NotAName(ValueError):
    """Not a DNS name in any form we accept."""


@functools.lru_cache(maxsize=4096)
def normalize(name: str | bytes) -> str:
    """The one form of a host name: lower-case ASCII, no trailing dot. Raises NotAName for anything else."""
    raw = name if isinstance(name, bytes) else _ascii(name)
    raw = raw.lower().removesuffix(b".")
    labels = raw.split(b".")
    if not raw or len(raw) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise NotAName
    if _NUMBER.fullmatch(labels[-1]):
        raise NotAName
    return raw.decode("ascii")


def fold(name: str) -> str:
    """The normal form of a name; an address or anything else only in lower case, and never in the form of a name."""
    try:
        return normalize(name)
    except NotAName:
        # The lower case of U+212A, the Kelvin sign, is an ASCII k.
        return name.lower() if name.isascii() else name


def _ascii(name: str) -> bytes:
    try:
        return name.encode("ascii")
    except UnicodeEncodeError:
        raise NotAName from None


def is_address(name: str) -> bool:
    """Whether `name` is an IP address in its standard notation, brackets allowed."""
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]").partition("%")[0])
    except ValueError:
        return False
    return True


def split_authority(authority: bytes) -> tuple[bytes, int | None]:
    """
    `host[:port]` of a Host header, `:authority` or CONNECT target (RFC 9110 7.2), not yet normalised.

    Userinfo, an empty host, an odd port and a bracketed name raise NotAName; a bracketed IPv6 address is kept.
    """
    if b"@" in authority or b"," in authority or not authority.isascii():
        raise NotAName
    if authority.startswith(b"["):
        literal, bracket, rest = authority.partition(b"]")
        if not bracket or (rest and not rest.startswith(b":")) or not is_address(literal[1:].decode()):
            raise NotAName
        host, port = literal + b"]", rest[1:] if rest else None
    else:
        host, colon, tail = authority.partition(b":")
        port = tail if colon else None
    if not host:
        raise NotAName
    if port is None:
        return host, None
    if not re.fullmatch(rb"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise NotAName
    return host, int(port)


def matches(pattern: str, host: str) -> bool:
    """Whether a stored pattern covers a normalised host. `*.` stands for exactly one label."""
    if pattern.startswith("*."):
        label, dot, rest = host.partition(".")
        return bool(label and dot) and rest == pattern[2:]
    return pattern == host


def parse_pattern(text: str, *, shared: Callable[[str], bool] | None = None) -> tuple[str, int]:
    """
    `HOST[:PORT]` as an operator types it → (pattern, port), port 443 when absent.

    Raises Usage with the mend for a scheme, a path, an address, a bare or public-suffix wildcard. `shared` tells under
    which names a wildcard may cover hosts of strangers all the same, for a credential that is worth nothing to them.
    """
    typed = text.strip()
    if "://" in typed:
        bare = typed.partition("://")[2].partition("/")[0] or "api.example.com"
        raise Usage(f"a host has no scheme: {typed!r}", hint=f"write it as --host {bare}")
    if "/" in typed:
        raise Usage(f"a host has no path: {typed!r}", hint="give the path with --path")
    if is_address(typed) or is_address(typed.rpartition(":")[0]):
        raise Usage(f"an IP address cannot be bound: {typed!r}", hint="bind the name that its certificate carries")
    name, colon, port_text = typed.partition(":")
    port = 443
    if colon:
        if not re.fullmatch(r"[0-9]{1,5}", port_text) or not 0 < int(port_text) < 65536:
            raise Usage(f"not a port: {port_text!r}", hint="a port is a number from 1 to 65535, as in --host h:8443")
        port = int(port_text)
    wildcard = name.startswith("*.")
    base = _to_ascii(name[2:] if wildcard else name, typed)
    if wildcard and not (shared and shared(base)):
        _refuse_public_suffix(base)
    return ("*." + base if wildcard else base), port


def _to_ascii(name: str, typed: str) -> str:
    import idna  # noqa: PLC0415  only when a binding is written

    try:
        if not name.isascii():
            name = idna.encode(name, uts46=True).decode("ascii")
        return normalize(name)
    except (NotAName, idna.IDNAError):
        raise Usage(
            f"not a host name: {typed!r}",
            hint="use a full name such as api.example.com, or *.example.com for exactly one label",
        ) from None


def _refuse_public_suffix(base: str) -> None:
    from publicsuffixlist import PublicSuffixList  # noqa: PLC0415  loads 250 kB of data, only for wildcards

    if PublicSuffixList().is_public(base) or "." not in base:
        raise Usage(
            f"*.{base} would cover hosts of strangers: {base} is a public suffix",
            hint="name the exact host, or a wildcard under a domain that is yours alone",
        )
