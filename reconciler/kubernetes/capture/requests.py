"""Reads and writes of the objects of captured Services.

The reads are for steps that may not rely on a late informer. Functions raise `ApiError` and `Unreachable`. An
uninstallation releases the Services itself, when no controller is left that makes the steps of `plan.py`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from reconciler.kubernetes.capture.objects import Body, ready_pods
from reconciler.kubernetes.client.api import MERGE_PATCH, Api
from reconciler.kubernetes.client.errors import NOT_FOUND, ApiError, Unreachable, ignoring
from reconciler.kubernetes.client.informer import find_object
from reconciler.kubernetes.config.capture import companion_of
from reconciler.kubernetes.config.resolve import service_of
from reconciler.kubernetes.types.builtin import (
    CAPTURE_LABEL,
    CAPTURED,
    SERVICE_NAME_LABEL,
    SERVICES,
    SLICES,
    EndpointSlice,
    Service,
)
from reconciler.kubernetes.types.objects import ObjectList, ObjectMeta, decoder, name_selector, path
from reconciler.kubernetes.types.scaled_service import ScaledService
from reconciler.kubernetes.workloads.probing import accepts

DIAL_SECONDS = 2.0
POLL_SECONDS = 0.5
_SLICES = decoder(ObjectList[EndpointSlice])


async def read_slices(api: Api, key: str, label: str) -> tuple[EndpointSlice, ...]:
    """Return the EndpointSlices that name a Service in a label."""
    namespace, _, name = key.partition("/")
    query = {"labelSelector": name_selector(label, name)}
    return _SLICES(await api.get(path(*SLICES, namespace), query)).items


async def read_service(api: Api, key: str) -> Service | None:
    """Return a Service by its key."""
    namespace, _, name = key.partition("/")
    return await find_object(api, Service, path(*SERVICES, namespace), name)


async def read_pods(api: Api, key: str, companion: bool) -> frozenset[str]:
    """Return the ready pods that Kubernetes lists for a Service, or for its companion."""
    found = await read_slices(api, key, CAPTURE_LABEL if companion else SERVICE_NAME_LABEL)
    return ready_pods([each for each in found if each.is_companion is companion and not each.has_proxies])


async def set_hidden(api: Api, service: Service, hidden: bool) -> None:
    """Take the pods out of a Service, or give them back.

    The pods are taken out of the version that is known only: another selector needs another companion first.
    """
    meta = {"resourceVersion": service.metadata.resource_version} if hidden else {"uid": service.metadata.uid}
    change = {"metadata": meta, "spec": {"selector": {CAPTURED: "true" if hidden else None}}}
    where = path(*SERVICES, service.metadata.namespace, service.metadata.name)
    await api.patch(where, change, MERGE_PATCH)


async def write_slices(api: Api, namespace: str, bodies: Mapping[str, Body], existing: Sequence[EndpointSlice]) -> None:
    """Create, change, and delete EndpointSlices, so that these exist."""
    present = {each.metadata.name: each for each in existing}
    for name, body in bodies.items():
        await write(api, SLICES, namespace, body, present.get(name))
    await delete_slices(api, [each for each in existing if each.metadata.name not in bodies])


async def delete_slices(api: Api, slices: Sequence[EndpointSlice]) -> None:
    """Delete EndpointSlices, if they still exist."""
    for each in slices:
        await delete(api, SLICES, each.metadata)


async def delete(api: Api, kind: tuple[str, str], meta: ObjectMeta) -> None:
    """Delete an object, if it still exists."""
    with ignoring(NOT_FOUND):
        await api.call("DELETE", path(*kind, meta.namespace, meta.name), {"preconditions": {"uid": meta.uid}})


async def write(
    api: Api, kind: tuple[str, str], namespace: str, body: Body, existing: Service | EndpointSlice | None
) -> None:
    """Create an object, or change it to be as given."""
    if existing is None:
        await api.call("POST", path(*kind, namespace), body)
        return
    change: dict[str, Any] = {key: value for key, value in body.items() if key not in ("apiVersion", "kind")}
    if isinstance(existing, Service):
        gone = existing.spec.selector.keys() - body["spec"]["selector"].keys()
        selector = {**dict.fromkeys(gone), **body["spec"]["selector"]}
        change["spec"] = {**body["spec"], "selector": selector}
    await api.patch(path(*kind, namespace, existing.metadata.name), change, MERGE_PATCH)


async def silent_proxy(slices: Mapping[str, Body]) -> str:
    """Return a ready proxy in EndpointSlices that does not accept connections, as `ip:port`; empty if there is none."""
    for body in slices.values():
        [port] = body["ports"]
        for endpoint in body["endpoints"]:
            [host, *_] = endpoint["addresses"]
            address = f"{host}:{port['port']}"
            if endpoint["conditions"]["ready"] and await accepts(address, DIAL_SECONDS) is not True:
                return address
    return ""


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
    await _until(end, lambda: read_pods(api, key, companion=True))
    service = await read_service(api, key)
    if service and service.is_captured:
        await set_hidden(api, service, hidden=False)
    if await read_pods(api, key, companion=True):
        await _until(end, lambda: read_pods(api, key, companion=False))
    slices = await read_slices(api, key, CAPTURE_LABEL)
    await delete_slices(api, [each for each in slices if each.has_proxies])
    companion = await read_service(api, companion_of(key))
    if companion and companion.captured == key:
        await delete(api, SERVICES, companion.metadata)


async def _until(end: float, holds: Callable[[], Awaitable[object]]) -> None:
    while time.monotonic() < end and not await holds():
        await asyncio.sleep(POLL_SECONDS)
