"""
What `vaultctl demo` performs: a request per kind of credential, then a rotation, a revocation and a wrong destination.

The vault, its secrets and both authorities are made for one run and thrown away with it. The proxy is the real one, in
a process of its own; the hosts are `vaultctl.upstream` on a port of 127.0.0.1. No name is ever resolved: --connect-to
leads each of them there, and --untagged deny leaves no other way out.
"""

import base64
import contextlib
import re
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, cast

from addon import ca
from addon.audit import chain, reader
from addon.audit.chain import Verdict
from addon.audit.entry import Row
from addon.binding import Binding
from addon.errors import Unreachable
from addon.leaf import leaf
from addon.vault import Vault
from vaultctl import trust, upstream
from vaultctl.client import Client, Door
from vaultctl.samples import Api, invent, stripe_key
from vaultctl.upstream import Received, Upstream

APP = "shop"

HOME = "home"
"""The vault, in the folder of the run."""

ELSEWHERE = "collector.example"
"""A host that no secret is bound to. The upstream would answer for it."""

START_SECONDS = 20.0
STOP_SECONDS = 10.0

_READY = re.compile(r"alter-egress ready on http://127\.0\.0\.1:([0-9]+) ")
_SIGNATURE = re.compile(r"(?<==)[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """
    One request and what came of it.

    `sent` and `received` are lines of the request on either side of the proxy, stored values in them masked. `reached`
    counts the requests that the upstream saw. `problem` is empty if all went as it should.
    """

    title: str
    secret: str
    grant_id: str
    request: str
    host: str
    sent: tuple[str, ...]
    received: tuple[str, ...]
    reached: int
    status: int
    code: str
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The whole run. `problems` is empty if every expectation held."""

    exchanges: tuple[Exchange, ...]
    audit: tuple[Row, ...]
    verdict: Verdict
    problems: tuple[str, ...]


def perform(
    *, client: Client, now: float, tell: Callable[[Exchange], None], pause: Callable[[], None] = lambda: None
) -> Report:
    """
    The whole demo, in a few seconds.

    `tell` gets each exchange as soon as it is over. `pause` is called between two steps and may raise: whatever was
    started is stopped and removed then, as it is at the end. Raises Unreachable if the proxy does not start.
    """
    apis = invent()
    with tempfile.TemporaryDirectory(prefix="alter-egress-demo-") as folder:
        exchanges = []
        with _stage(Path(folder), apis=apis, client=client, now=now, pause=pause) as stage:
            for exchange in stage.acts():
                pause()
                tell(exchange)
                exchanges.append(exchange)
        # The proxy has ended, and with it the writing of records.
        audit = Path(folder, HOME, "audit")
        rows = list(reader.read(audit))
        verdict = chain.verify(audit)
    problems = [f"{each.title}: {each.problem}" for each in exchanges if each.problem]
    problems += _missing(exchanges, rows)
    if verdict.first_bad:
        problems.append(f"audit verify: {verdict.first_bad.problem}")
    return Report(exchanges=tuple(exchanges), audit=tuple(rows), verdict=verdict, problems=tuple(problems))


@contextlib.contextmanager
def _stage(
    folder: Path, *, apis: Sequence[Api], client: Client, now: float, pause: Callable[[], None]
) -> Iterator["_Stage"]:
    """Vault, upstream and proxy, begun in this order and ended in the other."""
    home = folder / HOME
    hosts = [*(api.host for api in apis), ELSEWHERE]
    authority = ca.mint(now=now)
    authority_file = folder / "upstream-ca.pem"
    authority_file.write_bytes(authority.cert_pem)
    identity = leaf(authority.key_and_cert_pem, names=hosts, now=now)
    with (
        contextlib.closing(Vault.create(home, now=now)) as vault,
        Upstream({api.host: api.check for api in apis}, identity=identity) as server,
    ):
        _, key = vault.callers.create("app", APP, cidrs=(), now=now)
        certificate = trust.create(home, now=now)
        options = [f"--connect-to={host}:443:127.0.0.1:{server.port}" for host in hosts]
        options += [f"--home={home}", f"--upstream-ca={authority_file}", "--untagged=deny", "--workers=1"]
        with _proxy(options, log=folder / "proxy.log", pause=pause) as port:
            door = Door(port=port, name=APP, key=key, ca_file=certificate)
            yield _Stage(apis=apis, vault=vault, server=server, door=door, client=client, now=now)


@contextlib.contextmanager
def _proxy(options: Sequence[str], *, log: Path, pause: Callable[[], None]) -> Iterator[int]:
    """The port of a proxy that accepts requests; the process ends with the block."""
    command = [sys.executable, "-I", "-m", "addon.launcher", "--listen=127.0.0.1:0", *options]
    with log.open("wb") as errors:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True)
    with process:
        try:
            yield _await_ready(process, log=log, pause=pause)
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _await_ready(process: "subprocess.Popen[str]", *, log: Path, pause: Callable[[], None]) -> int:
    output = cast("IO[str]", process.stdout)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        pause()
        if select.select([output], [], [], 0.1)[0]:
            line = output.readline()
            if ready := _READY.match(line):
                return int(ready[1])
            if not line:
                break
    lines = log.read_text(errors="replace").splitlines() or ["it said nothing"]
    raise Unreachable(
        f"the proxy of the demo did not start: {lines[0].removeprefix('error: ')}",
        hint=lines[1].removeprefix("hint: ") if len(lines) > 1 else "`alter-egress` by itself may say why",
    )


@dataclass(slots=True, kw_only=True)
class _Stage:
    """Everything is running; each act is one request through the proxy."""

    apis: Sequence[Api]
    vault: Vault
    server: Upstream
    door: Door
    client: Client
    now: float
    grants: dict[str, str] = field(default_factory=dict)

    def acts(self) -> Iterator[Exchange]:
        """One after the other; what an act needs is done when it is asked for."""
        for api in self.apis:
            self._store(api)
            yield self._use(api, api.kind)
        first, second = self.apis[:2]
        rotated = self._rotate(first)
        yield self._use(rotated, "rotation")
        self.vault.grants.revoke(ids=(self.grants[first.secret],), now=self.now)
        yield self._use(rotated, "revocation", refused="grant_revoked")
        elsewhere = replace(second, call=replace(second.call, url=f"https://{ELSEWHERE}/"))
        yield self._use(elsewhere, "wrong destination", refused="destination_not_bound")

    def _store(self, api: Api) -> None:
        binding = Binding(hosts=((api.host, 443),), placements=api.placements)
        self.vault.secrets.put(api.secret, kind=api.kind, binding=binding, values=dict(api.values), now=self.now)
        self.grants[api.secret] = self.vault.grants.issue(api.secret, principal=f"system:{APP}", now=self.now).id

    def _rotate(self, api: Api) -> Api:
        """A new value in the vault, and the only one the upstream takes."""
        token = stripe_key()
        self.vault.secrets.rotate(api.secret, values={"token": token}, now=self.now)
        self.server.expect(api.host, upstream.bearer(token))
        return replace(api, values={"token": token})

    def _use(self, api: Api, title: str, *, refused: str = "") -> Exchange:
        grant_id = self.grants[api.secret]
        headers = (("X-Alter-Grant", grant_id), *api.call.headers)
        before = len(self.server.received)
        answer = self.client(self.door, replace(api.call, headers=headers))
        seen = self.server.received[before:]
        expected = (403, refused, 0) if refused else (200, "", 1)
        found = (answer.status, answer.code, len(seen))
        problem = answer.error or "".join(each.reason for each in seen)
        if not problem and found != expected:
            problem = f"{_words(*found)}, where it should be {_words(*expected)}"
        return Exchange(
            title=title,
            secret=api.secret,
            grant_id=grant_id,
            request=f"{api.call.method} {api.call.url}",
            host=api.host,
            sent=tuple(mask(f"{name}: {value}", ()) for name, value in headers),
            received=tuple(line for each in seen for line in _arrived(each, api)),
            reached=len(seen),
            status=answer.status,
            code=answer.code,
            problem=problem,
        )


def _words(status: int, code: str, reached: int) -> str:
    return f"{status} {code or 'without a code'} and {reached} requests upstream"


def _arrived(request: Received, api: Api) -> Iterator[str]:
    """The lines that carry the credential."""
    hidden = [*api.values.values(), base64.b64encode(":".join(api.values.values()).encode()).decode()]
    if not api.shows:
        yield mask(request.target.decode("latin-1"), hidden)
    for name in api.shows:
        for value in request.values(name):
            yield mask(f"{name}: {value}", hidden)


def mask(text: str, hidden: Iterable[str]) -> str:
    """The text with each of `hidden`, and each signature, cut down to its first four and last two characters."""
    for each in (*hidden, *_SIGNATURE.findall(text)):
        text = text.replace(each, f"{each[:4]}****{each[-2:]}" if len(each) >= 16 else "****")
    return text


def _missing(exchanges: Sequence[Exchange], rows: Iterable[Row]) -> list[str]:
    """What the audit log does not tell of these exchanges, and should."""
    uses: dict[object, list[Row]] = {}
    for row in rows:
        uses.setdefault(row["id"], []).append(row)
    told = [([row["phase"] for row in use], use[-1]["status"], use[-1]["code"]) for use in uses.values()]
    due = [(["outcome"] if each.code else ["intent", "outcome"], each.status, each.code) for each in exchanges]
    return [] if told == due else [f"audit: {told} was recorded, not {due}"]
