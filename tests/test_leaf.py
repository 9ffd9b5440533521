import time

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import verification

from addon.leaf import LIFETIME, leaf

NOW = time.time()


def pem(authority):
    return authority.private_key_pem.bytes() + authority.cert_pem.bytes()


def test_a_leaf_satisfies_a_strict_verifier_for_each_of_its_names():
    authority = trustme.CA()
    certificate, issuer = x509.load_pem_x509_certificates(leaf(pem(authority), names=["a.test", "b.test"], now=NOW))
    store = verification.Store([issuer])
    for name in ("a.test", "b.test"):
        verification.PolicyBuilder().store(store).build_server_verifier(x509.DNSName(name)).verify(certificate, [])
    with pytest.raises(verification.VerificationError):
        verification.PolicyBuilder().store(store).build_server_verifier(x509.DNSName("c.test")).verify(certificate, [])


def test_a_leaf_holds_around_the_time_it_is_made_and_cannot_sign():
    certificate = x509.load_pem_x509_certificates(leaf(pem(trustme.CA()), names=["a.test"], now=NOW))[0]
    assert certificate.not_valid_before_utc.timestamp() == pytest.approx(NOW - 3600, abs=1)
    assert certificate.not_valid_after_utc.timestamp() == pytest.approx(NOW + LIFETIME.total_seconds(), abs=1)
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False


def test_every_leaf_has_a_p256_key_of_its_own():
    authority = pem(trustme.CA())
    keys = [serialization.load_pem_private_key(leaf(authority, names=["a.test"], now=NOW), None) for _ in range(2)]
    assert all(isinstance(key.curve, ec.SECP256R1) for key in keys)
    assert keys[0].private_numbers() != keys[1].private_numbers()


def test_a_leaf_without_a_name_or_under_another_kind_of_key_is_refused():
    with pytest.raises(ValueError, match="needs a name"):
        leaf(pem(trustme.CA()), names=[], now=NOW)
    with pytest.raises(ValueError, match="not an EC key"):
        leaf(pem(trustme.CA(key_type=trustme.KeyType.RSA)), names=["a.test"], now=NOW)
