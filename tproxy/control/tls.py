"""Mutual TLS to the reconciler. The files are read for each stream, so that replaced certificates need no restart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc


@dataclass(frozen=True, slots=True)
class Tls:
    """Files of PEM: the holder's certificate, its key, and the authorities of the reconciler's certificate."""

    certificate: Path
    key: Path
    authority: Path
    server_name: str | None = None
    """DNS name in the reconciler's certificate; None: the host of the target."""


def channel(target: str, options: list[tuple[str, int | str]], tls: Tls | None) -> grpc.Channel:
    """Return a channel to the reconciler. Raises `OSError` when a file cannot be read."""
    if tls is None:
        return grpc.insecure_channel(target, options=options)
    credentials = grpc.ssl_channel_credentials(
        tls.authority.read_bytes(), tls.key.read_bytes(), tls.certificate.read_bytes()
    )
    named = [("grpc.ssl_target_name_override", tls.server_name)] if tls.server_name else []
    return grpc.secure_channel(target, credentials, options=[*options, *named])
