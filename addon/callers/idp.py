"""
Identity providers: whose tokens prove a user, and what such a token must say.

    source   discovery  ISSUER/.well-known/openid-configuration (OpenID Connect Discovery 4) names the key set
             url        the key set lies at `jwks_url`
             file       the key set lies in the vault
             shared     one secret, sealed in the vault; HS256 and nothing else

A claim is named as a member (`sub`, `cognito:groups`), a whole URL (`https://example.com/groups`), a dotted path
(`realm_access.roles`) or, where a name itself holds dots, a JSON pointer (`/kubernetes.io/namespace`, RFC 6901).
"""

import functools
import json
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from addon.errors import Fault, Usage
from addon.principals.principal import parse_name

ASYMMETRIC = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""What a provider may sign with (RFC 7518, RFC 8037)."""

SHARED = "HS256"
"""Only with a shared secret, and never beside the others."""

SOURCES = ("discovery", "url", "file", "shared")

LONGEST_LIFE = 86_400
"""Seconds: no token counts longer than a day, whatever its provider says."""

_TEXT = re.compile(r"[\x21-\x7e]{1,512}")
_IGNORED_PARAMETERS = frozenset({"x5t", "cat"})
"""Header parameters that some providers add, which name a key or a category and are never looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Idp:
    """
    One provider.

    `audiences`: one of them must be in `audience_claim`, which is a list only where `audience_list` says so. `types` are
    the accepted values of the header's `typ`; `headers` its further parameters, ignored. `required` are claims with
    their one accepted value. `max_ttl` is the longest time from `iat` to `exp`, in seconds. `id_tokens` tells that the
    provider has no other tokens to offer.
    """

    name: str
    issuer: str
    audiences: tuple[str, ...]
    source: str = "discovery"
    jwks_url: str = ""
    algorithms: tuple[str, ...] = ("RS256",)
    user_claim: str = "sub"
    group_claim: str = ""
    max_ttl: int = 3600
    audience_claim: str = "aud"
    audience_list: bool = False
    types: tuple[str, ...] = ("JWT",)
    headers: tuple[str, ...] = ()
    required: tuple[tuple[str, str], ...] = ()
    id_tokens: bool = False

    def check(self) -> "Idp":
        """This record, if it can be stored. Raises Usage with the mend."""
        parse_name(self.name, what="an identity provider")
        self._check_keys()
        texts = (self.issuer, *self.audiences, self.user_claim, self.audience_claim, *self.types)
        named = [name for name, value in self.required if not value]
        for text in (*texts, *filter(None, [self.group_claim]), *(name for name, _ in self.required)):
            if not _TEXT.fullmatch(text):
                raise Usage(f"cannot be compared with a token: {text!r}", hint="use 1 to 512 printable characters without blanks")  # fmt: skip
        if not self.audiences or not self.types or named:
            raise Usage("an audience, or the value of a required claim, is missing", hint="give --audience AUD: the name by which the provider knows this application")  # fmt: skip
        if not 0 < self.max_ttl <= LONGEST_LIFE:
            raise Usage(f"not a lifetime for tokens: {self.max_ttl} seconds", hint="use at most 24h; short-lived tokens are the point of them")  # fmt: skip
        if set(self.headers) - _IGNORED_PARAMETERS:
            raise Usage("a header parameter cannot be ignored", hint="only " + ", ".join(sorted(_IGNORED_PARAMETERS)))
        return self

    def _check_keys(self) -> None:
        if self.source not in SOURCES:
            raise Usage(f"no such source of keys: {self.source!r}", hint="one of " + ", ".join(SOURCES))
        if (SHARED in self.algorithms) != (self.source == "shared") or len(set(self.algorithms)) != len(self.algorithms):  # fmt: skip
            raise Usage(f"{SHARED} works only with a shared secret, and never beside another algorithm", hint="leave --alg out with --shared-secret-file")  # fmt: skip
        allowed = (SHARED,) if self.source == "shared" else ASYMMETRIC
        if not self.algorithms or not set(self.algorithms) <= set(allowed):
            raise Usage(f"not algorithms for signatures: {', '.join(self.algorithms) or 'none'}", hint="use " + ", ".join(allowed))  # fmt: skip
        if self.source == "discovery":
            check_url(self.issuer, what="an issuer that is asked for its keys")
        if self.source == "url":
            check_url(self.jwks_url, what="the address of a key set")

    def dump(self) -> str:
        """What the vault stores beside name and issuer."""
        rules = asdict(self)
        del rules["name"], rules["issuer"]
        return json.dumps(rules, separators=(",", ":"), sort_keys=True)


@dataclass(frozen=True, slots=True)
class Registration:
    """A provider as it stands in the vault. `revision` grows with every change of it."""

    id: str
    revision: int
    idp: Idp


@functools.lru_cache(maxsize=64)
def load(name: str, issuer: str, rules: str) -> Idp:
    """The record in stored text. Raises Fault for what is not one, an unknown member included."""
    try:
        raw = {key: _frozen(value) for key, value in json.loads(rules).items()}
        return Idp(name=name, issuer=issuer, **raw).check()
    except (ValueError, TypeError, AttributeError, Usage) as error:
        raise Fault("vault_unavailable", "a stored identity provider cannot be read") from error


def check_url(text: str, *, what: str) -> None:
    """Raises Usage unless `text` is a plain https URL, without user, query or fragment."""
    try:
        parts = urlsplit(text)
        bare = not (parts.username or parts.password) and "?" not in text and "#" not in text
        plain = parts.scheme == "https" and bool(parts.hostname) and parts.port != 0 and bare
    except ValueError:
        plain = False
    if not plain or not _TEXT.fullmatch(text):
        raise Usage(f"not {what}: {text!r}", hint="write a whole URL that begins with https://")


def find_claim(claims: Any, path: str, default: Any = None) -> Any:
    """The claim at `path`, or `default` where there is none."""
    for name in _members(path):
        if not isinstance(claims, dict) or name not in claims:
            return default
        claims = claims[name]
    return claims


@functools.lru_cache(maxsize=256)
def _members(path: str) -> tuple[str, ...]:
    if path.startswith("/"):
        return tuple(part.replace("~1", "/").replace("~0", "~") for part in path[1:].split("/"))
    return (path,) if "://" in path else tuple(path.split("."))


def _frozen(value: Any) -> Any:
    return tuple(_frozen(each) for each in value) if isinstance(value, list) else value


# ── presets ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """What is known about one product. `issuer` is its form, or the issuer itself where there is only one."""

    title: str
    issuer: str
    note: str
    rules: dict[str, Any]

    @property
    def only_issuer(self) -> str:
        """The issuer, where the product has exactly one."""
        return "" if "{" in self.issuer else self.issuer

    def apply(self, idp: Idp) -> Idp:
        """`idp` with the rules of the product."""
        made = replace(idp, **self.rules)
        return replace(made, jwks_url=made.jwks_url.replace("{issuer}", idp.issuer.rstrip("/")))


@functools.cache
def presets() -> dict[str, Preset]:
    """Every preset by its slug."""
    raw = json.loads((Path(__file__).parent / "idp_presets.json").read_text("utf-8"))
    return {
        slug: Preset(
            title=entry["title"],
            issuer=entry["issuer"],
            note=entry["note"],
            rules={name: _frozen(value) for name, value in entry["rules"].items()},
        )
        for slug, entry in raw.items()
    }
