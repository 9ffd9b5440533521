"""What an operator chose for one run of the proxy, checked once and frozen."""

import ipaddress
import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from addon import hosts, load, logs, modes, network, webhook
from addon.errors import Usage
from addon.next_proxy import NextProxy

MEBIBYTE = 1 << 20

_CHOICES = {
    "untagged": ("a choice for untagged traffic", ("pass", "deny")),
    "engine": ("an engine", ("auto", "stock")),
    "intercept": ("a choice of what to intercept", ("all", "bound")),
    "redact": ("a choice of what to redact", ("used", "bound")),
    "audit_durability": ("a durability", ("power", "process")),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """
    Sizes are bytes. `home` is absolute. `mode`, `connect_to`, `allow_private` and `passthrough` hold text that parses.

    `upstream_proxy` is a `NextProxy`, dumped: it may hold a password, and does not print.
    """

    home: str
    listen_host: str = "127.0.0.1"
    listen_port: int = 8080
    mode: str = "regular"
    workers: int = 1
    untagged: str = "pass"
    engine: str = "auto"
    intercept: str = "all"
    passthrough: tuple[str, ...] = ()
    allow_private: tuple[str, ...] = ()
    connect_to: tuple[str, ...] = ()
    upstream_ca: str = ""
    upstream_proxy: str = field(default="", repr=False)
    max_signed_body: int = 64 * MEBIBYTE
    redact: str = "used"
    max_connections_per_caller: int = load.CONNECTIONS
    max_requests_per_caller: int = load.REQUESTS
    audit_durability: str = "power"
    approval_webhook: str = ""
    metrics: str = ""
    log_format: str = "text"

    def check(self) -> None:
        """Raises Usage for anything unsafe or impossible, with the mend."""
        network.parse_networks(self.allow_private)
        for text in self.connect_to:
            network.parse_redirect(text)
        modes.parse(self.mode)
        modes.check_listener(self.mode, self.listen_host)
        for text in self.passthrough:
            if hosts.parse_pattern(text)[0].startswith("*."):
                raise Usage(f"not a single host: {text!r}", hint="name each host that is passed through")
        for name, (what, choices) in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise Usage(f"not {what}: {getattr(self, name)!r}", hint=f"use {' or '.join(choices)}")
        if not (0 < self.max_connections_per_caller <= load.TOTAL and 0 < self.max_requests_per_caller <= load.TOTAL):
            raise Usage("not a number of connections or requests per caller", hint=f"use 1 to {load.TOTAL}")
        self._check_watching()
        if self.approval_webhook:
            webhook.check_url(self.approval_webhook)
        if self.upstream_ca and not Path(self.upstream_ca).is_file():
            raise Usage(f"no CA bundle at {self.upstream_ca}", hint="give a PEM file with --upstream-ca")

    def _check_watching(self) -> None:
        if self.log_format not in logs.FORMS:
            raise Usage(f"not a form of log lines: {self.log_format!r}", hint="use text or json")
        if self.metrics and not ipaddress.ip_address(parse_listen(self.metrics)[0]).is_loopback:
            raise Usage(
                f"the metrics at {self.metrics} could be read from other machines",
                hint="listen on 127.0.0.1 or ::1, and let a collector on this machine send them on",
            )

    @property
    def next_proxy(self) -> NextProxy | None:
        """Where connections go through, if not straight to their destination."""
        return NextProxy.load(self.upstream_proxy) if self.upstream_proxy else None

    def dump(self) -> str:
        """Text for a worker process, the password of an upstream proxy included."""
        return json.dumps(asdict(self))

    @classmethod
    def load(cls, text: str) -> "Settings":
        """The settings in `dump`ed text."""
        raw: dict[str, Any] = json.loads(text)
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()}
        return cls(**fields)


def parse_listen(text: str) -> tuple[str, int]:
    """`ADDRESS:PORT` → (address, port). Raises Usage. `localhost` means 127.0.0.1; port 0 picks a free one."""
    host, colon, port = text.rpartition(":")
    host = {"": "127.0.0.1", "localhost": "127.0.0.1"}.get(host, host.strip("[]"))
    try:
        ipaddress.ip_address(host)
        number = int(port) if re.fullmatch(r"[0-9]{1,5}", port) else -1
    except ValueError:
        number = -1
    if not colon or not 0 <= number < 65536:
        raise Usage(f"not an address to listen on: {text!r}", hint="write --listen 127.0.0.1:8080")
    return host, number


def parse_size(text: str) -> int:
    """`64MiB`, `512KiB`, `1GiB` or plain bytes. Raises Usage."""
    match = re.fullmatch(r"([0-9]{1,15})(KiB|MiB|GiB)?", text)
    if not match:
        raise Usage(f"not a size: {text!r}", hint="write bytes, or a number with KiB, MiB or GiB, such as 64MiB")
    return int(match[1]) << {None: 0, "KiB": 10, "MiB": 20, "GiB": 30}[match[2]]
