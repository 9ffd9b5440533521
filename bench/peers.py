"""The two that are compared, each as its own process on a free port of 127.0.0.1, in front of the same upstream."""

import contextlib
import json
import re
import secrets
import socket
import subprocess
import sys
import time
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from addon import ca

HOST = "localhost"
SCOPE = {"region": "eu-west-1", "service": "execute-api"}


@dataclass(frozen=True)
class Credentials:
    """What the upstream takes. Made for one run."""

    token: str
    key_id: str
    key: str

    @classmethod
    def invent(cls):
        return cls(secrets.token_hex(24), "AKIA" + secrets.token_hex(8).upper(), secrets.token_hex(20))


@dataclass(frozen=True)
class Peer:
    """
    A proxy that is running. `tagged` are the header lines that make it, or let it, send the bearer token; `signed` the
    same for a signature, `as_user` those that bring the token of a user; "" if it has none to give.
    """

    name: str
    pid: int
    port: int
    ca_file: str
    proof: str
    tagged: str
    signed: str
    as_user: str


@contextlib.contextmanager
def mitmdump(folder, *, upstream_ca, credentials):
    """
    A stock mitmdump without any addon: it forwards the client's own credential.

    It is given what costs it least: a P-256 authority as ours, and bodies of more than 1 MB streamed, which as shipped
    it would hold in memory.
    """
    confdir = folder / "mitmdump"
    confdir.mkdir()
    authority = ca.mint(now=time.time())
    (confdir / "mitmproxy-ca.pem").write_bytes(authority.key_and_cert_pem)
    (confdir / "ca-cert.pem").write_bytes(authority.cert_pem)
    port = _free_port()
    command = [
        Path(sys.executable).with_name("mitmdump"),
        "--quiet",
        "--listen-host=127.0.0.1",
        f"--listen-port={port}",
    ]
    for option in (
        f"confdir={confdir}",
        f"ssl_verify_upstream_trusted_ca={upstream_ca}",
        "stream_large_bodies=1m",
    ):
        command += ["--set", option]
    with _process(command, log=folder / "mitmdump.log") as process:
        _await_port(process, port)
        yield Peer(
            name="mitmdump",
            pid=process.pid,
            port=port,
            ca_file=str(confdir / "ca-cert.pem"),
            proof="",
            tagged=f"Authorization: Bearer {credentials.token}\r\n",
            signed="",
            as_user="",
        )


@contextlib.contextmanager
def alter_egress(folder, *, upstream_ca, ports, credentials, workers):
    """Ours with its full job: a caller by key, a grant with a policy, a record on the disk before anything leaves."""
    home = folder / "home"

    def vaultctl(*words, values=None):
        done = subprocess.run(
            [sys.executable, "-I", "-m", "vaultctl", *words, f"--home={home}", "--json"],
            input=json.dumps(values),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        return json.loads(done.stdout)

    def secret(name, kind, *binding, values):
        where = [word for port in ports for word in ("--host", f"{HOST}:{port}")]
        vaultctl(
            "secret", "set", name, "--kind", kind, *where, "--private", *binding, "--fields-from", "-", values=values
        )

    def grant(name, principal="system:bench"):
        issued = vaultctl("grant", "issue", name, "--to", principal, "--method", "GET", "--method", "POST")
        return f"X-Alter-Grant: {issued['grant_id']}\r\n"

    certificate = vaultctl("init")["ca_cert"]
    key = vaultctl("app", "create", "bench")["key"]
    secret("tagged", "bearer", values={"token": credentials.token})
    scope = ("--service", SCOPE["service"], "--region", SCOPE["region"])
    access_key = {"access_key_id": credentials.key_id, "secret_access_key": credentials.key}
    secret("signed", "sigv4", *scope, values=access_key)
    user = _user(folder, vaultctl)
    options = [f"--home={home}", f"--upstream-ca={upstream_ca}", f"--workers={workers}", "--audit-durability=power"]
    command = [sys.executable, "-I", "-m", "addon.launcher", "--listen=127.0.0.1:0", *options]
    with _process(command, log=folder / "alter-egress.log") as process:
        ready = re.search(r"ready on http://127\.0\.0\.1:([0-9]+) ", process.stdout.readline())
        if not ready:
            raise RuntimeError((folder / "alter-egress.log").read_text())
        yield Peer(
            name="alter-egress",
            pid=process.pid,
            port=int(ready[1]),
            ca_file=certificate,
            proof=f"Proxy-Authorization: Basic {b64encode(f'bench:{key}'.encode()).decode()}\r\n",
            tagged=grant("tagged"),
            signed=grant("signed"),
            as_user=grant("tagged", "user:bench/alice") + user,
        )


@contextlib.contextmanager
def upstream(folder, *, identity, credentials):
    """The port of the server behind them."""
    path = folder / "upstream.pem"
    path.write_bytes(identity)
    command = [sys.executable, Path(__file__).with_name("upstream.py"), path]
    with _process(command, log=folder / "upstream.log", stdin=subprocess.PIPE) as process:
        process.stdin.write(json.dumps(vars(credentials) | SCOPE) + "\n")
        process.stdin.flush()
        yield int(process.stdout.readline())


@contextlib.contextmanager
def distance(folder, *, port, milliseconds):
    """A port from which it is `milliseconds` to `port` and back."""
    command = [sys.executable, Path(__file__).with_name("distance.py"), str(port), str(milliseconds)]
    with _process(command, log=folder / "distance.log") as process:
        yield int(process.stdout.readline())


def _user(folder, vaultctl):
    """A provider whose only user is alice; the header lines that bring her token."""
    key, now = ec.generate_private_key(ec.SECP256R1()), int(time.time())
    public = json.loads(ECAlgorithm.to_jwk(key.public_key())) | {"kid": "1", "alg": "ES256", "use": "sig"}
    keys = folder / "jwks.json"
    keys.write_text(json.dumps({"keys": [public]}))
    about = ("--issuer", "https://idp.test", "--audience", "bench", "--jwks-file", str(keys), "--alg", "ES256")
    vaultctl("idp", "add", "bench", *about)
    claims = {"iss": "https://idp.test", "aud": "bench", "sub": "alice", "iat": now, "exp": now + 3500}
    return f"X-Alter-User-Token: {jwt.encode(claims, key, 'ES256', headers={'kid': '1'})}\r\n"


@contextlib.contextmanager
def _process(command, *, log, stdin=subprocess.DEVNULL):
    """A process that ends with the block."""
    with (
        log.open("wb") as errors,
        subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def _await_port(process, port):
    for _ in range(200):
        with contextlib.suppress(ConnectionRefusedError):
            return socket.create_connection(("127.0.0.1", port)).close()
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise RuntimeError("mitmdump did not start")
