"""Mutual TLS for gRPC, with certificates in files that may be replaced while we run.

Both ends prove who they are by the same authority. Files are looked at whenever a connection is made, which is how
Kubernetes' mounted secrets and cert-manager renew them: https://kubernetes.io/docs/concepts/configuration/secret/
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc


@dataclass(frozen=True, slots=True)
class Certificates:
    """Where a certificate (with its chain), its key, and the authority that signed the other's are; all PEM."""

    certificate: Path
    key: Path
    authority: Path

    def missing(self) -> list[str]:
        """What cannot be read, for people; empty when all is there."""
        found = []
        for file in (self.certificate, self.key, self.authority):
            try:
                file.read_bytes()
            except OSError as error:
                found.append(f"{file}: {error.strerror}")
        return found


class Server:
    """The server's end: clients without a certificate of the authority are refused."""

    def __init__(self, files: Certificates) -> None:
        """Raises `OSError` when a file cannot be read."""
        self._files = files
        self._present = self._read()
        self.credentials = grpc.dynamic_ssl_server_credentials(
            _configuration(*self._present), self._newest, require_client_authentication=True
        )

    def _newest(self) -> grpc.ServerCertificateConfiguration | None:
        """Asked at every handshake; None: as before. Half-replaced files are not taken: the old pair still matches."""
        try:
            found = self._read()
        except OSError:
            return None
        if found == self._present:
            return None
        self._present = found
        return _configuration(*found)

    def _read(self) -> tuple[bytes, bytes, bytes]:
        files = self._files
        return files.certificate.read_bytes(), files.key.read_bytes(), files.authority.read_bytes()


def channel(files: Certificates) -> grpc.ChannelCredentials:
    """A client's end, as the files are now. Raises `OSError` when one cannot be read."""
    return grpc.ssl_channel_credentials(
        files.authority.read_bytes(), files.key.read_bytes(), files.certificate.read_bytes()
    )


def _configuration(certificate: bytes, key: bytes, authority: bytes) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(key, certificate)], authority)
