"""Stalled wakes on a real API server: the reason is known as soon as Kubernetes reports it."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
import yaml

from reconciler.kubernetes.client.api import connect
from reconciler.plan import AtLeast, Zero
from reconciler.ports.backend import WorkloadStatus
from tests.cluster.harness import Cluster
from tests.cluster.stage import RUNS, Stage, condition, container, endpoint, entry, own_address, waiting

KNOWN_SECONDS = 2.0


async def woken(stage: Stage, name: str = "web", kind: str = "Deployment") -> None:
    await stage.deploy(name, 0, kind)
    stage.configure(entry(name, stage.namespace, kind=kind))
    await stage.until(name, lambda running: running.replicas == 0)
    stage.converge(name, AtLeast(1))


async def diagnosed(stage: Stage, words: str, name: str = "web") -> WorkloadStatus:
    """Wait until it is reported."""
    return await stage.until(name, lambda running: words in str(running.diagnosis))


@pytest.mark.usefixtures("node_of")
async def test_wake_reports_each_reason_until_it_is_reached(stage: Stage) -> None:
    await woken(stage)
    pod = await stage.pod("web")
    name = pod["metadata"]["name"]
    await stage.say(pod, conditions=[condition("PodScheduled", "False", "Unschedulable", "0/1 nodes: no room")])
    await diagnosed(stage, f"Unschedulable: pod {name} cannot be scheduled: 0/1 nodes: no room")
    await stage.bind(pod)
    scheduled = [condition("PodScheduled", "True")]
    creating = container(waiting("ContainerCreating"))
    await stage.say(pod, conditions=scheduled, containerStatuses=[creating])
    await stage.until("web", lambda running: running.diagnosis is None and "scheduled" in running.milestones)
    await stage.warn("Pod", pod, "FailedMount", 'MountVolume.SetUp failed for volume "tls": secret "tls" not found')
    await diagnosed(
        stage, f'FailedMount: pod {name}: MountVolume.SetUp failed for volume "tls": secret "tls" not found'
    )
    await stage.say(pod, containerStatuses=[container(waiting("ImagePullBackOff", "Back-off: not found"))])
    await diagnosed(stage, "ImagePullBackOff: image registry.example/app:1 of container app")
    await stage.say(pod, containerStatuses=[container(waiting("CreateContainerConfigError", 'secret "db" not found'))])
    await diagnosed(stage, f'CreateContainerConfigError: container app of pod {name}: secret "db" not found')
    crash = {"terminated": {"exitCode": 3, "reason": "Error"}}
    looping = container(waiting("CrashLoopBackOff", "back-off"), restartCount=2, lastState=crash)
    await stage.say(pod, containerStatuses=[looping])
    await diagnosed(stage, f"CrashLoopBackOff: container app of pod {name} ended with exit code 3, restarted 2 times")
    runs = container(RUNS, restartCount=3, ready=True)
    await stage.say(pod, phase="Running", conditions=[*scheduled, condition("Ready", "True")], containerStatuses=[runs])
    # After some seconds, a ready pod without an endpoint is a reason too.
    await stage.reported("web", lambda running: running.diagnosis is None and "ready" in running.milestones)
    with socket.create_server((own_address(), 0)) as server:
        uid, port = pod["metadata"]["uid"], server.getsockname()[1]
        await stage.slice("web-a", "web", [endpoint(own_address(), uid)], port)
        awake = await stage.until("web", lambda running: running.endpoints)
    assert awake.diagnosis is None
    moments = list(awake.milestones.values())
    assert list(awake.milestones) == ["scale", "scheduled", "running", "ready"]
    assert moments == sorted(moments)


async def test_wake_new_leader_reports_the_diagnosis(stage: Stage) -> None:
    stage.leads = False
    stage.backend.lead(False)
    await woken(stage)
    pod = await stage.pod("web")
    await stage.say(pod, conditions=[condition("PodScheduled", "False", "Unschedulable", "no room")])
    await stage.until("web", lambda running: running.replicas == 1)
    await asyncio.sleep(KNOWN_SECONDS)
    assert all(running.diagnosis is None for running in stage.all("web")), "only the leader reports it"
    stage.leads = True
    stage.backend.lead(True)
    await diagnosed(stage, "Unschedulable")


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "ReplicaSet"])
async def test_wake_quota_exceeded_is_reported(stage: Stage, kind: str) -> None:
    """The controllers are real here, and say it each in their own way."""
    quota = {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    await stage.make("resourcequotas", quota, "v1")
    await stage.until_no_pod_may_be_made()
    await stage.deploy("web", 0, kind)
    stage.configure(entry("web", stage.namespace, kind=kind))
    await stage.until("web", lambda running: running.replicas == 0)
    stage.converge("web", AtLeast(1))
    stalled = await stage.until("web", lambda running: "QuotaExceeded" in str(running.diagnosis))
    assert str(stalled.diagnosis) == (
        f"QuotaExceeded: pods of {kind} {stage.namespace}/web cannot be created: "
        "exceeded quota: none, requested: pods=1, used: pods=0, limited: pods=0"
    )


@pytest.mark.usefixtures("node_of")
async def test_wake_ready_pod_not_selected_is_reported(stage: Stage) -> None:
    await woken(stage)
    pod = await stage.pod("web")
    await stage.bind(pod)
    ready = [condition("PodScheduled", "True"), condition("Ready", "True")]
    await stage.say(pod, phase="Running", conditions=ready, containerStatuses=[container(RUNS, ready=True)])
    await diagnosed(stage, "has no endpoint")


async def test_diagnosis_watches_waking_targets_only(stage: Stage) -> None:
    await woken(stage)
    await stage.pod("web")
    await stage.until("web", lambda running: "scale" in running.milestones)
    stage.converge("web", None)
    pod = await stage.pod("web")
    await stage.say(pod, conditions=[condition("PodScheduled", "False", "Unschedulable", "no room")])
    await stage.scale("web", 2)
    await stage.until("web", lambda running: running.replicas == 2)
    assert not any("no room" in str(running.diagnosis) for running in stage.all("web"))


async def test_diagnosis_of_one_wake_is_not_kept_for_the_next(stage: Stage) -> None:
    await woken(stage)
    pod = await stage.pod("web")
    await stage.say(pod, conditions=[condition("PodScheduled", "False", "Unschedulable", "no room")])
    await diagnosed(stage, "no room")
    stage.converge("web", Zero())
    await stage.until("web", lambda running: running.replicas == 0 and running.diagnosis is None)
    await stage.until_pods_end("web")
    stage.converge("web", None)
    stage.reports.clear()
    stage.converge("web", AtLeast(1))
    await stage.until("web", lambda running: running.replicas == 1)
    await stage.pod("web", besides={pod["metadata"]["uid"]})
    assert not any("no room" in str(running.diagnosis) for running in stage.all("web"))


async def test_missing_permission_is_named(stage: Stage, control_plane: Cluster, tmp_path: Path) -> None:
    """A service account that may see everything and scale nothing."""
    rbac, account = "rbac.authorization.k8s.io/v1", {"metadata": {"name": "looks"}}
    rules = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["list", "watch"]}]
    subjects = [{"kind": "ServiceAccount", "name": "looks", "namespace": stage.namespace}]
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "looks"}
    await stage.make("serviceaccounts", account, "v1")
    await stage.make("roles", {**account, "rules": rules}, rbac)
    await stage.make("rolebindings", {**account, "roleRef": role, "subjects": subjects}, rbac)
    config = yaml.safe_load(control_plane.kubeconfig.read_text())
    token = control_plane.kubectl("create", "token", "looks", "-n", stage.namespace).strip()
    config["users"] = [{**user, "user": {"token": token}} for user in config["users"]]
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    await stage.deploy("web", 0)
    clients = await connect(tmp_path / "kubeconfig"), await connect(tmp_path / "kubeconfig")
    limited = Stage(*clients, stage.namespace)
    try:
        limited.configure(entry("web", stage.namespace))
        await limited.until("web", lambda running: running.replicas == 0)
        limited.converge("web", AtLeast(1))
        refused = await limited.until("web", lambda running: running.diagnosis)
        assert str(refused.diagnosis) == (
            f"Forbidden: zenvoy may not scale Deployment {stage.namespace}/web: no right to deployments/scale in "
            f"{stage.namespace}; add deployments to the chart's `scaleTargets`"
        )
    finally:
        await limited.backend.close()
        for client in clients:
            await client.close()
