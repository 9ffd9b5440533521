"""What a worker takes over while it serves, when it is told to (SIGHUP): a new local CA."""

import time
from pathlib import Path

from mitmproxy.addons.tlsconfig import TlsConfig
from mitmproxy.certs import CertStore

from addon import ca, files
from addon.complaints import complain, tell
from addon.errors import OperatorError
from addon.exchange.leaves import Leaves

CA_FILE = "mitmproxy-ca.pem"
DHPARAM_FILE = "mitmproxy-dhparam.pem"


class Renewal:
    """
    Call it to take over what is new; what is broken is complained of, and the old stays in use.

    Only handshakes that begin afterwards see the new CA: tunnels that are open go on with what they were opened with.
    """

    def __init__(self, folder: Path, *, leaves: Leaves | None, tls: TlsConfig) -> None:
        self._folder = folder
        self._leaves = leaves
        self._tls = tls

    def __call__(self) -> None:
        try:
            self._take_authority()
        except OperatorError as error:
            complain(f"the local CA was not taken over, the one before stays in use: {error.message}")
        except Exception as error:  # noqa: BLE001  whatever it is, a worker that serves goes on serving
            complain("the local CA was not taken over, the one before stays in use", error)

    def _take_authority(self) -> None:
        path = self._folder / CA_FILE
        authority = files.read_private(path)
        ca.check(authority, now=time.time())
        store = CertStore.from_files(path, self._folder / DHPARAM_FILE)
        self._tls.certstore = store
        if self._leaves:
            self._leaves.take(authority)
        tell(f"new tunnels use {ca.describe(authority)['subject']}")
