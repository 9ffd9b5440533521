"""A presented key, and what the vault says about it, become a caller."""

from typing import Protocol

from addon.errors import Refusal
from addon.model import Caller, Proof
from addon.policies.cidr import contains


class StoredKey(Protocol):
    """What the vault keeps of a key and its caller (`vault.lookup.KeyState`)."""

    @property
    def key_id(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def expires_at(self) -> float | None: ...
    @property
    def revoked_at(self) -> float | None: ...
    @property
    def grants(self) -> tuple[str, ...]: ...
    @property
    def caller_type(self) -> str: ...
    @property
    def caller_name(self) -> str: ...
    @property
    def caller_state(self) -> str: ...
    @property
    def cidrs(self) -> tuple[str, ...]: ...
    @property
    def policies(self) -> str: ...


def identify(proof: Proof, stored: StoredKey | None, *, client_ip: str, now: float) -> Caller:
    """
    The caller a key stands for at `now`.

    Raises Refusal `caller_invalid`, without saying which of them it was, for an unknown, revoked or expired key, a
    disabled caller, another source address, or a name that is not the caller's.
    """
    good = (
        stored is not None
        and stored.type == proof.key.type
        and stored.revoked_at is None
        and (stored.expires_at is None or stored.expires_at > now)
        and stored.caller_state == "active"
        and (not stored.cidrs or contains(stored.cidrs, client_ip))
        and proof.name in {None, stored.caller_name}
    )
    if stored is None or not good:
        raise Refusal("caller_invalid")
    return Caller(
        type=stored.caller_type,
        name=stored.caller_name,
        key_id=stored.key_id,
        session=stored.type == "run",
        grants=stored.grants,
        policies=stored.policies,
    )
