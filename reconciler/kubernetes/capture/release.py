"""Release of a captured Service at the API server: its pods return to its endpoints, and zenvoy's objects go.

The controller uses it step by step. An uninstallation uses `release_all`, because no controller is left then.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from reconciler.kubernetes.capture.objects import SLICES
from reconciler.kubernetes.client.api import MERGE_PATCH, Api
from reconciler.kubernetes.client.errors import NOT_FOUND, ApiError, Unreachable
from reconciler.kubernetes.config.capture import companion_of
from reconciler.kubernetes.config.resolve import service_of
from reconciler.kubernetes.types.builtin import CAPTURE_LABEL, CAPTURED, SERVICE_NAME_LABEL, EndpointSlice, Service
from reconciler.kubernetes.types.objects import decoder, name_selector, path
from reconciler.kubernetes.types.scaled_service import ScaledService

POLL_SECONDS = 0.5


class _SliceList(msgspec.Struct):
    items: tuple[EndpointSlice, ...] = ()


class _ServiceList(msgspec.Struct):
    items: tuple[Service, ...] = ()


_SLICES, _SERVICES = decoder(_SliceList), decoder(_ServiceList)


async def set_hidden(api: Api, service: Service, hidden: bool) -> None:
    """Take the pods out of a Service, or give them back. Raises `ApiError` and `Unreachable`.

    The pods are taken out of the version that is known only: another selector needs another companion first.
    """
    meta = {"resourceVersion": service.metadata.resource_version} if hidden else {"uid": service.metadata.uid}
    change = {"metadata": meta, "spec": {"selector": {CAPTURED: "true" if hidden else None}}}
    await api.patch(path("v1", "services", service.metadata.namespace, service.metadata.name), change, MERGE_PATCH)


def release_command(item: ScaledService) -> str:
    """Return the command with which a person gives its pods back to a captured Service."""
    namespace, _, name = service_of(item).partition("/")
    patch = f'{{"spec":{{"selector":{{"{CAPTURED}":null}}}}}}'
    return f"release it by hand: kubectl -n {namespace} patch service {name} --type=merge -p '{patch}'"


async def delete(api: Api, where: str, uid: str) -> None:
    """Delete an object, if it is still this one. Raises `ApiError` and `Unreachable`."""
    try:
        await api.call("DELETE", where, {"preconditions": {"uid": uid}})
    except ApiError as error:
        if error.status != NOT_FOUND:
            raise


def ready_pods(slices: Sequence[EndpointSlice]) -> frozenset[str]:
    """Return the addresses that get connections by EndpointSlices of Kubernetes."""
    endpoints = [endpoint for each in slices for endpoint in each.endpoints or ()]
    ready = [each for each in endpoints if each.conditions.ready is not False or each.conditions.serving is True]
    return frozenset(address for each in ready for address in each.addresses[:1])


async def release_all(api: Api, services: Sequence[str], seconds: float) -> dict[str, ApiError | Unreachable]:
    """Release Services (`namespace/name`), whose replicas were restored: each once its pods are ready.

    After `seconds`, the remaining ones are released without. Returns the errors by Service.
    """
    end, failed = time.monotonic() + seconds, dict[str, ApiError | Unreachable]()

    async def release(key: str) -> None:
        try:
            await _release(api, key, end)
        except (ApiError, Unreachable) as error:
            failed[key] = error

    await asyncio.gather(*map(release, services))
    return failed


async def _release(api: Api, key: str, end: float) -> None:
    """Give the pods back to one Service once they are ready; delete zenvoy's objects once its callers reach them."""
    await _until(end, lambda: _pods(api, key, companion=True))
    service = await _service(api, key)
    if service and service.is_captured:
        await set_hidden(api, service, hidden=False)
    if await _pods(api, key, companion=True):
        await _until(end, lambda: _pods(api, key, companion=False))
    namespace, _, _ = key.partition("/")
    for each in await _slices(api, key, CAPTURE_LABEL):
        if each.has_proxies:
            await delete(api, path(*SLICES, namespace, each.metadata.name), each.metadata.uid)
    companion = await _service(api, companion_of(key))
    if companion and companion.captured == key:
        await delete(api, path("v1", "services", namespace, companion.metadata.name), companion.metadata.uid)


async def _until(end: float, holds: Callable[[], Awaitable[object]]) -> None:
    while time.monotonic() < end and not await holds():
        await asyncio.sleep(POLL_SECONDS)


async def _pods(api: Api, key: str, companion: bool) -> frozenset[str]:
    """Return the pods that Kubernetes lists for a Service, or for its companion."""
    found = await _slices(api, key, CAPTURE_LABEL if companion else SERVICE_NAME_LABEL)
    return ready_pods([each for each in found if each.is_companion is companion and not each.has_proxies])


async def _slices(api: Api, key: str, label: str) -> tuple[EndpointSlice, ...]:
    """Return the EndpointSlices that name a Service in a label."""
    namespace, _, name = key.partition("/")
    query = {"labelSelector": name_selector(label, name)}
    return _SLICES(await api.get(path(*SLICES, namespace), query)).items


async def _service(api: Api, key: str) -> Service | None:
    """Return a Service by its key. zenvoy may list Services, and not read a single one."""
    namespace, _, name = key.partition("/")
    query = {"fieldSelector": name_selector("metadata.name", name)}
    found = _SERVICES(await api.get(path("v1", "services", namespace), query)).items
    return found[0] if found else None
