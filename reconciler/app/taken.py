"""What the options of `zenvoy up` listen on: nothing of the services file can listen there."""

from __future__ import annotations

from reconciler.app.ports_in_use import split
from reconciler.local.services_file.addresses import Address


def taken(metrics: str | None, holder_metrics: str | None, grpc: str | None) -> dict[str, Address]:
    """By option, of those that are given, each as `ip:port`. Raises `ValueError`."""
    options = {"--metrics": metrics, "--holder-metrics": holder_metrics, "--grpc": grpc}
    return {option: Address.of(*split(address)) for option, address in options.items() if address}
