"""Writes of the objects of captured Services. Methods raise `ApiError` and `Unreachable`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from reconciler.kubernetes.capture.objects import SLICES, Body
from reconciler.kubernetes.client.api import MERGE_PATCH, Api
from reconciler.kubernetes.client.errors import NOT_FOUND, ApiError
from reconciler.kubernetes.types.builtin import CAPTURED, EndpointSlice, Service
from reconciler.kubernetes.types.objects import ObjectMeta, path

DIAL_SECONDS = 2.0


class CaptureWriter:
    """Writes selectors of captured Services, companions, and the EndpointSlices of proxies."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def set_hidden(self, service: Service, hidden: bool) -> None:
        """Take the pods out of a Service, or give them back.

        The pods are taken out of the version that is known only: another selector needs another companion first.
        """
        meta = {"resourceVersion": service.metadata.resource_version} if hidden else {"uid": service.metadata.uid}
        change = {"metadata": meta, "spec": {"selector": {CAPTURED: "true" if hidden else None}}}
        where = path("v1", "services", service.metadata.namespace, service.metadata.name)
        await self._api.patch(where, change, MERGE_PATCH)

    async def write_companion(self, namespace: str, body: Body, existing: Service | None) -> None:
        """Create or change a companion."""
        await self._put(path("v1", "services", namespace), body, existing)

    async def write_slices(self, namespace: str, bodies: Mapping[str, Body], existing: Sequence[EndpointSlice]) -> None:
        """Create, change, and delete EndpointSlices, so that these exist."""
        present = {each.metadata.name: each for each in existing}
        for name, body in bodies.items():
            await self._put(path(*SLICES, namespace), body, present.get(name))
        await self.delete_slices([each for each in existing if each.metadata.name not in bodies])

    async def delete_slices(self, slices: Sequence[EndpointSlice]) -> None:
        """Delete EndpointSlices, if they still exist."""
        for each in slices:
            await self._delete(SLICES, each.metadata)

    async def delete_companion(self, companion: Service) -> None:
        """Delete a companion, if it still exists."""
        await self._delete(("v1", "services"), companion.metadata)

    async def _delete(self, kind: tuple[str, str], meta: ObjectMeta) -> None:
        try:
            where = path(*kind, meta.namespace, meta.name)
            await self._api.call("DELETE", where, {"preconditions": {"uid": meta.uid}})
        except ApiError as error:
            if error.status != NOT_FOUND:
                raise

    async def _put(self, collection: str, body: Body, existing: Service | EndpointSlice | None) -> None:
        """Create an object, or change it to be as given."""
        if existing is None:
            await self._api.call("POST", collection, body)
            return
        change: dict[str, Any] = {key: value for key, value in body.items() if key not in ("apiVersion", "kind")}
        if isinstance(existing, Service):
            gone = existing.spec.selector.keys() - body["spec"]["selector"].keys()
            selector = {**dict.fromkeys(gone), **body["spec"]["selector"]}
            change["spec"] = {**body["spec"], "selector": selector}
        await self._api.patch(f"{collection}/{existing.metadata.name}", change, MERGE_PATCH)


async def silent_proxy(slices: Mapping[str, Body]) -> str:
    """Return a ready proxy in EndpointSlices that does not accept connections, as `ip:port`; empty if there is none."""
    for body in slices.values():
        [port] = body["ports"]
        for endpoint in body["endpoints"]:
            [host, *_] = endpoint["addresses"]
            if endpoint["conditions"]["ready"] and not await _accepts(host, port["port"]):
                return f"{host}:{port['port']}"
    return ""


async def _accepts(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(DIAL_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
