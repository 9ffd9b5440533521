"""The vault as a whole: made whole or not at all, readable by its own key alone, and silent about its values."""

import base64
import contextlib
import itertools
import os
import shutil
import stat
import urllib.parse

import pytest

from addon import files
from addon.binding import Binding
from addon.errors import Conflict, Corrupt, Fault, Locked, OperatorError
from addon.pipeline import Authorized, Refused, inject
from addon.vault import Vault, database
from addon.vault.keyring import Keyring
from addon.vault.seal import Place, seal

NOW = 1_800_000_000.0


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


# ── making one ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("suite", [1, 2])
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_new_vault_is_closed_to_others_whatever_the_umask(tmp_path, suite, umask):
    home = tmp_path / "parent" / "home"
    before = os.umask(umask)
    try:
        vault = Vault.create(home, now=NOW, suite=suite)
    finally:
        os.umask(before)
    assert mode(home) == 0o700
    assert {entry.name: mode(entry) for entry in home.iterdir()} == dict.fromkeys(names(home), 0o600)
    assert {"vault.db", "proxy.key"} <= set(names(home))
    vault.close()
    opened = Vault.connect(home, keyring=Keyring.load(home / "proxy.key"))
    opened.self_test()
    assert opened.id == vault.id
    opened.close()


def test_two_vaults_are_never_the_same(tmp_path):
    ids = {vault.id for name in "ab" for vault in [Vault.create(tmp_path / name, now=NOW)] if not vault.close()}
    assert len(ids) == 2
    assert (tmp_path / "a" / "proxy.key").read_bytes() != (tmp_path / "b" / "proxy.key").read_bytes()


OCCUPIED = {
    "a vault": lambda home: (home / "vault.db").write_bytes(b"precious"),
    "a key": lambda home: (home / "proxy.key").write_bytes(b"precious"),
    "a link in place of the vault": lambda home: (home / "vault.db").symlink_to("precious"),
    "a link in place of the key": lambda home: (home / "proxy.key").symlink_to("precious"),
    "a folder in place of the vault": lambda home: (home / "vault.db").mkdir(),
    "a folder in place of the key": lambda home: (home / "proxy.key").mkdir(),
}


@pytest.mark.parametrize("occupy", OCCUPIED.values(), ids=OCCUPIED)
def test_whatever_is_there_already_stays_as_it_is(tmp_path, occupy):
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    occupy(home)
    before = {entry.name: entry.lstat().st_mode for entry in home.iterdir()}
    with pytest.raises(Conflict) as refused:
        Vault.create(home, now=NOW)
    assert refused.value.hint
    assert {entry.name: entry.lstat().st_mode for entry in home.iterdir()} == before
    assert {entry.read_bytes() for entry in home.iterdir() if entry.is_file()} <= {b"precious"}


@pytest.mark.parametrize("broken", ["database.migrate", "database.write", "log.append", "files.create"])
def test_a_vault_that_could_not_be_finished_leaves_nothing(tmp_path, monkeypatch, broken):
    home, created = tmp_path / "home", files.create

    def fail(path, *args, **kwargs):
        if broken == "files.create" and path != home / "proxy.key":
            return created(path, *args, **kwargs)
        raise OSError(28, "No space left on device")

    owner, _, name = broken.partition(".")
    monkeypatch.setattr(f"addon.vault.vault.{owner}.{name}", fail)
    with pytest.raises(OSError, match="No space left"):
        Vault.create(home, now=NOW)
    assert names(home) == []
    monkeypatch.undo()
    Vault.create(home, now=NOW).close()


def test_a_home_that_is_a_link_or_open_to_others_is_not_used(tmp_path):
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o755)
    for name in ("link", "dangling", "open"):
        with pytest.raises(Locked):
            Vault.create(tmp_path / name, now=NOW)
    assert names(tmp_path / "real") == names(tmp_path / "open") == []
    assert not (tmp_path / "nowhere").exists()


def test_a_vault_without_an_identity_is_none(story):
    story.vault.database.conn.execute("DELETE FROM meta")
    with pytest.raises(Locked, match="no identity"):
        Vault.connect(story.vault.home)


# ── its key ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_without_a_key_everything_but_opening_works(story):
    vault = Vault.connect(story.vault.home)
    grant = vault.lookup(digest=b"", tag=story.grants["stripe"]).grant
    with pytest.raises(Fault, match="no private key"):
        vault.open(grant)
    with pytest.raises(Locked, match="no private key"):
        vault.self_test()
    vault.secrets.rotate("stripe", values={"token": "blind"}, now=NOW)
    vault.close()
    assert dict(inject(story.decide(), vault=story.vault).head.headers)[b"Authorization"] == b"Bearer blind"


@pytest.mark.parametrize("suite", [1, 2])
def test_the_key_of_another_vault_is_noticed_before_anything_is_served(story, suite):
    foreign = Vault.connect(story.vault.home, keyring=Keyring.generate(suite))
    with pytest.raises(Locked, match="does not belong to this vault"):
        foreign.self_test()
    with pytest.raises(Fault, match="vault_unavailable"):
        foreign.open(foreign.lookup(digest=b"", tag=story.grants["stripe"]).grant)
    foreign.close()


def test_a_vault_that_seals_to_nobody_is_noticed(story):
    story.vault.database.conn.execute("UPDATE recipients SET retired_at = 1.0")
    with pytest.raises(Locked, match="does not belong"):
        story.vault.self_test()
    with pytest.raises(Locked, match="no key to seal to"):
        story.vault.secrets.rotate("stripe", values={"token": "x"}, now=NOW)
    assert isinstance(story.decide(), Authorized)


# ── its values ───────────────────────────────────────────────────────────────────────────────────────────────────────

CANARIES = ["sk/live+canary?&=%~7f3a", "second canary with blanks 91bd", "canary\"quotes'and\\slashes"]


def disguises(value):
    """A value as it might be found by accident."""
    raw = value.encode()
    yield from (raw, raw[::-1], raw.hex().encode(), raw.hex().upper().encode(), repr(value).encode()[1:-1])
    yield from (
        urllib.parse.quote(value).encode(),
        urllib.parse.quote_plus(value).encode(),
        urllib.parse.quote(value, "").encode(),
    )
    for shift in range(3):  # the characters in the middle do not depend on what stands around them
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(b"\0" * shift + raw)[4:-4]


def hits(home, values):
    files = [entry for entry in home.rglob("*") if entry.is_file()]
    wanted = [disguise for value in values for disguise in disguises(value)]
    assert len(files) > 1
    return [(entry.name, want) for entry in files for want in wanted if want in entry.read_bytes()]


@pytest.mark.parametrize("safe_wal", [True, False], ids=["write-ahead log", "rollback journal"])
def test_no_byte_of_a_value_or_a_key_reaches_the_disk(tmp_path, monkeypatch, safe_wal):
    if not database.engine()[1] and safe_wal:
        pytest.skip("this SQLite must not use a write-ahead log")
    monkeypatch.setattr(database, "engine", lambda: ("", safe_wal))
    home = tmp_path / "home"
    vault = Vault.create(home, now=NOW)
    _, key = vault.callers.create("app", "billing", cidrs=(), now=NOW)
    binding = Binding(hosts=(("api.test", 443),))
    values = [*CANARIES, key, key.split("_")[2]]
    vault.secrets.put("a", kind="bearer", binding=binding, values={"token": CANARIES[0]}, now=NOW)
    vault.secrets.put("b", kind="basic", binding=binding, values={"user": "u", "password": CANARIES[1]}, now=NOW)
    assert hits(home, values) == []
    vault.secrets.rotate("a", values={"token": CANARIES[2]}, now=NOW, grace=0)
    with database.write(vault.database) as connection:  # what a writer leaves while it writes, or when it is killed
        connection.execute("UPDATE versions SET created_at = created_at + 1")
        connection.execute("DELETE FROM wraps")
        assert hits(home, values) == []
        beside = names(home)
    assert ("vault.db-wal" if safe_wal else "vault.db-journal") in beside
    vault.secrets.delete("b", now=NOW)
    vault.grants.list()
    vault.close()
    assert hits(home, values) == []
    assert hits(home, ["vault.init"])  # the search finds what is there


@pytest.mark.parametrize("proxy_runs", [True, False])
def test_a_destroyed_version_is_wiped_and_not_only_unlinked(tmp_path, proxy_runs):
    home = tmp_path / "home"
    vault = Vault.create(home, now=NOW)
    vault.secrets.put("a", kind="bearer", binding=Binding(hosts=(("a.test", 443),)), values={"token": "x"}, now=NOW)
    payload, wrapped = database.query(vault.database, "SELECT v.payload, w.wrapped FROM versions v, wraps w", {})[0]
    assert payload in (home / "vault.db").read_bytes() or payload in (home / "vault.db-wal").read_bytes()
    with contextlib.ExitStack() as others:
        if proxy_runs:
            proxy = others.enter_context(contextlib.closing(Vault.connect(home, writable=False)))
            proxy.lookup(digest=b"", tag="")
        vault.secrets.rotate("a", values={"token": "y"}, now=NOW, grace=0)
        vault.close()
        left = b"".join(path.read_bytes() for path in home.glob("vault.db*"))
        assert payload not in left
        assert wrapped not in left
    assert names(home) == ["proxy.key", "vault.db"]


PLANTED = [
    b"",
    b"[",
    b"null",
    b"1",
    b"[]",
    b'"text"',
    b'{"token": 1}',
    b'{"token": null}',
    b'{"token": ["x"]}',
    b"\xff",
    b"[" * 60_000,
]


@pytest.mark.parametrize("plaintext", PLANTED, ids=lambda plaintext: plaintext[:16])
def test_a_value_that_somebody_else_sealed_into_a_row_is_a_fault_that_does_not_carry_it(story, plaintext):
    """Everybody may have the public key; who can also write the file can seal what he likes into it."""
    conn = story.vault.database.conn
    grant = story.vault.lookup(digest=b"", tag=story.grants["stripe"]).grant
    recipients = Keyring.load(story.vault.home / "proxy.key").recipients
    place = Place(vault_id=story.vault.id, secret_id=grant.secret_id, version=1, kind="bearer", binding=grant.binding)
    sealed = seal(plaintext or b" ", place=place, recipients=recipients)
    conn.execute("UPDATE versions SET payload = ? WHERE secret_id = ?", (sealed.payload, grant.secret_id))
    conn.execute("UPDATE wraps SET wrapped = ? WHERE secret_id = ?", (sealed.wraps[0].wrapped, grant.secret_id))
    outcome = story.decide()
    with pytest.raises(Fault, match="vault_unavailable") as fault:
        inject(outcome, vault=story.vault)
    assert (fault.value.__cause__, fault.value.__context__) == (None, None)


# ── somebody writes the file ─────────────────────────────────────────────────────────────────────────────────────────

COLUMNS = {
    "payload": ("versions", "payload"),
    "wrap": ("wraps", "wrapped"),
    "binding": ("versions", "binding"),
    "kind": ("secrets", "kind"),
}


@pytest.fixture
def many(story):
    """Six secrets for one host, each with a grant to `billing`, and two versions."""
    values = {}
    for n in range(6):
        name, kind = f"s{n}", ("bearer", "header")[n % 2]
        placements = story.vault.secrets.get("stripe").binding.placements
        binding = Binding(hosts=(("api.stripe.test", 443),), placements=placements, paths=("/", f"/{n}"))
        story.vault.secrets.put(name, kind=kind, binding=binding, values={"token": f"old-{n}"}, now=NOW)
        story.vault.secrets.rotate(name, values={"token": f"value-{n}"}, now=NOW)
        story.grants[name] = story.vault.grants.issue(name, principal="system:billing", now=NOW).id
        values[name] = f"value-{n}"
    return values


def carried(story, name):
    """The credential a request with this grant would carry, or None where it is refused or a fault."""
    try:
        outcome = story.decide(grant=name)
        if isinstance(outcome, Refused):
            return None
        return dict(inject(outcome, vault=story.vault).head.headers)[b"Authorization"].decode().removeprefix("Bearer ")
    except Fault:
        return None


@pytest.mark.parametrize("moved", [c for n in (1, 2, 3) for c in itertools.combinations(COLUMNS, n)], ids="+".join)
def test_what_is_moved_from_one_secret_to_another_opens_nothing(story, many, moved):
    conn = story.vault.database.conn
    for one, other in itertools.permutations(many, 2):
        conn.execute("BEGIN")
        for column in moved:
            table, name = COLUMNS[column]
            key = "id" if table == "secrets" else "secret_id"
            conn.execute(
                f"UPDATE {table} AS t SET {name} = (SELECT o.{name} FROM {table} o JOIN secrets s ON s.id = o.{key}"
                f" WHERE s.name = :other {'' if table == 'secrets' else 'AND o.version = t.version'})"
                f" WHERE t.{key} = (SELECT id FROM secrets WHERE name = :one)",
                {"one": one, "other": other},
            )
        same = moved == ("kind",) and int(one[1]) % 2 == int(other[1]) % 2
        assert carried(story, one) == (many[one] if same else None), (one, other)
        conn.execute("ROLLBACK")
    assert {name: carried(story, name) for name in many} == many


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE versions SET version = -version; UPDATE wraps SET version = -version; UPDATE secrets SET current = -current",
        "UPDATE meta SET value = '0b6f3c1e-9f53-4a53-9b36-6d0c9b6a8a51' WHERE name = 'vault_id'",
        "UPDATE wraps SET kid = 'x' || substr(kid, 2)",
        "UPDATE wraps SET suite = 2",
        "UPDATE wraps SET suite = 99",
        "UPDATE versions SET payload = CAST(payload || x'00' AS BLOB)",
        "UPDATE versions SET payload = CAST(x'02' || substr(payload, 2) AS BLOB)",
        "UPDATE versions SET payload = x''",
        "UPDATE versions SET binding = CAST(binding || ' ' AS BLOB)",
        "UPDATE versions SET binding = CAST(replace(CAST(binding AS TEXT), 'stripe.test', 'evil99.test') AS BLOB)",
        "UPDATE secrets SET kind = 'later'",
        "DELETE FROM wraps",
    ],
)
def test_a_row_that_was_changed_opens_nothing(story, statement):
    conn = story.vault.database.conn
    conn.execute("PRAGMA foreign_keys = OFF")
    for part in statement.split("; "):
        conn.execute(part)
    with contextlib.closing(
        Vault.connect(story.vault.home, keyring=Keyring.load(story.vault.home / "proxy.key"))
    ) as fresh:
        story.vault, original = fresh, story.vault
        assert carried(story, "stripe") is None
        story.vault = original


def test_an_old_version_in_the_place_of_the_new_one_opens_nothing(story, many):
    conn = story.vault.database.conn
    conn.execute("UPDATE versions SET payload = (SELECT o.payload FROM versions o WHERE o.secret_id = versions.secret_id AND o.version = 1)")  # fmt: skip
    conn.execute("UPDATE wraps SET wrapped = (SELECT o.wrapped FROM wraps o WHERE o.secret_id = wraps.secret_id AND o.version = 1)")  # fmt: skip
    assert {carried(story, name) for name in many} == {None}


def test_a_damaged_file_is_refused_or_right_but_never_wrong(story, tmp_path):
    """One byte in each of many places is changed; nothing but the right value may come out, and no stray exception."""
    story.vault.close()
    whole = (story.vault.home / "vault.db").read_bytes()
    key = (story.vault.home / "proxy.key").read_bytes()
    places = [*range(0, 100, 3), *range(100, len(whole), len(whole) // 250)]
    outcomes = set()
    for place in places:
        home = tmp_path / "damaged"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(mode=0o700)
        data = bytearray(whole)
        data[place] ^= 0xFF
        files.create(home / "vault.db", bytes(data))
        files.create(home / "proxy.key", key)
        try:
            with contextlib.closing(
                Vault.connect(home, keyring=Keyring.load(home / "proxy.key"), writable=False)
            ) as vault:
                vault.self_test()
                story.vault = vault
                outcomes.add(carried(story, "stripe"))
        except (Locked, Corrupt, Fault) as refused:
            outcomes.add(type(refused))
    assert outcomes <= {story.canary, None, Locked, Corrupt, Fault}
    assert story.canary in outcomes


def test_every_error_of_an_operator_says_how_to_mend_it(tmp_path):
    for attempt in (lambda: Vault.connect(tmp_path), lambda: Vault.connect(tmp_path / "nowhere")):
        with pytest.raises(OperatorError) as refused:
            attempt()
        assert "vaultctl init" in refused.value.hint
