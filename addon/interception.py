"""
Which TLS the proxy reads (`--intercept`, `--passthrough`), and which it lets through unread.

A host that an active secret is bound to is always read, whatever port its tunnel leads to.
"""

from addon import hosts, selfservice
from addon.errors import Fault
from addon.settings import Settings
from addon.vault import Vault


class Interception:
    """What the operator chose, against what is in the vault now."""

    def __init__(self, settings: Settings, *, vault: Vault) -> None:
        self._bound_only = settings.intercept == "bound"
        self._passthrough = frozenset(hosts.parse_pattern(text) for text in settings.passthrough)
        self._vault = vault

    def passes(self, host: str, port: int, *, sni: str | None) -> bool:
        """
        Whether TLS to a destination goes through unread: neither it nor the name in its ClientHello may be bound.

        What cannot be decided is read, so that each request in it is told.
        """
        if not self._bound_only and not self._passthrough:
            return False
        try:
            names = {host} if sni is None else {host, hosts.normalize(sni)}
            return all(self._passes(name, port) for name in names)
        except (Fault, hosts.NotAName):
            return False

    def contradicted(self, host: str, port: int) -> bool:
        """Whether the operator wants a host passed through to which a secret is bound. Raises Fault."""
        return (host, port) in self._passthrough and self._vault.bound_host(host)

    def _passes(self, name: str, port: int) -> bool:
        chosen = self._bound_only or (name, port) in self._passthrough
        return chosen and name != selfservice.HOST and not self._vault.bound_host(name)
