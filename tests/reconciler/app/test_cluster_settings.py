"""Addresses that follow from the settings of a replica."""

from __future__ import annotations

import pytest

from reconciler.app.cluster_settings import ReplicaSettings
from reconciler.engine.hold_addresses import AnyIp


@pytest.mark.parametrize(
    ("pod_ip", "grpc", "listen_host", "peer_address"),
    [
        ("10.0.0.7", "0.0.0.0:18000", "0.0.0.0", "10.0.0.7:18000"),
        ("fd00::7", "[::]:18000", "[::]", "[fd00::7]:18000"),
        ("10.0.0.7", "[::]:18000", "[::]", "10.0.0.7:18000"),
    ],
)
def test_settings_addresses_follow_the_family(pod_ip: str, grpc: str, listen_host: str, peer_address: str) -> None:
    settings = ReplicaSettings("zenvoy-0", pod_ip, grpc, (listen_host.strip("[]"), 18080), AnyIp(18001))
    assert (settings.listen_host, settings.peer_address) == (listen_host, peer_address)
