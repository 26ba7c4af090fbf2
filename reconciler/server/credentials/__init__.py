"""Mutual TLS on the gRPC port: certificates, their sources, and gRPC credentials.

Only `x509` imports the library for certificates, and only `tls` imports gRPC.
"""

from reconciler.server.credentials.material import Files, Material, NoCertificates, check
from reconciler.server.credentials.tls import Server, channel

__all__ = ["Files", "Material", "NoCertificates", "Server", "channel", "check"]
