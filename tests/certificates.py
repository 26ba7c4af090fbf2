"""An authority of a test's own, by openssl, and certificates that it signs."""

from __future__ import annotations

import socket
import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from reconciler.core.access import PROXY


class Authority:
    """Signs for names; its own certificate is `ca.crt` of every directory that it signs into."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._key, self._certificate = directory / "authority.key", directory / "authority.crt"
        _openssl(
            "req", "-x509", *_new_key(self._key), "-out", self._certificate, "-days", "2", "-subj", "/CN=authority"
        )

    @property
    def certificate(self) -> bytes:
        """Return the authority's own certificate, PEM."""
        return self._certificate.read_bytes()

    def sign(self, directory: Path, name: str, uri: str = PROXY.uri) -> Path:
        """Make (or replace) `tls.crt`, `tls.key` and `ca.crt` there, as Kubernetes names them.

        The certificate is for a DNS name; `uri` gives its role, and is left out if empty.
        """
        directory.mkdir(parents=True, exist_ok=True)
        request, extension = directory / "request", directory / "extension"
        key, certificate = directory / "tls.key", directory / "tls.crt"
        extension.write_text("subjectAltName=" + ",".join([f"DNS:{name}", *([f"URI:{uri}"] if uri else [])]))
        _openssl("req", *_new_key(key), "-out", request, "-subj", f"/CN={name}")
        signed = ("-CA", self._certificate, "-CAkey", self._key, "-CAcreateserial", "-extfile", extension)
        _openssl("x509", "-req", "-in", request, *signed, "-out", certificate, "-days", "2")
        (directory / "ca.crt").write_bytes(self.certificate)
        return directory


def accepted(address: tuple[str, int], server_name: str, trusts: bytes, pair: Path | None) -> bool:
    """Return whether a gRPC server takes a client that has the certificate in a directory, or none.

    With TLS 1.3 a client is refused after its own handshake: the server's first bytes show that it was not.
    Raises `ssl.SSLError` if the client does not trust the server.
    """
    context = ssl.create_default_context(cadata=trusts.decode())
    context.set_alpn_protocols(["h2"])
    if pair:
        context.load_cert_chain(pair / "tls.crt", pair / "tls.key")
    with (
        socket.create_connection(address, timeout=60) as plain,
        context.wrap_socket(plain, server_hostname=server_name) as secured,
    ):
        try:
            return bool(secured.recv(1))
        except (ssl.SSLError, ConnectionError):
            return False


def without_key_identifiers(folder: Path) -> tuple[Path, Path]:
    """Write an authority's certificate, and a certificate for 127.0.0.1 with its key; neither has key identifiers."""
    now, keys = datetime.now(UTC), [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    extensions: list[tuple[x509.ExtensionType, bool]] = [(x509.BasicConstraints(True, None), True), (address, False)]
    issuer, files = _common_name("kubernetes"), [folder / "authority.pem", folder / "server.pem"]
    for name, key, extension, file in zip(("kubernetes", "server"), keys, extensions, files, strict=True):
        builder = x509.CertificateBuilder(issuer, _common_name(name), key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        pem = builder.add_extension(*extension).sign(keys[0], hashes.SHA256()).public_bytes(Encoding.PEM)
        file.write_bytes(pem + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files[0], files[1]


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _new_key(file: Path) -> tuple[str | Path, ...]:
    return ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", file)


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
