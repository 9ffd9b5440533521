"""
How much our proxy costs, in ratios to a bare mitmdump on the same work in the same run.

    make bench                          five rounds, about four minutes
    python bench/run.py --quick         one short round, to see that it runs
    python bench/run.py --long          many requests and very long bodies, about three minutes
    python bench/run.py --rounds 9 --workers 2 --json result.json -o table.md

Ours does its full job: a caller proved by proxy credentials, a bearer grant with a policy, a record on the disk before
anything leaves. Mitmdump, without any addon, forwards what the client sends. Within a round the two take turns at every
measurement and the ratio is taken there, since the speed of a machine changes by the minute; reported are medians over
the rounds. Any answer but 200 ends the run: the upstream takes nothing but the right credential, and refuses a request
that still names a grant.
"""

import argparse
import contextlib
import importlib.metadata
import json
import math
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import meter
import peers
from peers import HOST, Credentials

from addon import ca
from addon.leaf import leaf

SETTLE = 0.1
"""Seconds that a proxy is given for what a last answer leaves to do, such as its closing record."""


@dataclass(frozen=True)
class Row:
    """A line of the table: a value that each round finds for each peer."""

    key: str
    text: str
    unit: str
    digits: int = 0


ROWS = (
    Row("cpu_1", "CPU per request, 1 tunnel", "µs"),
    Row("cpu_16", "CPU per request, 16 tunnels", "µs"),
    Row("cpu_64", "CPU per request, 64 tunnels", "µs"),
    Row("cpu_signed", "CPU per POST of 1 KiB, which ours signs (SigV4), 16 tunnels", "µs"),
    Row("cpu_user", "CPU per request with the token of a user (ES256), which ours verifies, 16 tunnels", "µs"),
    Row("cpu_new", "CPU per new tunnel with one request, 8 at once", "µs"),
    Row("rate_1", "requests per second, 1 tunnel", "/s"),
    Row("rate_16", "requests per second, 16 tunnels", "/s"),
    Row("rate_64", "requests per second, 64 tunnels", "/s"),
    Row("rate_new", "new tunnels per second, 8 at once", "/s"),
    Row("median_1", "time of a request, 1 tunnel, median", "ms", 2),
    Row("fresh", "time of a fresh client to an upstream 40 ms away, median; directly {direct:.0f} ms", "ms"),
    Row("first_byte", "first byte of an answer that takes a second", "ms", 1),
    Row("memory_idle", "memory after all these requests", "MB"),
    Row("memory_down", "memory at its peak in a download of {megabytes} MB", "MB"),
    Row("memory_up", "memory at its peak in an upload of {megabytes} MB", "MB"),
    Row("cpu_down", "CPU of the download", "ms"),
    Row("cpu_up", "CPU of the upload", "ms"),
)

LONG_ROWS = (
    Row("growth_requests", "memory more after {requests:,} more requests", "MB", 1),
    Row("growth_down", "memory more at the peak of a download of 1 GB", "MB", 1),
    Row("growth_up", "memory more at the peak of an upload of 1 GB", "MB", 1),
    Row("cpu_down", "CPU of the download", "ms"),
    Row("cpu_up", "CPU of the upload", "ms"),
)


def main():
    chosen = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwind, so that every process is stopped
    with tempfile.TemporaryDirectory(prefix="alter-egress-bench-") as folder:
        description = machine(folder)
        results = list(measure(Path(folder), chosen))
    text = f"{description}\n\n{table(results, chosen)}"
    if chosen.output:
        Path(chosen.output).write_text(text)
    else:
        print(text, end="")
    if chosen.json:
        document = {"machine": description, "options": vars(chosen), "rounds": results}
        Path(chosen.json).write_text(json.dumps(document, indent=2) + "\n")


def options():
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n\n")[0].strip(), formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="how often everything is measured")
    parser.add_argument("--seconds", type=float, default=2.0, metavar="S", help="how long a measurement takes")
    parser.add_argument("--megabytes", type=int, default=200, metavar="N", help="size of the long bodies")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes of ours; mitmdump has one")
    parser.add_argument("--quick", action="store_true", help="1 round of 0.2 s, with bodies of 20 MB")
    parser.add_argument("--long", action="store_true", help="1 round of what takes long: many requests, 1 GB each way")
    parser.add_argument("--requests", type=int, default=50_000, metavar="N", help="how many, with --long")
    parser.add_argument("--json", metavar="FILE", help="write every single result there")
    parser.add_argument("-o", "--output", metavar="FILE", help="write the table there instead of printing it")
    chosen = parser.parse_args()
    if sys.platform != "linux":
        parser.error("CPU and memory are read from /proc, which only Linux has")
    if chosen.quick:
        chosen.rounds, chosen.seconds, chosen.megabytes = 1, 0.2, 20
    if chosen.long:
        chosen.rounds, chosen.megabytes = 1, 1000
    return chosen


def measure(folder, chosen):
    """For each round the values of each peer."""
    credentials = Credentials.invent()
    authority = ca.mint(now=time.time())
    upstream_ca = folder / "upstream-ca.pem"
    upstream_ca.write_bytes(authority.cert_pem)
    identity = leaf(authority.key_and_cert_pem, names=[HOST], now=time.time())
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(peers.upstream(folder, identity=identity, credentials=credentials))
        far = stack.enter_context(peers.distance(folder, port=port, milliseconds=40))
        shared = {"upstream_ca": upstream_ca, "credentials": credentials}
        both = [
            stack.enter_context(peers.mitmdump(folder, **shared)),
            stack.enter_context(peers.alter_egress(folder, **shared, ports=(port, far), workers=chosen.workers)),
        ]
        for number in range(chosen.rounds):
            print(f"round {number + 1} of {chosen.rounds}", file=sys.stderr)
            both.reverse()
            found = {peer.name: {} for peer in both}
            for step in (long_steps if chosen.long else steps)(port, far, chosen):
                for peer in both:
                    found[peer.name] |= step(peer)
            if not chosen.long:
                token = f"Authorization: Bearer {credentials.token}\r\n"
                found["direct"] = {"fresh": fresh(None, far, token, chosen.seconds, ca_file=str(upstream_ca))["median"]}
            yield found


def fresh(peer, port, lines, seconds, *, ca_file=""):
    """One client after the other, through a peer or straight to the upstream."""
    return carry_out(
        peer, {"mode": "fresh", "seconds": seconds, "ca_file": ca_file} | request("GET /small", port, lines)
    )


def long_steps(port, _, chosen):
    """The same for what takes long. Memory is compared with what it was just before."""
    size = chosen.megabytes * 1_000_000

    def many(peer):
        plan = {"mode": "kept", "seconds": chosen.seconds, "concurrency": 16} | request("GET /small", port, peer.tagged)
        carry_out(peer, plan)
        before, left = meter.resident(meter.tree(peer.pid)), chosen.requests
        while left > 0:
            left -= carry_out(peer, plan | {"seconds": 10})["requests"]
        return {"growth_requests": (meter.resident(meter.tree(peer.pid)) - before) / 1e6}

    def down(peer):
        before = meter.resident(meter.tree(peer.pid)) / 1e6
        found = carry_out(peer, {"mode": "transfer"} | request(f"GET /bytes/{size}", port, peer.tagged))
        return {"cpu_down": found["cpu"] / 1000, "growth_down": found["peak"] - before}

    def up(peer):
        before = meter.resident(meter.tree(peer.pid)) / 1e6
        found = carry_out(peer, {"mode": "transfer"} | request("POST /sink", port, peer.tagged, body=size))
        return {"cpu_up": found["cpu"] / 1000, "growth_up": found["peak"] - before}

    return many, down, up


def steps(port, far, chosen):
    """What is measured in a round, one after the other: functions that take a peer and give values by row."""
    size = chosen.megabytes * 1_000_000

    def kept(concurrency):
        def step(peer):
            plan = {"mode": "kept", "seconds": chosen.seconds, "concurrency": concurrency}
            found = carry_out(peer, plan | request("GET /small", port, peer.tagged))
            return {f"{name}_{concurrency}": found[name] for name in ("cpu", "rate", "median")}

        return step

    def signed(peer):
        target, tag = ("POST /signed", peer.signed) if peer.signed else ("POST /plain", peer.tagged)
        plan = {"mode": "kept", "seconds": chosen.seconds, "concurrency": 16}
        found = carry_out(peer, plan | request(target, port, tag, body=1024))
        return {"cpu_signed": found["cpu"]}

    def as_user(peer):
        plan = {"mode": "kept", "seconds": chosen.seconds, "concurrency": 16}
        return {"cpu_user": carry_out(peer, plan | request("GET /small", port, peer.as_user or peer.tagged))["cpu"]}

    def from_afar(peer):
        return {"fresh": fresh(peer, far, peer.tagged, chosen.seconds)["median"]}

    def new(peer):
        plan = {"mode": "new", "seconds": chosen.seconds, "concurrency": 8}
        found = carry_out(peer, plan | request("GET /small", port, peer.tagged))
        return {"cpu_new": found["cpu"], "rate_new": found["rate"]}

    def slow(peer):
        idle = meter.resident(meter.tree(peer.pid)) / 1e6
        found = carry_out(peer, {"mode": "transfer"} | request("GET /slow", port, peer.tagged))
        return {"memory_idle": idle, "first_byte": found["first_byte"] * 1000}

    def down(peer):
        found = carry_out(peer, {"mode": "transfer"} | request(f"GET /bytes/{size}", port, peer.tagged))
        return {"cpu_down": found["cpu"] / 1000, "memory_down": found["peak"]}

    def up(peer):
        found = carry_out(peer, {"mode": "transfer"} | request("POST /sink", port, peer.tagged, body=size))
        return {"cpu_up": found["cpu"] / 1000, "memory_up": found["peak"]}

    return kept(1), kept(16), kept(64), signed, as_user, new, from_afar, slow, down, up


def request(target, port, lines, *, body=0):
    """A request as a client writes it, for a plan."""
    usual = "User-Agent: bench/1\r\nAccept: */*\r\nAccept-Encoding: gzip, deflate\r\n"
    length = f"Content-Length: {body}\r\n" if body else ""
    head = f"{target} HTTP/1.1\r\nHost: {HOST}:{port}\r\n{usual}{lines}{length}\r\n"
    return {"head": head, "body": body, "port": port}


def carry_out(peer, plan):
    """
    What the load generator found (see load.py), and beside it

    `cpu` of the proxy in µs per request, `rate` in requests per second, `median` time of one in ms, `peak` memory in MB.
    """
    plan = plan | {"host": HOST, "connect": ""}
    if peer:
        connect = f"CONNECT {HOST}:{plan['port']} HTTP/1.1\r\nHost: {HOST}:{plan['port']}\r\n{peer.proof}\r\n"
        plan |= {"ca_file": peer.ca_file, "port": peer.port, "connect": connect}
    command = [sys.executable, Path(__file__).with_name("load.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as load:
        tell(load, json.dumps(plan))
        hear(load, peer)
        time.sleep(SETTLE)
        processes = meter.tree(peer.pid) if peer else []
        before = meter.cpu_seconds(processes)
        with meter.Peak(processes) as peak:
            tell(load, "go")
            found = json.loads(hear(load, peer))
            time.sleep(SETTLE)
        used = meter.cpu_seconds(processes) - before
        tell(load, "end")
    return found | {
        "cpu": used / found["requests"] * 1e6,
        "rate": found["requests"] / found["seconds"],
        "median": found["median"] * 1000,
        "peak": peak.bytes / 1e6,
    }


def tell(process, line):
    process.stdin.write(line + "\n")
    process.stdin.flush()


def hear(process, peer):
    line = process.stdout.readline()
    if not line:
        sys.exit(f"error: nothing was measured, since {peer.name if peer else 'the upstream'} did not do its job")
    return line


def table(results, chosen):
    """Markdown: medians over the rounds, and the median of the rounds' ratios."""
    rows = LONG_ROWS if chosen.long else ROWS
    direct = 0 if chosen.long else statistics.median(each["direct"]["fresh"] for each in results)
    said = {"megabytes": chosen.megabytes, "requests": chosen.requests, "direct": direct}
    lines = [f"| {len(results)} x {chosen.seconds:g} s | mitmdump | alter-egress | ratio |", "|---|---:|---:|---:|"]
    for row in rows:
        theirs, ours = ([each[name][row.key] for each in results] for name in ("mitmdump", "alter-egress"))
        ratio = statistics.median(b / a if a else math.inf for a, b in zip(theirs, ours, strict=True))
        values = " | ".join(f"{statistics.median(each):,.{row.digits}f} {row.unit}" for each in (theirs, ours))
        lines.append(f"| {row.text.format(**said)} | {values} | {ratio:.{2 if ratio > 0.01 else 3}f} |")
    return "\n".join(lines) + "\n"


def machine(folder):
    """What the numbers depend on, and when they were taken. No name that tells whose machine it is."""
    fields = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
    processor = next((value.strip() for name, _, value in fields if name.strip() == "model name"), platform.machine())
    mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    disk = max((len(where), kind) for _, where, kind, *_ in mounts if Path(folder).is_relative_to(where))[1]
    return ", ".join(
        (
            f"{len(os.sched_getaffinity(0))} cores of {processor}",
            platform.freedesktop_os_release().get("PRETTY_NAME", "Linux"),
            f"records on {disk}",
            f"Python {platform.python_version()}",
            f"mitmproxy {importlib.metadata.version('mitmproxy')}",
            f"{datetime.now(UTC):%Y-%m-%d}",
        )
    )


if __name__ == "__main__":
    main()
