"""`idp`: the identity providers whose tokens prove a user."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from addon.callers.idp import ASYMMETRIC, SHARED, Idp, presets
from addon.callers.jwt import Unusable
from addon.errors import Usage
from addon.vault import Vault
from addon.vault.idps import Stored
from vaultctl import times, tokens
from vaultctl.command import noun
from vaultctl.console import Session, facts, pass_session, table

DENIED = 4

KEY_SET_LIMIT = 256 * 1024

idp = noun("idp", help="Identity providers, whose tokens prove who a user is.")


def _rules(function: Callable[..., Any]) -> Callable[..., Any]:
    """What a token must say: the same options where a provider is added and where it is changed."""
    options = (
        click.option("--audience", "audiences", multiple=True, metavar="AUD", help="Our name at the provider, which its tokens must carry. May be repeated: one of them."),
        click.option("--jwks-url", metavar="URL", help="Where its keys lie. Otherwise ISSUER/.well-known/openid-configuration tells."),
        click.option("--jwks-file", metavar="F", help="Its keys themselves, kept in the vault."),
        click.option("--shared-secret-file", metavar="F", help=f"A secret of at least 32 random bytes, for a provider that signs with {SHARED}."),
        click.option("--alg", "algorithms", multiple=True, type=click.Choice(ASYMMETRIC), help="What it signs with; RS256 if left out. May be repeated."),
        click.option("--user-claim", metavar="CLAIM", help="Where the user's id is; sub if left out."),
        click.option("--group-claim", metavar="CLAIM", help="Where the list of groups is: groups, realm_access.roles, https://…; an empty text for none."),
        click.option("--require", "required", multiple=True, metavar="CLAIM=VALUE", help="A claim that must have this value. May be repeated."),
        click.option("--max-ttl", metavar="D", help="The longest time between iat and exp; 1h if left out, at most 24h."),
        click.option("--audience-claim", metavar="CLAIM", help="Where the audience is; aud if left out."),
        click.option("--audience-list/--no-audience-list", default=None, help="Whether its tokens carry a list of audiences."),
        click.option("--typ", "types", multiple=True, metavar="TYP", help="The type in the header of its tokens; JWT if left out. May be repeated."),
        click.option("--ignore-header", "headers", multiple=True, type=click.Choice(["x5t", "cat"]), help="A further header parameter it sends, never looked at. May be repeated."),
        click.option("--id-tokens/--no-id-tokens", default=None, help="Whether id tokens count, for a provider that has no others."),
    )  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


@idp.command(
    "add",
    examples=[
        "vaultctl idp add acme --preset auth0 --issuer https://acme.eu.auth0.com/ --audience https://egress.acme.example",
        "vaultctl idp add staff --issuer https://id.example.com --audience egress --group-claim groups --alg ES256",
        "vaultctl idp add cluster --preset kubernetes --issuer https://kubernetes.default.svc --audience egress --jwks-file jwks.json",
    ],
)
@click.argument("name")
@click.option("--preset", type=click.Choice(sorted(presets())), help="What is known about a product; `vaultctl idp presets` tells.")  # fmt: skip
@click.option("--issuer", metavar="URL", help="The `iss` of its tokens, to the letter.")
@_rules
@click.option(
    "--upstream-ca",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="CAs to trust besides the public ones when the keys are tried.",
)
@pass_session
def add(
    session: Session,
    /,
    *,
    name: str,
    preset: str | None,
    issuer: str | None,
    upstream_ca: Path | None,
    **rules: Any,
) -> None:
    """Register a provider as NAME. Its users are then `user:NAME/SUBJECT`, its groups `group:NAME/GROUP`."""
    chosen = presets()[preset] if preset else None
    issuer = issuer or (chosen.only_issuer if chosen else "")
    if not issuer:
        raise Usage("the issuer is missing", hint=f"its form is {chosen.issuer}" if chosen else "add --issuer URL")
    if not rules["audiences"]:
        raise Usage("the audience is missing: a token for somebody else must not count here", hint="add --audience AUD, the name of this application at the provider")  # fmt: skip
    made = Idp(name=name, issuer=issuer, audiences=())
    made, keys = _apply(chosen.apply(made) if chosen else made, rules)
    vault = session.vault(writable=True)
    stored = vault.idps.add(made, keys=keys, now=session.now)
    session.emit(_document(stored), facts(_pairs(stored)))
    session.note(f"tokens of {issuer} for {' or '.join(made.audiences)} prove users of {name}")
    if chosen:
        session.note(f"{chosen.title}: {chosen.note}")
    _try_keys(session, vault, stored, upstream_ca)


@idp.command("change", examples=["vaultctl idp change staff --group-claim https://acme.example/groups", "vaultctl idp change staff --jwks-file new.json"])  # fmt: skip
@click.argument("name")
@_rules
@click.option("--yes", is_flag=True, help="Do not ask before users or groups get another meaning.")
@pass_session
def change(session: Session, /, *, name: str, yes: bool, **rules: Any) -> None:
    """
    Change what the tokens of NAME must say, from the next request on. What is not given stays; the issuer always stays.
    """
    vault = session.vault(writable=True)
    current = vault.idps.get(name).idp
    made, keys = _apply(current, rules)
    grants = _grants(vault, name)
    if grants and (made.user_claim, made.group_claim) != (current.user_claim, current.group_claim):
        session.confirm(f"{len(grants)} grants name users or groups by the claims of now; change them?", yes=yes)
    stored = vault.idps.change(made, keys=keys, now=session.now)
    session.emit(_document(stored), facts(_pairs(stored)))
    session.note(f"changed {name}, effective from the next request on")


@idp.command("list", examples=["vaultctl idp list", "vaultctl idp list --json"])
@pass_session
def list_(session: Session) -> None:
    """All providers by name."""
    found = session.vault().idps.all()
    session.emit(
        [_document(each) for each in found],
        table(
            ("NAME", "ISSUER", "AUDIENCE", "KEYS", "ALGORITHMS", "USER", "GROUPS"),
            [
                (
                    each.idp.name,
                    each.idp.issuer,
                    ", ".join(each.idp.audiences),
                    each.idp.source,
                    ", ".join(each.idp.algorithms),
                    each.idp.user_claim,
                    each.idp.group_claim,
                )
                for each in found
            ],
        ),
    )
    if not found:
        session.note("no identity provider yet; register one with `vaultctl idp add NAME --issuer URL --audience AUD`")


@idp.command("presets", examples=["vaultctl idp presets"])
@pass_session
def presets_(session: Session) -> None:
    """The products whose tokens are known, for `idp add --preset`."""
    found = sorted(presets().items())
    session.emit(
        [
            {"preset": slug, "title": each.title, "issuer": each.issuer, "note": each.note, "rules": each.rules}
            for slug, each in found
        ],
        table(("PRESET", "PRODUCT", "ISSUER"), [(slug, each.title, each.issuer) for slug, each in found]),
    )


@idp.command("show", examples=["vaultctl idp show staff"])
@click.argument("name")
@pass_session
def show(session: Session, name: str) -> None:
    """Everything about one provider, and how many grants rely on it."""
    vault = session.vault()
    stored, grants = vault.idps.get(name), _grants(vault, name)
    session.emit(_document(stored) | {"grants": len(grants)}, facts([*_pairs(stored), ("grants", len(grants))]))


@idp.command("remove", examples=["vaultctl idp remove staff --yes"])
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_session
def remove(session: Session, name: str, *, yes: bool) -> None:
    """
    Stop believing the tokens of NAME, from the next request on.

    Grants and delegations of its users stay and do not work; they work again if the same issuer is added as NAME.
    """
    vault = session.vault(writable=True)
    vault.idps.get(name)
    session.confirm(f"stop believing {name}, whom {len(_grants(vault, name))} grants rely on?", yes=yes)
    vault.idps.remove(name, now=session.now)
    session.emit({"name": name, "state": "removed"})
    session.note(f"removed {name}, effective from the next request on; its name stays with its issuer")


@idp.command(
    "check",
    examples=[
        "vaultctl idp check staff --token-file token.txt",
        "vaultctl idp check staff --token-file - --at 2027-01-31T18:00:00Z",
    ],
)
@click.argument("name")
@click.option("--token-file", required=True, metavar="F", help="A file with the token; `-` is stdin.")
@click.option("--at", metavar="TIME", help="When it would be shown. Otherwise now.")
@tokens.means
@pass_session
def check(
    session: Session,
    *,
    name: str,
    token_file: str,
    at: str | None,
    upstream_ca: Path | None,
    shared_secret_file: str | None,
) -> None:
    """
    What the verifier makes of a token, claim by claim. Exit code 0: it proves a user; 4: it does not.

    The token is not shown, not kept, and sent nowhere.
    """
    vault = session.vault()
    registration = vault.idps.find(vault.idps.get(name).idp.issuer)
    if registration is None:
        raise Usage(f"{name} is being removed", hint="`vaultctl idp list` lists the providers")
    verdict = tokens.check(
        vault,
        tokens.read_token(token_file),
        registration,
        means=tokens.Means(upstream_ca, shared_secret_file),
        now=session.now if at is None else times.parse_time(at),
    )
    user = verdict.user
    session.emit(
        {
            "valid": user is not None,
            "code": "" if user else "user_token_invalid",
            "checks": [{"name": c.name, "verdict": c.verdict, "detail": c.detail} for c in verdict.checks],
            "subject": user.subject if user else None,
            "groups": sorted(user.groups) if user else [],
        },
        [
            *table(("CHECK", "VERDICT", "DETAIL"), [(c.name, c.verdict, c.detail) for c in verdict.checks]),
            "",
            *([str(user), *(f"group:{user.idp}/{group}" for group in sorted(user.groups))] if user else ["user_token_invalid"]),
        ],
    )  # fmt: skip
    if user is None:
        click.get_current_context().exit(DENIED)


def _apply(base: Idp, rules: dict[str, Any]) -> tuple[Idp, bytes | None]:
    """`base` with what was given, and the keys that were given. Raises Usage."""
    changes = {name: rules[name] for name in ("audiences", "algorithms", "types", "headers") if rules[name]}
    for name in ("user_claim", "group_claim", "audience_claim", "audience_list", "id_tokens"):
        if rules[name] is not None:
            changes[name] = rules[name]
    if rules["required"]:
        changes["required"] = tuple(_pair(text) for text in rules["required"])
    if rules["max_ttl"] is not None:
        changes["max_ttl"] = int(times.parse_duration(rules["max_ttl"]))
    given = [name for name in ("jwks_url", "jwks_file", "shared_secret_file") if rules[name] is not None]
    if len(given) > 1:
        raise Usage("keys come from one place", hint="give one of --jwks-url, --jwks-file and --shared-secret-file")
    keys = None
    if given == ["jwks_url"]:
        changes |= {"source": "url", "jwks_url": rules["jwks_url"]}
    elif given == ["jwks_file"]:
        changes |= {"source": "file", "jwks_url": ""}
        keys = tokens.read_file(rules["jwks_file"], what="the key set", limit=KEY_SET_LIMIT)
    elif given:
        changes |= {"source": "shared", "jwks_url": "", "algorithms": rules["algorithms"] or (SHARED,)}
        keys = tokens.read_secret(rules["shared_secret_file"])
    if given and not rules["algorithms"] and base.algorithms == (SHARED,) and changes["source"] != "shared":
        changes["algorithms"] = ("RS256",)
    return replace(base, **changes), keys


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise Usage(f"not a required claim: {text!r}", hint="write --require CLAIM=VALUE, such as hd=example.com")
    return name, value


def _try_keys(session: Session, vault: Vault, stored: Stored, upstream_ca: Path | None) -> None:
    """Tell at once what the proxy would otherwise find out later."""
    from addon.callers.web import Unfetched  # noqa: PLC0415  see `tokens.fetch`

    registration = vault.idps.find(stored.idp.issuer)
    if registration is None or stored.idp.source not in {"discovery", "url"}:
        return
    try:
        keys = tokens.fetch(registration, upstream_ca=upstream_ca)
    except (Unusable, Unfetched) as problem:
        session.note(
            f"warning: its keys cannot be had from here now: {problem}",
            "hint: the proxy goes on trying; or store them with `vaultctl idp change … --jwks-file`",
        )
        return
    session.note(f"its keys are there: {len(keys.named) + (keys.sole is not None)} that can be used")


def _grants(vault: Vault, name: str) -> list[str]:
    """The live grants that name people of a provider."""
    return [
        grant.id
        for grant in vault.grants.list()
        if grant.revoked_at is None and grant.principal.startswith((f"user:{name}/", f"group:{name}/"))
    ]


def _document(stored: Stored) -> dict[str, object]:
    each = stored.idp
    return {
        "name": each.name,
        "issuer": each.issuer,
        "audiences": list(each.audiences),
        "keys": each.source,
        "jwks_url": each.jwks_url or None,
        "algorithms": list(each.algorithms),
        "user_claim": each.user_claim,
        "group_claim": each.group_claim or None,
        "required": dict(each.required),
        "max_ttl_seconds": each.max_ttl,
        "audience_claim": each.audience_claim,
        "audience_list": each.audience_list,
        "types": list(each.types),
        "ignored_headers": list(each.headers),
        "id_tokens": each.id_tokens,
        "created_at": times.rfc3339(stored.created_at),
        "updated_at": times.rfc3339(stored.updated_at),
    }


def _pairs(stored: Stored) -> list[tuple[str, object]]:
    members = _document(stored) | {"required": [f"{name}={value}" for name, value in stored.idp.required]}
    return list(members.items())
