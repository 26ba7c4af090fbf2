"""Faults in each state: the API server stops and starts, and others change replicas."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cluster.harness import Cluster
from tests.cluster.replicas.act import Act
from tests.cluster.replicas.scene import STATES, Scene
from tests.e2e.harness import until


@pytest.mark.parametrize("state", STATES)
def test_api_server_restart_in_each_state_loses_nothing(
    scene: Scene, apiserver: Cluster, tmp_path: Path, pool: ThreadPoolExecutor, state: str
) -> None:
    act = Act(scene, f"away-{state.lower()}", tmp_path, pool)
    act.bring(state)
    apiserver.stop_apiserver()
    meanwhile = act.ask("/meanwhile")
    if state in ("Active", "Idle"):
        assert meanwhile.result().status == 200, "what runs is served without it"
    apiserver.start_apiserver()
    until("one leads", scene.leader)
    act.answered()
    assert meanwhile.result().body.decode() == f"{act.name} /meanwhile\n"
    act.lives_on()


@pytest.mark.parametrize("replicas", [0, 3])
@pytest.mark.parametrize("state", STATES)
def test_scaling_by_somebody_else_in_each_state(
    scene: Scene, tmp_path: Path, pool: ThreadPoolExecutor, state: str, replicas: int
) -> None:
    """At zero, a waiting or new client wakes it again. Three replicas are kept while awake, and restored by a wake."""
    act = Act(scene, f"to-{replicas}-{state.lower()}", tmp_path, pool)
    act.bring(state)
    scene.kubectl("scale", "deployment", act.name, f"--replicas={replicas}")
    if replicas == 0 and state in ("Active", "Idle", "Draining"):
        until("it is stopped", lambda: act.name in scene.kubelet.ended)  # a request that comes now is not cut by that
    scene.kubelet.let_go(act.name)
    if replicas == 0 and state in ("Active", "Draining"):
        scene.kubelet.forgive(act.name, act.path)  # the requests that this zero cuts are not the product's fault
        act.gate.touch()
    else:
        act.answered()
    assert scene.request(act.name, "/next").body.decode() == f"{act.name} /next\n"
    if replicas:
        assert scene.wanted(act.name) == replicas
        act.sleep()
        assert scene.request(act.name, "/again").status == 200
        assert scene.wanted(act.name) == replicas, "it wakes as it was"
    else:
        act.lives_on()
