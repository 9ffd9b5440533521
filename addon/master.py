"""The mitmproxy master of one worker: four stock addons and ours, every dangerous option fixed."""

import contextlib
import functools
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import certifi
from mitmproxy import master, options
from mitmproxy.addons import core, next_layer, proxyserver, tlsconfig

from addon import files, hardening, load, modes, network, next_proxy, process, webhook
from addon.audit.writer import Writer
from addon.callers.key_sets import KeySets
from addon.callers.web import Web
from addon.credentials import sigv4
from addon.errors import Locked
from addon.exchange.errands import Errands
from addon.exchange.layer import FlatEngine
from addon.exchange.leaves import Leaves
from addon.exchange.pool import Pool
from addon.exchange.reverse import Reverse
from addon.gate import Gate
from addon.load import Load
from addon.network import Rules
from addon.renewal import CA_FILE, Renewal
from addon.resolver import Resolver
from addon.sessions import Sessions
from addon.settings import Settings
from addon.shell import Egress
from addon.vault import Vault
from addon.vault.approvals import Approval
from addon.vault.idps import Idps
from addon.vault.keyring import Keyring
from addon.vault.ledger import FILE as LEDGER
from addon.vault.ledger import Ledger
from addon.webhook import Webhook


@dataclass(frozen=True, slots=True)
class Proxy:
    """A master that is ready to run, and the parts its worker needs to hold."""

    master: master.Master
    server: proxyserver.Proxyserver
    gate: Gate
    audit: Writer
    renew: Renewal


def open_gate(settings: Settings, *, own: tuple[str, int]) -> tuple[Gate, Writer]:
    """The vault with its key, the audit log and the rules of the network, all tested. Raises OperatorError."""
    home = Path(settings.home)
    keyring = Keyring.load(home / "proxy.key")
    vault = Vault.connect(home, keyring=keyring, writable=False)
    vault.self_test()
    if sigv4.KIND.tag in vault.secrets.kinds():
        sigv4.load()
    audit = _writer(settings)(home / "audit", durability=settings.audit_durability, clock=time.time)
    ca_file, via = settings.upstream_ca or certifi.where(), settings.next_proxy
    resolver = Resolver(
        vault=vault,
        rules=Rules(network.parse_networks(settings.allow_private)),
        redirects=tuple(network.parse_redirect(text) for text in settings.connect_to),
        own=own,
        via=via,
        trust=next_proxy.trust(via, ca_file=ca_file) if via else None,
    )
    key_sets = open_key_sets(settings, vault=vault)
    limits = Ledger.open(home / LEDGER)
    errands = Errands(resolver=resolver, ca_file=ca_file)
    sessions = Sessions(vault=vault, post=errands.post, clock=time.time)
    gate = Gate(
        settings,
        vault=vault,
        key_sets=key_sets,
        audit=audit,
        resolver=resolver,
        limits=limits,
        sessions=sessions,
        announce=open_webhook(settings),
        load=Load(
            connections=settings.max_connections_per_caller,
            requests=settings.max_requests_per_caller,
            strangers=load.STRANGERS,
            total=min(load.TOTAL, process.count_connections()),
        ),
    )
    return gate, audit


def _writer(settings: Settings) -> type[Writer]:
    if not settings.metrics:
        return Writer
    from addon.metrics import CountingWriter  # noqa: PLC0415  prometheus_client is for who wants it

    return CountingWriter


def open_webhook(settings: Settings) -> Callable[[Approval], None]:
    """Who is told of requests that wait for approval. Raises OperatorError."""
    if not settings.approval_webhook:
        return lambda _: None
    key = webhook.read_key(Path(settings.home))
    return Webhook(settings.approval_webhook, key=key, ca_file=settings.upstream_ca or certifi.where()).announce


def open_key_sets(settings: Settings, *, vault: Vault) -> KeySets:
    """The keys of all identity providers, on their way. Trusts the CAs that the upstreams are verified with."""
    redirects = [network.parse_redirect(text) for text in settings.connect_to]
    web = Web(ca=settings.upstream_ca, redirects={(r.host, r.port): (r.address, r.to_port) for r in redirects})
    key_sets = KeySets(vault.idps, connect=functools.partial(_registry, vault.home), web=web)
    key_sets.start()
    return key_sets


@contextlib.contextmanager
def _registry(home: Path) -> Iterator[Idps]:
    """A connection for another thread; it opens no secret."""
    with contextlib.closing(Vault.connect(home, writable=False)) as vault:
        yield vault.idps


def build(settings: Settings, *, own: tuple[str, int]) -> Proxy:
    """A master for one worker. `own` is the address it listens on. Raises OperatorError."""
    folder = Path(settings.home) / "ca"
    if not (folder / CA_FILE).exists():
        raise Locked(f"no local CA in {folder}", hint="make one with `vaultctl ca init`")
    files.read_private(folder / CA_FILE)
    hardening.install()
    gate, audit = open_gate(settings, own=own)
    chosen = options.Options()
    host = master.Master(chosen)
    server = proxyserver.Proxyserver()
    host.addons.add(core.Core(), server)
    mode, leaves = modes.parse(settings.mode), None
    transparent = mode.name == "transparent"
    if mode.name == "reverse":
        host.addons.add(Reverse())
    elif settings.engine == "auto":
        pool = Pool(resolver=gate.resolver, ca_file=settings.upstream_ca or certifi.where())
        leaves = Leaves(files.read_private(folder / CA_FILE), clock=time.time)
        host.addons.add(
            FlatEngine(gate=gate, pool=pool, leaves=leaves, folder=Path(settings.home), redirected=transparent)
        )
    tls = tlsconfig.TlsConfig()
    # Ours comes after TlsConfig, which assigns what our tls_clienthello decides.
    host.addons.add(next_layer.NextLayer(), tls, Egress(gate, transparent=transparent))
    chosen.update(**fixed_options(folder, settings.upstream_ca))
    logging.getLogger().setLevel(logging.WARNING)
    host._legacy_log_events.uninstall()  # noqa: SLF001  formats every log line for consumers we do not have
    return Proxy(host, server, gate, audit, Renewal(folder, leaves=leaves, tls=tls, take_keys=gate.take))


def fixed_options(confdir: Path, upstream_ca: str) -> dict[str, object]:
    """mitmproxy's options as we run it."""
    return {
        "mode": ["regular"],
        "server": False,
        "confdir": str(confdir),
        "connection_strategy": "lazy",
        "http2": True,
        "http3": False,
        "rawtcp": False,
        "websocket": True,
        "upstream_cert": False,
        "ssl_insecure": False,
        "ssl_verify_upstream_trusted_ca": upstream_ca or None,
        "validate_inbound_headers": True,
        "normalize_outbound_headers": True,
        "keep_host_header": False,
        "store_streamed_bodies": False,
        "tcp_timeout": 900,
    }
