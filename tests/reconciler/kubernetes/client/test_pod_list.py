"""Tests of the list of a Service's pods, and of the pods that have ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from reconciler.kubernetes.client import informer
from reconciler.kubernetes.client.pod_list import CONFIRM_AFTER_SECONDS, REMEMBER_ENDED_SECONDS, PodList
from tests.fakes.api_server import ApiServer, serving


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.005)


class Place:
    """A list that runs, its API server, and a clock that is set."""

    list: PodList

    def __init__(self, server: ApiServer) -> None:
        self.server, self.now = server, 1000.0

    async def has(self, slice_: str, *pods: str) -> None:
        """The slice has these pods from now on, and the list has heard of it."""
        endpoints: list[Any] = [{"addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "name": pod}} for pod in pods]
        self.server.put(slice_, addressType="IPv4", endpoints=endpoints)
        await self.hears()

    async def has_addresses(self, slice_: str, *addresses: str, family: str = "IPv4") -> None:
        """The slice has endpoints with these addresses from now on, and the list has received it."""
        self.server.put(slice_, addressType=family, endpoints=[{"addresses": [address]} for address in addresses])
        await self.hears()

    async def hears(self) -> None:
        items = self.list._informer.items
        await until(lambda: {key: item.metadata.resource_version for key, item in items.items()} == self._versions())

    def _versions(self) -> dict[str, str]:
        return {key: item["metadata"]["resourceVersion"] for key, item in self.server.objects.items()}


@pytest.fixture(params=[None])
async def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    """Provide a list; the parameter is the pod's own address, by which its pods are then known."""
    monkeypatch.setattr(informer, "WAIT_FIRST_SECONDS", 0.01)
    monkeypatch.setattr(informer, "WAIT_JITTER_SECONDS", 0.01)
    made = Place(ApiServer())
    async with serving(made.server) as api:
        made.list = PodList(api, "shop", "zenvoy-proxy-metrics", lambda: made.now, own=request.param)
        task = asyncio.create_task(made.list.run())
        await until(lambda: made.server.open)
        yield made
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_pod_list_missing_pod_has_ended(place: Place) -> None:
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


async def test_pod_list_moving_pod_has_not_ended(place: Place) -> None:
    await place.has("a", "one", "two")
    await place.has("a", "two")
    await place.has("b", "one")
    place.now += CONFIRM_AFTER_SECONDS
    assert not place.list.ended("one")


async def test_pod_list_unknown_pod_has_not_ended(place: Place) -> None:
    await place.has("a", "one")
    place.now += CONFIRM_AFTER_SECONDS
    assert not place.list.ended("two")


async def test_pod_list_empty_service_ends_nothing(place: Place) -> None:
    await place.has("a", "one")
    place.server.delete("a")
    await place.hears()
    place.now += CONFIRM_AFTER_SECONDS
    assert not place.list.ended("one")
    await place.has("a", "two")
    assert place.list.ended("one")


async def test_pod_list_unreachable_api_ends_nothing(place: Place) -> None:
    await place.has("a", "one", "two")
    place.server.faults.refuse = (503, "ServiceUnavailable")
    place.server.cut()
    await until(lambda: place.list._informer.error)
    place.now += CONFIRM_AFTER_SECONDS
    assert not place.list.ended("one")


ME, OTHER = "10.0.0.1", "10.0.0.2"
by_address = pytest.mark.parametrize("place", [ME], indirect=True)


@by_address
async def test_pod_list_by_address_has_one_family(place: Place) -> None:
    await place.has_addresses("a", ME, OTHER)
    await place.has_addresses("b", "fd00::1", "fd00::2", family="IPv6")
    assert place.list.names() == {ME, OTHER}
    assert place.list.pods == {ME: ME, OTHER: OTHER}


@by_address
async def test_pod_list_missing_address_ends_after_seconds(place: Place) -> None:
    await place.has_addresses("a", ME, OTHER)
    await place.has_addresses("a", ME)
    place.now += CONFIRM_AFTER_SECONDS - 0.1
    assert not place.list.ended(OTHER)
    place.now += 0.1
    assert place.list.ended(OTHER)


@by_address
async def test_pod_list_address_listed_again_is_confirmed_anew(place: Place) -> None:
    await place.has_addresses("a", ME, OTHER)
    await place.has_addresses("a", ME)
    await place.has_addresses("a", ME, OTHER)
    place.now += CONFIRM_AFTER_SECONDS
    assert not place.list.ended(OTHER)
    await place.has_addresses("a", ME)
    assert not place.list.ended(OTHER)
    place.now += CONFIRM_AFTER_SECONDS
    assert place.list.ended(OTHER)


@by_address
async def test_pod_list_without_own_address_ends_nothing(place: Place) -> None:
    await place.has_addresses("a", ME, OTHER, "10.0.0.3")
    await place.has_addresses("a", "10.0.0.3")
    place.now += 10 * CONFIRM_AFTER_SECONDS
    assert not place.list.ended(OTHER)
