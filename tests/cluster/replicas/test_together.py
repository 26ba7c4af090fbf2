"""Two replicas serve as one."""

from __future__ import annotations

from functools import partial

from tests.cluster.replicas.scene import Scene
from tests.e2e.harness import until

QUICK = {"idle_after": "1s"}


def test_proxy_at_a_follower_sleeps_and_wakes_a_service(scene: Scene) -> None:
    leader, follower = scene.leading(), scene.follower()
    scene.serve("web", **QUICK)
    scene.wait("web", "ScaledToZero")
    until("it is at zero", lambda: scene.wanted("web") == 0)
    scene.idles_after("web", "10m")  # so that it is still awake when that is read
    assert scene.request("web", "/hello").body == b"web /hello\n"
    assert scene.wanted("web") == 1
    [address] = [scene.replicas[name] for name in (leader, follower) if scene.proxy_is_at(name)]
    until("the leader knows the only proxy", lambda: scene.connected(leader) == ({"proxy": address}, ["proxy"]))

    def is_awake(replica: str) -> bool:
        return scene.view("web", replica).get("state") in ("Active", "Idle")

    for name in (leader, follower):
        until("both know it awake", partial(is_awake, name))
    assert not scene.kubelet.cut
