"""A certificate, its key and the trusted authorities, as one end of a connection uses them, and gRPC credentials."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
import structlog

from reconciler.core.access import Identity, NoIdentity, Role, identity
from reconciler.server.credentials import x509

log = structlog.get_logger()


class NoCertificates(OSError):
    """No usable certificate to prove an identity; the message names the place and the remedy."""


@dataclass(frozen=True, slots=True)
class Material:
    """PEM that one end of a connection uses."""

    certificate: bytes
    """The certificate, followed by its chain if there is one."""
    key: bytes
    authority: bytes
    """Every authority that the other end's certificate may be from."""


Source = Callable[[], Material]
"""Returns the current material. Raises `NoCertificates`. Called in any thread, for each handshake."""


@dataclass(frozen=True, slots=True)
class Files:
    """Files of PEM that may be replaced at any time, as Kubernetes replaces a mounted Secret."""

    certificate: Path
    key: Path
    authority: Path

    def read(self) -> Material:
        """Return the current contents of the files. Raises `NoCertificates` if they are unusable."""
        contents = []
        for file in (self.certificate, self.key, self.authority):
            try:
                contents.append(file.read_bytes())
            except OSError as error:
                raise NoCertificates(f"{file}: {error.strerror}; mount the Secret there, or correct the path") from None
        material = Material(*contents)
        check(material, str(self.certificate))
        return material


def check(material: Material, where: str, *roles: Role) -> Identity:
    """Return the identity in the certificate. Raises `NoCertificates`, also if its role is not one of `roles`."""
    try:
        leaf = x509.read(material.certificate)
        x509.read(material.authority)
        matches = x509.matches(material.certificate, material.key)
    except ValueError as error:
        raise NoCertificates(f"{where}: {error}") from None
    if not matches:
        raise NoCertificates(f"{where}: the key does not belong to the certificate; replace both at the same time")
    try:
        found = identity(leaf.uris)
    except NoIdentity as error:
        raise NoCertificates(f"{where}: {error} (docs/how-to/mtls.md)") from None
    if roles and found.role not in roles:
        raise NoCertificates(
            f"{where}: the certificate is that of {found.uri}, not of a {' or '.join(roles)} (docs/how-to/mtls.md)"
        )
    return found


class LastUsable:
    """The last usable certificates of a source. They stay in use while the source has none."""

    def __init__(self, source: Source) -> None:
        """Read the first certificates. Raises `NoCertificates`."""
        self._source, self._trouble = source, ""
        self.material = source()

    def refresh(self) -> Material:
        """Read the source again, and return the last usable certificates."""
        try:
            self.material, self._trouble = self._source(), ""
        except NoCertificates as error:  # perhaps only one file is replaced so far; the old pair still matches
            if self._trouble != str(error):
                log.error("certificates cannot be used; the previous ones stay in use", error=str(error))
            self._trouble = str(error)
        return self.material


class Server:
    """Server credentials, which refuse clients without a certificate of a trusted authority."""

    def __init__(self, source: Source) -> None:
        """Read the first certificate. Raises `NoCertificates`."""
        self._last = LastUsable(source)
        self.credentials = grpc.dynamic_ssl_server_credentials(
            _configuration(self._last.material), self._newest, require_client_authentication=True
        )

    def _newest(self) -> grpc.ServerCertificateConfiguration | None:
        """Return the new configuration if it changed since the last handshake, or None.

        A new configuration also has new keys for session tickets: no client resumes a session with a certificate of an
        authority that is no longer trusted.
        """
        present, found = self._last.material, self._last.refresh()
        return None if found == present else _configuration(found)


def channel(material: Material) -> grpc.ChannelCredentials:
    """Return client credentials."""
    return grpc.ssl_channel_credentials(material.authority, material.key, material.certificate)


def _configuration(material: Material) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(material.key, material.certificate)], material.authority)
