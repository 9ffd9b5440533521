"""The product as its users meet it: two programs, run as processes of their own."""

# ruff: noqa: A002  `input` is what subprocess calls it

import json
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import httpx

from addon.launcher import parse

PROGRAMS = Path(sys.executable).parent
READY = re.compile(r"alter-egress ready on (http://127\.0\.0\.1:(\d+)) \(\d+ workers?\)")


def environment(**changes):
    """The environment of a user who has set nothing of ours and no proxy."""
    ours = re.compile(r"alter_|(https?|all|no)_proxy$|.*ca_(bundle|certs?)|ssl_cert_", re.IGNORECASE)
    return {name: value for name, value in os.environ.items() if not ours.match(name)} | changes


def routes(*upstreams):
    """Options that lead every host of these upstreams to them: 443 with TLS, 80 without."""
    pairs = [(host, port, target) for up in upstreams for host in up.hosts for port, target in up.ports.items()]
    return [f"--connect-to={host}:{port}:127.0.0.1:{target}" for host, port, target in pairs]


class Control:
    """`vaultctl` on one home."""

    def __init__(self, home):
        self.home = home

    def __call__(self, *arguments, input=None, **environ):
        """Run a command; whether it succeeded is for the caller to say."""
        return subprocess.run(
            [PROGRAMS / "vaultctl", *map(str, arguments)],
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=environment(ALTER_HOME=str(self.home), **environ),
        )

    def run(self, *arguments, input=None):
        """What a command that must succeed printed."""
        done = self(*arguments, input=input)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def json(self, *arguments, input=None):
        """The document of a command that must succeed."""
        return json.loads(self.run(*arguments, "--json", input=input))

    def secret(self, name, *options, **fields):
        """Store a secret; its fields go in by stdin."""
        return self.json("secret", "set", name, *options, "--fields-from", "-", input=json.dumps(fields))

    def rotate(self, name, *options, **fields):
        return self.json("secret", "rotate", name, *options, "--fields-from", "-", input=json.dumps(fields))

    def app(self, name):
        """A new app; its key."""
        return self.json("app", "create", name)["key"]

    def agent(self, name):
        """A new agent; its key."""
        return self.json("agent", "create", name)["key"]

    def grant(self, secret, principal, *options):
        """A new grant; its id."""
        return self.json("grant", "issue", secret, "--to", principal, *options)["grant_id"]

    @property
    def bundle(self):
        """A file with the public roots and the local CA."""
        if not self.bundle_path.exists():
            self.run("ca", "export", "--bundle", "-o", self.bundle_path)
        return self.bundle_path

    @property
    def bundle_path(self):
        return self.home.with_name(f"{self.home.name}-bundle.pem")


def start(home, *options):
    """Run `alter-egress` where it must end by itself; what it ended with."""
    return subprocess.run(
        [PROGRAMS / "alter-egress", "--home", home, *map(str, options)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment(),
    )


class H2Only(ssl.SSLContext):
    """httpx would offer HTTP/1.1 first, and speak HTTP/2 even where it was not chosen."""

    def set_alpn_protocols(self, alpn_protocols):
        super().set_alpn_protocols(["h2"])


class Proxy:
    """`alter-egress`, from its ready line to `stop`."""

    def __init__(self, home, *options, **environ):
        self.control = Control(home)
        command = [PROGRAMS / "alter-egress", "--home", home, "--listen", "127.0.0.1:0", *map(str, options)]
        ready = self._start(command, READY, stdin=subprocess.DEVNULL, env=environment(**environ))
        self.address, self.port = ready[1], int(ready[2])

    def _start(self, command, sign, *, say=None, **settings):
        """Run `command` until it prints a line that matches `sign`; the match. `say` is a line for its stdin."""
        self._log, self._sign, self._signed = [], sign, threading.Event()
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        self.process = subprocess.Popen(command, **output, **settings)
        self._reader = threading.Thread(target=self._read, name="proxy-log")
        self._reader.start()
        if say:
            self.process.stdin.write(say + "\n")
            self.process.stdin.flush()
        ready = sign.search(self.log) if self._signed.wait(60) else None
        if not ready:
            self.kill()
            raise AssertionError(f"the proxy did not start:\n{self.log}")
        return ready

    def _read(self):
        for line in self.process.stdout:
            self._log.append(line)
            if self._sign.match(line):
                self._signed.set()
        self.process.stdout.close()
        self._signed.set()

    @property
    def log(self):
        """Everything it has printed so far, on both streams."""
        return "".join(self._log)

    @property
    def pid(self):
        return self.process.pid

    def workers(self):
        """The process ids of its workers."""
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    @property
    def ca(self):
        """A file with the public roots and the local CA, for clients."""
        return self.control.bundle

    def url(self, name=None, key=None):
        """What `HTTPS_PROXY` is set to: with a caller, or without."""
        return f"http://{name}:{key}@127.0.0.1:{self.port}" if name else self.address

    def client(self, name=None, key=None, *, http2=False, **options):
        """An httpx client of this proxy; HTTP/1.1 or HTTP/2, not both."""
        return httpx.Client(**(self._settings(name, key, http2=http2) | options))

    def async_client(self, name=None, key=None, *, http2=False, **options):
        """The same for asyncio."""
        return httpx.AsyncClient(**(self._settings(name, key, http2=http2) | options))

    def _settings(self, name, key, *, http2):
        context = (H2Only if http2 else ssl.SSLContext)(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.ca)
        versions = {"http1": not http2, "http2": http2}
        return {"proxy": self.url(name, key), "verify": context, "timeout": 10, "trust_env": False, **versions}

    def curl(self, *arguments, name=None, key=None, input=None, seconds=20):
        """Run curl through this proxy, for so many seconds at most; bytes in and out."""
        return subprocess.run(
            ["curl", "-sS", f"-m{seconds}", "--proxy", self.url(name, key), "--cacert", self.ca, *arguments],
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            timeout=seconds + 10,
            check=False,
            env=environment(),
        )

    def stop(self):
        """SIGTERM, as a service manager does it; the exit code."""
        self.process.terminate()
        try:
            return self.process.wait(60)
        finally:
            self.kill()

    def kill(self):
        """SIGKILL. Harmless when it has ended."""
        self.process.kill()
        self.process.wait()
        self._reader.join(10)


class Lone(Proxy):
    """One worker without a supervisor: `program` of the tests' own, called with the descriptor of its listener."""

    def __init__(self, home, *options, program):
        self.control = Control(home)
        settings = parse(["--home", str(home), "--listen", "127.0.0.1:0", *map(str, options)])
        with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
            self.port = listener.getsockname()[1]
            self.address = f"http://127.0.0.1:{self.port}"
            command = [sys.executable, "-O", program[0], str(listener.fileno()), *program[1:]]
            inherited = {"pass_fds": [listener.fileno()], "env": environment()}
            self._start(command, re.compile("ready"), say=settings.dump(), stdin=subprocess.PIPE, **inherited)

    def stop(self):
        """SIGKILL."""
        self.kill()
        self.process.stdin.close()

    def descriptors(self):
        """How many it has open."""
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())
