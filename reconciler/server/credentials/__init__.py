"""Mutual TLS on the gRPC port: certificates, their sources, and gRPC credentials.

Only `x509` imports the library for certificates, and only `material` imports gRPC.
"""

from reconciler.server.credentials.material import Files, Material, NoCertificates, Server, channel, check

__all__ = ["Files", "Material", "NoCertificates", "Server", "channel", "check"]
