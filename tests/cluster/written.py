"""ScaledServices of one namespace on a real API server, with an informer, for the tests of writers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from reconciler.kubernetes.client.api import MERGE_PATCH, Api
from reconciler.kubernetes.client.informer import Informer
from reconciler.kubernetes.types.objects import decoder, path
from reconciler.kubernetes.types.scaled_service import API_VERSION, KIND, PLURAL, ScaledService
from tests.cluster.stage import workload

GENEROUS_SECONDS = 60.0


async def release_nothing(_: ScaledService) -> None:
    """Stand in for a release, where no Service is captured."""


class Written:
    """`listeners` hear what the informer does."""

    def __init__(self, api: Api, namespace: str) -> None:
        self.api, self.namespace = api, namespace
        self.listeners: list[Callable[[str, ScaledService | None], None]] = []
        self.informer = Informer(api, path(API_VERSION, PLURAL, namespace), decoder(ScaledService), self._tell)
        self.tasks: list[asyncio.Task[None]] = []

    @property
    def items(self) -> Mapping[str, ScaledService]:
        return self.informer.items

    def run(self, work: Awaitable[None]) -> None:
        self.tasks.append(asyncio.ensure_future(work))

    async def start(self) -> None:
        self.run(self.informer.run())
        await until(lambda: self.informer.synced)

    async def end(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def named(self, name: str = "web") -> str:
        return f"{self.namespace}/{name}"

    def at(self, name: str = "web", part: str | None = None) -> str:
        return path(API_VERSION, PLURAL, self.namespace, name, part)

    async def make(self, name: str = "web", **spec: Any) -> ScaledService:
        """Create an object, and wait until the informer has it."""
        body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": spec}
        await self.api.call("POST", path(API_VERSION, PLURAL, self.namespace), body)
        await until(lambda: self.named(name) in self.items)
        return self.items[self.named(name)]

    async def read(self, name: str = "web") -> dict[str, Any]:
        found: dict[str, Any] = json.loads(await self.api.get(self.at(name)))
        return found

    async def status(self, name: str = "web") -> dict[str, Any]:
        found: dict[str, Any] = (await self.read(name)).get("status", {})
        return found

    async def stand(self, name: str = "web", **status: Any) -> None:
        """Write records like an earlier reconciler."""
        await self.api.patch(self.at(name, "status"), {"status": status}, MERGE_PATCH)

    async def delete(self, name: str = "web") -> None:
        await self.api.call("DELETE", self.at(name))

    async def deploy(self, name: str = "web", replicas: int = 0) -> None:
        await self.api.call("POST", path("apps/v1", "deployments", self.namespace), workload(name, replicas))

    async def replicas(self, name: str = "web") -> int:
        scale = path("apps/v1", "deployments", self.namespace, name, "scale")
        return int(json.loads(await self.api.get(scale))["spec"].get("replicas", 0))

    def _tell(self, key: str, item: ScaledService | None) -> None:
        for listen in self.listeners:
            listen(key, item)


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(GENEROUS_SECONDS):
        while not holds():
            await asyncio.sleep(0.02)
