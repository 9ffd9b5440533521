"""
The local certificate authority: it signs, in the proxy's name, the certificates that apps see inside their tunnels.

Whoever holds its key can stand in for any site towards every program that trusts it, so the key stays where the proxy
is, trust is given per process and not to a whole machine, and `constrain` narrows what it can speak for.

The proxy uses one key pair for the authority and for every leaf (mitmproxy does), hence P-256, which keeps handshakes
cheap, and `digitalSignature` among the key usages.
"""

import datetime as dt
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from addon import hosts
from addon.errors import Corrupt

LIFETIME = dt.timedelta(days=5 * 365)
"""
Five years. A thief of the key is stopped by a new CA, not by a date; the date only bounds how long a
forgotten authority is still trusted by some image or trust store. Much less would turn renewal, which touches every
client, into a yearly outage.
"""

BACKDATED = dt.timedelta(days=2)
"""As far as mitmproxy backdates its leaves: clients with a slow clock accept both or neither."""

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Authority:
    """`key_and_cert_pem` is the secret that mitmproxy loads (`mitmproxy-ca.pem`); `cert_pem` is what clients trust."""

    key_and_cert_pem: bytes = field(repr=False)
    cert_pem: bytes


def mint(*, now: float, constrain: Sequence[str] = ()) -> Authority:
    """
    A new self-signed authority, valid from `now` (seconds, UTC) for LIFETIME.

    `constrain` lists hosts as in a binding (`api.example.com`, `*.example.com:8443`). If there are any, leaves for
    names outside of them and their subdomains are refused by clients that check name constraints on a root (RFC 5280
    4.2.1.10; OpenSSL, and so curl and Python, does). Names only: excluding addresses as well would break every
    connection to a host whose leaf also carries one. Raises Usage for anything that is not such a host.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key()
    subject = _name(public)
    subject_id = x509.SubjectKeyIdentifier.from_public_key(public)
    start = dt.datetime.fromtimestamp(int(now), dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - BACKDATED)
        .not_valid_after(start + LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_USAGE, critical=True)
        .add_extension(subject_id, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(subject_id), critical=False)
    )
    if constrain:
        builder = builder.add_extension(_constraints(constrain), critical=True)
    cert_pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Authority(key_pem + cert_pem, cert_pem)


def check(key_and_cert_pem: bytes, *, now: float) -> None:
    """Raises Corrupt unless these are one authority's EC key and certificate, and it can sign at `now`."""
    try:
        key = serialization.load_pem_private_key(key_and_cert_pem, password=None)
        certificate = x509.load_pem_x509_certificate(key_and_cert_pem)
        signs = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        sound = signs and isinstance(key, ec.EllipticCurvePrivateKey) and key.public_key() == certificate.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.ExtensionNotFound, x509.DuplicateExtension):
        sound = False
    # Outside of the handler: what a parser says of a key file may quote it.
    if not sound:
        raise Corrupt(
            "the local CA is damaged", hint="put its folder back from a copy, or make a new one: vaultctl ca init"
        )
    if not certificate.not_valid_before_utc.timestamp() <= now < certificate.not_valid_after_utc.timestamp():
        raise Corrupt("the local CA is not valid now", hint="check the clock, or make a new one: vaultctl ca rotate")


def split(cert_pems: bytes) -> list[bytes]:
    """The certificates in a PEM file, one by one, as written."""
    return [found + b"\n" for found in _CERTIFICATE.findall(cert_pems)]


def describe(cert_pem: bytes) -> dict[str, Any]:
    """
    What an operator compares and plans by.

    `subject` (RFC 4514), `sha256` (of the DER, upper-case hex pairs with colons, as OpenSSL and trust dialogs show
    it), `not_after` (seconds, UTC), `constraints` (permitted names; empty: any). Raises Corrupt if it is no certificate.
    """
    try:
        certificate = x509.load_pem_x509_certificate(cert_pem)
        permitted = _permitted(certificate)
    except (ValueError, x509.DuplicateExtension) as error:
        raise Corrupt(
            "the certificate of the local CA cannot be read",
            hint="move the folder ca away and make a new one: vaultctl ca init",
        ) from error
    return {
        "subject": certificate.subject.rfc4514_string(),
        "sha256": certificate.fingerprint(hashes.SHA256()).hex(":").upper(),
        "not_after": certificate.not_valid_after_utc.timestamp(),
        "constraints": permitted,
    }


_USAGE = x509.KeyUsage(
    digital_signature=True,
    key_cert_sign=True,
    crl_sign=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)


def _name(public: ec.EllipticCurvePublicKey) -> x509.Name:
    # Named after the key: clients that trust the old and the new authority of a rotation must be able to tell them apart.
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    short = hashlib.sha256(der).hexdigest()[:8]
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"alter-egress local CA {short}")])


def _constraints(constrain: Sequence[str]) -> x509.NameConstraints:
    # A constraint covers a name and everything below, so the wildcard of a pattern is implied; a port means nothing here.
    names = dict.fromkeys(hosts.parse_pattern(text)[0].removeprefix("*.") for text in constrain)
    return x509.NameConstraints([x509.DNSName(name) for name in names], excluded_subtrees=None)


def _permitted(certificate: x509.Certificate) -> list[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in found.permitted_subtrees or ()]
