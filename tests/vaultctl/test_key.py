import stat


def active(cli):
    return [key["kid"] for key in cli("key", "list", "--json").json if key["state"] == "active"]


def test_a_new_key_and_then_the_old_one_retired(cli, home, stripe):
    (old,) = active(cli)
    assert cli("key").out.split("\n")[0].split() == ["KID", "SUITE", "STATE", "CREATED", "SEALED", "ALONE"]
    ran = cli("key", "rotate")
    new = ran.out.strip()
    assert f"vaultctl key retire {old}" in ran.err
    assert active(cli) == [old, new]
    assert cli("key", "retire", old).code == 2, "it asks"
    assert cli("key", "retire", old, "--yes").code == 0
    listed = {key["kid"]: key for key in cli("key", "list", "--json").json}
    assert (listed[old]["state"], listed[old]["sealed"]) == ("retired", 0)
    assert (listed[new]["sealed"], listed[new]["alone"]) == (1, 1)
    assert stat.S_IMODE((home / "proxy.key").stat().st_mode) == 0o600
    assert cli("doctor", "--json").json["checks"]


def test_no_seed_and_no_value_is_printed(cli, home, stripe, canary):
    ran = [cli("key", "rotate"), cli("key", "rotate", "--json"), cli("key", "list")]
    ran.append(cli("key", "retire", active(cli)[0], "--yes"))
    seeds = [line.split()[2] for line in (home / "proxy.key").read_text().splitlines() if line[0].isdigit()]
    assert len(seeds) == 2
    for each in ran:
        assert each.code == 0
        assert not any(secret in each.out + each.err for secret in (*seeds, canary))


def test_the_only_key_stays(cli):
    ran = cli("key", "retire", active(cli)[0], "--yes")
    assert ran.code == 7
    assert ran.error == "it is the only key"


def test_without_the_key_file_it_is_exit_code_5(cli, home):
    (home / "proxy.key").unlink()
    assert cli("key", "rotate").code == 5
    assert cli("key", "list").code == 0
