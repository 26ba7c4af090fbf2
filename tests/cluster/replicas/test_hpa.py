"""A HorizontalPodAutoscaler of a service: it sets the replicas while awake, and leaves zero alone.

The real controller, without metrics: it brings a number within its bounds, and leaves one within them as it is.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cluster.replicas.act import Act
from tests.cluster.replicas.scene import PATIENCE_SECONDS, STATES, Scene
from tests.e2e.harness import until

LEAST, MOST = 3, 5


def autoscale(scene: Scene, name: str, least: int = LEAST, most: int = MOST) -> None:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
    spec = {"scaleTargetRef": target, "minReplicas": least, "maxReplicas": most}
    scene.apply(
        {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": name}, "spec": spec}
    )


def says(scene: Scene, name: str, reason: str) -> None:
    """Wait until the autoscaler gives that reason, which shows that it has seen the changed number."""

    def said() -> bool:
        found = scene.kubectl("get", "hpa", name, "-o", "jsonpath={.status.conditions}") or "[]"
        return reason in {one["reason"] for one in json.loads(found) if one["type"] == "ScalingActive"}

    until(f"the autoscaler says {reason}", said, PATIENCE_SECONDS)


def is_scaled(scene: Scene, name: str, replicas: int) -> None:
    until(f"{name} has {replicas} replicas", lambda: scene.wanted(name) == replicas, PATIENCE_SECONDS)


@pytest.mark.parametrize("state", STATES)
def test_autoscaler_that_wants_more_is_not_overruled(
    scene: Scene, tmp_path: Path, pool: ThreadPoolExecutor, state: str
) -> None:
    act = Act(scene, f"hpa-{state.lower()}", tmp_path, pool)
    act.bring(state)
    autoscale(scene, act.name)
    if state == "ScaledToZero":
        says(scene, act.name, "ScalingDisabled")
        assert scene.wanted(act.name) == 0
        act.under_way = act.ask()
    is_scaled(scene, act.name, LEAST)
    act.answered()
    assert scene.request(act.name, "/next").body.decode() == f"{act.name} /next\n"
    scene.wait(act.name, "Active", "Idle")
    says(scene, act.name, "FailedGetResourceMetric")
    assert scene.wanted(act.name) == LEAST, "awake, the number is the autoscaler's"

    scene.idles_after(act.name, "1s")
    scene.wait(act.name, "ScaledToZero")
    is_scaled(scene, act.name, 0)
    says(scene, act.name, "ScalingDisabled")
    assert scene.wanted(act.name) == 0, "asleep, the autoscaler leaves it alone"

    scene.idles_after(act.name, "10m")
    assert scene.request(act.name, "/again").body.decode() == f"{act.name} /again\n"
    assert scene.wanted(act.name) == LEAST, "it wakes as it was"
    autoscale(scene, act.name, least=2, most=2)
    is_scaled(scene, act.name, 2)
    assert scene.request(act.name, "/fewer").body.decode() == f"{act.name} /fewer\n"
    act.sleep()
    assert scene.request(act.name, "/last").body.decode() == f"{act.name} /last\n"
    assert scene.wanted(act.name) == 2, "it wakes as the autoscaler has left it"
    assert not [cut for cut in scene.kubelet.cut if cut.startswith(f"{act.name} ")]
