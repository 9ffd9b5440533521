"""
No stored value, and no key of a caller, is to be found anywhere but at the upstream: every output there is, searched.

One long day: secrets of each kind are stored, used, rotated and refused through both engines, things break in between,
and every command that prints something is asked. Then all of it is searched for each canary in every form it could take.
"""

import base64
import contextlib
import json
import os
import re
import resource
import secrets
import subprocess
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from tests.e2e.product import Control, Proxy, routes
from tests.e2e.stage import HOSTS, OPTIONS

ENGINES = ("auto", "stock")


def forms(canary):
    """The ways in which a value may be written down, each long enough not to occur by chance."""
    raw = canary.encode()
    found = {
        raw,
        raw[::-1],
        raw.hex().encode(),
        raw.hex().upper().encode(),
        quote(raw).encode(),
        quote_plus(raw).encode(),
    }
    found.add(json.dumps(canary)[1:-1].encode())
    for shift in range(3):
        # Whatever stands before and after it: the characters that depend on it are left out.
        encoded = base64.b64encode(b"\0" * shift + raw)[4 if shift else 0 :].rstrip(b"=")[:-1]
        found |= {encoded, encoded.translate(bytes.maketrans(b"+/", b"-_"))}
    return found


def test_the_search_finds_what_there_is_to_find():
    canary = "c4n/ary+1 %x"
    for text in [
        f"x {canary} y",
        base64.b64encode(f"user:{canary}!".encode()).decode(),
        base64.urlsafe_b64encode(f"12{canary}".encode()).decode(),
        base64.b64encode(canary.encode()).decode(),
        f"/?key={quote(canary)}",
        canary.encode().hex(),
        json.dumps({"token": canary}),
    ]:
        assert any(form in text.encode() for form in forms(canary)), text


def canary(name):
    """Nothing else looks like it; it changes when it is encoded."""
    return f"{name}/{secrets.token_hex(8)}+{secrets.token_hex(4)}"


class Day:
    """What is done, and everything that was printed meanwhile."""

    def __init__(self, home):
        self.vaultctl = Control(home)
        self.outputs = {}
        self.canaries = {}

    def run(self, *arguments, input=None):  # noqa: A002
        done = self.vaultctl(*arguments, input=input)
        self.keep(f"vaultctl {' '.join(map(str, arguments))}", done.stdout + done.stderr)
        return done

    def keep(self, name, text):
        self.outputs[f"{len(self.outputs)} {name}"] = text if isinstance(text, bytes) else text.encode()

    def values(self, kind, generation):
        """Fresh values for the fields of a kind, remembered."""
        fields = {
            "bearer": ["token"], "header": ["api_key", "app_key"], "query": ["token"], "basic": ["password"],
            "sigv4": ["secret_access_key", "session_token"],
        }  # fmt: skip
        fresh = {field: canary(f"{kind}.{field}.{generation}") for field in fields[kind]}
        self.canaries |= {f"{kind} {field} {generation}": value for field, value in fresh.items()}
        open_ones = {"basic": {"user": "AC-user"}, "sigv4": {"access_key_id": f"AKIA{generation:016}"}}
        return json.dumps(fresh | open_ones.get(kind, {}))

    def caller(self, name):
        key = json.loads(self.vaultctl("app", "create", name, "--json").stdout)["key"]
        self.canaries[f"key of {name}"] = key
        return key


@pytest.fixture
def day(tmp_path):
    day = Day(tmp_path / "home")
    day.run("init")
    return day


def use(day, proxy, key, grants, upstream):
    """Every kind over every version, with answers of all sorts."""
    for kind, grant in grants.items():
        for http2 in (False, True):
            with proxy.client("billing", key, http2=http2) as client:
                for target in ["/status/200", "/status/401", "/headers", "/close"]:
                    headers = {"X-Alter-Grant": grant, "X-Alter-Reason": "a day"}
                    client.post(f"https://{HOSTS[kind]}{target}?a=1", headers=headers, content=b"x" * 1000)
        day.keep("curl", proxy.curl("-v", "-H", f"X-Alter-Grant: {grant}", f"https://{HOSTS[kind]}/status/200",
                                    name="billing", key=key).stdout)  # fmt: skip
    assert len(upstream.seen()) >= len(grants) * 9


def misuse(day, proxy, key, grants):
    """What is refused, malformed or broken, with a credential close at hand."""
    grant = grants["bearer"]
    with proxy.client("billing", key) as client:
        for url, headers in [
            ("https://evil.test/", {"X-Alter-Grant": grant}),
            ("https://api.stripe.test/", {"X-Alter-Grant": "x" * 36}),
            ("https://api.stripe.test/", {"X-Alter-Grant": grant, "X-Alter-Context": "broken"}),
            ("https://api.stripe.test/", {"X-Alter-Grant": grant, "X-HTTP-Method": "DELETE"}),
            ("https://api.stripe.test/", {"X-Alter-Grant": grant, "X-Alter-Key": key[:-1] + "0"}),
            ("http://api.stripe.test/", {"X-Alter-Grant": grant}),
        ]:
            day.keep("refusal", client.get(url, headers=headers).content)
    for raw in ["GET / HTTP/1.1\r\nX:\0\r\n\r\n", "\0\r\n\r\n", "GET / HTTP/9\r\n\r\n"]:
        done = subprocess.run(
            ["curl", "-s", "--max-time", "2", f"telnet://127.0.0.1:{proxy.port}"],
            input=raw.encode(), capture_output=True, check=False, timeout=10,
        )  # fmt: skip
        day.keep("garbage", done.stdout)


def break_things(day, proxy, key, grants):
    """A disk without room, a vault that cannot be read."""
    url, headers = "https://api.stripe.test/status/200", {"X-Alter-Grant": grants["bearer"]}
    workers = proxy.workers()
    limits = resource.prlimit(workers[0], resource.RLIMIT_FSIZE)
    for worker in workers:
        resource.prlimit(worker, resource.RLIMIT_FSIZE, (100, limits[1]))
    with proxy.client("billing", key) as client:
        assert client.get(url, headers=headers).status_code == 503
    for worker in workers:
        resource.prlimit(worker, resource.RLIMIT_FSIZE, limits)
    vault = day.vaultctl.home / "vault.db"
    good = vault.read_bytes()
    vault.write_bytes(os.urandom(len(good)))
    done = proxy.curl("-v", "-H", f"X-Alter-Grant: {grants['bearer']}", url, name="billing", key=key)
    day.keep("curl on a broken vault", done.stdout)
    vault.write_bytes(good)


def look_at_processes(day, proxy):
    """Arguments and environment, as any process of this user sees them."""
    for pid in [proxy.pid, *proxy.workers()]:
        for name in ("cmdline", "environ"):
            with contextlib.suppress(PermissionError):
                day.keep(f"{name} of {pid}", Path(f"/proc/{pid}/{name}").read_bytes())


def ask_everything(day, grants):
    """Every command that prints something about what is stored."""
    for command in [
        "status", "doctor", "secret list", "secret show bearer", "secret access bearer", "app list", "app show billing",
        "app key list billing", "grant list", f"grant show {grants['bearer']}", "audit list --limit 1000", "audit tail",
        "audit verify", "provider list", "provider show stripe", "ca show",
    ]:  # fmt: skip
        day.run(*command.split(), "--json")
    for command in ["secret show bearer", "app list", "audit list", "audit tail", "doctor"]:
        day.run(*command.split())
    day.run("audit", "export", "--format", "jsonl")
    day.run("audit", "export", "--format", "csv")
    day.run("grant", "explain", grants["bearer"], "--url", "https://api.stripe.test/x", "--as", "billing")
    day.run("secret", "set", "bearer", "--kind", "bearer", "--host", "x.test", input=day.canaries["bearer token 1"])
    day.run(
        "secret", "set", "odd", "--kind", "bearer", "--host", "x.test", input=f"{day.canaries['bearer token 1']}\x01"
    )
    day.run("backup", day.vaultctl.home.with_name("backup.db"))


def test_no_canary_is_found_outside_the_upstream(day, upstream, evil, authority_file, tmp_path):
    key, grants = day.caller("billing"), {}
    day.caller("other")
    for kind, host in HOSTS.items():
        assert day.run("secret", "set", kind, *OPTIONS[kind], "--host", host, "--fields-from", "-",
                       input=day.values(kind, 1)).returncode == 0  # fmt: skip
        grants[kind] = day.run("grant", "issue", kind, "--to", "system:billing").stdout.strip()
    for engine in ENGINES:
        upstream.reset()
        options = ["--upstream-ca", authority_file, *routes(upstream, evil), "--engine", engine, "--workers", 2]
        proxy = Proxy(day.vaultctl.home, *options)
        try:
            use(day, proxy, key, grants, upstream)
            misuse(day, proxy, key, grants)
            if engine == "auto":
                for kind in HOSTS:
                    rotated = day.run("secret", "rotate", kind, "--fields-from", "-", input=day.values(kind, 2))
                    assert rotated.returncode == 0, rotated.stderr
            use(day, proxy, key, grants, upstream)
            look_at_processes(day, proxy)
            break_things(day, proxy, key, grants)
            arrived = b"".join(seen.raw or repr(seen.headers).encode() for seen in upstream.seen())
        finally:
            proxy.stop()
        day.keep(f"what the proxy printed ({engine})", proxy.log)
    assert any(form in arrived for form in forms(day.canaries["bearer token 2"])), "the upstream has it"
    ask_everything(day, grants)

    files = {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert {"vault.db", "proxy.key", "backup.db"} <= {Path(name).name for name in files}
    assert [name for name in files if name.endswith(".jsonl")]
    searched = day.outputs | files
    assert sum(map(len, searched.values())) > 100_000
    hits = [
        (where, name)
        for name, value in day.canaries.items()
        for form in forms(value)
        for where, content in searched.items()
        if form in content
    ]
    assert not hits
    everything = b"".join(searched.values())
    assert not re.search(rb"Traceback", everything)
