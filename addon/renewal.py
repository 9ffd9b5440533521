"""What a worker takes over while it serves, when it is told to (SIGHUP): a new local CA, new private keys."""

import time
from collections.abc import Callable
from pathlib import Path

from mitmproxy.addons.tlsconfig import TlsConfig
from mitmproxy.certs import CertStore

from addon import ca, files
from addon.complaints import complain, tell
from addon.errors import OperatorError
from addon.exchange.leaves import Leaves
from addon.vault.keyring import Keyring
from addon.vault.vault import KEY

CA_FILE = "mitmproxy-ca.pem"
DHPARAM_FILE = "mitmproxy-dhparam.pem"


class Renewal:
    """
    `folder` holds the CA, and its parent the key file. Call it to take over what is new; what is broken is complained of, and the old stays in use.

    Only handshakes that begin afterwards see the new CA: tunnels that are open go on with what they were opened with.
    """

    def __init__(
        self, folder: Path, *, leaves: Leaves | None, tls: TlsConfig, take_keys: Callable[[Keyring], None]
    ) -> None:
        self._folder = folder
        self._leaves = leaves
        self._tls = tls
        self._take = take_keys

    def __call__(self) -> None:
        self._try(self._take_keys, "the private keys were not taken over, those before stay in use")
        self._try(self._take_authority, "the local CA was not taken over, the one before stays in use")

    def _try(self, take: Callable[[], None], otherwise: str) -> None:
        try:
            take()
        except OperatorError as error:
            complain(f"{otherwise}: {error.message}")
        except Exception as error:  # noqa: BLE001  whatever it is, a worker that serves goes on serving
            complain(otherwise, error)

    def _take_keys(self) -> None:
        keyring = Keyring.load(self._folder.parent / KEY)
        self._take(keyring)
        tell(f"values are opened with {len(keyring.recipients)} private keys")

    def _take_authority(self) -> None:
        path = self._folder / CA_FILE
        authority = files.read_private(path)
        ca.check(authority, now=time.time())
        store = CertStore.from_files(path, self._folder / DHPARAM_FILE)
        self._tls.certstore = store
        if self._leaves:
            self._leaves.take(authority)
        tell(f"new tunnels use {ca.describe(authority)['subject']}")
