"""
The local CA as files, and what a program needs in its environment to use the proxy.

    ca/mitmproxy-ca.pem    key and certificate, 0600; the name mitmproxy looks for
    ca/next-ca.pem         the same of the one that comes next, once it was prepared
    ca/ca-cert.pem         what clients trust: the certificate in use, then those that come next or were in use before
    ca/bundle.pem          the public roots and ours: what most clients want in the place of their own
    ca/wgetrc              the same for wget, which reads no environment variable for it

Trust is given to one process and its children, never to the machine.
"""

import contextlib
import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from addon import ca, files
from addon.errors import Conflict, Locked, NotFound
from vaultctl.proxy import Proxy

FOLDER = "ca"
AUTHORITY = "mitmproxy-ca.pem"
NEXT = "next-ca.pem"
CERTIFICATE = "ca-cert.pem"
BUNDLE = "bundle.pem"
WGETRC = "wgetrc"

_SYSTEM_ROOTS = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",  # macOS, BSD
)

_CLIENTS = {
    "curl, Python ssl, httpx, aiohttp": ("SSL_CERT_FILE", "CURL_CA_BUNDLE"),
    "requests, boto3, AWS CLI": ("REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE"),
    "git": ("GIT_SSL_CAINFO",),
    "pip": ("PIP_CERT",),
    "cargo": ("CARGO_HTTP_CAINFO",),
    "Deno": ("DENO_CERT",),
    "npm": ("npm_config_cafile",),
    "Node": ("NODE_EXTRA_CA_CERTS",),
    "wget": ("WGETRC",),
}

_TAKES_BUNDLE = (
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "AWS_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "PIP_CERT",
    "CARGO_HTTP_CAINFO",
    "DENO_CERT",
    "npm_config_cafile",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
)

_DIRECT = "localhost,127.0.0.1,::1"


@dataclass(frozen=True, slots=True)
class Environment:
    """Variables to set, and variables that would undo them. Holds a key: it does not print."""

    variables: dict[str, str]
    without: tuple[str, ...]

    def __repr__(self) -> str:
        return "Environment(***)"


def create(home: Path, *, now: float, constrain: Sequence[str] = ()) -> Path:
    """Mint the CA of a vault; the path of its certificate. Raises Conflict if there is one, leaving nothing behind."""
    folder = home / FOLDER
    for name in (AUTHORITY, CERTIFICATE):
        if os.path.lexists(folder / name):
            raise Conflict(
                f"there is a CA already: {folder / name}",
                hint="clients trust it; move the folder away to start a new one",
            )
    authority = ca.mint(now=now, constrain=constrain)
    files.make_folder(folder)
    try:
        files.create(folder / AUTHORITY, authority.key_and_cert_pem)
        files.create(folder / CERTIFICATE, authority.cert_pem, mode=0o644)
    except BaseException:
        for name in (AUTHORITY, CERTIFICATE):
            (folder / name).unlink(missing_ok=True)
        raise
    return folder / CERTIFICATE


def certificate(home: Path) -> bytes:
    """The certificate of the CA, PEM, and after it any others that clients are to trust. Raises NotFound."""
    try:
        return (home / FOLDER / CERTIFICATE).read_bytes()
    except OSError:
        raise NotFound(
            f"no CA certificate at {home / FOLDER / CERTIFICATE}", hint="make one with `vaultctl ca init`"
        ) from None


def prepare_next(home: Path, *, now: float, constrain: Sequence[str] = ()) -> None:
    """
    A CA that comes after the one in use, which clients are told of and the proxy does not use yet.

    Constrained as the one in use, unless `constrain` says otherwise. Raises NotFound without a CA, Conflict if there
    is a next one already, Locked if the folder is somebody else's.
    """
    own = certificate(home)
    _check_owner(home)
    if is_prepared(home):
        raise Conflict("a CA is prepared already", hint="take it into use with `vaultctl ca rotate`")
    minted = ca.mint(now=now, constrain=constrain or ca.describe(own)["constraints"])
    files.create(home / FOLDER / NEXT, minted.key_and_cert_pem)
    _hand_out(home, [*ca.split(own), minted.cert_pem])


def is_prepared(home: Path) -> bool:
    """Whether there is a next CA."""
    return os.path.lexists(home / FOLDER / NEXT)


def rotate(home: Path, *, now: float) -> None:
    """
    Put the prepared CA in the place of the one in use, whose certificate is handed out on and whose key is gone.

    Run again after a crash, it ends as if there had been none. Raises NotFound without a prepared one, Corrupt,
    Locked if the folder is somebody else's.
    """
    folder = home / FOLDER
    _check_owner(home)
    if not is_prepared(home):
        raise NotFound("no CA is prepared", hint="make one with `vaultctl ca rotate --prepare`")
    authority = files.read_private(folder / NEXT)
    ca.check(authority, now=now)
    (own,) = ca.split(authority)
    before = [each for each in ca.split(certificate(home)) if each != own]
    # What clients trust is widened before the proxy can use it, so that at no time one of the two is unknown to them.
    _hand_out(home, [own, *before[:1]])
    files.replace(folder / AUTHORITY, authority)
    (folder / NEXT).unlink()
    files.sync_folder(folder)


def forget_others(home: Path) -> None:
    """Hand out the certificate of the CA in use alone. Raises NotFound; Conflict if another one is prepared."""
    if is_prepared(home):
        raise Conflict("another CA is prepared", hint="take it into use with `vaultctl ca rotate` first")
    _hand_out(home, ca.split(certificate(home))[:1])


def _check_owner(home: Path) -> None:
    # Files that are put in place belong to whoever runs this, and the proxy could not read the key of its CA any more.
    if (home / FOLDER).stat().st_uid != os.getuid():
        raise Locked(f"{home / FOLDER} belongs to another user", hint="run this as the user that owns it")


def _hand_out(home: Path, certificates: Sequence[bytes]) -> None:
    files.replace(home / FOLDER / CERTIFICATE, b"".join(certificates), mode=0o644)


def bundle(home: Path) -> bytes:
    """The roots this machine trusts, and ours. Raises NotFound."""
    own = ca.split(certificate(home))
    roots = _roots(home)
    missing = b"".join(each for each in own if each not in roots)
    return roots.rstrip() + b"\n\n" + missing if missing else roots


def trusted_by_machine(home: Path) -> bool:
    """Whether the CA is among the roots that every program here trusts. Raises NotFound without a CA."""
    own = ca.split(certificate(home))
    roots = [path.read_bytes() for path in map(Path, _SYSTEM_ROOTS) if path.is_file()]
    return any(each in trusted for each in own for trusted in roots)


def prepare(home: Path) -> None:
    """Write the files that `environment` names, where they are not as they should be. Raises NotFound without a CA."""
    folder = home / FOLDER
    _keep(folder / BUNDLE, bundle(home))
    _keep(folder / WGETRC, f"ca_certificate = {folder / BUNDLE}\n".encode())


def means(home: Path) -> list[tuple[str, dict[str, str]]]:
    """Client → the variables that make it trust the CA, with the files of `prepare`."""
    folder = home / FOLDER
    single = {"NODE_EXTRA_CA_CERTS": folder / CERTIFICATE, "WGETRC": folder / WGETRC}
    return [
        (client, {name: str(single.get(name, folder / BUNDLE)) for name in names}) for client, names in _CLIENTS.items()
    ]


def environment(home: Path, *, proxy: Proxy, name: str, key: str, grant_id: str | None = None) -> Environment:
    """
    What makes an unchanged program use the proxy as caller `name`, and trust it.

    `grant_id` becomes ALTER_GRANT, for a program that wants to send the tag itself.
    """
    folder = home / FOLDER
    url = proxy.with_key(name, key)
    variables = {variable: url for base in ("HTTP_PROXY", "HTTPS_PROXY") for variable in (base, base.lower())}
    variables |= {"NO_PROXY": _DIRECT, "no_proxy": _DIRECT, "NODE_USE_ENV_PROXY": "1"}
    # git would otherwise wait to be asked for the key, and a tunnel may be opened without one.
    variables["GIT_HTTP_PROXY_AUTHMETHOD"] = "basic"
    variables |= dict.fromkeys(_TAKES_BUNDLE, str(folder / BUNDLE))
    variables["NODE_EXTRA_CA_CERTS"] = str(folder / CERTIFICATE)
    if not (os.environ.get("WGETRC") or (Path.home() / ".wgetrc").exists()):
        variables["WGETRC"] = str(folder / WGETRC)
    if grant_id:
        variables["ALTER_GRANT"] = grant_id
    return Environment(variables, without=("SSL_CERT_DIR",))


def _roots(home: Path) -> bytes:
    """The first bundle that is not ours: the one the environment or OpenSSL names, the system's, certifi's."""
    import certifi  # noqa: PLC0415  the last resort

    for name in (ssl.get_default_verify_paths().cafile, *_SYSTEM_ROOTS, certifi.where()):
        path = Path(name or "/nonexistent")
        with contextlib.suppress(OSError):
            if not (home / FOLDER / BUNDLE).exists() or not path.samefile(home / FOLDER / BUNDLE):
                return path.read_bytes()
    raise NotFound("no bundle of public roots on this machine", hint="install the system's ca-certificates")


def _keep(path: Path, data: bytes) -> None:
    """Make the file hold `data`; untouched if it does, so that a folder that cannot be written serves as well."""
    try:
        if path.read_bytes() == data:
            return
    except OSError:
        pass
    files.replace(path, data, mode=0o644)
