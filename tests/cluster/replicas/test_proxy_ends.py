"""The end of a proxy pod, as in a rollout or an eviction, observed by the Deployment only."""

from __future__ import annotations

from tests.cluster.replicas.scene import PATIENCE_SECONDS, Scene
from tests.e2e.harness import until


def test_service_sleeps_again_after_a_proxy_pod_ended(scene: Scene) -> None:
    scene.serve("quiet", idle_after="1s")
    scene.proxy_comes("proxy-2")
    until("it sleeps while both proxies are there", lambda: scene.wanted("quiet") == 0, PATIENCE_SECONDS)
    assert scene.request("quiet").status == 200
    scene.proxy_ends("proxy-2")
    until("it sleeps without the one that ended", lambda: scene.wanted("quiet") == 0, PATIENCE_SECONDS)
