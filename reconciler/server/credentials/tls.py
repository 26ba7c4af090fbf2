"""gRPC credentials from certificates that may be replaced at run time."""

from __future__ import annotations

import grpc
import structlog

from reconciler.server.credentials.material import Material, NoCertificates, Source

log = structlog.get_logger()


class Server:
    """Server credentials, which refuse clients without a certificate of a trusted authority."""

    def __init__(self, source: Source) -> None:
        """Read the first certificate. Raises `NoCertificates`."""
        self._source = source
        self._present = source()
        self._trouble = ""
        self.credentials = grpc.dynamic_ssl_server_credentials(
            _configuration(self._present), self._newest, require_client_authentication=True
        )

    def _newest(self) -> grpc.ServerCertificateConfiguration | None:
        """Return the new configuration if it changed since the last handshake, or None.

        A new configuration also has new keys for session tickets: no client resumes a session with a certificate of an
        authority that is no longer trusted.
        """
        try:
            found = self._source()
        except NoCertificates as error:  # perhaps only one file is replaced so far; the old pair still matches
            if self._trouble != str(error):
                log.error("certificates cannot be used; the previous ones stay in use", error=str(error))
                self._trouble = str(error)
            return None
        self._trouble = ""
        if found == self._present:
            return None
        self._present = found
        return _configuration(found)


def channel(material: Material) -> grpc.ChannelCredentials:
    """Return client credentials."""
    return grpc.ssl_channel_credentials(material.authority, material.key, material.certificate)


def _configuration(material: Material) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(material.key, material.certificate)], material.authority)
