"""A certificate, its key and the trusted authorities, as one end of a connection uses them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from reconciler.core.access import Identity, NoIdentity, Role, identity
from reconciler.server.credentials import x509


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
