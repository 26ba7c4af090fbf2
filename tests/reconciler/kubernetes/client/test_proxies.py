"""When a pod of the proxy is believed to have ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from reconciler.kubernetes.client import informer
from reconciler.kubernetes.client.proxies import CONFIRM_AFTER_SECONDS, REMEMBER_ENDED_SECONDS, ProxyList
from tests.fakes.api_server import ApiServer, serving


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.005)


class Place:
    """A list that runs, its API server, and a clock that is set."""

    list: ProxyList

    def __init__(self, server: ApiServer) -> None:
        self.server, self.now = server, 1000.0

    async def has(self, slice_: str, *pods: str) -> None:
        """The slice has these pods from now on, and the list has heard of it."""
        endpoints: list[Any] = [{"addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "name": pod}} for pod in pods]
        self.server.put(slice_, addressType="IPv4", endpoints=endpoints)
        await self.hears()

    async def hears(self) -> None:
        items = self.list._informer.items
        await until(lambda: {key: item.metadata.resource_version for key, item in items.items()} == self._versions())

    def _versions(self) -> dict[str, str]:
        return {key: item["metadata"]["resourceVersion"] for key, item in self.server.objects.items()}


@pytest.fixture
async def place(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    monkeypatch.setattr(informer, "WAIT_FIRST_SECONDS", 0.01)
    monkeypatch.setattr(informer, "WAIT_JITTER_SECONDS", 0.01)
    made = Place(ApiServer())
    async with serving(made.server) as api:
        made.list = ProxyList(api, "shop", "zenvoy-proxy-metrics", lambda: made.now)
        task = asyncio.create_task(made.list.run())
        await until(lambda: made.server.open)
        yield made
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_proxy_list_missing_pod_has_ended(place: Place) -> None:
    await place.has("a", "one", "two")
    assert not place.list.ended("one")
    await place.has("a", "two")
    assert not place.list.ended("one"), "it may be on its way to another slice"
    place.now += CONFIRM_AFTER_SECONDS
    assert place.list.ended("one")
    assert not place.list.ended("two")
    place.now += REMEMBER_ENDED_SECONDS
    await place.has("a", "two", "three")
    assert not place.list.ended("one"), "no caller is left"


async def test_proxy_list_moving_pod_has_not_ended(place: Place) -> None:
    await place.has("a", "one", "two")
    await place.has("a", "two")
    await place.has("b", "one")
    place.now += CONFIRM_AFTER_SECONDS
    assert not place.list.ended("one")


async def test_proxy_list_unknown_pod_has_not_ended(place: Place) -> None:
    await place.has("a", "one")
    place.now += CONFIRM_AFTER_SECONDS
    assert not place.list.ended("two")


async def test_proxy_list_empty_service_ends_nothing(place: Place) -> None:
    await place.has("a", "one")
    place.server.delete("a")
    await place.hears()
    place.now += CONFIRM_AFTER_SECONDS
    assert not place.list.ended("one")
    await place.has("a", "two")
    assert place.list.ended("one")


async def test_proxy_list_unreachable_api_ends_nothing(place: Place) -> None:
    await place.has("a", "one", "two")
    place.server.faults.refuse = (503, "ServiceUnavailable")
    place.server.cut()
    await until(lambda: place.list._informer.error)
    place.now += CONFIRM_AFTER_SECONDS
    assert not place.list.ended("one")
