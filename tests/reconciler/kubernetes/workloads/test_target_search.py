"""The diagnosis of a service whose target does not exist."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from reconciler.concurrency import Backoff
from reconciler.core.reasons import Reason
from reconciler.core.spec import Spec
from reconciler.kubernetes.client.errors import ApiError
from reconciler.kubernetes.config.service_config import ServiceConfig
from reconciler.kubernetes.types.builtin import Service, ServicePort, ServiceSpec
from reconciler.kubernetes.types.objects import Target
from reconciler.kubernetes.workloads import target_search
from reconciler.kubernetes.workloads.backend import KubernetesBackend
from reconciler.ports.backend import WorkloadStatus
from tests.fakes.watched import Watched

WATCHED = "/apis/apps/v1/deployments"
DEPLOYMENTS, STATEFUL_SETS = (f"/apis/apps/v1/namespaces/shop/{plural}" for plural in ("deployments", "statefulsets"))
REPLICA_SETS, PODS = "/apis/apps/v1/namespaces/shop/replicasets", "/api/v1/namespaces/shop/pods"
SLICES = "/apis/discovery.k8s.io/v1/endpointslices"
CONFIG = ServiceConfig(
    Spec(name="shop/web"), Target("apps/v1", "Deployment", "web", "shop"), "web", ServicePort("", 80), 0.0, "uid", 1
)
MISSING = "Deployment shop/web does not exist"
LABELS = {"app": "web", "release": "mine"}
GENEROUS_SECONDS = 60.0


class Scene:
    def __init__(self) -> None:
        self.api = Watched()
        self.api.exists(WATCHED, DEPLOYMENTS, STATEFUL_SETS, REPLICA_SETS, PODS, SLICES)
        self.services = {"shop/web": Service(spec=ServiceSpec(selector={"app": "web"}))}
        self.reports: list[WorkloadStatus] = []
        self.backend = KubernetesBackend(self.api, self.api, self.services, self.reports.append, lambda: True)

    def workload(self, collection: str, name: str, labels: dict[str, str]) -> None:
        self.api.say(collection, "shop", name, {"spec": {"template": {"metadata": {"labels": labels}}}})

    async def diagnosis(self, holds: Callable[[str], object]) -> str:
        """Return the message of the first diagnosis that holds."""
        async with asyncio.timeout(GENEROUS_SECONDS):
            while not any(holds(self._message(one)) for one in self.reports):
                await asyncio.sleep(0.002)
        return next(found for one in self.reports if holds(found := self._message(one)))

    def _message(self, report: WorkloadStatus) -> str:
        assert report.diagnosis is None or report.diagnosis.code is Reason.TARGET_NOT_FOUND
        return report.diagnosis.message if report.diagnosis else ""


@pytest.fixture
async def scene(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(target_search, "BACKOFF", Backoff(0.01, 60.0))
    made = Scene()
    yield made
    await made.backend.close()


async def test_missing_target_of_a_captured_service_is_found_too(scene: Scene) -> None:
    selector = {"app": "web", "zenvoy.dev/captured": "true"}
    scene.services["shop/web"] = Service(spec=ServiceSpec(selector=selector))
    scene.workload(DEPLOYMENTS, "mine-web", LABELS)
    scene.backend.configure({"shop/web": CONFIG})
    assert await scene.diagnosis(lambda message: "Deployment/mine-web" in message)


@pytest.mark.parametrize(
    ("collection", "found"), [(DEPLOYMENTS, "Deployment/mine-web"), (STATEFUL_SETS, "StatefulSet/mine-web")]
)
async def test_missing_target_names_the_selected_workload(scene: Scene, collection: str, found: str) -> None:
    scene.workload(collection, "mine-web", LABELS)
    scene.workload(collection, "other", {"app": "other"})
    scene.backend.configure({"shop/web": CONFIG})
    kind, _, name = found.partition("/")
    assert await scene.diagnosis(lambda message: found in message) == (
        f"{MISSING}; Service shop/web selects the pods of {found}: annotate the Service with "
        f"zenvoy.dev/target: {found}, or create the ScaledService again with "
        f"scaleTargetRef: {{kind: {kind}, name: {name}}}"
    )


@pytest.mark.parametrize(
    ("owners", "remedy"),
    [
        (
            {PODS: "apps/v1/ReplicaSet/web-1", REPLICA_SETS: "argoproj.io/v1alpha1/Rollout/mine"},
            "selects the pods of argoproj.io/v1alpha1/Rollout/mine: annotate the Service with zenvoy.dev/target: "
            "argoproj.io/v1alpha1/Rollout/mine, or create the ScaledService again with "
            "scaleTargetRef: {apiVersion: argoproj.io/v1alpha1, kind: Rollout, name: mine}",
        ),
        ({PODS: "apps/v1/ReplicaSet/web-1"}, "selects the pods of ReplicaSet/web-1: annotate the Service with"),
        ({PODS: "apps/v1/DaemonSet/agent"}, "selects the pods of DaemonSet/agent, which cannot be scaled to zero"),
        ({PODS: "batch/v1/Job/once"}, "selects the pods of batch/v1/Job/once, which cannot be scaled to zero"),
    ],
)
async def test_missing_target_names_the_owner_of_the_pods(scene: Scene, owners: dict[str, str], remedy: str) -> None:
    for collection, owner in owners.items():
        version, kind, name = owner.rsplit("/", 2)
        reference = {"apiVersion": version, "kind": kind, "name": name, "controller": True}
        scene.api.say(collection, "shop", "web-1", {"metadata": {"ownerReferences": [reference]}})
    scene.backend.configure({"shop/web": CONFIG})
    await scene.diagnosis(lambda message: remedy in message)


async def test_missing_target_without_selected_workload_is_plain(scene: Scene) -> None:
    scene.workload(DEPLOYMENTS, "other", {"app": "other"})
    scene.backend.configure({"shop/web": CONFIG})
    assert await scene.diagnosis(bool) == MISSING


async def test_missing_target_later_workload_is_named(scene: Scene) -> None:
    scene.backend.configure({"shop/web": CONFIG})
    assert await scene.diagnosis(bool) == MISSING
    scene.workload(DEPLOYMENTS, "mine-web", LABELS)
    await scene.diagnosis(lambda message: "Deployment/mine-web" in message)


async def test_missing_target_kind_that_is_forbidden_is_skipped(scene: Scene) -> None:
    scene.api.refused[DEPLOYMENTS] = ApiError(403, "Forbidden", "no")
    scene.workload(STATEFUL_SETS, "mine-web", LABELS)
    scene.backend.configure({"shop/web": CONFIG})
    await scene.diagnosis(lambda message: "StatefulSet/mine-web" in message)


async def test_missing_target_that_appears_has_no_diagnosis(scene: Scene) -> None:
    scene.workload(DEPLOYMENTS, "mine-web", LABELS)
    scene.backend.configure({"shop/web": CONFIG})
    await scene.diagnosis(lambda message: "mine-web" in message)
    scene.api.say(WATCHED, "shop", "web", {"spec": {"replicas": 2}})
    async with asyncio.timeout(GENEROUS_SECONDS):
        while scene.reports[-1] != WorkloadStatus("shop/web", 2, ()):
            await asyncio.sleep(0.002)
