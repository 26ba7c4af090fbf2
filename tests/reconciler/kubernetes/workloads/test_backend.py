"""The backend before objects in memory: what it says of a service, and in which order.

Counterpart: `tests/cluster/test_backend*.py`, with a real API server.
"""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from reconciler.kubernetes.client.errors import ApiError
from reconciler.kubernetes.types.builtin import Service, ServiceSpec
from reconciler.kubernetes.workloads import diagnosis, probing
from reconciler.kubernetes.workloads import workload as workload_module
from reconciler.ports.backend import WorkloadStatus
from tests.ports import free_port
from tests.reconciler.kubernetes.workloads.scene import DEPLOYMENTS, DOWN, PODS, SLICES, UP, Scene, entry


async def test_backend_before_sync_reports_nothing(port: int) -> None:
    scene = Scene(ApiError(503, "ServiceUnavailable", "starting"))
    scene.deploy(2)
    scene.slice(port, "one")
    scene.configure()
    await asyncio.sleep(0.1)
    assert not scene.reports
    scene.api.refused.clear()
    assert await scene.until(lambda running: True) == WorkloadStatus("shop/web", 2, (f"127.0.0.1:{port}",))
    await scene.backend.close()


async def test_backend_deleted_service_is_the_diagnosis(scene: Scene, port: int) -> None:
    scene.deploy(2)
    scene.slice(port, "one")
    scene.configure()
    await scene.until(lambda running: running.endpoints)
    scene.configure(replace(entry(), has_service=False))
    assert scene.now.diagnosis is None, "its endpoints outlast it for a moment, and are used"
    scene.api.say(SLICES, "shop", "web-a", None)
    gone = await scene.until(lambda running: running.diagnosis)
    assert str(gone.diagnosis) == "ServiceNotFound: Service shop/web was deleted"
    scene.configure()
    await scene.until(lambda running: running.diagnosis is None)


async def test_backend_new_service_is_reported_at_once(scene: Scene) -> None:
    scene.deploy(2)
    scene.deploy(0, "api")
    scene.configure()
    await scene.until(lambda running: running.replicas == 2)
    scene.configure(entry(), entry("api"))
    assert scene.now == WorkloadStatus("shop/api", 0)


async def test_backend_unchanged_config_does_nothing(scene: Scene) -> None:
    scene.deploy(2)
    scene.configure()
    await scene.until(lambda running: running.replicas == 2)
    said, called = len(scene.reports), len(scene.api.calls)
    scene.configure()
    scene.converge(None)
    scene.slice(80, name="other")
    await asyncio.sleep(0.05)
    assert (len(scene.reports), len(scene.api.calls)) == (said, called)


async def test_backend_terminating_pod_serves_until_next_is_reachable(scene: Scene, port: int) -> None:
    scene.deploy(1)
    scene.slice(port, "one")
    scene.configure()
    await scene.until(lambda running: running.endpoints)
    scene.slice(port, "one", ready=False, serving=True, terminating=True)
    with socket.socket() as later:
        later.bind(("127.0.0.1", 0))
        scene.slice(later.getsockname()[1], "two", name="web-b")
        await asyncio.sleep(0.05)
        assert scene.now.endpoints == (f"127.0.0.1:{port}",)
        later.listen()
        await scene.until(lambda running: running.endpoints == (f"127.0.0.1:{later.getsockname()[1]}",))
    assert all(running.endpoints for running in scene.reports)


async def test_backend_ipv6_serves_until_ipv4_is_reachable(scene: Scene, port: int) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as six:
        scene.deploy(1)
        scene.slice(six.getsockname()[1], "one", name="web-6", family="IPv6")
        scene.configure()
        await scene.until(lambda running: running.endpoints == (f"[::1]:{six.getsockname()[1]}",))
        scene.slice(port, "one")
        await scene.until(lambda running: running.endpoints == (f"127.0.0.1:{port}",))
    assert all(running.endpoints for running in scene.reports)


async def test_backend_new_pod_at_same_address_is_dialled(scene: Scene, port: int) -> None:
    scene.deploy(1)
    scene.slice(port, "one")
    scene.configure()
    await scene.until(lambda running: running.endpoints)
    scene.slice(free_port(), "two")
    await scene.until(lambda running: not running.endpoints)
    scene.slice(port, "two")
    await scene.until(lambda running: running.endpoints)


async def test_backend_pod_ready_after_zero_is_unmarked(
    scene: Scene, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workload_module, "UNMARK_AFTER_SECONDS", 0.2)
    scene.deploy(1)
    scene.slice(port, "one")
    scene.configure()
    await scene.until(lambda running: running.endpoints)
    scene.converge(DOWN)
    assert scene.now == WorkloadStatus("shop/web", 1)
    await scene.until(lambda running: running.replicas == 0)
    scene.converge(None)
    said = len(scene.reports)
    scene.converge(UP)
    await scene.until(lambda running: running.replicas == 2 and running.endpoints)
    first = next(running for running in scene.reports[said:] if running.replicas == 2)
    assert not first.endpoints


async def test_backend_terminating_pod_after_zero_stays_marked(
    scene: Scene, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workload_module, "UNMARK_AFTER_SECONDS", 0.02)
    scene.deploy(1)
    scene.slice(port, "one")
    scene.configure()
    await scene.until(lambda running: running.endpoints)
    scene.converge(DOWN)
    await scene.until(lambda running: running.replicas == 0)
    scene.slice(port, "one", ready=False, serving=True, terminating=True)
    scene.converge(UP)
    await scene.until(lambda running: running.replicas == 2)
    await asyncio.sleep(0.1)
    assert not scene.now.endpoints


async def test_backend_wake_by_someone_else_is_reported(scene: Scene, port: int) -> None:
    scene.deploy(0)
    scene.configure()
    await scene.until(lambda running: running.replicas == 0)
    scene.slice(port, "new")
    await asyncio.sleep(0.02)
    assert not scene.now.endpoints, "it is at zero, regardless of the slices"
    scene.deploy(3)
    await scene.until(lambda running: running.replicas == 3)
    scene.slice(port, "newer")
    await scene.until(lambda running: running.endpoints)
    assert not [call for call in scene.api.calls if call[0] == "PATCH"]


async def test_backend_pods_of_deleted_target_keep_replicas(scene: Scene, port: int) -> None:
    scene.deploy(3)
    scene.slice(port, "one")
    scene.configure()
    await scene.until(lambda running: running.endpoints)
    scene.api.say(DEPLOYMENTS, "shop", "web", None)
    gone = await scene.until(lambda running: running.diagnosis)
    assert (gone.replicas, gone.endpoints) == (3, (f"127.0.0.1:{port}",))
    scene.api.say(SLICES, "shop", "web-a", None)
    await scene.until(lambda running: running.replicas == 0)
    scene.deploy(2)
    await scene.until(lambda running: running.replicas == 2 and running.diagnosis is None)


async def test_backend_unanswered_dials_are_awaited_once(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "NO_ANSWER_SECONDS", 0.3)
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        scene.deploy(1)
        scene.configure()
        await scene.until(lambda running: running.replicas == 1)
        began = time.monotonic()
        scene.slice(full.getsockname()[1], "one")
        await scene.until(lambda running: running.endpoints)
        assert time.monotonic() - began >= 0.3
        scene.slice(full.getsockname()[1])
        await scene.until(lambda running: not running.endpoints)
        monkeypatch.setattr(probing, "NO_ANSWER_SECONDS", 3600.0)
        scene.slice(full.getsockname()[1], "two")
        await scene.until(lambda running: running.endpoints)
        for filler in fillers:
            filler.close()


async def test_backend_forbidden_watch_is_diagnosed(scene: Scene, port: int) -> None:
    scene.api.refused[DEPLOYMENTS] = ApiError(403, "Forbidden", "no")
    scene.deploy(1)
    scene.slice(port, "one")
    scene.configure()
    reported = await scene.until(lambda running: running.diagnosis)
    assert (
        str(reported.diagnosis)
        == "Forbidden: zenvoy may not watch deployments.apps; add it to the chart's `scaleTargets`"
    )
    assert reported.endpoints == (f"127.0.0.1:{port}",)
    assert reported.replicas is None, "what cannot be seen is not known"
    scene.slice(port)
    hidden = await scene.until(lambda running: not running.endpoints)
    assert hidden.replicas is None, "it may run all the same"
    scene.api.refused.clear()
    await scene.until(lambda running: running.diagnosis is None and running.replicas == 1)


async def test_backend_milestones_are_in_order(scene: Scene, port: int) -> None:
    scene.deploy(0)
    scene.configure()
    await scene.until(lambda running: running.replicas == 0)
    scene.converge(UP)
    await scene.until(lambda running: "scale" in running.milestones)
    runs = [{"name": "app", "state": {"running": {}}}]
    ready = [{"type": "Ready", "status": "True"}]
    scene.api.say(
        PODS,
        "shop",
        "web-1",
        {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"nodeName": "node-1"},
            "status": {"phase": "Running", "containerStatuses": runs, "conditions": ready},
        },
    )
    await scene.until(lambda running: "ready" in running.milestones)
    scene.slice(port, "uid-of-web-1")
    awake = await scene.until(lambda running: running.endpoints)
    assert list(awake.milestones) == ["scale", "scheduled", "running", "ready"]
    assert list(awake.milestones.values()) == sorted(awake.milestones.values())
    scene.converge(None)
    scene.converge(DOWN)
    await scene.until(lambda running: running.replicas == 0)
    scene.converge(UP)
    anew = await scene.until(lambda running: running.replicas == 2)
    assert anew.milestones["scale"] > awake.milestones["ready"], "the next wake has its own"


async def test_backend_forbidden_pods_are_diagnosed(scene: Scene) -> None:
    scene.api.refused[PODS] = ApiError(403, "Forbidden", "no")
    scene.deploy(0)
    scene.configure()
    await scene.until(lambda running: running.replicas == 0)
    scene.converge(UP)
    reported = await scene.until(lambda running: running.diagnosis)
    assert str(reported.diagnosis) == "Forbidden: zenvoy may not watch pods in shop, so the cause is not known"


async def test_backend_pods_from_before_zero_are_not_diagnosed(scene: Scene) -> None:
    scene.deploy(0)
    scene.pod("old", containerStatuses=[{"name": "app", "state": {"waiting": {"reason": "InvalidImageName"}}}])
    scene.slice(80, "uid-of-old")
    scene.configure()
    await scene.until(lambda running: running.replicas == 0)
    scene.converge(UP)
    await scene.until(lambda running: running.replicas == 2)
    scene.pod("new", containerStatuses=[{"name": "app", "state": {"waiting": {"reason": "CreateContainerError"}}}])
    reported = await scene.until(lambda running: running.diagnosis)
    assert str(reported.diagnosis) == "CreateContainerError: container app of pod new: no reason given"
    scene.converge(None)
    assert (await scene.until(lambda running: running.diagnosis is None)).replicas == 2


async def test_backend_target_without_selector_has_the_services(scene: Scene) -> None:
    scene.services["shop/web"] = Service(spec=ServiceSpec(selector={"app": "web"}))
    scene.deploy(0, selector="")
    scene.configure()
    await scene.until(lambda running: running.replicas == 0)
    scene.converge(UP)
    scene.pod("new", containerStatuses=[{"name": "app", "state": {"waiting": {"reason": "CreateContainerError"}}}])
    reported = await scene.until(lambda running: running.diagnosis)
    assert str(reported.diagnosis) == "CreateContainerError: container app of pod new: no reason given"


async def test_backend_pods_of_abandoned_wake_are_not_diagnosed(scene: Scene) -> None:
    scene.deploy(0)
    scene.configure()
    await scene.until(lambda running: running.replicas == 0)
    scene.converge(UP)
    await scene.until(lambda running: running.replicas == 2)
    scene.pod("old", containerStatuses=[{"name": "app", "state": {"waiting": {"reason": "InvalidImageName"}}}])
    await scene.until(lambda running: running.diagnosis)
    scene.converge(DOWN)
    await scene.until(lambda running: running.replicas == 0)
    scene.converge(UP)
    await scene.until(lambda running: running.replicas == 2)
    scene.pod("new", containerStatuses=[{"name": "app", "state": {"waiting": {"reason": "CreateContainerError"}}}])
    reported = await scene.until(lambda running: running.diagnosis)
    assert str(reported.diagnosis) == "CreateContainerError: container app of pod new: no reason given"


async def test_backend_pods_that_ended_long_ago_are_not_diagnosed(scene: Scene) -> None:
    """Kubernetes keeps evicted pods, and those of a node that was shut down, also while the workload is at zero."""
    before, now = "2026-01-01T00:00:00Z", datetime.now(UTC).isoformat()
    ended = [{"name": "app", "state": {"terminated": {"finishedAt": before}}}]
    scene.deploy(0)
    scene.pod("a", phase="Failed", reason="Evicted", startTime=before, containerStatuses=ended)
    disrupted = [{"type": "DisruptionTarget", "status": "True", "lastTransitionTime": now}]
    scene.pod("b", phase="Failed", reason="Terminated", startTime=before, conditions=disrupted, message="shutdown")
    scene.configure()
    await scene.until(lambda running: running.replicas == 0)
    scene.converge(UP)
    reported = await scene.until(lambda running: running.diagnosis)
    assert str(reported.diagnosis) == "Terminated: pod b has ended: shutdown"


async def test_backend_pod_that_ends_slowly_is_named(scene: Scene, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A StatefulSet creates its pod again only once the earlier one has ended, which still serves meanwhile."""
    monkeypatch.setattr(diagnosis, "UNCREATED_SECONDS", 0.0)
    scene.deploy(0)
    scene.slice(port, "uid-of-web-0", ready=False, serving=True, terminating=True)
    meta = {"labels": {"app": "web"}, "deletionTimestamp": "2026-11-23T10:00:00Z"}
    scene.api.say(PODS, "shop", "web-0", {"metadata": meta, "spec": {"nodeName": "node-1"}, "status": {}})
    scene.configure()
    await scene.until(lambda running: running.replicas == 0)
    scene.converge(UP)
    reported = await scene.until(lambda running: running.diagnosis)
    assert str(reported.diagnosis).startswith("NoPods: pod web-0 is still terminating on node node-1")
    assert not reported.endpoints


async def test_backend_removed_service_is_not_scaled(scene: Scene) -> None:
    scene.deploy(2)
    scene.configure()
    await scene.until(lambda running: running.replicas == 2)
    scene.backend.configure({})
    scene.converge(DOWN)
    scene.deploy(3)
    await asyncio.sleep(0.05)
    assert scene.now.replicas == 2
    assert not scene.backend.targets
    scene.configure()
    await scene.until(lambda running: running.replicas == 3)
