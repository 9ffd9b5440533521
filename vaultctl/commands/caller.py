"""`app` and `agent`: who may call through the proxy, and the keys that prove it. Both have the same verbs."""

import click

from addon.policies.cidr import parse_networks
from addon.principals.principal import parse_name
from addon.vault.callers import StoredKey
from vaultctl import times
from vaultctl.command import Noun, noun
from vaultctl.console import Session, pass_session, table


def _group(caller_type: str, *, about: str, example: str, principal: str) -> Noun:
    """The commands of one type of caller."""
    group = noun(caller_type, help=about)
    word = f"vaultctl {caller_type}"

    @group.command(
        "create", examples=[f"{word} create {example}", f"{word} create {example} --cidr 10.1.0.0/16 --json"]
    )
    @click.argument("name")
    @click.option(
        "--cidr", "cidrs", multiple=True, metavar="C", help="Only accept its keys from this network. May be repeated."
    )
    @pass_session
    def create(session: Session, name: str, cidrs: tuple[str, ...]) -> None:
        """Register NAME and print its first key, once."""
        parse_name(name, what=f"an {caller_type}")
        parse_networks(cidrs)
        key_id, key = session.vault(writable=True).callers.create(caller_type, name, cidrs=cidrs, now=session.now)
        session.emit({"name": name, "key_id": key_id, "key": key}, [key])
        session.note(
            f"made the {caller_type} {name} with the key {key_id}; it is shown this once",
            f"next: vaultctl grant issue SECRET --to {principal}:{name}",
        )

    @group.command("list", examples=[f"{word} list", f"{word} list --json"])
    @pass_session
    def list_(session: Session) -> None:
        """All of them, with the number of keys that work now."""
        members = session.vault().callers.list(caller_type, now=session.now)
        session.emit(
            [
                {
                    "name": member.name,
                    "state": member.state,
                    "cidrs": list(member.cidrs),
                    "keys": member.keys,
                    "created_at": times.rfc3339(member.created_at),
                }
                for member in members
            ],
            table(
                ("NAME", "STATE", "KEYS", "NETWORKS", "CREATED"),
                [(m.name, m.state, m.keys, ", ".join(m.cidrs) or "any", times.readable(m.created_at)) for m in members],
            ),
        )
        if not members:
            session.note(f"none yet; make one with `{word} create NAME`")

    def set_state(session: Session, name: str, state: str) -> None:
        session.vault(writable=True).callers.set_state(caller_type, name, state, now=session.now)
        session.emit({"name": name, "state": state})
        session.note(f"the {caller_type} {name} is {state} from the next request on")

    @group.command("disable", examples=[f"{word} disable {example}"])
    @click.argument("name")
    @pass_session
    def disable(session: Session, name: str) -> None:
        """Stop all keys of NAME, until it is enabled again."""
        set_state(session, name, "disabled")

    @group.command("enable", examples=[f"{word} enable {example}"])
    @click.argument("name")
    @pass_session
    def enable(session: Session, name: str) -> None:
        """Let the keys of NAME work again."""
        set_state(session, name, "active")

    group.add_command(_keys(caller_type, word=word, example=example))
    return group


def _keys(caller_type: str, *, word: str, example: str) -> Noun:
    key = noun(
        "key", help=f"The keys of an {caller_type}. Several work at once, so that they can be rotated.", default=None
    )

    @key.command("create", examples=[f"{word} key create {example} --expires 90d"])
    @click.argument("name")
    @click.option("--expires", metavar="WHEN", help="A duration such as 90d, or a TIME. Otherwise until revoked.")
    @pass_session
    def create(session: Session, name: str, expires: str | None) -> None:
        """Make another key for NAME and print it, once."""
        expires_at = None if expires is None else times.deadline(expires, now=session.now)
        key_id, text = session.vault(writable=True).callers.mint_key(
            caller_type, name, now=session.now, expires_at=expires_at
        )
        document = {"name": name, "key_id": key_id, "key": text, "expires_at": times.rfc3339_or_none(expires_at)}
        session.emit(document, [text])
        session.note(f"made the key {key_id} of the {caller_type} {name}; it is shown this once")

    @key.command("list", examples=[f"{word} key list {example}"])
    @click.argument("name")
    @pass_session
    def list_(session: Session, name: str) -> None:
        """The keys of NAME, oldest first, those of `vaultctl run` included."""
        keys = session.vault().callers.keys(caller_type, name)
        session.emit(
            [
                {
                    "key_id": each.id,
                    "type": each.type,
                    "state": _state(each, session.now),
                    "grants": list(each.grants),
                    "created_at": times.rfc3339(each.created_at),
                    "expires_at": times.rfc3339_or_none(each.expires_at),
                    "revoked_at": times.rfc3339_or_none(each.revoked_at),
                }
                for each in keys
            ],
            table(
                ("KEY", "TYPE", "STATE", "CREATED", "EXPIRES"),
                [
                    (k.id, k.type, _state(k, session.now), times.readable(k.created_at), times.readable(k.expires_at))
                    for k in keys
                ],
            ),
        )

    @key.command("revoke", examples=[f"{word} key revoke key_3f2a9c0d1e2b"])
    @click.argument("key_id")
    @pass_session
    def revoke(session: Session, key_id: str) -> None:
        """Stop one key for good, from the next request on."""
        session.vault(writable=True).callers.revoke_key(caller_type, key_id, now=session.now)
        session.emit({"key_id": key_id, "state": "revoked"})
        session.note(f"the key {key_id} is revoked from the next request on")

    return key


def _state(key: StoredKey, now: float) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= now else "active"


app = _group(
    "app",
    about="Applications that call through the proxy, and their keys.",
    example="billing",
    principal="system",
)
agent = _group(
    "agent",
    about="AI agents and workers that call under names of their own, and their keys.",
    example="researcher",
    principal="agent",
)
