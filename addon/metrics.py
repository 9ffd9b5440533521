"""
Counts for Prometheus, summed over the workers, and whether they serve: what `--metrics` answers on loopback.

Each worker writes its numbers into a private folder that the supervisor reads (prometheus_client's multi-process mode,
told by PROMETHEUS_MULTIPROC_DIR, which must be set before this module is imported there). Labels are words of ours:
nothing a caller can choose becomes one, so there are as many series on the last day as on the first.
"""

import asyncio
import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client import multiprocess as shared

from addon.audit.writer import Writer
from addon.model import Record
from addon.refusals import CODES

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

_REQUESTS = Counter(
    "alter_requests", "Requests that have ended, by decision and by code of refusal or fault.", ["decision", "code"]
)
_SECONDS = Histogram(
    "alter_request_seconds",
    "From the record of a request to the end of its response.",
    buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100),
)
_READY = Gauge("alter_workers_ready", "Workers that accept requests.", multiprocess_mode="livesum")

_DECISIONS = frozenset({"authorized", "refused", "untagged", "fault"})


class CountingWriter(Writer):
    """The audit log of a worker; what is recorded there is counted here."""

    def record(self, record: Record) -> asyncio.Future[None]:
        """As `Writer.record`."""
        count(record)
        return super().record(record)

    def post(self, record: Record) -> None:
        """As `Writer.post`."""
        count(record)
        super().post(record)


def count(record: Record) -> None:
    """Count an outcome; an intent has yet to end."""
    if record.phase != "outcome":
        return
    decision = record.decision if record.decision in _DECISIONS else "other"
    code = record.code if not record.code or record.code in CODES else "other"
    _REQUESTS.labels(decision, code).inc()
    if record.duration_ms is not None:
        _SECONDS.observe(record.duration_ms / 1000)


def announce_ready() -> None:
    """This worker accepts requests from now on."""
    _READY.set(1)


class Endpoint:
    """`/metrics`, `/healthz` and `/readyz` of the supervisor. Raises OSError if it cannot listen at `address`."""

    def __init__(self, address: tuple[str, int], *, folder: Path, stopping: Callable[[], bool]) -> None:
        self._folder = folder
        self._stopping = stopping
        self._registry = CollectorRegistry()
        shared.MultiProcessCollector(self._registry, path=str(folder))  # type: ignore[no-untyped-call]
        self._restarts = Counter("alter_worker_restarts", "Workers that were replaced.", registry=self._registry)
        self._server = _Server(address, _handler(self))
        threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def ended(self, pid: int) -> None:
        """A worker is no more; what it counted stays counted."""
        shared.mark_process_dead(pid, path=str(self._folder))  # type: ignore[no-untyped-call]
        self._restarts.inc()

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str) -> tuple[HTTPStatus, str, bytes]:
        """Status, media type and body for a path."""
        match path.partition("?")[0]:
            case "/healthz":
                return HTTPStatus.OK, _TEXT, b"ok\n"
            case "/readyz" if self._stopping():
                return HTTPStatus.SERVICE_UNAVAILABLE, _TEXT, b"stopping\n"
            case "/readyz" if not self._registry.get_sample_value("alter_workers_ready"):
                return HTTPStatus.SERVICE_UNAVAILABLE, _TEXT, b"no worker accepts requests\n"
            case "/readyz":
                return HTTPStatus.OK, _TEXT, b"ready\n"
            case "/metrics":
                return HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(self._registry)
        return HTTPStatus.NOT_FOUND, _TEXT, b"there are /metrics, /healthz and /readyz\n"


_TEXT = "text/plain; charset=utf-8"


class _Server(ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is nobody's business."""


def _handler(endpoint: Endpoint) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 5

        def do_GET(self) -> None:
            status, kind, body = endpoint.answer(self.path)
            self.send_response_only(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Scrapes are not events."""

    return Handler
