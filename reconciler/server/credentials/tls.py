"""Credentials of gRPC, made of certificates that may be replaced while the program runs."""

from __future__ import annotations

import grpc
import structlog

from reconciler.server.credentials.material import Material, NoCertificates, Source

log = structlog.get_logger()


class Server:
    """The server's end: clients without a certificate of a trusted authority are refused."""

    def __init__(self, source: Source) -> None:
        """Raises `NoCertificates`."""
        self._source = source
        self._present = source()
        self._trouble = ""
        self.credentials = grpc.dynamic_ssl_server_credentials(
            _configuration(self._present), self._newest, require_client_authentication=True
        )

    def _newest(self) -> grpc.ServerCertificateConfiguration | None:
        """Return what has changed since the last handshake, or None to continue with what was valid then.

        A changed configuration also has new keys for session tickets: no client resumes a session that an authority
        vouched for which is no longer trusted.
        """
        try:
            found = self._source()
        except NoCertificates as error:  # half replaced, perhaps: the old pair still matches
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
    """Return a client's end."""
    return grpc.ssl_channel_credentials(material.authority, material.key, material.certificate)


def _configuration(material: Material) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(material.key, material.certificate)], material.authority)
