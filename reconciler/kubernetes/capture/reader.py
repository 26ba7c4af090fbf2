"""Reads of the objects of captured Services from the API server, for steps that may not rely on a late informer."""

from __future__ import annotations

import msgspec

from reconciler.kubernetes.capture.objects import SLICES, ready_pods
from reconciler.kubernetes.client.api import Api
from reconciler.kubernetes.types.builtin import CAPTURE_LABEL, SERVICE_NAME_LABEL, EndpointSlice, Service
from reconciler.kubernetes.types.objects import decoder, name_selector, path


class _SliceList(msgspec.Struct):
    items: tuple[EndpointSlice, ...] = ()


class _ServiceList(msgspec.Struct):
    items: tuple[Service, ...] = ()


_SLICES, _SERVICES = decoder(_SliceList), decoder(_ServiceList)


async def read_slices(api: Api, key: str, label: str) -> tuple[EndpointSlice, ...]:
    """Return the EndpointSlices that name a Service in a label."""
    namespace, _, name = key.partition("/")
    query = {"labelSelector": name_selector(label, name)}
    return _SLICES(await api.get(path(*SLICES, namespace), query)).items


async def read_service(api: Api, key: str) -> Service | None:
    """Return a Service by its key. zenvoy may list Services, and not read a single one."""
    namespace, _, name = key.partition("/")
    query = {"fieldSelector": name_selector("metadata.name", name)}
    found = _SERVICES(await api.get(path("v1", "services", namespace), query)).items
    return found[0] if found else None


async def read_pods(api: Api, key: str, companion: bool) -> frozenset[str]:
    """Return the ready pods that Kubernetes lists for a Service, or for its companion."""
    found = await read_slices(api, key, CAPTURE_LABEL if companion else SERVICE_NAME_LABEL)
    return ready_pods([each for each in found if each.is_companion is companion and not each.has_proxies])
