"""`run` and `env`: the environment of an unchanged program, and a process that becomes it."""

import hashlib
import json
import os
import shlex
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time
from urllib.parse import urlsplit

import pytest

from addon.callers import key as keys
from addon.vault import Vault
from vaultctl import trust

UNKNOWN = "00000000-0000-4000-8000-000000000000"
PRINT = (sys.executable, "-c", "import json, os; print(json.dumps(dict(os.environ)))")


@pytest.fixture
def proxy(monkeypatch):
    """Something that accepts connections, named by ALTER_PROXY."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("ALTER_PROXY", url)
        yield url


@pytest.fixture
def run(stripe, proxy):
    """The real thing: a process that turns into its child."""

    def call(*args, **kwargs):
        command = [sys.executable, "-m", "vaultctl", "run", *args]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, **kwargs)

    return call


@pytest.fixture
def stored(home):
    """What the vault knows of a key."""

    def call(url):
        vault = Vault.connect(home)
        try:
            return vault.lookup(digest=keys.parse(urlsplit(url).password).digest, tag="").key
        finally:
            vault.close()

    return call


def key_ids(cli):
    return [each["key_id"] for each in cli("app", "key", "list", "billing", "--json").json if each["type"] == "run"]


# ── the environment ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_child_gets_the_proxy_with_a_key_of_its_own(run, proxy, stored):
    ran = run("--as", "billing", "--ttl", "10m", "--", *PRINT)
    assert (ran.returncode, ran.stderr) == (0, "")
    environment = json.loads(ran.stdout)
    urls = {environment[name] for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy")}
    assert len(urls) == 1
    url = urls.pop()
    parts = urlsplit(url)
    assert (parts.username, f"http://{parts.hostname}:{parts.port}") == ("billing", proxy)
    key = stored(url)
    assert (key.type, key.caller_type, key.caller_name, key.grants) == ("run", "app", "billing", ())
    assert key.expires_at == pytest.approx(time.time() + 600, abs=60)


def test_the_key_is_limited_to_the_grants_and_belongs_to_whom_they_name(run, stripe, stored):
    environment = json.loads(run("--grant", stripe, "--", *PRINT).stdout)
    assert environment["ALTER_GRANT"] == stripe
    key = stored(environment["HTTPS_PROXY"])
    assert (key.caller_name, key.grants) == ("billing", (stripe,))


def test_with_several_grants_none_is_named(run, cli, stripe, stored):
    second = cli("grant", "issue", "stripe", "--to", "system:billing").out.strip()
    environment = json.loads(run("--grant", stripe, "--grant", second, "--", *PRINT).stdout)
    assert "ALTER_GRANT" not in environment
    assert set(stored(environment["HTTPS_PROXY"]).grants) == {stripe, second}


def test_an_agent_is_a_caller_as_well(run, cli, stripe, stored):
    cli("agent", "create", "helper")
    environment = json.loads(run("--as", "agent:helper", "--", *PRINT).stdout)
    key = stored(environment["HTTPS_PROXY"])
    assert (key.caller_type, key.caller_name) == ("agent", "helper")


def test_the_child_trusts_the_public_roots_and_our_ca(run, home):
    environment = json.loads(run("--as", "billing", "--", *PRINT).stdout)
    bundle = environment["SSL_CERT_FILE"]
    for name in (
        *("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE", "GIT_SSL_CAINFO", "PIP_CERT"),
        "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    ):
        assert environment[name] == bundle
    context = ssl.create_default_context(cafile=bundle)
    subjects = [str(root["subject"]) for root in context.get_ca_certs()]
    assert len(subjects) > 50
    assert sum("alter-egress" in subject for subject in subjects) == 1
    assert environment["NODE_EXTRA_CA_CERTS"] == str(home / "ca/ca-cert.pem")
    assert environment["NODE_USE_ENV_PROXY"] == "1"
    assert environment["NO_PROXY"] == "localhost,127.0.0.1,::1"
    assert environment["WGETRC"] == str(home / "ca/wgetrc")


def test_what_would_undo_the_bundle_is_taken_out(run):
    environment = json.loads(run("--as", "billing", "--", *PRINT, env=os.environ | {"SSL_CERT_DIR": "/etc"}).stdout)
    assert "SSL_CERT_DIR" not in environment


def test_the_rest_of_the_environment_is_passed_on(run):
    environment = json.loads(
        run("--as", "billing", "--", *PRINT, env=os.environ | {"OTHER": "x", "WGETRC": "/mine"}).stdout
    )
    assert (environment["OTHER"], environment["WGETRC"]) == ("x", "/mine")


def test_a_run_inside_a_run_does_not_pile_up_certificates(run, home):
    inner = f"{sys.executable} -m vaultctl run --as billing -- true"
    run("--as", "billing", "--", "sh", "-c", inner)
    first = (home / "ca/bundle.pem").read_bytes()
    run("--as", "billing", "--", "sh", "-c", inner)
    assert (home / "ca/bundle.pem").read_bytes() == first
    assert first.count((home / "ca/ca-cert.pem").read_bytes()) == 1


def test_a_bundle_of_the_operator_is_the_base_of_ours(cli, home, stripe, proxy, tmp_path, monkeypatch):
    mine = tmp_path / "mine.pem"
    mine.write_bytes(b"# mine\n")
    monkeypatch.setenv("SSL_CERT_FILE", str(mine))
    assert trust.bundle(home).startswith(b"# mine")


# ── the process ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("code", [0, 1, 4, 42])
def test_the_exit_code_is_the_childs(run, code):
    assert run("--as", "billing", "--", "sh", "-c", f"exit {code}").returncode == code


def test_options_after_the_command_are_the_commands(run):
    assert run("--as", "billing", "echo", "--json", "--grant", "-h").stdout == "--json --grant -h\n"


def test_the_child_is_the_process_itself_so_signals_reach_it(run, stripe):
    command = [sys.executable, "-m", "vaultctl", "run", "--as", "billing", "--", "sh", "-c", "echo $$; exec sleep 60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as running:
        assert int(running.stdout.readline()) == running.pid
        running.send_signal(signal.SIGTERM)
        assert running.wait(20) == -signal.SIGTERM


def test_the_child_gets_signals_and_mask_as_they_were(run):
    probe = "grep -i '^SigIgn' /proc/self/status; umask"
    ran = run("--as", "billing", "--", "sh", "-c", probe, preexec_fn=lambda: os.umask(0o027))
    ignored, mask = ran.stdout.split("\n")[:2]
    assert int(ignored.split()[1], 16) & (1 << (signal.SIGPIPE - 1)) == 0
    assert mask.endswith("027")


def test_input_and_output_are_the_childs(run):
    assert run("--as", "billing", "--", "cat", input="through\n").stdout == "through\n"


def test_a_missing_command_is_127_and_makes_no_key(run, cli):
    for word in ("no-such-command-here", "./nowhere"):
        ran = run("--as", "billing", "--", word)
        assert (ran.returncode, ran.stderr.startswith("error: ")) == (127, True)
    assert key_ids(cli) == []


def test_a_command_that_cannot_be_executed_is_126(run, cli, tmp_path):
    (tmp_path / "plain").write_text("echo")
    for word in (str(tmp_path / "plain"), str(tmp_path)):
        assert run("--as", "billing", "--", word).returncode == 126
    assert key_ids(cli) == []
    (tmp_path / "plain").write_bytes(b"\x7fnot a program")
    (tmp_path / "plain").chmod(0o755)
    ran = run("--as", "billing", "--", str(tmp_path / "plain"))
    assert ran.returncode == 126
    assert "exec format error" in ran.stderr


@pytest.mark.parametrize(
    "args",
    [
        ("--as", "nobody", "true"),
        ("--as", "robot:x", "true"),
        ("--grant", UNKNOWN, "true"),
        ("--grant", "REVOKED", "true"),
        ("--grant", "STRIPE", "--as", "other", "true"),
        ("--as", "billing", "--ttl", "soon", "true"),
        ("--as", "billing", "--ttl", "0s", "true"),
        ("--as", "billing", "--proxy", "nowhere", "true"),
        ("--as", "billing", "--json", "true"),
        ("--nonsense", "true"),
        ("--as", "billing"),
        ("true",),
    ],
    ids=" ".join,
)
def test_an_error_of_ours_is_125_and_makes_no_key(cli, stripe, proxy, args):
    cli("app", "create", "other")
    revoked = cli("grant", "issue", "stripe", "--to", "system:billing").out.strip()
    cli("grant", "revoke", revoked)
    ran = cli("run", *[{"STRIPE": stripe, "REVOKED": revoked}.get(word, word) for word in args])
    assert ran.code == 125
    assert ran.error
    assert key_ids(cli) == []


def test_a_disabled_caller_cannot_run(cli, stripe, proxy):
    cli("app", "disable", "billing")
    assert cli("run", "--as", "billing", "true").code == 125


def test_without_a_vault_or_a_ca_it_is_125(bare, cli, home, stripe, proxy, tmp_path):
    assert bare("run", "--home", str(tmp_path / "nowhere"), "--as", "billing", "true").code == 125
    shutil.rmtree(home / "ca")
    ran = cli("run", "--as", "billing", "true")
    assert ran.code == 125
    assert "vaultctl ca init" in ran.err
    assert key_ids(cli) == []


def test_a_proxy_that_does_not_answer_is_a_warning(run):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    ran = run("--as", "billing", "--proxy", f"http://127.0.0.1:{port}", "--", "echo", "ran")
    assert (ran.returncode, ran.stdout) == (0, "ran\n")
    assert ran.stderr.startswith(f"warning: no proxy answers at http://127.0.0.1:{port}\nhint: ")


def test_the_key_is_in_no_argument_and_no_output(run, home):
    probe = "cat /proc/$$/cmdline | tr '\\0' ' '; cat /proc/$PPID/cmdline | tr '\\0' ' '"
    ran = run("--as", "billing", "--", "sh", "-c", probe)
    assert "alter_run" not in ran.stdout + ran.stderr
    assert not any(b"alter_run_" in path.read_bytes() for path in home.rglob("*") if path.is_file())


# ── env ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def awkward(template, tmp_path, monkeypatch, stripe, cli):
    """The vault in a folder whose name every shell reads in its own way."""
    home = tmp_path / "a $HOME `id` b'c\\d\"e"
    shutil.copytree(tmp_path / "home", home)
    monkeypatch.setenv("ALTER_HOME", str(home))
    return home


def test_a_shell_reads_back_what_was_meant(cli, awkward, proxy):
    text = cli("env", "--as", "billing", "--shell", "sh").out
    script = text + '\nprintf "%s\\n" "$SSL_CERT_FILE" "$HTTPS_PROXY" "${SSL_CERT_DIR-unset}"'
    ran = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True, env={"SSL_CERT_DIR": "/etc"})
    bundle, url, folder = ran.stdout.splitlines()
    assert bundle == str(awkward / "ca/bundle.pem")
    assert keys.parse(urlsplit(url).password)
    assert folder == "unset"


@pytest.mark.skipif(not shutil.which("fish"), reason="fish is not installed")
def test_fish_reads_back_what_was_meant(cli, awkward, proxy):
    text = cli("env", "--as", "billing", "--shell", "fish").out
    ran = subprocess.run(["fish", "-c", text + "\necho $SSL_CERT_FILE"], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == str(awkward / "ca/bundle.pem")


def test_fish_text_escapes_what_fish_reads_in_single_quotes(cli, awkward, proxy):
    line = next(
        line for line in cli("env", "--as", "billing", "--shell", "fish").out.splitlines() if "SSL_CERT_FILE" in line
    )
    quoted = line.removeprefix("set -gx SSL_CERT_FILE '").removesuffix("'")
    assert quoted.replace("\\'", "'").replace("\\\\", "\\") == str(awkward / "ca/bundle.pem")


def test_dotenv_is_bare_words_or_a_refusal(cli, stripe, proxy, home, awkward, monkeypatch):
    assert cli("env", "--as", "billing", "--shell", "dotenv").code == 1
    monkeypatch.setenv("ALTER_HOME", str(home))
    lines = cli("env", "--as", "billing", "--shell", "dotenv").out.splitlines()
    assert all(shlex.split(line) == [line] for line in lines)
    assert f"SSL_CERT_FILE={home}/ca/bundle.pem" in lines


def test_json_is_the_same_by_either_name(cli, stripe, proxy):
    one, two = cli("env", "--as", "billing", "--json").json, cli("env", "--as", "billing", "--shell", "json").json
    assert set(one) == set(two)
    assert one["SSL_CERT_FILE"] == two["SSL_CERT_FILE"]


def test_the_bundle_is_readable_by_programs_and_written_once(cli, stripe, proxy, home):
    cli("env", "--as", "billing")
    path = home / "ca/bundle.pem"
    before = path.stat()
    assert stat.S_IMODE(before.st_mode) == 0o644
    cli("env", "--as", "billing")
    assert path.stat().st_ino == before.st_ino
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.write_text("tampered")
    cli("env", "--as", "billing")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
