"""Pods on the gRPC port of a real controller, identified by the EndpointSlices of a real API server.

The attacker has the authority's key, so that its certificates are as good as those of any pod; it lacks the address.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import pytest

from reconciler.core.access import PROXY, RECONCILER
from reconciler.server.credentials import x509
from reconciler.server.credentials.material import Material, channel
from tests.cluster.harness import Cluster
from tests.cluster.replicas.door import Door
from tests.cluster.replicas.scene import CA_SECRET, PATIENCE_SECONDS, PEERS, PROXIES, Scene, opened
from tests.e2e.harness import until
from tests.security.grpc_port import ADS, HOLDER, PEER, introduces

DENIED, RETRY = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAVAILABLE
WAIT_SECONDS = 300


@pytest.fixture
def scene(control_plane: Cluster, tmp_path: Path) -> Iterator[Scene]:
    with opened(Scene(control_plane, tmp_path / "scene")) as made:
        yield made


class Attacker:
    """Dials one replica from addresses of its choice, with certificates that it signs itself."""

    def __init__(self, scene: Scene, replica: str) -> None:
        self._scene, self._replica = scene, replica
        found = json.loads(scene.kubectl("get", "secret", CA_SECRET, "-o", "json"))["data"]
        self._authority = x509.Pair(base64.b64decode(found["tls.crt"]), base64.b64decode(found["tls.key"]))
        self._open: list[Any] = []

    def dial(self, source: str, uri: str, method: str, name: str) -> Any:
        """Open a stream under that name, and leave it open."""
        now = time.time()
        pair = x509.sign(self._authority, x509.Subject("attacker", uri), x509.Validity(now - 60, now + 3600))
        material = Material(pair.certificate, pair.key, self._authority.certificate)
        door = Door([self._scene.grpc[self._replica]], source=source)
        options = [("grpc.ssl_target_name_override", PEERS), ("grpc.use_local_subchannel_pool", 1)]
        made = grpc.secure_channel(f"127.0.0.1:{door.port}", channel(material), options)
        self._open += [made, door]
        messages: SimpleQueue[bytes | None] = SimpleQueue()
        messages.put(introduces(method, name))
        return made.stream_stream(method)(iter(messages.get, None), timeout=WAIT_SECONDS)

    def is_refused(self, source: str, uri: str, method: str, name: str) -> grpc.StatusCode:
        call = self.dial(source, uri, method, name)
        with pytest.raises(grpc.RpcError):
            next(call)
        code: grpc.StatusCode = call.code()
        return code

    def close(self) -> None:
        for one in self._open:
            one.close()


def publish(scene: Scene, pods: Mapping[str, str]) -> None:
    """Make these the further endpoints of the proxy's Service: pods by address."""
    endpoints = [{"addresses": [ip], "targetRef": {"kind": "Pod", "name": pod}} for ip, pod in pods.items()]
    scene.apply(
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": "more-proxies", "labels": {"kubernetes.io/service-name": PROXIES}},
            "addressType": "IPv4",
            "ports": [{"name": "metrics", "port": 9902, "protocol": "TCP"}],
            "endpoints": endpoints,
        }
    )


def test_address_decides_which_pod_a_proxy_is(scene: Scene) -> None:
    a, b, stranger = (scene.address() for _ in range(3))
    publish(scene, {a: "proxy-a"})
    leader = scene.leading()
    attacker = Attacker(scene, leader)

    def complete() -> tuple[dict[str, str], list[str]] | None:
        envoys, holders = scene.connected(leader)
        return (envoys, holders) if (list(envoys), holders) == (["proxy"], ["proxy"]) else None

    known = until("the leader knows the real one", complete, PATIENCE_SECONDS)
    try:
        # The API server's news may take a while.
        until("the replica knows the pod", lambda: attacker.is_refused(a, PROXY.uri, ADS, "proxy") is not RETRY)
        for method in (ADS, HOLDER):
            assert attacker.is_refused(a, PROXY.uri, method, "proxy") is DENIED, "the name of the real one"
            assert attacker.is_refused(a, PROXY.uri, method, "proxy-b") is DENIED
            assert attacker.is_refused(stranger, PROXY.uri, method, "proxy-a") is RETRY
            assert attacker.is_refused(a, RECONCILER.uri, method, "proxy-a") is DENIED
        assert attacker.is_refused(a, PROXY.uri, PEER, a) is DENIED
        assert attacker.is_refused(stranger, RECONCILER.uri, PEER, scene.replicas[scene.follower()]) is RETRY
        assert scene.connected(leader) == known
        until("services may sleep, as nothing is missed", lambda: scene.unknown() is None, PATIENCE_SECONDS)

        publish(scene, {a: "proxy-a", b: "proxy-b"})
        streams = [attacker.dial(a, PROXY.uri, HOLDER, "proxy-a")]

        def joined() -> bool:
            if not any(call.is_active() for call in streams[1:]):  # the API server's news may take a while
                streams.append(attacker.dial(b, PROXY.uri, ADS, "proxy-b"))
            envoys, holders = scene.connected(leader)
            return "proxy-b" in envoys and "proxy-a" in holders

        until("each joins under its own name", joined)
    finally:
        attacker.close()
