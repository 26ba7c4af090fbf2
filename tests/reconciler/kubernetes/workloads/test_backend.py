"""The backend before objects in memory: what it says of a service, and in which order.

Counterpart: `tests/cluster/test_backend*.py`, with a real API server.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from reconciler.core.spec import Spec
from reconciler.kubernetes.client.errors import ApiError
from reconciler.kubernetes.config.service_config import ServiceConfig
from reconciler.kubernetes.types.builtin import ServicePort
from reconciler.kubernetes.types.target import Target
from reconciler.kubernetes.workloads import probing
from reconciler.kubernetes.workloads import workload as workload_module
from reconciler.kubernetes.workloads.backend import KubernetesBackend
from reconciler.plan import AtLeast, Zero
from reconciler.ports.backend import WorkloadStatus
from tests.fakes.watched import Watched

DEPLOYMENTS = "/apis/apps/v1/deployments"
SLICES = "/apis/discovery.k8s.io/v1/endpointslices"
PODS, EVENTS = "/api/v1/namespaces/shop/pods", "/api/v1/namespaces/shop/events"
UP, DOWN = AtLeast(2), Zero()
GENEROUS_SECONDS = 10.0


def entry(name: str = "web", kind: str = "Deployment", target: str | None = None) -> ServiceConfig:
    ref = Target("apps/v1", kind, target or name, "shop")
    return ServiceConfig(Spec(name=f"shop/{name}"), ref, name, ServicePort("", 80), 0.0, "uid", 1)


class Scene:
    """`refused` is what lists of EndpointSlices meet at first."""

    def __init__(self, refused: ApiError | None = None) -> None:
        self.api = Watched()
        self.api.exists(DEPLOYMENTS, SLICES, PODS, EVENTS)
        if refused:
            self.api.refused[SLICES] = refused
        self.leads = True
        self.reports: list[WorkloadStatus] = []
        api: Any = self.api
        self.backend = KubernetesBackend(api, api, self.reports.append, lambda: self.leads)

    def deploy(self, replicas: int, name: str = "web") -> None:
        """The object and its scale are so now."""
        spec = {"replicas": replicas} if replicas else {}
        self.api.say(DEPLOYMENTS, "shop", name, {"spec": {"replicas": replicas}})
        kept = {"metadata": {"name": name}, "spec": spec, "status": {"selector": f"app={name}"}}
        self.api.put(f"/apis/apps/v1/namespaces/shop/deployments/{name}/scale", kept)

    def slice(self, port: int, *pods: str, name: str = "web-a", family: str = "IPv4", **conditions: bool) -> None:
        ip = "127.0.0.1" if family == "IPv4" else "::1"
        endpoints = [{"addresses": [ip], "conditions": conditions, "targetRef": {"uid": pod}} for pod in pods]
        labels = {"kubernetes.io/service-name": "web"}
        body = {
            "metadata": {"labels": labels},
            "addressType": family,
            "endpoints": endpoints,
            "ports": [{"port": port}],
        }
        self.api.say(SLICES, "shop", name, body)

    def pod(self, name: str, **status: Any) -> None:
        self.api.say(PODS, "shop", name, {"metadata": {"labels": {"app": "web"}}, "status": status})

    def configure(self, *entries: ServiceConfig) -> None:
        self.backend.configure({one.spec.name: one for one in entries or (entry(),)})

    def converge(self, wanted: AtLeast | Zero | None) -> None:
        self.backend.converge("shop/web", wanted)

    @property
    def now(self) -> WorkloadStatus:
        return self.reports[-1]

    async def until(self, holds: Callable[[WorkloadStatus], object]) -> WorkloadStatus:
        async with asyncio.timeout(GENEROUS_SECONDS):
            while not (self.reports and holds(self.now)):
                await asyncio.sleep(0.002)
        return self.now


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    made = Scene()
    yield made
    await made.backend.close()


@pytest.fixture
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


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
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        unused = closed.getsockname()[1]
    scene.slice(unused, "two")
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
    scene.converge(UP)
    await scene.until(lambda running: running.replicas == 2)
    assert not scene.now.endpoints
    await scene.until(lambda running: running.endpoints)


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
        for pod, waits in (("one", True), ("two", False)):
            began = time.monotonic()
            scene.slice(full.getsockname()[1], pod)
            await scene.until(lambda running: running.endpoints)
            assert (time.monotonic() - began >= 0.3) is waits
            scene.slice(full.getsockname()[1])
            await scene.until(lambda running: not running.endpoints)
        for filler in fillers:
            filler.close()


async def test_backend_forbidden_watch_is_diagnosed(scene: Scene, port: int) -> None:
    scene.api.refused[DEPLOYMENTS] = ApiError(403, "Forbidden", "no")
    scene.deploy(1)
    scene.slice(port, "one")
    scene.configure()
    told = await scene.until(lambda running: running.diagnosis)
    assert (
        str(told.diagnosis) == "Forbidden: zenvoy may not watch deployments.apps; add it to the chart's `scaleTargets`"
    )
    assert told.endpoints == (f"127.0.0.1:{port}",)
    assert told.replicas is None, "what cannot be seen is not known"
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
    told = await scene.until(lambda running: running.diagnosis)
    assert str(told.diagnosis) == "Forbidden: zenvoy may not watch pods in shop, so the cause is not known"


async def test_backend_pods_from_before_zero_are_not_diagnosed(scene: Scene) -> None:
    scene.deploy(0)
    scene.pod("old", containerStatuses=[{"name": "app", "state": {"waiting": {"reason": "InvalidImageName"}}}])
    scene.slice(80, "uid-of-old")
    scene.configure()
    await scene.until(lambda running: running.replicas == 0)
    scene.converge(UP)
    await scene.until(lambda running: running.replicas == 2)
    scene.pod("new", containerStatuses=[{"name": "app", "state": {"waiting": {"reason": "CreateContainerError"}}}])
    told = await scene.until(lambda running: running.diagnosis)
    assert str(told.diagnosis) == "CreateContainerError: container app of pod new: no reason given"
    scene.converge(None)
    assert (await scene.until(lambda running: running.diagnosis is None)).replicas == 2


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
    told = await scene.until(lambda running: running.diagnosis)
    assert str(told.diagnosis) == "CreateContainerError: container app of pod new: no reason given"


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
