"""Release of captured Services by an uninstallation, when no controller is left that makes the steps of `plan.py`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from reconciler.kubernetes.capture.objects import SLICES, ready_pods
from reconciler.kubernetes.capture.writer import CaptureWriter
from reconciler.kubernetes.client.api import Api
from reconciler.kubernetes.client.errors import ApiError, Unreachable
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


def release_command(item: ScaledService) -> str:
    """Return the command with which a person gives its pods back to a captured Service."""
    namespace, _, name = service_of(item).partition("/")
    patch = f'{{"spec":{{"selector":{{"{CAPTURED}":null}}}}}}'
    return f"release it by hand: kubectl -n {namespace} patch service {name} --type=merge -p '{patch}'"


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
    writer = CaptureWriter(api)
    if service and service.is_captured:
        await writer.set_hidden(service, hidden=False)
    if await _pods(api, key, companion=True):
        await _until(end, lambda: _pods(api, key, companion=False))
    await writer.delete_slices([each for each in await _slices(api, key, CAPTURE_LABEL) if each.has_proxies])
    companion = await _service(api, companion_of(key))
    if companion and companion.captured == key:
        await writer.delete_companion(companion)


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
