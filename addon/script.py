"""The addon under a stock mitmdump: dangerous options are refused, the parts are opened before anything is served."""

import asyncio
from typing import Any

from mitmproxy import ctx, exceptions
from mitmproxy.addonmanager import Loader

from addon import hardening, homes, process
from addon.errors import OperatorError
from addon.master import fixed_options, open_gate
from addon.settings import Settings
from addon.shell import Egress

_REFUSED = {
    "ssl_insecure": "upstream certificates must be verified",
    "stream_large_bodies": "requests would leave before they are decided",
    "body_size_limit": "uploads would be cut; use alter_max_signed_body for what must be held",
    "modify_headers": "rewrites after us could move a secret",
    "modify_body": "rewrites after us could move a secret",
    "map_remote": "rewrites after us could move a secret",
    "map_local": "rewrites after us could move a secret",
    "save_stream_file": "flows would be written to disk",
    "hardump": "flows would be written to disk",
    "ignore_hosts": "tagged requests would pass unseen",
    "allow_hosts": "tagged requests would pass unseen",
    "rawtcp": "tunnels would carry anything",
    "http3": "not supported here",
}


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
        fixed = fixed_options(homes.locate(None) / "ca", "")
        for name in ("connection_strategy", "http3", "rawtcp", "upstream_cert", "keep_host_header", "tcp_timeout"):
            ctx.options.update(**{name: fixed[name]})

    def configure(self, updated: set[str]) -> None:
        """Refuse what is unsafe, at start and whenever it changes. Raises OptionsError."""
        for name, reason in _REFUSED.items():
            if name in ctx.options and getattr(ctx.options, name):
                raise exceptions.OptionsError(f"alter-egress does not run with {name}: {reason}")
        if any(not str(mode).startswith("regular") for mode in ctx.options.mode):
            raise exceptions.OptionsError("alter-egress runs in regular mode only")
        if self._egress is None or updated & {"alter_home", "alter_untagged"}:
            self._egress = self._open()

    def _open(self) -> Egress:
        settings = Settings(home=ctx.options.alter_home, untagged=ctx.options.alter_untagged)
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
