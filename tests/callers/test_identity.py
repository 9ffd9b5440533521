"""A key and what the vault says about it: everything must hold, and a refusal never says what did not."""

import pytest

from addon.callers import key as keys
from addon.callers.identity import identify
from addon.callers.proof import Proof
from addon.errors import Refusal
from addon.model import Caller
from addon.vault.lookup import KeyState

NOW = 1_800_000_000.0
_, APP = keys.mint("app")
_, RUN = keys.mint("run")


def stored(**changes):
    fields = {
        "key_id": "key_1", "type": "app", "expires_at": None, "revoked_at": None, "grants": (), "caller_type": "app",
        "caller_name": "billing", "caller_state": "active", "cidrs": (), "policies": "[]",
    }  # fmt: skip
    return KeyState(**(fields | changes))


def test_a_good_key_stands_for_its_caller():
    for name in (None, "billing"):
        caller = identify(Proof(APP, name), stored(), client_ip="127.0.0.1", now=NOW)
        assert caller == Caller(type="app", name="billing", key_id="key_1")
        assert str(caller) == "app:billing"


def test_a_session_key_brings_its_grants():
    caller = identify(Proof(RUN, None), stored(type="run", grants=("g",)), client_ip="127.0.0.1", now=NOW)
    assert (caller.session, caller.grants, caller.type) == (True, ("g",), "app")


BAD = {
    "unknown": (None, {}),
    "revoked": (stored(revoked_at=NOW), {}),
    "revoked in the future": (stored(revoked_at=NOW + 60), {}),
    "expired this very second": (stored(expires_at=NOW), {}),
    "long expired": (stored(expires_at=0.0), {}),
    "of a disabled caller": (stored(caller_state="disabled"), {}),
    "of a caller in no state we know": (stored(caller_state=""), {}),
    "of another type": (stored(type="agt"), {}),
    "from another address": (stored(cidrs=("10.0.0.0/8",)), {}),
    "from no address": (stored(cidrs=("10.0.0.0/8",)), {"client_ip": ""}),
    "with another name": (stored(), {"name": "other"}),
    "with an empty name": (stored(), {"name": ""}),
    "with a name in capitals": (stored(), {"name": "Billing"}),
}


@pytest.mark.parametrize(("state", "changes"), BAD.values(), ids=BAD)
def test_a_key_that_is_not_good_in_every_way_is_refused_in_one_way(state, changes):
    with pytest.raises(Refusal) as refused:
        identify(Proof(APP, changes.get("name")), state, client_ip=changes.get("client_ip", "127.0.0.1"), now=NOW)
    assert (refused.value.code, refused.value.policy, refused.value.args) == (
        "caller_invalid",
        None,
        ("caller_invalid",),
    )


def test_a_key_works_up_to_its_expiry_and_from_its_networks():
    state = stored(expires_at=NOW + 0.001, cidrs=("127.0.0.0/8", "10.0.0.0/8"))
    assert identify(Proof(APP, None), state, client_ip="::ffff:127.0.0.1", now=NOW).name == "billing"
