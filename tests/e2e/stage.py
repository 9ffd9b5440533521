"""A running proxy with a vault in which one secret of each kind is granted to an app, and what tests ask of it."""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from addon import credentials, policies
from addon.audit import reader
from addon.binding import Binding
from addon.vault import Vault
from tests.e2e.product import Control, Proxy
from tests.e2e.wire import H2Wire, Wire

KINDS = ("bearer", "header", "query", "basic", "sigv4")

HOSTS = {
    "bearer": "api.stripe.test",
    "header": "api.datadog.test",
    "query": "maps.google.test",
    "basic": "api.twilio.test",
    "sigv4": "iot.eu-west-1.amazonaws.com",
}
"""Where the secret of each kind belongs. It is named after its kind."""

AWS_ID, AWS_SECRET = "AKIACANARY0SIGV4", "wJalrCanary/Sigv4+Secret/EXAMPLEKEY00000"

VALUES = {
    "bearer": {"token": "sk_live_canary_bearer_51H"},
    "header": {"api_key": "dd-api-canary-header-72", "app_key": "dd-app-canary-header-73"},
    "query": {"token": "AIza-canary-query?&=+/ 94"},
    "basic": {"user": "AC-canary-user", "password": "canary:basic:pass/word+95"},
    "sigv4": {"access_key_id": AWS_ID, "secret_access_key": AWS_SECRET},
}

OPTIONS = {
    "bearer": ["--kind", "bearer"],
    "header": [
        *("--kind", "header", "--header", "DD-API-KEY", "--format", "{api_key}"),
        *("--header", "DD-APPLICATION-KEY", "--format", "{app_key}", "--constant", "X-Version: 2024-06-01"),
    ],
    "query": ["--kind", "query", "--query-param", "key"],
    "basic": ["--kind", "basic"],
    "sigv4": ["--kind", "sigv4"],
}


@dataclass(frozen=True)
class Seed:
    """
    A vault with a secret of each kind, granted to the app `billing`: made once, copied for whoever needs one.

    `cast` holds keys and grants with a story, by name.
    """

    home: Path
    key: str
    grants: dict
    cast: dict

    @classmethod
    def make(cls, home):
        vaultctl = Control(home)
        vaultctl.run("init")
        key = vaultctl.app("billing")
        grants = {}
        aws = {"access_key_id": "AKIA0000", "secret_access_key": "s"}
        wide = ["--host", "*.eu-west-1.amazonaws.com", "--service", "s3"]
        sts = ["--host", HOSTS["bearer"], "--service", "sts", "--region", "eu-west-1"]
        vaultctl.secret("wide", "--kind", "sigv4", *wide, **aws)
        vaultctl.secret("sts", "--kind", "sigv4", *sts, **aws)
        for kind in KINDS:
            vaultctl.secret(kind, *OPTIONS[kind], "--host", HOSTS[kind], **VALUES[kind])
            grants[kind] = vaultctl.grant(kind, "system:billing")
        assert vaultctl.bundle.exists()
        return cls(home, key, grants, _cast(home))

    def copy(self, home):
        """The control tool on a copy at `home`."""
        shutil.copytree(self.home, home, copy_function=shutil.copy2)
        copy = Control(home)
        shutil.copy2(Control(self.home).bundle, copy.bundle_path)
        return copy


def _cast(home):
    """Straight through the library, since each command is a process, and some of this happened yesterday."""
    now = time.time()
    yesterday, earlier = now - 86_400, now - 86_300
    vault, hosts = Vault.connect(home), ((HOSTS["bearer"], 443),)

    def put(name, **limits):
        bound = credentials.kind("bearer").check_binding(Binding(hosts=hosts, **limits))
        vault.secrets.put(name, kind="bearer", binding=bound, values={"token": "x"}, now=now)

    def grant(secret, principal="system:billing", **options):
        return vault.grants.issue(secret, principal=principal, **({"now": now} | options)).id

    put("narrow", methods=("GET",), paths=("/v1/charges",))
    put("switched-off")
    put("gone")
    other = vault.callers.create("app", "other", cidrs=(), now=yesterday)[1]
    vault.callers.create("agent", "helper", cidrs=(), now=now)
    typed = {"methods": ("GET",), "paths": ("/v1/",), "cidr": ("127.0.0.0/8",)}
    rules = tuple((kind, policies.KINDS[kind].parse(values)) for kind, values in typed.items())
    elsewhere = (("cidr", policies.KINDS["cidr"].parse(("192.0.2.0/24",))),)
    cast = {
        "expired": grant("bearer", now=yesterday, expires_at=earlier),
        "agent's": grant("bearer", "agent:helper"),
        "other's": grant("bearer", "system:other"),
        "revoked": grant("bearer"),
        "other's revoked": grant("bearer", "system:other"),
        "second": grant("bearer"),
        "narrowed": grant("bearer", rules=rules),
        "elsewhere": grant("bearer", rules=elsewhere),
        **{name: grant(name) for name in ("narrow", "wide", "sts", "switched-off", "gone")},
        "other's key": other,
        "key elsewhere": vault.callers.create("app", "elsewhere", cidrs=("192.0.2.0/24",), now=now)[1],
        "disabled key": vault.callers.create("app", "disabled", cidrs=(), now=now)[1],
        "expired key": vault.callers.mint_key("app", "other", now=yesterday, expires_at=earlier)[1],
    }
    vault.grants.revoke(ids=(cast["revoked"], cast["other's revoked"]), now=now)
    vault.secrets.set_state("switched-off", "disabled", now=now)
    vault.secrets.delete("gone", now=now)
    vault.callers.set_state("app", "disabled", "disabled", now=now)
    vault.close()
    return cast


@dataclass(frozen=True)
class Stage:
    """`grants` are ids by the name of the secret, `key` that of the app `billing`. A context manager."""

    engine: str
    vaultctl: Control
    proxy: Proxy
    key: str
    grants: dict
    cast: dict

    @classmethod
    def open(cls, seed, home, *options, engine="auto", workers=1, **environ):
        """A copy of the seed at `home`, and the proxy on it."""
        vaultctl = seed.copy(home)
        proxy = Proxy(home, "--engine", engine, "--workers", workers, *options, **environ)
        return cls(engine, vaultctl, proxy, seed.key, seed.grants, seed.cast)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.proxy.stop()

    @property
    def caller(self):
        return "billing", self.key

    def client(self, **options):
        """An httpx client that calls as `billing`."""
        return self.proxy.client(*self.caller, **options)

    def curl(self, *arguments, **options):
        """curl, called as `billing`."""
        return self.proxy.curl(*arguments, **({"name": "billing", "key": self.key} | options))

    def wire(self, *, caller=..., **options):
        """A raw connection that will show the key of `billing` on CONNECT."""
        return Wire(self.proxy, caller=self.caller if caller is ... else caller, **options)

    def h2wire(self, *, caller=..., **options):
        return H2Wire(self.proxy, caller=self.caller if caller is ... else caller, **options)

    def tag(self, kind="bearer"):
        """The header that asks for a grant."""
        return {"X-Alter-Grant": self.grants[kind]}

    def audit(self, request_id, *, phase="outcome", timeout=3):
        """The record of a request, once it is there."""
        deadline = time.monotonic() + timeout
        while True:
            rows = [one for one in self.records(request_id=request_id) if one["phase"] == phase]
            if rows:
                assert len(rows) == 1
                return rows[0]
            assert time.monotonic() < deadline, f"no {phase} of {request_id}"
            time.sleep(0.02)

    def records(self, **filters):
        """The audit records that pass."""
        return list(reader.read(self.vaultctl.home / "audit", **filters))


def refusal(answer, code, *, status, stage=None, title=None):
    """
    Check that an answer (of `Wire`, httpx or requests) is the whole refusal `code`, as wire.md has it, with a record.

    Returns the members of the body.
    """
    got = getattr(answer, "status_code", None) or answer.status
    pairs = answer.headers if isinstance(answer.headers, list) else answer.headers.items()
    headers = {name.lower(): value for name, value in pairs}
    assert (got, headers.get("x-alter-error")) == (status, code), (got, headers)
    assert headers["content-type"] == "application/problem+json"
    assert headers["cache-control"] == "no-store"
    assert headers["proxy-status"].startswith("alter-egress; error=")
    assert headers["proxy-status"].endswith(f'; details="{code}"')
    assert "server" not in headers
    again = status == 503 or code == "concurrency_exceeded"
    assert headers.get("retry-after") == ("1" if again else None)
    assert headers.get("proxy-authenticate") == ('Basic realm="alter-egress"' if status == 407 else None)
    body = answer.json if isinstance(answer.json, dict) else answer.json()
    known = {"type", "title", "status", "code", "detail", "hint", "request_id"}
    assert set(body) - {"policy"} == known
    assert (body["status"], body["code"]) == (status, code)
    assert body["request_id"] == headers["x-alter-request-id"]
    assert all(isinstance(body[name], str) and body[name] for name in known - {"status"})
    if stage:
        record = stage.audit(body["request_id"])
        # What was sent already and then failed is still what it was decided to be.
        decisions = (
            {"fault"} if status == 503 else {"refused"} if status != 502 else {"refused", "authorized", "untagged"}
        )
        assert record["decision"] in decisions
        assert (record["code"], record["status"]) == (code, status)
    return body
