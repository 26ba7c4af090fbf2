"""The backend with objects in memory, and what it reports."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from reconciler.core.spec import Spec
from reconciler.kubernetes.client.errors import ApiError
from reconciler.kubernetes.config.service_config import Readiness, ServiceConfig
from reconciler.kubernetes.types.builtin import Service, ServicePort
from reconciler.kubernetes.types.objects import Target
from reconciler.kubernetes.workloads.backend import KubernetesBackend
from reconciler.plan import AtLeast, Zero
from reconciler.ports.backend import WorkloadStatus
from tests.fakes.watched import Watched

DEPLOYMENTS = "/apis/apps/v1/deployments"
SLICES = "/apis/discovery.k8s.io/v1/endpointslices"
PODS, EVENTS = "/api/v1/namespaces/shop/pods", "/api/v1/namespaces/shop/events"
UP, DOWN = AtLeast(2), Zero()
GENEROUS_SECONDS = 60.0


def entry(
    name: str = "web", kind: str = "Deployment", target: str | None = None, readiness: Readiness = Readiness.PROBES
) -> ServiceConfig:
    ref = Target("apps/v1", kind, target or name, "shop")
    return ServiceConfig(Spec(name=f"shop/{name}"), ref, name, ServicePort("", 80), 0.0, "uid", 1, readiness)


class Scene:
    """One backend and its reports; `refused` is the error of lists of EndpointSlices at first."""

    def __init__(self, refused: ApiError | None = None) -> None:
        self.api = Watched()
        self.api.exists(DEPLOYMENTS, SLICES, PODS, EVENTS)
        if refused:
            self.api.refused[SLICES] = refused
        self.leads = True
        self.reports: list[WorkloadStatus] = []
        self.services: dict[str, Service] = {}
        self.backend = KubernetesBackend(self.api, self.api, self.services, self.reports.append, lambda: self.leads)

    def deploy(self, replicas: int, name: str = "web", selector: str | None = None) -> None:
        """Set the object and its scale; the default selector is that of the name."""
        spec = {"replicas": replicas} if replicas else {}
        self.api.say(DEPLOYMENTS, "shop", name, {"spec": {"replicas": replicas}})
        kept = {
            "metadata": {"name": name},
            "spec": spec,
            "status": {"selector": f"app={name}" if selector is None else selector},
        }
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
        before = len(self.reports)
        changed = self.backend.converge("shop/web", wanted)
        assert len(self.reports) == before, "the backend calls back from within a call"
        if changed:
            self.reports.append(changed)

    @property
    def now(self) -> WorkloadStatus:
        return self.reports[-1]

    async def until(self, holds: Callable[[WorkloadStatus], object]) -> WorkloadStatus:
        async with asyncio.timeout(GENEROUS_SECONDS):
            while not (self.reports and holds(self.now)):
                await asyncio.sleep(0.002)
        return self.now
