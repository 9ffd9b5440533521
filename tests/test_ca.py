"""Clients that trust the local CA accept its leaves; a constrained one speaks for its hosts only."""

import datetime as dt
import hashlib
import ipaddress
import shutil
import socket
import ssl
import subprocess
import threading
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from mitmproxy.certs import CertStore

from addon import ca
from addon.errors import Corrupt, Usage

NOW = 1_800_000_000.5


@pytest.fixture(scope="module")
def plain():
    return ca.mint(now=time.time())


@pytest.fixture(scope="module")
def constrained():
    return ca.mint(now=time.time(), constrain=["api.good.test", "*.wild.example:8443"])


def extension(authority, kind):
    return x509.load_pem_x509_certificate(authority.cert_pem).extensions.get_extension_for_class(kind)


def leaf(authority, host, folder, *, address=None):
    """A server context with the leaf that mitmproxy mints for `host`."""
    (folder / "ca.pem").write_bytes(authority.key_and_cert_pem)
    store = CertStore.from_files(folder / "ca.pem", folder / "dhparam.pem")
    names = [x509.DNSName(host)]
    if address:
        names.append(x509.IPAddress(address))
    entry = store.get_cert(host, names)
    key = entry.privatekey.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "leaf.pem").write_bytes(key + entry.cert.to_pem())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "leaf.pem")
    return context


def connect(authority, host, server_context):
    """A TLS handshake in memory, with everything Python can verify turned on."""
    context = ssl.create_default_context(cadata=authority.cert_pem.decode())
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(to_client, to_server, server_hostname=host)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    waiting = {client, server}
    while waiting:
        for side in (client, server):
            try:
                side.do_handshake()
                waiting.discard(side)
            except ssl.SSLWantReadError:
                pass


# What it is


def test_the_key_is_p256_and_the_certificate_is_its_own(plain):
    key = serialization.load_pem_private_key(plain.key_and_cert_pem, password=None)
    certificate = x509.load_pem_x509_certificate(plain.key_and_cert_pem)
    assert isinstance(key.curve, ec.SECP256R1)
    assert key.public_key() == certificate.public_key()
    assert plain.key_and_cert_pem.endswith(plain.cert_pem)
    assert b"PRIVATE" not in plain.cert_pem
    certificate.verify_directly_issued_by(certificate)


def test_it_signs_leaves_and_nothing_that_signs(plain):
    basic = extension(plain, x509.BasicConstraints)
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, 0)
    usage = extension(plain, x509.KeyUsage)
    allowed = {"digital_signature", "key_cert_sign", "crl_sign"}
    others = {"content_commitment", "key_encipherment", "data_encipherment", "key_agreement"}
    assert usage.critical
    assert {name for name in allowed | others if getattr(usage.value, name)} == allowed
    assert (
        extension(plain, x509.SubjectKeyIdentifier).value.digest
        == extension(plain, x509.AuthorityKeyIdentifier).value.key_identifier
    )


def test_it_lasts_five_years_from_now_and_tolerates_a_slow_clock():
    certificate = x509.load_pem_x509_certificate(ca.mint(now=NOW).cert_pem)
    now = dt.datetime.fromtimestamp(int(NOW), dt.UTC)
    assert certificate.not_valid_after_utc - now == dt.timedelta(days=1825)
    assert now - certificate.not_valid_before_utc == dt.timedelta(days=2)


def test_two_authorities_have_different_names_keys_and_serials():
    one, two = (x509.load_pem_x509_certificate(ca.mint(now=NOW).cert_pem) for _ in range(2))
    assert one.subject != two.subject
    assert one.public_key() != two.public_key()
    assert one.serial_number != two.serial_number


def test_the_key_is_never_printed(plain):
    assert "PRIVATE" not in f"{plain} {plain!r}"
    assert "key_and_cert_pem" not in repr(plain)


# What it may speak for


def test_constraints_name_hosts_without_wildcards_and_ports(constrained):
    names = extension(constrained, x509.NameConstraints)
    assert names.critical
    assert [n.value for n in names.value.permitted_subtrees] == ["api.good.test", "wild.example"]
    assert names.value.excluded_subtrees is None


def test_without_constraints_there_is_no_such_extension(plain):
    with pytest.raises(x509.ExtensionNotFound):
        extension(plain, x509.NameConstraints)


def test_a_constraint_given_twice_counts_once():
    authority = ca.mint(now=NOW, constrain=["A.good.test", "a.good.test.", "*.a.good.test"])
    assert ca.describe(authority.cert_pem)["constraints"] == ["a.good.test"]


@pytest.mark.parametrize(
    "bad", ["", "https://good.test", "good.test/path", "127.0.0.1", "*.com", "a..b", "*", "good test"]
)
def test_a_constraint_that_is_no_host_refuses(bad):
    with pytest.raises(Usage):
        ca.mint(now=NOW, constrain=["good.test", bad])


@pytest.mark.parametrize("host", ["api.good.test", "evil.test", "a.b.wild.example"])
def test_python_accepts_any_leaf_of_a_plain_authority(plain, host, tmp_path):
    connect(plain, host, leaf(plain, host, tmp_path))


@pytest.mark.parametrize("host", ["api.good.test", "below.api.good.test", "wild.example", "a.wild.example"])
def test_python_accepts_a_leaf_for_a_bound_name(constrained, host, tmp_path):
    connect(constrained, host, leaf(constrained, host, tmp_path))


@pytest.mark.parametrize("host", ["evil.test", "good.test", "xapi.good.test", "api.good.test.evil.test"])
def test_python_rejects_a_leaf_for_an_unbound_name(constrained, host, tmp_path):
    with pytest.raises(ssl.SSLCertVerificationError, match="permitted subtree violation"):
        connect(constrained, host, leaf(constrained, host, tmp_path))


def test_a_leaf_that_also_carries_an_address_still_works(constrained, tmp_path):
    address = ipaddress.ip_address("127.0.0.1")
    connect(constrained, "api.good.test", leaf(constrained, "api.good.test", tmp_path, address=address))


def test_another_authority_is_not_trusted(plain, tmp_path):
    other = ca.mint(now=time.time())
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(plain, "api.good.test", leaf(other, "api.good.test", tmp_path))


def curl(authority, host, folder):
    """curl's exit code after one request to `host`, served on loopback with the leaf mitmproxy mints for it."""
    (folder / "trust.pem").write_bytes(authority.cert_pem)
    context = leaf(authority, host, folder)

    def serve(listener):
        try:
            with listener.accept()[0] as raw, context.wrap_socket(raw, server_side=True) as connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        except OSError:  # the client hung up, as it should when it does not trust us
            pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        server = threading.Thread(target=serve, args=(listener,))
        server.start()
        done = subprocess.run(
            ["curl", "-q", "-s", "--noproxy", "*", "--max-time", "10", "--cacert", str(folder / "trust.pem"),
             "--resolve", f"{host}:{port}:127.0.0.1", f"https://{host}:{port}/"],
            check=False,
        )  # fmt: skip
        server.join(timeout=10)
    return done.returncode


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_accepts_a_bound_name_and_rejects_another(constrained, tmp_path):
    assert curl(constrained, "api.good.test", tmp_path) == 0
    assert curl(constrained, "evil.test", tmp_path) == 60


# What is said of it


def test_describe_tells_what_an_operator_compares(constrained):
    certificate = x509.load_pem_x509_certificate(constrained.cert_pem)
    der = certificate.public_bytes(serialization.Encoding.DER)
    said = ca.describe(constrained.cert_pem)
    assert said["subject"].startswith("CN=alter-egress local CA ")
    assert len(said["subject"]) == len("CN=alter-egress local CA ") + 8
    assert bytes.fromhex(said["sha256"].replace(":", " ")) == hashlib.sha256(der).digest()
    assert said["not_after"] == certificate.not_valid_after_utc.timestamp()
    assert said["constraints"] == ["api.good.test", "wild.example"]


def test_describe_says_nothing_of_a_key(plain):
    assert ca.describe(plain.key_and_cert_pem) == ca.describe(plain.cert_pem)
    assert ca.describe(plain.cert_pem)["constraints"] == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda pem: b"",
        lambda pem: b"hello",
        lambda pem: pem[:200],
        lambda pem: pem.replace(b"MI", b"MA", 1),
    ],
)
def test_describe_refuses_what_is_no_certificate(plain, damage):
    with pytest.raises(Corrupt):
        ca.describe(damage(plain.cert_pem))
