"""`secret`: credentials in, and everything about them but their values out."""

import sys
from collections.abc import Callable
from typing import Any, Unpack

import click

from addon import credentials
from addon.binding import Binding
from addon.credentials import Field, providers
from addon.errors import Usage
from addon.principals import named_caller
from addon.vault import Vault
from addon.vault.grants import Grant
from addon.vault.secrets import Secret
from vaultctl import bindings, descriptions, times, values
from vaultctl.bindings import Typed
from vaultctl.command import noun
from vaultctl.console import Session, facts, pass_session, table

secret = noun("secret", help="Credentials, sealed in the vault. A value goes in and never comes out.")


def _value_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option(
            "--fields-from",
            metavar="FILE|-",
            help='Read the fields as one JSON object {"NAME": "VALUE", …}; - is stdin.',
        ),
        click.option(
            "--field",
            "given",
            multiple=True,
            metavar="F=@FILE",
            help="Read a field from a file; F=TEXT only if F is not secret. May be repeated.",
        ),
    ):
        function = option(function)
    return function


@secret.command(
    "set",
    examples=[
        "vaultctl secret set stripe --provider stripe",
        "pass show openai | vaultctl secret set openai --provider openai",
        "vaultctl secret set weather --kind query --query-param appid --host api.openweathermap.org < key.txt",
        "vaultctl secret set intranet --kind basic --host wiki.internal.example --private --field user=bot",
        "vaultctl secret set s3 --kind sigv4 --host s3.eu-west-1.amazonaws.com --fields-from aws.json",
    ],
)
@click.argument("name")
@click.option("--provider", "slug", metavar="SLUG", help="A known API; see `vaultctl provider list`.")
@click.option("--kind", type=click.Choice(tuple(credentials.KINDS)), help="How the value goes into a request.")
@bindings.options
@click.option("--private", is_flag=True, help="The host may have a private address.")
@click.option(
    "--allow-credential-minting", "minting", is_flag=True, help="sigv4: let answers hand AWS credentials to the caller."
)
@click.option("--no-redact", is_flag=True, help="Do not look for the value in responses.")
@click.option("--allow-cookies", "cookies", is_flag=True, help="Let responses set cookies.")
@click.option("--websocket", is_flag=True, help="Let requests open WebSockets.")
@_value_options
@click.option("--note", default="", metavar="TEXT", help="A note for people.")
@pass_session
def set_(
    session: Session,
    *,
    name: str,
    slug: str | None,
    kind: str | None,
    given: tuple[str, ...],
    fields_from: str | None,
    note: str,
    **typed: Unpack[Typed],
) -> None:
    """
    Store a new secret as NAME.

    On a terminal its value is asked for, hidden. Elsewhere it is read from stdin, or from --field or --fields-from.
    """
    vault = session.vault(writable=True)
    vault.secrets.check_new(name)
    for switch in ("private", "minting", "no_redact", "cookies", "websocket"):
        typed[switch] = typed[switch] or None
    kind, binding = _start(name, slug=slug, kind=kind, typed=typed)
    binding = credentials.kind(kind).check_binding(bindings.change(binding, typed, kind=kind))
    read = _values(session, kind, binding, given=given, fields_from=fields_from, slug=slug or "")
    stored = vault.secrets.put(
        name, kind=kind, binding=binding, values=read, now=session.now, provider=slug or "", note=note
    )
    _stored(session, stored)
    session.note(f"next: vaultctl grant issue {name} --to system:APP")


@secret.command(
    "rotate", examples=["vaultctl secret rotate stripe", "vaultctl secret rotate stripe --grace 10m < new.txt"]
)
@click.argument("name")
@click.option("--grace", metavar="D", help="Destroy the old version after this long. Otherwise it is kept.")
@_value_options
@pass_session
def rotate(session: Session, *, name: str, grace: str | None, given: tuple[str, ...], fields_from: str | None) -> None:
    """
    Store a new value for NAME: same hosts, same grants, used from the next request on.

    Until the grace is over, `secret rollback` can go back to the old one.
    """
    seconds = None if grace is None else times.parse_duration(grace)
    vault = session.vault(writable=True)
    old = vault.secrets.get(name)
    read = _values(session, old.kind, old.binding, given=given, fields_from=fields_from, slug=old.provider)
    _stored(session, vault.secrets.rotate(name, values=read, now=session.now, grace=seconds))


@secret.command("rollback", examples=["vaultctl secret rollback stripe", "vaultctl secret rollback stripe --to 3"])
@click.argument("name")
@click.option("--to", type=click.IntRange(min=1), metavar="VERSION", help="Which one. Otherwise the one before.")
@pass_session
def rollback(session: Session, *, name: str, to: int | None) -> None:
    """Make an older version of NAME the current one again."""
    _stored(session, session.vault(writable=True).secrets.rollback(name, now=session.now, to=to))


@secret.command(
    "bind",
    examples=[
        "vaultctl secret bind stripe --host api.stripe.com --host files.stripe.com",
        "vaultctl secret bind stripe --method GET --path /v1/charges < key.txt",
    ],
)
@click.argument("name")
@bindings.options
@click.option("--private/--no-private", default=None, help="Whether the host may have a private address.")
@click.option(
    "--no-assume-role", "no_role", is_flag=True, help="sigv4: sign with the stored key itself, no longer with a role."
)
@click.option(
    "--allow-credential-minting/--forbid-credential-minting",
    "minting",
    default=None,
    help="sigv4: whether answers may hand AWS credentials to the caller.",
)
@click.option("--no-redact/--redact", default=None, help="Whether not to look for the value in responses.")
@click.option("--allow-cookies/--forbid-cookies", "cookies", default=None, help="Whether responses may set cookies.")
@click.option("--websocket/--no-websocket", default=None, help="Whether requests may open WebSockets.")
@_value_options
@pass_session
def bind(
    session: Session,
    *,
    name: str,
    given: tuple[str, ...],
    fields_from: str | None,
    **typed: Unpack[Typed],
) -> None:
    """
    Change where and how NAME may be used. What is not given stays as it is.

    The value is asked for again: it is sealed together with the places it may go to, and nobody can open it to move it.
    """
    vault = session.vault(writable=True)
    old = vault.secrets.get(name)
    binding = credentials.kind(old.kind).check_binding(bindings.change(old.binding, typed, kind=old.kind))
    if binding == old.binding:
        raise Usage("this is the binding it has", hint="give what should change, as in --host or --path")
    read = _values(session, old.kind, binding, given=given, fields_from=fields_from, slug=old.provider)
    _stored(session, vault.secrets.bind(name, binding=binding, values=read, now=session.now))


@secret.command("list", examples=["vaultctl secret list", "vaultctl secret --json"])
@pass_session
def list_(session: Session) -> None:
    """All secrets, by name."""
    found = session.vault().secrets.list()
    session.emit(
        [descriptions.summarize(each) for each in found],
        table(
            ("NAME", "KIND", "PROVIDER", "STATE", "VERSION", "HOSTS", "CHANGED"),
            [
                (
                    s.name,
                    s.kind,
                    s.provider,
                    s.state,
                    s.current,
                    ", ".join(descriptions.hosts(s.binding)),
                    times.readable(s.updated_at),
                )
                for s in found
            ],
        ),
    )
    if not found:
        session.note("none yet; store one with `vaultctl secret set NAME --provider SLUG`")


@secret.command("show", examples=["vaultctl secret show stripe", "vaultctl secret show stripe --json"])
@click.argument("name")
@pass_session
def show(session: Session, *, name: str) -> None:
    """Everything about NAME but its value, which nothing can show."""
    found = session.vault().secrets.get(name)
    session.emit(descriptions.document(found), facts(descriptions.lines(found)))


@secret.command("disable", examples=["vaultctl secret disable stripe"])
@click.argument("name")
@pass_session
def disable(session: Session, *, name: str) -> None:
    """Refuse every use of NAME from the next request on; its grants are kept."""
    _set_state(session, name, "disabled")


@secret.command("enable", examples=["vaultctl secret enable stripe"])
@click.argument("name")
@pass_session
def enable(session: Session, *, name: str) -> None:
    """Let NAME be used again."""
    _set_state(session, name, "active")


@secret.command("delete", examples=["vaultctl secret delete stripe --yes"])
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_session
def delete(session: Session, *, name: str, yes: bool) -> None:
    """Destroy every version of NAME and every grant of it."""
    vault = session.vault(writable=True)
    grants = len(vault.grants.list(secret=name))
    session.confirm(f"destroy {name} and its {grants} grants? nothing brings them back", yes=yes)
    vault.secrets.delete(name, now=session.now)
    session.emit({"name": name, "state": "deleted", "grants": grants})
    session.note(f"destroyed {name} and {grants} grants")


@secret.command("access", examples=["vaultctl secret access stripe"])
@click.argument("name")
@pass_session
def access(session: Session, *, name: str) -> None:
    """Who can reach NAME now, and through which grants."""
    vault = session.vault()
    found = vault.secrets.get(name)
    reaching = [
        (grant, *_caller(vault, grant, session.now))
        for grant in vault.grants.list(secret=name, state="active", now=session.now)
    ]
    session.emit(
        [
            {
                "principal": grant.principal,
                "grant_id": grant.id,
                "expires_at": times.rfc3339_or_none(grant.expires_at),
                "policies": [kind for kind, _ in grant.policies],
                "caller_state": state,
                "keys": keys,
            }
            for grant, state, keys in reaching
        ],
        table(
            ("PRINCIPAL", "STATE", "KEYS", "GRANT", "EXPIRES", "POLICIES"),
            [
                (
                    g.principal,
                    state,
                    keys,
                    g.id,
                    times.readable(g.expires_at),
                    ", ".join(kind for kind, _ in g.policies),
                )
                for g, state, keys in reaching
            ],
        ),
    )
    if not reaching:
        session.note("nobody: no grant of it is active")
    if found.state != "active":
        session.note(f"{name} is disabled: nobody, until it is enabled")


def _start(name: str, *, slug: str | None, kind: str | None, typed: Typed) -> tuple[str, Binding]:
    """The kind of a new secret, and the binding that the options then change. Raises Usage, NotFound."""
    if slug and kind:
        raise Usage("a provider says which kind its key is", hint="leave out --kind, or --provider")
    if slug:
        if typed["headers"] or typed["query_params"] or typed["formats"]:
            raise Usage(
                "a provider says where its key goes", hint="use --kind instead of --provider to say it yourself"
            )
        provider = providers.get(slug)
        return provider.kind, provider.binding(hosts=bindings.hosts(typed, kind=provider.kind))
    if kind:
        return kind, Binding(hosts=())
    hint = "add --provider SLUG for a known API, or --kind and --host for another"
    if name in providers.catalog():
        hint = f"add --provider {name}"
    raise Usage("nothing says what kind of credential this is", hint=hint)


def _values(
    session: Session, kind: str, binding: Binding, *, given: tuple[str, ...], fields_from: str | None, slug: str
) -> dict[str, str]:
    fields: tuple[Field, ...] = credentials.kind(kind).fields(binding)
    read = values.read(fields, given=given, fields_from=fields_from, note=session.note)
    credentials.kind(kind).check_values(binding, read)
    if provider := providers.catalog().get(slug):
        doubts = [provider.check_shape(name, value) for name, value in read.items()]
        for doubt in filter(None, doubts):
            session.note(f"warning: {doubt}")
        if any(doubts) and sys.stdin.isatty():
            session.confirm("store it all the same?", yes=False)
    return read


def _stored(session: Session, stored: Secret) -> None:
    session.emit({"name": stored.name, "secret_id": stored.id, "version": stored.current})
    session.note(
        f"{stored.name}: version {stored.current} is current, for {', '.join(descriptions.hosts(stored.binding))}"
    )


def _set_state(session: Session, name: str, state: str) -> None:
    session.vault(writable=True).secrets.set_state(name, state, now=session.now)
    session.emit({"name": name, "state": state})
    session.note(f"{name} is {state} from the next request on")


def _caller(vault: Vault, grant: Grant, now: float) -> tuple[str | None, int | None]:
    """State and number of working keys of the caller that a grant names; nothing where it names people."""
    if named := named_caller(grant.principal):
        for member in vault.callers.list(named[0], now=now):
            if member.name == named[1]:
                return member.state, member.keys
    return None, None
