"""Two replicas serve as one."""

from __future__ import annotations

from tests.cluster.replicas.scene import Scene
from tests.e2e.harness import until

QUICK = {"idle_after": "1s"}


def test_proxy_at_a_follower_sleeps_and_wakes_a_service(scene: Scene) -> None:
    leader, follower = scene.leader(), scene.follower()
    scene.serve("web", **QUICK)
    scene.wait("web", "ScaledToZero")
    until("it is at zero", lambda: scene.wanted("web") == 0)
    assert scene.request("web", "/hello").body == b"web /hello\n"
    assert scene.wanted("web") == 1
    joined = {name: [envoy["id"] for envoy in scene.overview(name)["envoys"]] for name in (leader, follower)}
    assert sorted(map(len, joined.values())) == [0, 1], "one of them has the only proxy"
    address = next(scene.replicas[name] for name, envoys in joined.items() if envoys)
    assert scene.connected(leader) == ({"proxy": address}, ["proxy"])
    for name in (leader, follower):
        until("both know it awake", lambda name=name: scene.view("web", name).get("state") in ("Active", "Idle"))
    assert not scene.kubelet.cut
