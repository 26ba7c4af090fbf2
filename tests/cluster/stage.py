"""The backend with a real API server, and its reports. No pods run, so tests act as the kubelet.

Deployments get their pods from the real controllers; nothing schedules them. A pod's status and EndpointSlices are
written as a kubelet and the EndpointSlice controller would.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable, Collection, Mapping
from http import HTTPStatus
from typing import Any

import psutil

from reconciler.core.spec import Spec
from reconciler.kubernetes.client.api import JSON_PATCH, MERGE_PATCH, Api
from reconciler.kubernetes.client.errors import ApiError
from reconciler.kubernetes.client.informer import Informer
from reconciler.kubernetes.config.service_config import ServiceConfig
from reconciler.kubernetes.types.builtin import Service, ServicePort
from reconciler.kubernetes.types.objects import Target, decoder, path
from reconciler.kubernetes.workloads.backend import KubernetesBackend
from reconciler.plan import Scale
from reconciler.ports.backend import WorkloadStatus

GENEROUS_SECONDS = 60.0
RUNS = {"running": {"startedAt": "2026-11-23T10:00:00Z"}}
APPS = {"Deployment": "deployments", "StatefulSet": "statefulsets", "ReplicaSet": "replicasets"}


def entry(name: str, namespace: str, target: str | None = None, kind: str = "Deployment", **more: Any) -> ServiceConfig:
    """Return an entry `namespace/name`, with a target of that name and a Service with one unnamed port."""
    api_version = more.get("api_version", "apps/v1")
    ref = Target(api_version, kind, target or name, namespace)
    port = ServicePort(more.get("port", ""), 80)
    return ServiceConfig(Spec(name=f"{namespace}/{name}"), ref, more.get("service", name), port, 0.0, f"uid-{name}", 1)


def workload(name: str, replicas: int | None = 0, kind: str = "Deployment") -> dict[str, Any]:
    labels = {"app": name}
    container = {"name": "app", "image": "registry.example/app:1"}
    spec: dict[str, Any] = {
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
    }
    if replicas is not None:
        spec["replicas"] = replicas
    if kind == "StatefulSet":
        spec["serviceName"] = name
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def endpoint(ip: str, pod: str | None = None, **conditions: bool) -> dict[str, Any]:
    """Return an endpoint that is ready, unless `conditions` say otherwise."""
    made: dict[str, Any] = {"addresses": [ip], "conditions": {"ready": True, "serving": True, **conditions}}
    if pod:
        made["targetRef"] = {"kind": "Pod", "name": pod, "uid": pod}
    return made


def own_address() -> str:
    """Return an address of this machine: the API server accepts no loopback address for an endpoint."""
    devices = psutil.net_if_addrs().items()
    # What is on the loopback device beside 127.0.0.1 was put there by a test, and goes with it.
    found = (one.address for name, many in devices if name != "lo" for one in many if one.family == socket.AF_INET)
    return next(found)


class Stage:
    """One namespace, one backend."""

    def __init__(self, api: Api, urgent: Api, namespace: str) -> None:
        self.api, self.urgent, self.namespace = api, urgent, namespace
        self.reports: list[tuple[float, WorkloadStatus]] = []
        self.leads = True
        self._news = asyncio.Event()
        self.urgent_calls = 0
        """Number of calls of `urgent` that ended; the first ones open its connections."""
        urgent.called = self._on_urgent_call
        services = Informer(api, path("v1", "services", namespace), decoder(Service), lambda _, __: None)
        self.backend = KubernetesBackend(api, urgent, services.items, self._on_report, lambda: self.leads, [namespace])
        self.backend.spawn(services.run(), "services")

    def _on_urgent_call(self, *_: str) -> None:
        self.urgent_calls += 1

    def _on_report(self, running: WorkloadStatus) -> None:
        self.reports.append((time.monotonic(), running))
        self._news.set()

    def configure(self, *entries: ServiceConfig) -> None:
        self.backend.configure({one.spec.name: one for one in entries})

    def converge(self, name: str, scale: Scale) -> None:
        if changed := self.backend.converge(self.named(name), scale):
            self._on_report(changed)

    def named(self, name: str) -> str:
        return f"{self.namespace}/{name}"

    def all(self, name: str) -> list[WorkloadStatus]:
        return [running for _, running in self.reports if running.service == self.named(name)]

    def now(self, name: str) -> WorkloadStatus | None:
        """Return the latest report of the service, if there is any."""
        return next(reversed(self.all(name)), None)

    async def until(self, name: str, holds: Callable[[WorkloadStatus], object]) -> WorkloadStatus:
        """Wait until a report meets the condition, and return it."""
        try:
            async with asyncio.timeout(GENEROUS_SECONDS):
                while (running := self.now(name)) is None or not holds(running):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"it never came true; the last reports: {self.all(name)[-5:]}") from None
        return running

    async def reported(self, name: str, holds: Callable[[WorkloadStatus], object]) -> None:
        """Wait until a report has met the condition, which a later report need not meet."""
        await self.until(name, lambda _: any(map(holds, self.all(name))))

    # What people and controllers do

    async def make(self, plural: str, body: Mapping[str, Any], api_version: str = "apps/v1") -> dict[str, Any]:
        whole = {"apiVersion": api_version, **body}
        made: dict[str, Any] = json.loads(await self.api.call("POST", path(api_version, plural, self.namespace), whole))
        return made

    async def deploy(self, name: str, replicas: int | None = 0, kind: str = "Deployment") -> dict[str, Any]:
        return await self.make(APPS[kind], workload(name, replicas, kind))

    async def delete(self, plural: str, name: str, api_version: str = "apps/v1") -> None:
        await self.api.call("DELETE", path(api_version, plural, self.namespace, name), {"gracePeriodSeconds": 0})

    async def scale(self, name: str, replicas: int, plural: str = "deployments", api_version: str = "apps/v1") -> None:
        """Scale it like a user or an HPA, regardless of the present number."""
        at = path(api_version, plural, self.namespace, name, "scale")
        await self.api.patch(at, {"spec": {"replicas": replicas}}, MERGE_PATCH)

    async def replicas(self, name: str, plural: str = "deployments", api_version: str = "apps/v1") -> int:
        """Return the replicas in the object's spec."""
        at = path(api_version, plural, self.namespace, name, "scale")
        return int(json.loads(await self.api.get(at))["spec"].get("replicas", 0))

    async def until_replicas(self, name: str, wanted: int, plural: str = "deployments") -> None:
        async with asyncio.timeout(GENEROUS_SECONDS):
            while await self.replicas(name, plural) != wanted:
                await asyncio.sleep(0.02)

    async def slice(
        self,
        name: str,
        service: str,
        endpoints: list[dict[str, Any]],
        port: int,
        port_name: str = "",
        family: str = "IPv4",
    ) -> None:
        """Make an EndpointSlice, or change it."""
        port_said = {"name": port_name, "port": port, "protocol": "TCP"}
        body = {"addressType": family, "endpoints": endpoints, "ports": [port_said]}
        collection = path("discovery.k8s.io/v1", "endpointslices", self.namespace)
        metadata = {"name": name, "labels": {"kubernetes.io/service-name": service}}
        try:
            await self.api.call("POST", collection, {"metadata": metadata, **body})
        except ApiError as error:
            if error.status != 409:
                raise
            await self.api.patch(f"{collection}/{name}", body, MERGE_PATCH)

    async def pods(self, app: str) -> list[dict[str, Any]]:
        """Return the pods that the controllers created."""
        answer = await self.api.get(path("v1", "pods", self.namespace), {"labelSelector": f"app={app}"})
        return list(json.loads(answer)["items"])

    async def pod(self, app: str, besides: Collection[str] = ()) -> dict[str, Any]:
        """Wait for a pod that the controllers created, with none of these uids."""
        async with asyncio.timeout(GENEROUS_SECONDS):
            while not (found := [pod for pod in await self.pods(app) if pod["metadata"]["uid"] not in besides]):
                await asyncio.sleep(0.02)
        return found[0]

    async def until_pods_end(self, app: str) -> None:
        """Wait until the controllers have carried out a zero; a wake before that would keep the pods."""
        async with asyncio.timeout(GENEROUS_SECONDS):
            while any("deletionTimestamp" not in pod["metadata"] for pod in await self.pods(app)):
                await asyncio.sleep(0.02)

    async def until_pods_may_be_made(self) -> None:
        """Wait until the namespace has its default service account, which a controller adds."""
        async with asyncio.timeout(GENEROUS_SECONDS):
            while True:
                try:
                    await self.api.get(path("v1", "serviceaccounts", self.namespace, "default"))
                    return
                except ApiError as error:
                    if error.status != HTTPStatus.NOT_FOUND:
                        raise
                await asyncio.sleep(0.02)

    async def until_no_pod_may_be_made(self) -> None:
        """Wait until a new quota is in force: a controller has to count first."""
        pod = {"metadata": {"name": "any"}, "spec": workload("any")["spec"]["template"]["spec"]}
        where, dry = path("v1", "pods", self.namespace), {"dryRun": "All"}
        async with asyncio.timeout(GENEROUS_SECONDS):
            while True:
                try:
                    await self.api.call("POST", where, pod, query=dry)
                except ApiError as error:
                    if "exceeded quota" in str(error):
                        return
                await asyncio.sleep(0.02)

    async def bind(self, pod: Mapping[str, Any]) -> None:
        """Bind a pod like the scheduler does."""
        name = pod["metadata"]["name"]
        binding = {"metadata": {"name": name}, "target": {"kind": "Node", "name": f"node-of-{self.namespace}"}}
        await self.api.call("POST", path("v1", "pods", self.namespace, name, "binding"), binding)

    async def say(self, pod: Mapping[str, Any], **status: Any) -> None:
        """Write a pod's status like the kubelet does."""
        at = path("v1", "pods", self.namespace, pod["metadata"]["name"], "status")
        await self.api.patch(at, {"status": status}, MERGE_PATCH)

    async def warn(self, kind: str, about: Mapping[str, Any], reason: str, message: str) -> None:
        """Create an Event of type Warning."""
        meta = about["metadata"]
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        event = {
            "metadata": {"generateName": "warning-"},
            "involvedObject": {"kind": kind, "name": meta["name"], "uid": meta["uid"], "namespace": self.namespace},
            "type": "Warning",
            "reason": reason,
            "message": message,
            "firstTimestamp": now,
            "lastTimestamp": now,
        }
        await self.make("events", event, "v1")

    async def json_patch(self, at: str, *operations: Mapping[str, Any]) -> None:
        await self.api.patch(at, list(operations), JSON_PATCH)


def container(state: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Return a container's status."""
    image = "registry.example/app:1"
    return {"name": "app", "image": image, "imageID": "", "ready": False, "restartCount": 0, "state": state, **more}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


def condition(kind: str, status: str, reason: str = "", message: str = "") -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": reason, "message": message}
