"""
Nothing leaves undecided or unrecorded: whatever breaks, the request is refused and the upstream untouched.

First every function of the product that a request runs through is made to raise, one after the other, in the running
worker. Then the disk, the vault and the key are taken away for real.
"""

import contextlib
import os
import resource
import shutil
import sqlite3

import pytest

from tests.e2e.product import Control, routes, start
from tests.e2e.saboteur import TEXT, Saboteur
from tests.e2e.stage import HOSTS, VALUES, Stage, refusal

KERNEL = (
    "pipeline.", "tag.", "context.", "destination.", "hosts.", "callers.", "principals.", "policies.", "binding.",
    "credentials.", "vault.", "model.Request.", "audit.entry.record", "audit.writer.Writer.record", "gate.Gate.release",
    "audit.stream.", "audit.writer.Writer._advance", "audit.writer.Writer._begin", "audit.writer.Writer._end",
)  # fmt: skip
"""Where requests are decided, recorded and injected. A fault there is a 503, whenever it happens."""

HINTS = (".bound",)
"""Asked only to know in which order to shake hands."""

MESSENGERS = ("audit.writer.Writer._turn", "audit.writer.Writer._wake", "audit.writer._tell")
"""What tells those who wait for the disk that something went wrong, and cannot tell it of itself."""

BEARER = f"Bearer {VALUES['bearer']['token']}"


@pytest.fixture(scope="module")
def sabotaged(engine, seed, tmp_path_factory, _upstream, _evil, authority_file):
    """A stage whose proxy is a Saboteur."""
    home = tmp_path_factory.mktemp(f"sabotaged-{engine}") / "home"
    vaultctl = seed.copy(home)
    proxy = Saboteur(home, "--engine", engine, "--upstream-ca", authority_file, *routes(_upstream, _evil))
    with Stage(engine, vaultctl, proxy, seed.key, seed.grants, seed.cast) as stage:
        yield stage


def ask(stage, kind="bearer", *, mark="", body=b"hello", timeout=1):
    """A request in a tunnel of its own; the refusal of the tunnel, if that is what comes."""
    host, tag = HOSTS[kind], f"X-Alter-Grant: {stage.grants[kind]}\r\n"
    with stage.wire(timeout=timeout) as wire:
        answer = wire.connect(f"{host}:443")
        if answer.status != 200:
            return answer
        with contextlib.suppress(OSError):
            wire.encrypt(host)
            head = f"POST /echo/{mark} HTTP/1.1\r\nHost: {host}\r\n{tag}Content-Length: {len(body)}\r\n\r\n"
            return wire.ask(head.encode() + body)
        return None


def functions(stage, kind):
    """The functions that a request of this kind runs through."""
    ask(stage, kind)  # what is done once for all is done
    stage.proxy.order("list")
    assert ask(stage, kind).status == 200
    stage.proxy.order("run")
    return stage.proxy.names()


@pytest.mark.parametrize("kind", ["bearer", "sigv4"])
def test_every_step_of_the_kernel_that_fails_is_a_503_and_nothing_is_sent(sabotaged, upstream, kind):
    """Each of them fails for as long as it takes, the record of the fault included."""
    names = [name for name in functions(sabotaged, kind) if name.startswith(KERNEL) and not name.endswith(HINTS)]
    broken = []
    for name in names:
        upstream.reset()  # not every one is called every time: then the request before this one went out
        sabotaged.proxy.order("break always", name)
        answer = ask(sabotaged, kind)
        if sabotaged.proxy.names():
            broken.append(name)
            assert answer is not None, name
            assert answer.status == 503, (name, answer)
            assert answer.code in {"fault", "vault_unavailable", "audit_unavailable"}
            refusal(answer, answer.code, status=503)
            assert TEXT.encode() not in answer.body
            assert upstream.untouched(after=0), name
    sabotaged.proxy.order("run")
    assert TEXT not in sabotaged.proxy.log
    assert ask(sabotaged, kind).status == 200, "and it goes on"
    if kind == "bearer":
        steps = {
            "tag.find", "tag.strip", "callers.proof.find", "callers.identity.identify", "vault.lookup.Lookups.find",
            "pipeline._usable", "destination.check_destination", "policies.__init__.check", "audit.entry.record",
            "vault.known.Known.find", "vault.vault.Vault.open", "credentials.placement.write",
        }  # fmt: skip
        assert steps <= set(broken)


@pytest.mark.parametrize("kind", ["bearer", "sigv4"])
def test_any_function_that_fails_once_leaks_nothing_and_stops_nothing(sabotaged, upstream, kind):
    """
    After the credential is out, a fault can no longer keep it in. But then it is the right one, at the right place,
    and on record; and there is no 200 for what was not sent.
    """
    names = [name for name in functions(sabotaged, kind) if not name.startswith(MESSENGERS)]
    assert len(names) > 100
    if kind != "bearer":
        common = functions(sabotaged, "bearer")
        names = [name for name in names if name not in common]
    upstream.reset()
    for number, name in enumerate(names):
        sabotaged.proxy.order("break", name)
        answer = ask(sabotaged, kind, mark=number, timeout=0.3)
        sent = [seen for seen in upstream.seen() if seen.path == f"/echo/{number}"]
        assert answer is None or answer.status in {-1, 0, 400, 502, 503} or (answer.status == 200 and sent), (
            name,
            answer,
        )
        if answer and answer.status == 200 and answer.whole:
            assert answer.json["target"] == f"/echo/{number}", name
    sabotaged.proxy.order("run")
    recorded = {row["path"] for row in sabotaged.records() if row["phase"] == "intent"}
    for seen in upstream.seen():
        assert b"x-alter" not in seen.raw.lower()
        assert seen.path in recorded
        if kind == "bearer":
            assert seen.values("authorization") == [BEARER]
        else:
            assert seen.header("authorization").startswith("AWS4-HMAC-SHA256 Credential=AKIACANARY0SIGV4/")
    for secret in [VALUES["bearer"]["token"], VALUES["sigv4"]["secret_access_key"]]:
        assert secret not in sabotaged.proxy.log
    assert ask(sabotaged, kind).status == 200, "and it goes on"


def test_no_secret_is_opened_before_the_upstream_is_proved(engine, seed, tmp_path, impostor, authority_file):
    """If it were, opening would fail first."""
    home = tmp_path / "home"
    vaultctl = seed.copy(home)
    proxy = Saboteur(home, "--engine", engine, "--upstream-ca", authority_file, *routes(impostor))
    with Stage(engine, vaultctl, proxy, seed.key, seed.grants, seed.cast) as stage:
        proxy.order("break always", "vault.vault.Vault.open")
        for http2 in (False, True):
            with stage.client(http2=http2) as client:
                answer = client.get(f"https://{HOSTS['bearer']}/echo", headers=stage.tag())
                refusal(answer, "upstream_unverified", status=502, stage=stage)
        assert not proxy.names()
    assert impostor.untouched()


class TestDisk:
    """The audit log cannot be written."""

    @pytest.fixture
    def stage(self, launch, engine):
        return launch(engine=engine)

    @pytest.fixture
    def worker(self, stage):
        """The process that writes."""
        (worker,) = stage.proxy.workers()
        return worker

    def check_refused(self, stage, upstream, *, code="audit_unavailable"):
        upstream.reset()
        for http2 in (False, True):
            with stage.client(http2=http2) as client:
                for headers in (stage.tag(), {}, {"X-Alter-Grant": "0" * 36}):
                    answer = client.get(f"https://{HOSTS['bearer']}/echo", headers=headers)
                    refusal(answer, code, status=503)
        assert upstream.untouched()

    def test_a_full_disk_refuses_until_there_is_room(self, stage, worker, upstream):
        with stage.client() as client:
            url = f"https://{HOSTS['bearer']}/echo"
            assert client.get(url, headers=stage.tag()).status_code == 200
            limits = resource.prlimit(worker, resource.RLIMIT_FSIZE)
            resource.prlimit(worker, resource.RLIMIT_FSIZE, (100, limits[1]))
            self.check_refused(stage, upstream)
            refusal(client.get(url, headers=stage.tag()), "audit_unavailable", status=503)
            resource.prlimit(worker, resource.RLIMIT_FSIZE, limits)
            assert client.get(url, headers=stage.tag()).status_code == 200
        assert stage.vaultctl.json("audit", "verify")["ok"]
        assert "requests are refused" in stage.proxy.log

    @pytest.mark.parametrize(("engine", "damage"), [("auto", "truncated"), ("stock", "deleted"), ("auto", "extended")])
    def test_a_stream_that_somebody_else_changed(self, stage, upstream, damage):
        with stage.client() as client:
            assert client.get(f"https://{HOSTS['bearer']}/echo", headers=stage.tag()).status_code == 200
        (segment,) = (stage.vaultctl.home / "audit").glob("*.jsonl")
        if damage == "deleted":
            segment.unlink()
        elif damage == "truncated":
            os.truncate(segment, 50)
        else:
            with segment.open("a") as file:
                file.write("{}\n")
        self.check_refused(stage, upstream)


class TestVault:
    """vault.db cannot be read."""

    @pytest.fixture
    def stage(self, launch, engine):
        return launch(engine=engine)

    def check_refused(self, stage, upstream):
        upstream.reset()
        answer = ask(stage)
        refusal(answer, "vault_unavailable", status=503)
        host, key = HOSTS["bearer"], {"x-alter-key": stage.key, "x-alter-grant": stage.grants["bearer"]}
        with stage.wire(caller=None) as wire:
            lines = "".join(f"{name}: {value}\r\n" for name, value in key.items())
            with contextlib.suppress(OSError):
                answer = wire.tunnel(host).ask(f"GET /echo HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n")
                assert answer.status == 0 or answer.code == "vault_unavailable"
        with stage.h2wire(caller=None) as wire, contextlib.suppress(OSError):
            assert wire.tunnel(host).ask(path="/echo", headers=key.items()).status in {0, 503}
        with stage.wire(caller=None) as wire:
            refusal(
                wire.ask(f"GET http://{host}/echo HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n"),
                "vault_unavailable",
                status=503,
            )
        assert upstream.untouched()

    def test_garbage_in_its_place(self, stage, upstream):
        path = stage.vaultctl.home / "vault.db"
        path.write_bytes(os.urandom(path.stat().st_size))
        self.check_refused(stage, upstream)

    def test_cut_to_nothing(self, stage, upstream):
        (stage.vaultctl.home / "vault.db").write_bytes(b"")
        self.check_refused(stage, upstream)

    def test_a_row_that_somebody_changed(self, stage, upstream):
        """The binding is sealed with the value: pointing it elsewhere makes it impossible to open."""
        path = stage.vaultctl.home / "vault.db"
        with contextlib.closing(sqlite3.connect(path)) as vault:
            bindings = vault.execute("SELECT rowid, binding FROM versions").fetchall()
            for row, binding in bindings:
                changed = binding.replace(b"api.stripe.test", b"api.twilio.test")
                vault.execute("UPDATE versions SET binding = ? WHERE rowid = ?", (changed, row))
            vault.execute("UPDATE destinations SET pattern = 'api.twilio.test' WHERE pattern = 'api.stripe.test'")
            vault.commit()
        host = "api.twilio.test"
        with stage.wire() as wire:
            tag = f"X-Alter-Grant: {stage.grants['bearer']}\r\n"
            refusal(
                wire.tunnel(host).ask(f"GET /echo HTTP/1.1\r\nHost: {host}\r\n{tag}\r\n"),
                "vault_unavailable",
                status=503,
            )
        assert upstream.untouched()

    def test_another_file_in_its_place(self, stage, upstream):
        path = stage.vaultctl.home / "vault.db"
        copy = path.with_name("copy.db")
        shutil.copy2(path, copy)
        copy.replace(path)
        stage.vaultctl.run("grant", "revoke", stage.grants["bearer"])
        assert ask(stage).code in {"grant_revoked", "vault_unavailable"}


class TestStart:
    """What is unsafe is not served at all: an error, a hint, an exit code, and no ready line."""

    def check(self, done, *, code, says):
        assert done.returncode == code, done
        assert "ready" not in done.stdout
        assert "Traceback" not in done.stderr
        lines = [line.partition(": ")[0] for line in done.stderr.splitlines()]
        assert (set(lines), len(done.stderr.splitlines())) == ({"error", "hint"}, 2), done.stderr
        assert says in done.stderr

    def test_the_key_of_another_vault(self, vaultctl, tmp_path):
        other = Control(tmp_path / "other")
        other.run("init")
        shutil.copy2(other.home / "proxy.key", vaultctl.home / "proxy.key")
        self.check(
            start(vaultctl.home, "--listen", "127.0.0.1:0", "--workers", 1),
            code=5,
            says="does not belong to this vault",
        )

    @pytest.mark.parametrize("name", ["proxy.key", "ca/mitmproxy-ca.pem", "vault.db"])
    def test_a_file_that_everybody_can_read(self, vaultctl, name):
        (vaultctl.home / name).chmod(0o644)
        self.check(start(vaultctl.home, "--listen", "127.0.0.1:0", "--workers", 1), code=5, says="chmod 600")

    @pytest.mark.parametrize("name", ["", "audit"])
    def test_a_folder_that_everybody_can_enter(self, vaultctl, name):
        (vaultctl.home / name).mkdir(exist_ok=True)
        (vaultctl.home / name).chmod(0o755)
        self.check(start(vaultctl.home, "--listen", "127.0.0.1:0", "--workers", 1), code=5, says="chmod 700")

    @pytest.mark.parametrize("name", ["proxy.key", "ca/mitmproxy-ca.pem", "vault.db"])
    def test_a_file_that_is_missing_or_a_link(self, vaultctl, name):
        path = vaultctl.home / name
        real = path.rename(vaultctl.home / "elsewhere")
        self.check(start(vaultctl.home, "--listen", "127.0.0.1:0", "--workers", 1), code=5, says="error")
        path.symlink_to(real)
        self.check(start(vaultctl.home, "--listen", "127.0.0.1:0", "--workers", 1), code=5, says="error")

    def test_garbage_for_a_key_or_a_vault(self, vaultctl):
        key = (vaultctl.home / "proxy.key").rename(vaultctl.home / "elsewhere")
        (vaultctl.home / "proxy.key").write_bytes(b"garbage\n")
        (vaultctl.home / "proxy.key").chmod(0o600)
        self.check(start(vaultctl.home, "--listen", "127.0.0.1:0", "--workers", 1), code=6, says="the key file")
        key.rename(vaultctl.home / "proxy.key")
        (vaultctl.home / "vault.db").write_bytes(b"garbage")
        self.check(start(vaultctl.home, "--listen", "127.0.0.1:0", "--workers", 1), code=5, says="error")

    def test_two_workers_say_it_once(self, vaultctl):
        (vaultctl.home / "proxy.key").unlink()
        self.check(start(vaultctl.home, "--listen", "127.0.0.1:0", "--workers", 2), code=5, says="proxy.key")

    def test_no_vault(self, tmp_path):
        self.check(start(tmp_path / "nowhere", "--listen", "127.0.0.1:0"), code=5, says="vaultctl init")

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            (["--listen", "0.0.0.0:0"], "reachable from other machines"),
            (["--listen", "nonsense"], "--listen"),
            (["--workers", "0"], "workers"),
            (["--untagged", "maybe"], "untagged"),
            (["--engine", "fast"], "engine"),
            (["--allow-private", "10.0.0.0/99"], "10.0.0.0/99"),
            (["--connect-to", "a:1"], "--connect-to"),
            (["--upstream-ca", "/nonexistent"], "--upstream-ca"),
            (["--max-signed-body", "much"], "much"),
            (["--audit-durability", "none"], "durability"),
            (["--nonsense"], "--nonsense"),
        ],
    )
    def test_wrong_options(self, vaultctl, options, says):
        self.check(start(vaultctl.home, *options), code=2, says=says)
