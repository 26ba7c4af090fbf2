"""Mutual TLS to the reconciler, with certificates in files that may be replaced while we run: they are read anew for
each stream."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc


@dataclass(frozen=True, slots=True)
class Tls:
    """Files of PEM: ours, its key, and the authority that signed the reconciler's."""

    certificate: Path
    key: Path
    authority: Path
    server_name: str | None = None
    """What the reconciler's certificate must be for; None: the host that is connected to."""


def channel(target: str, options: list[tuple[str, int | str]], tls: Tls | None) -> grpc.Channel:
    """A channel to the reconciler. Raises `OSError` when a file cannot be read."""
    if tls is None:
        return grpc.insecure_channel(target, options=options)
    credentials = grpc.ssl_channel_credentials(
        tls.authority.read_bytes(), tls.key.read_bytes(), tls.certificate.read_bytes()
    )
    named = [("grpc.ssl_target_name_override", tls.server_name)] if tls.server_name else []
    return grpc.secure_channel(target, credentials, options=[*options, *named])
