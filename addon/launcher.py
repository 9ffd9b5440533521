"""
`alter-egress`: parses options, binds the socket, keeps N workers alive, drains on SIGTERM.

The supervisor holds no key: it never opens the vault, and a worker's memory is its own.
"""

import argparse
import contextlib
import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from addon import files, homes, load, logs, next_proxy
from addon.errors import Conflict, OperatorError, Usage
from addon.settings import Settings, parse_listen, parse_size

if TYPE_CHECKING:
    from addon.metrics import Endpoint

_log = logging.getLogger("alter-egress")

_EPILOG = """\
example:
  vaultctl init
  alter-egress
  curl --proxy http://NAME:KEY@127.0.0.1:8080 --cacert "$ALTER_HOME/ca/ca-cert.pem" \\
       -H "X-Alter-Grant: GRANT_ID" https://api.example.com/
"""


def main(argv: list[str] | None = None) -> int:
    """Run until stopped. Returns the exit code: 0 after a drain, otherwise that of the error."""
    try:
        settings = parse(sys.argv[1:] if argv is None else argv)
    except OperatorError as error:
        sys.stderr.write(f"error: {error.message}\nhint: {error.hint}\n")
        return error.exit_code
    logs.configure(settings.log_format)
    with (
        tempfile.TemporaryDirectory(prefix="alter-egress-") if settings.metrics else contextlib.nullcontext() as folder
    ):
        try:
            return Supervisor(settings, numbers=folder).run()
        except OperatorError as error:
            _say_error(settings, error.message, error.hint)
            return error.exit_code


def _say_error(settings: Settings, message: str, hint: str) -> None:
    if settings.log_format == "json":
        _log.error("%s", message, extra={"hint": hint})
    else:
        sys.stderr.write(f"error: {message}\nhint: {hint}\n")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Usage(message, hint="`alter-egress --help` lists the options")


def parse(argv: list[str]) -> Settings:
    """Settings from a command line, checked. Raises Usage."""
    parser = _Parser(
        prog="alter-egress",
        description="Run the proxy: apps send tagged requests, the vault's credentials go out.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--home",
        default=None,
        metavar="DIR",
        help="folder of the vault (default: $ALTER_HOME, or the user's data folder)",
    )
    add("--listen", default="127.0.0.1:8080", metavar="ADDR:PORT", help="loopback address to listen on (default: 127.0.0.1:8080; port 0: a free one)")  # fmt: skip
    add("--mode", default="regular", metavar="MODE", help="regular, transparent (connections are redirected here), or reverse:https://HOST (all requests are for HOST)")  # fmt: skip
    add("--workers", type=int, default=min(4, _cores()), metavar="N", help="worker processes (default: one per core, at most 4)")  # fmt: skip
    add("--untagged", choices=["pass", "deny"], default="pass", help="requests that name no grant: forward without a credential, or refuse (default: pass)")  # fmt: skip
    add("--intercept", choices=["all", "bound"], default="all", help="all: read every tunnel; bound: let TLS to hosts that no secret is bound to pass unread (default: all)")  # fmt: skip
    add("--passthrough", action="append", default=[], metavar="HOST", help="let TLS to this host pass unread, for pinned certificates; no secret may be bound to it (repeatable)")  # fmt: skip
    add("--allow-private", action="append", default=[], metavar="CIDR", help="private network that untagged requests may reach (repeatable)")  # fmt: skip
    add("--connect-to", action="append", default=[], metavar="HOST:PORT:ADDR:PORT", help="send connections for HOST:PORT to a fixed address; TLS still has to prove HOST (repeatable)")  # fmt: skip
    add("--engine", choices=["auto", "stock"], default="auto", help="auto: HTTP/1.1 tunnels on the fast path; stock: everything on mitmproxy's own layers (default: auto)")  # fmt: skip
    add("--upstream-proxy", default="", metavar="URL", help=f"connect through this HTTP proxy; one with credentials as @FILE, or in {next_proxy.VARIABLE}")  # fmt: skip
    add("--upstream-ca", default="", metavar="FILE", help="CA certificates to trust upstream, besides the public ones")
    add("--max-signed-body", default="64MiB", metavar="SIZE", help="largest body that is held to be hashed for a signature (default: 64MiB)")  # fmt: skip
    add("--redact", choices=["used", "bound"], default="used", help="make unreadable in a response: the secret it was asked for with, or every value of every secret bound to that host (default: used)")  # fmt: skip
    add("--max-connections-per-caller", type=int, default=load.CONNECTIONS, metavar="N", help=f"connections that one app or agent may have open to one worker (default: {load.CONNECTIONS})")  # fmt: skip
    add("--max-requests-per-caller", type=int, default=load.REQUESTS, metavar="N", help=f"requests that one worker carries at once for one app or agent (default: {load.REQUESTS})")  # fmt: skip
    add("--audit-durability", choices=["power", "process"], default="power", help="records survive a power loss, or only the death of the process (default: power)")  # fmt: skip
    add("--approval-webhook", default="", metavar="URL", help="tell this address of requests that wait for approval; signed with the key in webhook.key")  # fmt: skip
    add(
        "--metrics",
        default="",
        metavar="ADDR:PORT",
        help="answer /metrics, /healthz and /readyz at this loopback address",
    )
    add("--log-format", choices=logs.FORMS, default="text", help="complaints as text or as JSON lines (default: text)")
    chosen = parser.parse_args(argv)
    host, port = parse_listen(chosen.listen)
    via = next_proxy.read(chosen.upstream_proxy, variable=os.environ.get(next_proxy.VARIABLE, ""))
    settings = Settings(
        home=str(homes.locate(chosen.home)),
        listen_host=host,
        listen_port=port,
        mode=chosen.mode,
        workers=chosen.workers,
        untagged=chosen.untagged,
        engine=chosen.engine,
        intercept=chosen.intercept,
        passthrough=tuple(chosen.passthrough),
        allow_private=tuple(chosen.allow_private),
        connect_to=tuple(chosen.connect_to),
        upstream_proxy=via.dump() if via else "",
        upstream_ca=str(Path(chosen.upstream_ca).absolute()) if chosen.upstream_ca else "",
        max_signed_body=parse_size(chosen.max_signed_body),
        redact=chosen.redact,
        max_connections_per_caller=chosen.max_connections_per_caller,
        max_requests_per_caller=chosen.max_requests_per_caller,
        audit_durability=chosen.audit_durability,
        approval_webhook=chosen.approval_webhook,
        metrics=chosen.metrics,
        log_format=chosen.log_format,
    )
    settings.check()
    if not 1 <= settings.workers <= 64:
        raise Usage(f"not a number of workers: {settings.workers}", hint="use 1 to 64; one per core is plenty")
    return settings


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Supervisor:
    """One listening socket, shared by workers that are replaced when they die."""

    def __init__(self, settings: Settings, *, numbers: str | None = None) -> None:
        """`numbers` is a private folder where workers write what `--metrics` shows."""
        self._settings = settings
        self._numbers = numbers
        self._endpoint: Endpoint | None = None
        self._workers: dict[int, subprocess.Popen[str]] = {}
        self._ready: set[int] = set()
        self._stopping = False
        self._renewing = False
        self._terminal = _has_terminal()

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT. Raises OperatorError before the ready line; a failed worker's code otherwise."""
        os.umask(0o077)
        files.check_folder(Path(self._settings.home))
        settings = replace(self._settings, upstream_ca=_bundle(self._settings))
        listener = _listen(settings)
        if self._numbers:
            self._endpoint = self._show(Path(self._numbers))
        address = _url(listener)
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self._stop)
        signal.signal(signal.SIGHUP, self._renew)
        for slot in range(settings.workers):
            self._start(slot, settings, listener)
        code = self._await_ready()
        if code == 0 and not self._stopping:
            plural = "worker" if settings.workers == 1 else "workers"
            sys.stdout.write(f"alter-egress ready on {address} ({settings.workers} {plural})\n")
            sys.stdout.flush()
            self._keep_alive(lambda slot: self._start(slot, settings, listener))
        listener.close()  # who comes now is told at once, instead of waiting in a queue nobody serves
        self._end()
        if self._endpoint:
            self._endpoint.close()
        return code

    def _start(self, slot: int, settings: Settings, listener: socket.socket) -> None:
        # Inherited: a worker that is not ready yet must not die of a signal that it will understand.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        worker = subprocess.Popen(
            [sys.executable, "-I", "-O", "-m", "addon.worker", str(listener.fileno())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=[listener.fileno()],
            start_new_session=True,
            env=os.environ | ({"PROMETHEUS_MULTIPROC_DIR": self._numbers} if self._numbers else {}),
        )
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        self._workers[slot] = worker
        with contextlib.suppress(BrokenPipeError):
            _pipe(worker.stdin).write(settings.dump() + "\n")
            _pipe(worker.stdin).flush()

    def _await_ready(self) -> int:
        """0 when all workers serve, or the exit code of the first that could not start."""
        with selectors.DefaultSelector() as selector:
            for slot, worker in self._workers.items():
                selector.register(_pipe(worker.stdout), selectors.EVENT_READ, slot)
            waiting = set(self._workers)
            while waiting and not self._stopping:
                for key, _ in selector.select(timeout=0.2):
                    worker = self._workers[key.data]
                    line = _pipe(worker.stdout).readline()
                    if line == "ready\n":
                        waiting.discard(key.data)
                        selector.unregister(key.fileobj)
                    else:
                        self._pass_on(line + _pipe(worker.stdout).read())
                        return worker.wait() or 1
        return 0

    def _keep_alive(self, restart: Callable[[int], None]) -> None:
        started = dict.fromkeys(self._workers, time.monotonic())
        while not self._stopping:
            time.sleep(0.1)
            if self._renewing:
                self._renewing = False
                self._tell_workers()
            for slot, worker in self._workers.items():
                if worker.poll() is None or self._stopping:
                    continue
                if said := _pipe(worker.stdout).read().removeprefix("ready\n"):
                    _log.error("%s", said.rstrip("\n"))
                _log.error("worker %d ended with code %d; starting another", slot + 1, worker.returncode)
                if self._endpoint:
                    self._endpoint.ended(worker.pid)
                if time.monotonic() - started[slot] < 1.0:
                    time.sleep(1.0)
                started[slot] = time.monotonic()
                restart(slot)
                break

    def _pass_on(self, said: str) -> None:
        """Why a worker could not start, in its own words."""
        if self._settings.log_format == "text":
            sys.stderr.write(said)
            return
        message, _, hint = said.rstrip("\n").partition("\nhint: ")
        _say_error(self._settings, message.removeprefix("error: "), hint)

    def _show(self, folder: Path) -> "Endpoint":
        from addon.metrics import Endpoint  # noqa: PLC0415  prometheus_client is for who wants it

        host, port = parse_listen(self._settings.metrics)
        try:
            endpoint = Endpoint((host, port), folder=folder, stopping=lambda: self._stopping)
        except OSError as error:
            raise Conflict(
                f"cannot listen on {self._settings.metrics} ({os.strerror(error.errno or 0)})",
                hint="stop what listens there, or choose another port with --metrics 127.0.0.1:0",
            ) from error
        sys.stdout.write(f"metrics on http://{f'[{host}]' if ':' in host else host}:{endpoint.port}/metrics\n")
        return endpoint

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _renew(self, *_: object) -> None:
        # The same signal says that the terminal was closed, and then nobody is there to stop us later.
        if self._terminal and not _has_terminal():
            self._stopping = True
        self._renewing = True

    def _tell_workers(self) -> None:
        for worker in self._workers.values():
            with contextlib.suppress(OSError):
                worker.send_signal(signal.SIGHUP)

    def _end(self) -> None:
        for worker in self._workers.values():
            with contextlib.suppress(OSError):
                worker.terminate()
        for worker in self._workers.values():
            try:
                worker.wait(timeout=40)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _pipe[T](stream: T | None) -> T:
    if stream is None:
        raise RuntimeError
    return stream


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.listen_host else socket.AF_INET
    try:
        listener = socket.create_server((settings.listen_host, settings.listen_port), family=family, backlog=1024)
    except OSError as error:
        raise Conflict(
            f"cannot listen on {settings.listen_host}:{settings.listen_port} ({os.strerror(error.errno or 0)})",
            hint="stop what listens there, or choose another port with --listen 127.0.0.1:0",
        ) from error
    listener.set_inheritable(True)
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _bundle(settings: Settings) -> str:
    """The public CAs and the operator's in one file, since the engine trusts exactly one."""
    if not settings.upstream_ca:
        return ""
    import certifi  # noqa: PLC0415  only with --upstream-ca

    folder = Path(settings.home) / "ca"
    files.make_folder(folder)
    bundle = folder / "upstream-bundle.pem"
    files.replace(bundle, Path(certifi.where()).read_bytes() + b"\n" + Path(settings.upstream_ca).read_bytes())
    return str(bundle)


if __name__ == "__main__":
    sys.exit(main())
