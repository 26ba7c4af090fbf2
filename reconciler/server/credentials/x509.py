"""X.509 certificates by the `cryptography` package: create, sign, read. No decision, no clock.

Keys are ECDSA P-256. Times are seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True)
class Validity:
    """The period in which a certificate is valid, both ends included."""

    since: float
    until: float


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key, PEM."""

    certificate: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class Subject:
    """The names and purposes of a certificate to be signed."""

    common_name: str
    uri: str
    dns: tuple[str, ...] = ()
    serves: bool = False
    """True if it may also be a server's."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Part of a certificate that decisions depend on."""

    validity: Validity
    uris: tuple[str, ...]
    dns: tuple[str, ...]
    serves: bool


def new_authority(common_name: str, validity: Validity) -> Pair:
    """Return a self-signed authority that may sign end certificates only."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(common_name)
    builder = (
        _builder(name, name, key.public_key(), validity)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
    )
    return _pair(builder.sign(key, hashes.SHA256()), key)


def sign(authority: Pair, subject: Subject, validity: Validity) -> Pair:
    """Return a new key and its certificate, signed by the authority. Raises `ValueError` if the authority is none."""
    signer = _certificate(authority.certificate)
    signing_key = _private(authority.key)
    key = ec.generate_private_key(ec.SECP256R1())
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH] * subject.serves + [ExtendedKeyUsageOID.CLIENT_AUTH]
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(subject.uri)]
    names += [x509.DNSName(name) for name in subject.dns]
    issued_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(cast(ec.EllipticCurvePublicKey, signer.public_key()))
    builder = (
        _builder(_name(subject.common_name), signer.subject, key.public_key(), validity)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(issued_by, critical=False)
    )
    return _pair(builder.sign(signing_key, hashes.SHA256()), key)


def read(pem: bytes) -> Facts:
    """Return the facts of the first certificate. Raises `ValueError` with the reason if there is none."""
    found = _certificate(pem)
    try:
        period = Validity(found.not_valid_before_utc.timestamp(), found.not_valid_after_utc.timestamp())
        return Facts(period, *_names(found), _serves(found))
    except (x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise ValueError(f"this certificate cannot be read: {error}") from None


def _names(found: x509.Certificate) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return its URIs and DNS names."""
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return (), ()
    uris, dns = (names.get_values_for_type(kind) for kind in (x509.UniformResourceIdentifier, x509.DNSName))
    return tuple(uris), tuple(dns)


def _serves(found: x509.Certificate) -> bool:
    try:
        purposes = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return ExtendedKeyUsageOID.SERVER_AUTH in purposes


def matches(certificate: bytes, key: bytes) -> bool:
    """Return whether the private key is that of the first certificate. Raises `ValueError` if one cannot be read."""
    return _certificate(certificate).public_key() == _private(key).public_key()


def is_authority(certificate: bytes) -> bool:
    """Return whether the first certificate may sign others. Raises `ValueError` if it cannot be read."""
    try:
        return _certificate(certificate).extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def is_signed_by(certificate: bytes, authority: bytes) -> bool:
    """Return whether the first certificate was signed by that authority. Raises `ValueError` if one cannot be read."""
    try:
        _certificate(certificate).verify_directly_issued_by(_certificate(authority))
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def split(bundle: bytes) -> Sequence[bytes]:
    """Return each certificate of a bundle as PEM, without duplicates. Raises `ValueError` if one cannot be read."""
    if not bundle.strip():
        return ()
    return tuple(dict.fromkeys(one.public_bytes(serialization.Encoding.PEM) for one in _certificates(bundle)))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, validity: Validity
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.fromtimestamp(int(validity.since), UTC))
        .not_valid_after(datetime.fromtimestamp(int(validity.until), UTC))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Pair(certificate.public_bytes(serialization.Encoding.PEM), secret)


def _certificates(pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise ValueError(f"this is not a certificate in PEM: {error}") from None


def _certificate(pem: bytes) -> x509.Certificate:
    return _certificates(pem)[0]


def _private(pem: bytes) -> _PrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # damaged, or protected by a password
        raise ValueError(f"this is not a private key in PEM without a password: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise ValueError("this private key is neither ECDSA nor RSA")
    return key
