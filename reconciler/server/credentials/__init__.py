"""Mutual TLS on the gRPC port: certificates, their sources, and gRPC credentials.

Only `x509` imports the library for certificates, and only `material` imports gRPC.
"""
