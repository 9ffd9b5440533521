"""
What is patched, and which files of mitmproxy the patches were proved on.

A patch replaces a function and trusts its neighbours, so the unit is the file. Anything else - a newer release, a
distribution's own fix - is unproven until the tests have run on it and its digest stands here.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import mitmproxy
from mitmproxy.version import VERSION

from addon.errors import OperatorError

PROVED = ("12.2.3", "12.3.1")

# SHA-256 of the source; two where the releases differ (in comments and in code no patch meets).
DIGESTS: dict[str, tuple[str, ...]] = {
    "addonmanager.py": (
        "1dc72e4f560c8873a587a750ca6253b32bdff5a07cc1bb4aa574eabede923a78",
        "8134356f2d54335730efd8e4249cc5aca8a5a7c7b5f26894c1f2ebf5a8b4e275",
    ),
    "certs.py": (
        "ae28677e520565d7282054ab4e3bfad44dad4b745d5fd73a73d57959500e08b6",
        "bbeb79f2976fa345597f0ec5626216af56f9359a389b2b6205cb64e7a9d02937",
    ),
    "proxy/layer.py": ("c45454046edfdf03a62642405857fbf48d309c9cd1112e5d0f605cf6ccc79a13",),
    "proxy/layers/http/__init__.py": ("0e7b3474f7febddcf81cb69685f3cd9a3b7af9c849ae47925add565e9ed67d4c",),
    "proxy/layers/http/_http1.py": ("a2ed8918f1c4a0704715a6881acc82249a92ff147909f250a22a7a2edb0aa6ee",),
    "proxy/layers/http/_http2.py": (
        "f47bdcb75c97138f6181f97c06c39865cb3bfbfb57f713bada820e3497d8438b",
        "4fdbd2d46f542db1bd1950dfcdd8e8b4113dcfc4faaa4f94326e63ac9b858e9f",
    ),
    "proxy/layers/http/_http_h2.py": (
        "62b992b8e61893a69e673c6bb54753a12cb7171b6a3ed7865718e116b13d8559",
        "ae436d68c3be587594bd9106f156b3e6a183eb3b741914adf2ac2d24288f4811",
    ),
    "proxy/layers/http/_http3.py": ("84831ac67fa0b3c38fe0a4030cf84edac68852ccd0bac0648a810ec651a6ad1f",),
    "proxy/layers/tls.py": (
        "76e315d8e64355a757183d3f4dbace43550ce4092d1907547ed9ddf40c6a2c39",
        "1a7d91d83846c2b660da0c414af6138a6af5ddad2f8e0fd37fdf9ec3ee9e7423",
    ),
    "proxy/mode_servers.py": ("1b980ec81b97843fa37ca182c2bcabef0d3eb3a685af8aecf1e5d5f7964abd7d",),
    "proxy/server.py": ("8e7a49721801ffc20acfe9e8dd723a0c65dfb14933832bca70137c17e352bcbe",),
}


class Unproven(OperatorError):
    """The installed mitmproxy is not one that the patches were proved on."""


def verify() -> None:
    """Raises Unproven, naming the first file that is not as it was when the patches were proved."""
    folder = Path(mitmproxy.__file__).parent
    for name, digests in DIGESTS.items():
        try:
            digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        except OSError:
            digest = "unreadable"
        if digest not in digests:
            raise Unproven(
                f"mitmproxy {VERSION} is unproven: its {name} is not the one this program was tested with",
                hint=f"install mitmproxy {' or '.join(PROVED)}",
            )


def replace(owner: type | ModuleType, name: str, *, make: Callable[[Any], Any]) -> None:
    """Put `make(what owner.name is now)` in its place. AttributeError where there is nothing to replace."""
    setattr(owner, name, make(getattr(owner, name)))
