"""Apps and agents, which have the same commands."""

import pytest

from addon.callers import key as keys

pytestmark = pytest.mark.parametrize("noun", ["app", "agent"])


def test_create_prints_the_key_alone_on_stdout_and_only_then(cli, noun):
    ran = cli(noun, "create", "one")
    assert ran.code == 0
    assert keys.parse(ran.out.strip()).type == keys.CALLER_TYPES[noun]
    assert ran.out.strip() not in ran.err
    for later in (cli(noun, "list", "--json"), cli(noun, "key", "list", "one", "--json")):
        assert ran.out.strip() not in later.out


def test_create_gives_scripts_name_id_and_key(cli, noun):
    document = cli(noun, "create", "one", "--json").json
    assert set(document) == {"name", "key_id", "key"}
    assert [key["key_id"] for key in cli(noun, "key", "list", "one", "--json").json] == [document["key_id"]]


def test_a_name_is_taken_once(cli, noun):
    assert cli(noun, "create", "one").code == 0
    ran = cli(noun, "create", "one")
    assert ran.code == 7
    assert "key create one" in ran.err


@pytest.mark.parametrize("name", ["", " ", "a b", "-", ".x", "a/b", "ü", "a" * 65, "a\n"])
def test_a_name_is_letters_digits_and_a_few_signs(cli, noun, name):
    ran = cli(noun, "create", "--", name)
    assert (ran.code, bool(ran.error)) == (2, True)
    assert cli(noun, "list", "--json").json == []


def test_networks_are_kept_and_checked(cli, noun):
    assert cli(noun, "create", "one", "--cidr", "10.1.0.0/16", "--cidr", "2001:db8::/32").code == 0
    assert cli(noun, "list", "--json").json[0]["cidrs"] == ["10.1.0.0/16", "2001:db8::/32"]
    ran = cli(noun, "create", "two", "--cidr", "10.1.0.5/16")
    assert (ran.code, "CIDR" in ran.err) == (2, True)
    assert len(cli(noun, "list", "--json").json) == 1


def test_disable_and_enable_keep_the_keys(cli, noun):
    cli(noun, "create", "one")
    assert cli(noun, "disable", "one").code == 0
    assert cli(noun, "list", "--json").json[0]["state"] == "disabled"
    assert cli(noun, "enable", "one").code == 0
    assert cli(noun, "list", "--json").json[0] | {"created_at": ""} == {
        "name": "one", "state": "active", "cidrs": [], "keys": 1, "created_at": "",
    }  # fmt: skip


def test_several_keys_overlap_and_one_is_revoked(cli, noun):
    first = cli(noun, "create", "one", "--json").json
    second = cli(noun, "key", "create", "one", "--expires", "90d", "--json").json
    assert second["key"] != first["key"]
    assert cli(noun, "list", "--json").json[0]["keys"] == 2
    assert cli(noun, "key", "revoke", first["key_id"]).code == 0
    states = {key["key_id"]: key["state"] for key in cli(noun, "key", "list", "one", "--json").json}
    assert states == {first["key_id"]: "revoked", second["key_id"]: "active"}
    assert cli(noun, "list", "--json").json[0]["keys"] == 1


@pytest.mark.parametrize("when", ["2001-01-01T00:00:00Z", "0s", "1000", "soon"])
def test_a_key_that_would_not_live_is_refused(cli, noun, when):
    cli(noun, "create", "one")
    ran = cli(noun, "key", "create", "one", "--expires", when)
    assert (ran.code, ran.out) == (2, "")
    assert len(cli(noun, "key", "list", "one", "--json").json) == 1


@pytest.mark.parametrize(
    "args",
    [("disable", "x"), ("enable", "x"), ("key", "create", "x"), ("key", "list", "x"), ("key", "revoke", "key_0")],
)
def test_what_is_not_there_is_exit_code_3(cli, noun, args):
    ran = cli(noun, *args)
    assert (ran.code, ran.out) == (3, "")
    assert ran.error


def test_a_key_is_revoked_under_its_own_noun_only(cli, noun):
    other = {"app": "agent", "agent": "app"}[noun]
    key_id = cli(other, "create", "one", "--json").json["key_id"]
    assert cli(noun, "key", "revoke", key_id).code == 3


def test_a_bare_key_helps(cli, noun):
    ran = cli(noun, "key")
    assert ran.code == 2
    assert "Usage" in ran.err
