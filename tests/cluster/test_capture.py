"""Capture of Services on a real API server, with the real controllers of endpoints. No pod runs.

Tests act as the kubelet. The proxies are a server of the test, at an address of this machine.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from reconciler.core.reasons import Blocker, Reason
from reconciler.kubernetes.capture.controller import CaptureController
from reconciler.kubernetes.capture.observer import CaptureSources
from reconciler.kubernetes.capture.requests import release_all
from reconciler.kubernetes.client.api import MERGE_PATCH, Api
from reconciler.kubernetes.config.provider import KubernetesProvider
from reconciler.kubernetes.config.resolve import ClusterConfig
from reconciler.kubernetes.status.status_writer import StatusWriter
from reconciler.kubernetes.types.objects import path
from reconciler.kubernetes.types.scaled_service import ScaledService
from reconciler.kubernetes.workloads.endpoints import EndpointSlices
from tests.cluster import crd
from tests.cluster.stage import condition, own_address
from tests.cluster.written import Written, until
from tests.ports import free_port
from tests.servers import serving

SLICES = ("discovery.k8s.io/v1", "endpointslices")
PROXIES = "zenvoy-proxies"
POD_IP = "10.9.8.7"
CAPTURED = {"app": "web", "zenvoy.dev/captured": "true"}


class Scene(Written):
    """A Service `web` with one pod, and zenvoy's parts that capture it."""

    def __init__(self, api: Api, namespace: str) -> None:
        super().__init__(api, namespace)
        self.port = free_port()
        self.blockers: dict[str, Blocker | None] = {}
        self.leads = True
        self.provider = KubernetesProvider(
            api,
            lambda: self.leads,
            lambda configs, _: self.controller.configure(configs),
            self._saw,
            cluster=ClusterConfig(capture_ports=range(self.port, self.port + 1)),
            namespaces=[namespace],
            on_service=lambda key, service: self.controller.saw_service(key, service),
        )
        self.store = StatusWriter(api, self.provider.scaled_services.items, lambda: self.leads, lambda: 1)
        self.store.lead()
        self.slices = EndpointSlices(api, [namespace], lambda _: None, lambda: None)
        ports = range(self.port, self.port + 1)
        sources = CaptureSources(self.provider, self.slices, (namespace, PROXIES), ports)
        self.controller = CaptureController(
            api, sources, lambda: self.leads, self.store.set_capture, self.blockers.__setitem__, settle=0.1
        )

    def _saw(self, name: str, item: ScaledService | None) -> None:
        self.controller.saw(name, item)
        self.store.saw(name, item)

    async def start(self) -> None:
        for work in (self.provider.run(), self.store.queue.run(), self.controller.run(), *self.slices.run()):
            self.run(work)
        await super().start()

    async def put(self, plural: str, body: dict[str, Any], api_version: str = "v1") -> None:
        await self.api.call("POST", path(api_version, plural, self.namespace), body)

    async def get(self, plural: str, name: str, api_version: str = "v1") -> dict[str, Any]:
        found: dict[str, Any] = json.loads(await self.api.get(path(api_version, plural, self.namespace, name)))
        return found

    async def service(self, **spec: Any) -> None:
        port = {"name": "http", "port": 80, "targetPort": 8080}
        body = {"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [port], **spec}}
        await self.put("services", body)

    async def pod(self, ready: bool = True) -> None:
        """Have a pod, as the scheduler and the kubelet would."""
        container = {"name": "web", "image": "web"}
        spec = {"nodeName": f"node-of-{self.namespace}", "containers": [container]}
        await self.put("pods", {"metadata": {"name": "web", "labels": {"app": "web"}}, "spec": spec})
        status = {
            "phase": "Running",
            "podIP": POD_IP,
            "podIPs": [{"ip": POD_IP}],
            "conditions": [condition("Ready", "True" if ready else "False")],
        }
        await self.api.patch(path("v1", "pods", self.namespace, "web", "status"), {"status": status}, MERGE_PATCH)

    async def proxies(self, serving: bool = True) -> None:
        """Publish a proxy as the headless Service of the proxies does, which lists pods before they are ready."""
        endpoint = {
            "addresses": [own_address()],
            "conditions": {"ready": True, "serving": serving, "terminating": False},
            "nodeName": "node-1",
            "zone": "a",
        }
        body = {
            "metadata": {"name": "proxies", "labels": {"kubernetes.io/service-name": PROXIES}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 10000}],
            "endpoints": [endpoint],
        }
        if any(each["metadata"]["name"] == "proxies" for each in await self.listed()):
            await self.api.patch(path(*SLICES, self.namespace, "proxies"), {"endpoints": [endpoint]}, MERGE_PATCH)
        else:
            await self.put("endpointslices", body, SLICES[0])

    async def listed(self) -> list[dict[str, Any]]:
        return list(json.loads(await self.api.get(path(*SLICES, self.namespace)))["items"])

    async def endpoints(self, service: str = "web") -> set[str]:
        """Return the ready endpoints of a Service as `ip:port`, as kube-proxy and every other client sees them."""
        found = set()
        for each in await self.listed():
            if each["metadata"]["labels"].get("kubernetes.io/service-name") == service:
                ready = [one for one in each["endpoints"] or () if one["conditions"]["ready"]]
                found |= {f"{one['addresses'][0]}:{port['port']}" for one in ready for port in each["ports"]}
        return found

    async def selector(self) -> dict[str, str]:
        found: dict[str, str] = (await self.get("services", "web"))["spec"]["selector"]
        return found

    async def captured(self) -> dict[str, Any]:
        """Return the condition; empty if there is none."""
        conditions = (await self.status()).get("conditions", [])
        return next((one for one in conditions if one["type"] == "Captured"), {})

    async def until_captured(self) -> None:
        await becomes(self.captured, lambda found: found.get("status") == "True")
        await until(lambda: self.blockers[self.named()] is None)

    async def names(self, plural: str) -> set[str]:
        items = json.loads(await self.api.get(path("v1", plural, self.namespace)))["items"]
        return {item["metadata"]["name"] for item in items}

    @property
    def proxy(self) -> str:
        return f"{own_address()}:{self.port}"


async def becomes(read: Callable[[], Any], holds: Callable[[Any], object]) -> None:
    """Wait until what is read meets the condition."""
    seen: Any = None
    try:
        async with asyncio.timeout(60):
            while not holds(seen := await read()):
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"it never came true; it is {seen}") from None


@pytest.fixture
async def scene(api: Api, namespace: str, node_of: None) -> AsyncIterator[Scene]:
    await crd.install(api)
    made = Scene(api, namespace)
    await made.start()
    yield made
    await made.end()


@pytest.fixture
async def captured(scene: Scene) -> AsyncIterator[Scene]:
    """Provide the scene with its Service captured."""
    async with serving(hang_up, own_address(), scene.port):
        await scene.service()
        await scene.pod()
        await scene.proxies()
        await scene.make(capture="proxy", scaleTargetRef={"name": "web"})
        await scene.until_captured()
        yield scene


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve like a proxy: only that it accepts connections matters."""


async def test_captured_service_leads_to_the_proxies(captured: Scene) -> None:
    assert await captured.endpoints() == {captured.proxy}
    assert await captured.endpoints("web-zenvoy-pods") == {f"{POD_IP}:8080"}
    assert await captured.selector() == CAPTURED
    status = await captured.status()
    assert status["capturePort"] == captured.port
    [own] = [one for one in await captured.listed() if one["metadata"]["name"] == "web-zenvoy-pods-ipv4"]
    assert own["ports"] == [{"name": "http", "port": captured.port, "protocol": "TCP"}]
    [endpoint] = own["endpoints"]
    assert (endpoint["nodeName"], endpoint["zone"]) == ("node-1", "a")
    [pod] = captured.slices.pod_endpoints(captured.named(), "http")
    assert pod.address == f"{POD_IP}:8080", "zenvoy itself still connects to the pod"


async def test_service_without_listening_proxy_keeps_its_pods(scene: Scene) -> None:
    await scene.service()
    await scene.pod()
    await scene.proxies()
    await scene.make(capture="proxy")
    await becomes(scene.captured, lambda found: "no answer from" in found.get("message", ""))
    assert await scene.selector() == {"app": "web"}
    assert await scene.endpoints() == {f"{POD_IP}:8080"}
    blocker = scene.blockers[scene.named()]
    assert blocker and blocker.code is Reason.BYPASSED
    async with serving(hang_up, own_address(), scene.port):
        await scene.until_captured()


async def test_selector_that_is_overwritten_is_put_back(captured: Scene) -> None:
    blocked: list[Blocker | None] = []
    captured.controller._on_blocker = lambda name, blocker: blocked.append(blocker)
    change = {"spec": {"selector": {"zenvoy.dev/captured": None}}}
    await captured.api.patch(path("v1", "services", captured.namespace, "web"), change, MERGE_PATCH)
    await becomes(captured.selector, lambda found: found == CAPTURED)
    await until(lambda: blocked and blocked[-1] is None)
    assert any(one and one.code is Reason.BYPASSED for one in blocked), "it stayed awake meanwhile"
    assert await captured.endpoints() == {captured.proxy}


async def test_changed_selector_changes_the_companion_first(captured: Scene) -> None:
    change: dict[str, Any] = {"spec": {"selector": {"tier": "front"}}}
    await captured.api.patch(path("v1", "services", captured.namespace, "web"), change, MERGE_PATCH)

    async def companion() -> Any:
        return (await captured.get("services", "web-zenvoy-pods"))["spec"]["selector"]

    await becomes(companion, lambda found: found == {"app": "web", "tier": "front"})
    change = {"spec": {"selector": {"tier": None}}}
    await captured.api.patch(path("v1", "services", captured.namespace, "web"), change, MERGE_PATCH)
    await becomes(companion, lambda found: found == {"app": "web"})


async def test_capture_turned_off_gives_the_pods_back(captured: Scene) -> None:
    await captured.api.patch(captured.at(), {"spec": {"capture": "none"}}, MERGE_PATCH)
    await becomes(captured.endpoints, lambda found: found == {f"{POD_IP}:8080"})
    await becomes(lambda: captured.names("services"), lambda found: found == {"web"})
    assert await captured.selector() == {"app": "web"}
    await becomes(captured.captured, lambda found: found == {})
    await becomes(captured.status, lambda found: not found.get("capturePort"))


async def test_proxies_that_are_not_ready_give_the_pods_back(captured: Scene) -> None:
    await captured.proxies(serving=False)
    await becomes(captured.endpoints, lambda found: found == {f"{POD_IP}:8080"})
    await until(lambda: captured.blockers[captured.named()] is not None)
    await captured.proxies()
    await captured.until_captured()
    assert await captured.endpoints() == {captured.proxy}


async def test_asleep_service_leads_to_the_proxies_only(captured: Scene) -> None:
    await captured.api.call("DELETE", path("v1", "pods", captured.namespace, "web"), {"gracePeriodSeconds": 0})
    await becomes(lambda: captured.endpoints("web-zenvoy-pods"), lambda found: not found)
    assert await captured.endpoints() == {captured.proxy}
    await captured.pod()
    await becomes(lambda: captured.endpoints("web-zenvoy-pods"), lambda found: found == {f"{POD_IP}:8080"})
    assert await captured.endpoints() == {captured.proxy}, "a wake changes nothing that its callers see"


async def test_capture_turned_off_asleep_still_wakes(captured: Scene) -> None:
    """Its callers wake it at the proxies once more, and are led to its pods then."""
    await captured.api.call("DELETE", path("v1", "pods", captured.namespace, "web"), {"gracePeriodSeconds": 0})
    await becomes(lambda: captured.endpoints("web-zenvoy-pods"), lambda found: not found)
    await captured.api.patch(captured.at(), {"spec": {"capture": "none"}}, MERGE_PATCH)
    await becomes(captured.captured, lambda found: found == {})
    assert await captured.endpoints() == {captured.proxy}
    await captured.pod()
    await becomes(captured.endpoints, lambda found: found == {f"{POD_IP}:8080"})


async def test_proxies_that_no_longer_listen_give_the_pods_back(captured: Scene) -> None:
    """Such as after a restart with a mistake in its configuration."""
    captured.controller.configure({})
    await becomes(captured.selector, lambda found: found == {"app": "web"})
    blocker = captured.blockers[captured.named()]
    assert blocker and blocker.code is Reason.BYPASSED


async def test_service_that_is_no_longer_named_is_released(captured: Scene) -> None:
    await captured.put("services", {"metadata": {"name": "other"}, "spec": {"clusterIP": "None"}})
    await captured.api.patch(captured.at(), {"spec": {"service": "other"}}, MERGE_PATCH)
    await becomes(captured.selector, lambda found: found == {"app": "web"})
    await becomes(captured.endpoints, lambda found: found == {f"{POD_IP}:8080"})
    await becomes(lambda: captured.names("services"), lambda found: found == {"web", "other"})


async def test_deleted_scaled_service_waits_until_its_service_has_pods(captured: Scene) -> None:
    await captured.api.patch(captured.at(), {"metadata": {"finalizers": ["example.com/wait"]}}, MERGE_PATCH)
    await captured.api.call("DELETE", path("v1", "pods", captured.namespace, "web"), {"gracePeriodSeconds": 0})
    await becomes(lambda: captured.endpoints("web-zenvoy-pods"), lambda found: not found)
    await captured.delete()
    await until(lambda: "no pod is ready yet" in (captured.controller.blocker(captured.named()) or ""))
    assert await captured.endpoints() == {captured.proxy}, "a client that comes now is still held"
    await captured.pod()
    await until(lambda: captured.controller.blocker(captured.named()) is None)
    assert await captured.endpoints() == {f"{POD_IP}:8080"}
    await captured.api.patch(captured.at(), {"metadata": {"finalizers": None}}, MERGE_PATCH)


async def test_service_without_scaled_service_is_released(captured: Scene) -> None:
    """A person removed the finalizer by force."""
    await captured.delete()
    await becomes(captured.selector, lambda found: found == {"app": "web"})
    await becomes(captured.endpoints, lambda found: found == {f"{POD_IP}:8080"})


async def test_uninstallation_releases_a_service(captured: Scene) -> None:
    await captured.end()
    assert await release_all(captured.api, [captured.named()], 30) == {}
    assert await captured.selector() == {"app": "web"}
    assert await captured.endpoints() == {f"{POD_IP}:8080"}
    assert await captured.names("services") == {"web"}


async def test_service_with_the_name_of_a_companion_is_left_alone(scene: Scene) -> None:
    await scene.put("services", {"metadata": {"name": "web-zenvoy-pods"}, "spec": {"ports": [{"port": 80}]}})
    await scene.service()
    await scene.make(capture="proxy")
    await becomes(scene.captured, lambda found: "zenvoy did not create it" in found.get("message", ""))
    assert await scene.selector() == {"app": "web"}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"clusterIP": "None"}, "is headless"),
        ({"sessionAffinity": "ClientIP"}, "sessionAffinity"),
        ({"internalTrafficPolicy": "Local"}, "internalTrafficPolicy"),
        ({"ports": [{"name": "http", "port": 80}, {"name": "admin", "port": 81}]}, "2 ports"),
    ],
)
async def test_service_that_cannot_be_captured_says_why(scene: Scene, spec: dict[str, Any], words: str) -> None:
    await scene.service(**spec)
    await scene.proxies()
    await scene.make(capture="proxy")
    await becomes(scene.captured, lambda found: words in found.get("message", ""))
    condition = await scene.captured()
    assert (condition["status"], condition["reason"]) == ("False", "CaptureNotPossible")
    assert await scene.selector() == {"app": "web"}


async def test_second_replica_takes_a_captured_service_over(captured: Scene) -> None:
    """A new leader finds everything as it should be, and changes nothing."""
    await captured.end()
    before = await captured.get("services", "web"), await captured.listed()
    other = Scene(captured.api, captured.namespace)
    other.port = captured.port
    await other.start()
    try:
        await until(lambda: other.named() in other.blockers and other.blockers[other.named()] is None)
        assert (await captured.get("services", "web"), await captured.listed()) == before
    finally:
        await other.end()
