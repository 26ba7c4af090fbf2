"""Replacing the authority under traffic: two replicas, an Envoy and a holder lose no request."""

from __future__ import annotations

import base64
import json
import shutil
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reconciler.server.credentials import x509
from reconciler.server.credentials.authority import DAY_SECONDS, Authority, current, stored
from reconciler.server.credentials.x509 import Validity
from tests.certificates import accepted
from tests.cluster.harness import Cluster
from tests.cluster.replicas.scene import CA_SECRET, GRPC, PATIENCE_SECONDS, PEERS, Scene, opened
from tests.e2e.harness import until


@pytest.fixture
def own_scene(control_plane: Cluster, tmp_path: Path) -> Iterator[Scene]:
    with opened(Scene(control_plane, tmp_path / "scene")) as made:
        yield made


def found(scene: Scene) -> Authority:
    data = json.loads(scene.kubectl("get", "secret", CA_SECRET, "-o", "json"))["data"]
    read = stored({key: base64.b64decode(value) for key, value in data.items()})
    assert read
    return read


def store(scene: Scene, authority: Authority) -> None:
    data: dict[str, str | None]
    data = {key: base64.b64encode(value).decode() for key, value in authority.data().items()}
    data |= {} if authority.successor else {"next.crt": None, "next.key": None}
    scene.kubectl("patch", "secret", CA_SECRET, "--type=merge", "-p", json.dumps({"data": data}))


@contextmanager
def requests(scene: Scene, service: str) -> Iterator[list[int]]:
    """Send one request after the other until the end of the block; provides the statuses of their answers."""
    statuses: list[int] = []
    ended = threading.Event()

    def ask() -> None:
        while not ended.is_set():
            statuses.append(scene.request(service, "/flow").status)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield statuses
    finally:
        ended.set()
        thread.join(30)


def test_authority_replaced_under_traffic_loses_nothing(own_scene: Scene, tmp_path: Path) -> None:
    scene, first = own_scene, found(own_scene)
    scene.serve("busy", idle_after="1h")
    scene.serve("web", idle_after="1s")
    since = x509.read(first.active.certificate).validity.since
    successor = x509.new_authority("successor", Validity(since - DAY_SECONDS, since + 700 * DAY_SECONDS))
    both = first.active.certificate + successor.certificate
    addresses = [(ip, GRPC) for ip in scene.replicas.values()]

    def everyone_rejoins() -> None:
        before = until("Envoy has a stream", lambda: joined(scene), PATIENCE_SECONDS)
        scene.door.cut()

        def has_new_streams() -> bool:
            now = joined(scene)
            return bool(now) and not now & before and scene.has_proxy()

        until("Envoy and the holder have new streams", has_new_streams, PATIENCE_SECONDS)
        until("the replicas agree", lambda: scene.unknown() is None, PATIENCE_SECONDS)

    def takes(pair: Path | None) -> list[bool]:
        return [accepted(address, PEERS, both, pair) for address in addresses]

    old = tmp_path / "old"
    with requests(scene, "busy") as statuses:
        store(scene, Authority(first.active, successor))
        scene.certify("proxy")
        shutil.copytree(scene.tls("proxy"), old)
        everyone_rejoins()
        assert takes(old) == [True, True] and takes(None) == [False, False]
        scene.wait("web", "ScaledToZero")

        store(scene, Authority(successor, None, (first.active.certificate,)))
        until("the replicas serve by the successor", lambda: serve_by(scene, successor.certificate), PATIENCE_SECONDS)
        everyone_rejoins()
        assert scene.request("web", "/between").status == 200
        assert takes(old) == [True, True]
        scene.certify("proxy")

        store(scene, Authority(successor, None))
        until("the old authority is no longer trusted", lambda: takes(old) == [False, False], PATIENCE_SECONDS)
        everyone_rejoins()
        scene.wait("web", "ScaledToZero")
        assert scene.request("web", "/after").status == 200
    assert len(statuses) > 100 and set(statuses) == {200}
    assert printed_by_others(scene) == [], "every stranger could fill the log"
    assert current(found(scene), since + DAY_SECONDS).active == successor


def joined(scene: Scene) -> set[str]:
    """Return when Envoy's present streams began: one, or two while it moves between replicas."""
    overviews = [scene.overview(name) for name in scene.replicas]
    return {envoy["since"] for overview in overviews for envoy in overview["envoys"] if not envoy.get("away")}


def printed_by_others(scene: Scene) -> list[str]:
    """Return the lines of the replicas' logs that zenvoy did not write: gRPC prints them for a failed handshake."""
    lines = [line for name in scene.replicas for line in (scene.folder / f"{name}.log").read_text().splitlines()]
    assert lines
    return [line for line in lines if not line.startswith("{")]


def serve_by(scene: Scene, authority: bytes) -> bool:
    """Return whether clients that trust only that authority accept every replica."""
    try:
        return all(accepted((ip, GRPC), PEERS, authority, scene.tls("proxy")) for ip in scene.replicas.values())
    except ssl.SSLError:
        return False
