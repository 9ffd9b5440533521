"""
Two network namespaces: an app in one, whose every TCP connection the other, its gateway, redirects to the proxy there.

    app 10.77.0.2 ── veth ── 10.77.0.1 gateway: the proxy, and the upstreams on its loopback

Needs root, ip and iptables. Names in NAMES lead, for the app, to an address where nobody lives.
"""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

from tests.e2e.upstream import Upstream

GATEWAY = {4: "10.77.0.1", 6: "fd77::1"}
NOWHERE = {4: "203.0.113.7", 6: "2001:db8::7"}


class Unavailable(Exception):
    """There can be no namespaces here. The message says why."""


def run(*command):
    subprocess.run(command, check=True, capture_output=True, timeout=20)


class Network:
    """A context manager; `names` are those that the app can look up."""

    def __init__(self, names, *, family=4):
        self.names, self.family = names, family
        self.app, self.gateway = (f"alter-{role}-{os.getpid()}-{family}" for role in ("app", "gate"))
        self.address, self.nowhere = GATEWAY[family], NOWHERE[family]

    def __enter__(self):
        if os.geteuid() != 0 or sys.platform != "linux":
            raise Unavailable("network namespaces need root on Linux")
        if missing := [tool for tool in ("ip", "iptables", "ip6tables") if not shutil.which(tool)]:
            raise Unavailable(f"no {' and no '.join(missing)} here")
        try:
            self._make()
        except (subprocess.CalledProcessError, OSError) as error:
            self.__exit__()
            raise Unavailable(f"no namespaces here: {error}") from error
        return self

    def _make(self):
        run("ip", "netns", "add", self.app)
        run("ip", "netns", "add", self.gateway)
        run(
            "ip", "-n", self.gateway, "link", "add", "inside", "type", "veth", "peer", "name", "eth0", "netns", self.app
        )
        bits, peer = (24, "10.77.0.2") if self.family == 4 else (64, "fd77::2")
        for space, link, address in ((self.gateway, "inside", self.address), (self.app, "eth0", peer)):
            nodad = ["nodad"] if self.family == 6 else []
            run("ip", "-n", space, "addr", "add", f"{address}/{bits}", "dev", link, *nodad)
            run("ip", "-n", space, "link", "set", link, "up")
            run("ip", "-n", space, "link", "set", "lo", "up")
        for space, via in ((self.app, self.address), (self.gateway, peer)):
            run("ip", "-n", space, f"-{self.family}", "route", "add", "default", "via", via)
        self._etc.mkdir(parents=True)
        (self._etc / "hosts").write_text("".join(f"{self.nowhere} {name}\n" for name in self.names))

    def __exit__(self, *_):
        for space in (self.app, self.gateway):
            subprocess.run(["ip", "netns", "del", space], check=False, capture_output=True)
        shutil.rmtree(self._etc, ignore_errors=True)

    @property
    def _etc(self):
        """What `ip netns exec` puts over /etc."""
        return Path("/etc/netns") / self.app

    def redirect(self, port):
        """Every TCP connection of the app arrives at `port` of the gateway."""
        self._nat("-F")
        self._nat("-A", "PREROUTING", "-i", "inside", "-p", "tcp", "-j", "REDIRECT", "--to-ports", str(port))

    def redirect_user(self, user, port):
        """Every TCP connection of a user in the gateway itself arrives at `port` of its loopback."""
        self._nat("-F")
        owner = ["-m", "owner", "--uid-owner", str(user)]
        self._nat("-A", "OUTPUT", "-p", "tcp", *owner, "-j", "REDIRECT", "--to-ports", str(port))

    def _nat(self, *rule):
        tool = "iptables" if self.family == 4 else "ip6tables"
        run("ip", "netns", "exec", self.gateway, tool, "-t", "nat", *rule)

    def within(self, space, work):
        """The result of `work`, done by a thread that lives in a namespace. Its sockets stay there."""
        results = []

        def enter():
            join(space)
            results.append(work())

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join(30)
        return results[0]

    def execute(self, *command, space=None, user=0, **options):
        """Run a program as the app, or as another user in another namespace."""
        become = ["setpriv", f"--reuid={user}", "--clear-groups"] if user else []
        return subprocess.run(
            ["ip", "netns", "exec", space or self.app, *become, *map(str, command)],
            capture_output=True, timeout=30, check=False, text=True, **options,
        )  # fmt: skip


def join(space):
    """Move the calling thread into a namespace."""
    with (Path("/run/netns") / space).open() as file:
        os.setns(file.fileno(), os.CLONE_NEWNET)


class Inside(Upstream):
    """An upstream that lives in a namespace."""

    def __init__(self, hosts, *, authority, space):
        super().__init__(hosts, authority=authority)
        self._space = space

    async def _serve(self, ready):
        join(self._space)
        await super()._serve(ready)
