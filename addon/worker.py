"""
One worker process: an own mitmproxy master with only the addons the job needs.

Everything that can fail is opened and tested before the master exists, so a worker that serves is a worker that can
decide, open and record. Settings come as one line on stdin; the end of stdin means that the supervisor is gone.
"""

import asyncio
import contextlib
import logging
import signal
import socket
import sys
import time
from typing import Any

from addon import logs, modes, process
from addon.errors import OperatorError
from addon.settings import Settings

DRAIN_SECONDS = 30.0


def main() -> int:
    """Serve until SIGTERM. Prints `ready` once requests are accepted."""
    process.harden()
    process.raise_file_limit()
    settings = Settings.load(sys.stdin.readline())
    logs.configure(settings.log_format)
    listener = socket.socket(fileno=int(sys.argv[1]))
    try:
        asyncio.run(_serve(settings, listener))
    except OperatorError as error:
        # For the supervisor, which says it once for all workers.
        sys.stdout.write(f"error: {error.message}\nhint: {error.hint}\n")
        return error.exit_code
    return 0


async def _serve(settings: Settings, listener: socket.socket) -> None:
    from mitmproxy.proxy.mode_servers import ServerInstance  # noqa: PLC0415  only after `process.harden`

    from addon.master import build  # noqa: PLC0415

    proxy = build(settings, own=listener.getsockname()[:2])
    loop = asyncio.get_running_loop()
    proxy.gate.resolver.install(loop)
    running = asyncio.create_task(proxy.master.run())
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    loop.add_signal_handler(signal.SIGHUP, proxy.renew)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # blocked by the supervisor until somebody listens
    await loop.connect_read_pipe(lambda: _Lifeline(stop), sys.stdin)
    tidying = asyncio.create_task(proxy.gate.keep_tidy())
    instance: ServerInstance[Any] = ServerInstance.make(modes.parse(settings.mode).spec, proxy.server)
    server = await asyncio.start_server(instance.handle_stream, sock=listener, backlog=1024)
    if settings.metrics:
        from addon.metrics import announce_ready  # noqa: PLC0415

        announce_ready()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    waiting = asyncio.create_task(stop.wait())
    await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
    server.close()
    tidying.cancel()
    proxy.gate.drain()
    deadline = time.monotonic() + DRAIN_SECONDS
    while proxy.gate.active and time.monotonic() < deadline:  # noqa: ASYNC110  a counter, polled only here
        await asyncio.sleep(0.02)
    proxy.master.shutdown()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    proxy.audit.close()


class _Lifeline(asyncio.Protocol):
    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio calls it so
        self._stop.set()


if __name__ == "__main__":
    logging.getLogger().setLevel(logging.WARNING)
    sys.exit(main())
