"""The controller of captures with an API server whose watches may be late."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from reconciler.core.reasons import Blocker
from reconciler.kubernetes.capture.controller import CaptureController
from reconciler.kubernetes.capture.observer import CaptureSources
from reconciler.kubernetes.client.api import Api
from reconciler.kubernetes.client.work_queue import WorkQueueTiming
from reconciler.kubernetes.config.capture import CaptureStatus
from reconciler.kubernetes.config.provider import KubernetesProvider
from reconciler.kubernetes.config.resolve import ClusterConfig
from reconciler.kubernetes.types.builtin import CAPTURED
from reconciler.kubernetes.types.scaled_service import ScaledService
from reconciler.kubernetes.workloads.endpoints import EndpointSlices
from tests.fakes.api_server import ApiServer, serving
from tests.ports import free_port
from tests.servers import serving as accepting

POD, PROXY, OTHER = "10.0.0.1", "127.0.0.1", "127.0.0.2"
FAST = WorkQueueTiming(batch_window=0.01, retry_after=0.1)
SERVICE_NAME, COMPANION, OWN = "kubernetes.io/service-name", "web-zenvoy-pods", "shop/web-zenvoy-pods-ipv4"


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve like a proxy: only that it accepts connections matters."""


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(120):
        while not holds():
            await asyncio.sleep(0.005)


class Shop:
    """A Service `web` in the namespace `shop`, and zenvoy's parts that capture it."""

    def __init__(self) -> None:
        self.services, self.slices, self.scaled, self.proxies = ApiServer(), ApiServer(), ApiServer(), ApiServer()
        self.port, self.proxy_port = free_port(), AsyncExitStack()
        self.status = CaptureStatus()
        self.blocker: Blocker | None = None
        self.pods: list[str] = [POD]
        self.services.put(
            "web", metadata={"uid": "uid-web"}, spec={"selector": {"app": "web"}, "ports": [{"port": 80}]}
        )
        self.list_proxies(PROXY)
        self.list_pods()
        self.capture("proxy")

    def parts(self, api: Api) -> list[Any]:
        """Return what runs in a replica that leads."""
        ports = range(self.port, self.port + 1)
        self.provider = KubernetesProvider(
            api,
            lambda: True,
            lambda configs, _: self.controller.configure(configs),
            self.saw,
            cluster=ClusterConfig(capture_ports=ports),
            namespaces=["shop"],
            on_service=lambda key, service: self.controller.saw_service(key, service),
        )
        slices = EndpointSlices(api, ["shop"], lambda _: None, lambda: None)
        sources = CaptureSources(self.provider, slices, ("zenvoy", "proxies"), ports)
        self.controller = CaptureController(
            api, sources, lambda: True, self.saw_status, self.saw_blocker, FAST, settle=0.1
        )
        return [self.provider.run(), self.controller.run(), *slices.run()]

    def saw(self, name: str, item: ScaledService | None) -> None:
        self.controller.saw(name, item)

    def saw_status(self, name: str, status: CaptureStatus) -> None:
        """Write the status, of which only the port has an effect."""
        self.status = status
        if status.port != self.scaled.objects[name]["status"].get("capturePort", 0):
            self.capture(self.wish, status.port)

    def saw_blocker(self, name: str, blocker: Blocker | None) -> None:
        self.blocker = blocker

    def capture(self, wish: str, port: int | None = None) -> None:
        """Create or change the ScaledService."""
        self.wish = wish
        before = self.scaled.objects.get("shop/web", {}).get("status", {})
        status = before if port is None else {"capturePort": port}
        self.scaled.put("web", metadata={"uid": "uid-item"}, spec={"capture": wish}, status=status)

    def list_proxies(self, *addresses: str) -> None:
        labels = {SERVICE_NAME: "proxies"}
        endpoints = [{"addresses": [one], "conditions": {}} for one in addresses]
        self.proxies.put("proxies", "zenvoy", {"labels": labels}, addressType="IPv4", endpoints=endpoints)

    def list_pods(self) -> None:
        """Do the work of Kubernetes' controller for the Service and its companion."""
        for name in ("web", COMPANION):
            if service := self.services.objects.get(f"shop/{name}"):
                pods = [] if CAPTURED in service["spec"]["selector"] else self.pods
                labels = {**service["metadata"].get("labels", {}), SERVICE_NAME: name}
                endpoints = [{"addresses": [one], "conditions": {"ready": True}} for one in pods]
                self.slices.put(f"{name}-abc", metadata={"labels": labels}, addressType="IPv4", endpoints=endpoints)

    @property
    def is_hidden(self) -> bool:
        return CAPTURED in self.services.objects["shop/web"]["spec"]["selector"]

    @property
    def endpoints(self) -> set[str]:
        """The endpoints of the Service."""
        slices = [one for one in self.slices.objects.values() if one["metadata"]["labels"][SERVICE_NAME] == "web"]
        return {address for one in slices for endpoint in one["endpoints"] for address in endpoint["addresses"]}

    async def until_captured(self) -> None:
        await until(lambda: f"shop/{COMPANION}" in self.services.objects)
        self.list_pods()
        await until(lambda: self.is_hidden)
        self.list_pods()
        await until(lambda: self.status.is_captured and self.blocker is None)
        assert self.endpoints == {PROXY}


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    shop = Shop()
    others = {
        "services": shop.services,
        "services/{object}": shop.services,
        "shop/endpointslices": shop.slices,
        "shop/endpointslices/{object}": shop.slices,
        "scaledservices": shop.scaled,
        "zenvoy/endpointslices": shop.proxies,
    }
    async with serving(ApiServer(), **others) as api, shop.proxy_port:
        await shop.proxy_port.enter_async_context(accepting(hang_up, "0.0.0.0", shop.port))
        tasks = [asyncio.ensure_future(part) for part in shop.parts(api)]
        yield shop
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_controller_captures_and_releases(shop: Shop) -> None:
    await shop.until_captured()
    shop.capture("none")
    await until(lambda: not shop.is_hidden)
    shop.list_pods()
    await until(lambda: OWN not in shop.slices.objects and len(shop.services.objects) == 1)
    assert shop.endpoints == {POD}


async def test_release_while_watches_are_late_keeps_the_proxies(shop: Shop) -> None:
    await until(lambda: f"shop/{COMPANION}" in shop.services.objects)
    await until(lambda: len(shop.provider.services.items) == 2)
    shop.services.faults.hold_watches = True
    shop.list_pods()
    await until(lambda: shop.is_hidden)
    shop.slices.faults.hold_watches = True
    shop.list_pods()
    before = shop.services.lists
    shop.capture("none")
    await until(lambda: shop.services.lists > before + 1)
    assert shop.endpoints == {PROXY}
    shop.services.resume()
    shop.slices.resume()
    await until(lambda: not shop.is_hidden)
    assert shop.endpoints == {PROXY}
    shop.list_pods()
    await until(lambda: OWN not in shop.slices.objects)
    assert shop.endpoints == {POD}


async def test_listener_that_goes_leaves_only_the_pods(shop: Shop) -> None:
    await shop.until_captured()
    shop.controller.configure({})
    await until(lambda: not shop.is_hidden)
    shop.list_pods()
    await until(lambda: shop.endpoints == {POD} and "do not listen" in shop.status.message)
    assert shop.blocker


async def test_overwritten_selector_with_silent_proxy_stays(shop: Shop) -> None:
    await shop.until_captured()
    await shop.proxy_port.aclose()
    shop.services.put("web", metadata={"uid": "uid-web"}, spec={"selector": {"app": "web"}, "ports": [{"port": 80}]})
    shop.list_pods()
    await until(lambda: "no answer from" in shop.status.message)
    assert not shop.is_hidden and POD in shop.endpoints


async def test_release_asleep_follows_the_proxies(shop: Shop) -> None:
    shop.pods = []
    await shop.until_captured()
    shop.capture("none")
    await until(lambda: not shop.status.is_captured)
    shop.list_proxies(OTHER)
    await until(lambda: shop.endpoints == {OTHER})
    shop.pods = [POD]
    shop.list_pods()
    await until(lambda: not shop.is_hidden)
    shop.list_pods()
    await until(lambda: shop.endpoints == {POD})
