"""The addon under a stock mitmdump: dangerous options are refused, the parts are opened before anything is served."""

import asyncio
from pathlib import Path
from typing import Any

from mitmproxy import ctx, exceptions
from mitmproxy.addonmanager import Loader

from addon import hardening, homes, process
from addon.errors import OperatorError
from addon.master import fixed_options, open_gate
from addon.settings import Settings
from addon.shell import Egress

_FREE = frozenset(
    {
        "alter_home", "alter_untagged", "cert_passphrase", "certs", "confdir", "content_view_lines_cutoff",
        "dumper_default_contentview", "dumper_filter", "flow_detail", "http2", "http2_ping_keepalive", "keepserving",
        "key_size", "listen_host", "listen_port", "scripts", "server", "show_ignored_hosts", "showhost",
        "ssl_verify_upstream_trusted_ca", "tcp_timeout", "termlog_verbosity",
    }
)  # fmt: skip
"""Options that cannot move a credential. Every other one must be as we run it, or as mitmproxy ships it."""


def _fixed() -> dict[str, object]:
    chosen = fixed_options(Path(), "")
    return {name: value for name, value in chosen.items() if name not in _FREE}


class ScriptEgress:
    """Becomes the real addon once mitmdump's options are known to be safe."""

    def __init__(self) -> None:
        process.harden()
        hardening.install()
        self._egress: Egress | None = None

    def load(self, loader: Loader) -> None:
        """Add our options, and set mitmproxy's to how we run it."""
        loader.add_option("alter_home", str, str(homes.locate(None)), "Folder of the vault.")
        loader.add_option("alter_untagged", str, "pass", "Requests without a grant: pass or deny.")
        untouched = {name for name in _fixed() if getattr(ctx.options, name) == ctx.options.default(name)}
        ctx.options.update(**{name: value for name, value in _fixed().items() if name in untouched})

    def configure(self, updated: set[str]) -> None:
        """Refuse what is unsafe, at start and whenever it changes. Raises OptionsError."""
        if not ctx.options.listen_host:
            # It listens already, on every address: mitmproxy loads its scripts after that, and does not move.
            raise exceptions.OptionsError("alter-egress listens on loopback only: add --listen-host 127.0.0.1")
        for name in sorted(ctx.options.keys() - _FREE):
            if getattr(ctx.options, name) != _fixed().get(name, ctx.options.default(name)):
                raise exceptions.OptionsError(
                    f"alter-egress does not run with {name} changed: it could move a credential, or let requests pass unseen"
                )
        if self._egress is None:
            self._egress = self._open()
        elif updated & {"alter_home", "alter_untagged", "listen_host"}:
            raise exceptions.OptionsError("where and for whom it runs is set at start; start again to change it")

    def _open(self) -> Egress:
        settings = Settings(
            home=ctx.options.alter_home,
            untagged=ctx.options.alter_untagged,
            listen_host=ctx.options.listen_host.replace("localhost", "127.0.0.1"),
        )
        own = ("", ctx.options.listen_port or 8080)
        try:
            settings.check()
            gate, _ = open_gate(settings, own=own)
        except OperatorError as error:
            raise exceptions.OptionsError(f"{error.message} ({error.hint})") from error
        self._resolver = gate.resolver
        return Egress(gate)

    def running(self) -> None:
        """The loop exists now: judge the addresses it resolves."""
        self._resolver.install(asyncio.get_running_loop())

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or self.__dict__.get("_egress") is None:
            raise AttributeError(name)
        return getattr(self._egress, name)
