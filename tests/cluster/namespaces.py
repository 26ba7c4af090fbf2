"""Namespaces of tests that share a control plane."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

from reconciler.kubernetes.client.api import MERGE_PATCH, Api
from reconciler.kubernetes.client.errors import ApiError
from reconciler.kubernetes.types.objects import path
from reconciler.kubernetes.types.scaled_service import API_VERSION, PLURAL
from tests.xds.parts import PATIENCE_SECONDS


@asynccontextmanager
async def new_namespace(api: Api, kind: str) -> AsyncIterator[str]:
    """Provide the name of a new namespace, which goes at the end of the block with all that is in it."""
    name = f"{kind}-{secrets.token_hex(4)}"
    await api.call("POST", path("v1", "namespaces"), {"metadata": {"name": name}})
    yield name
    await _clear(api, name)
    await _unless_gone(api, "DELETE", path("v1", "namespaces", name=name))


async def _clear(api: Api, namespace: str) -> None:
    """Leave nothing that the controller of another test would look after while the namespace goes.

    It could write nothing there, and a ScaledService with a finalizer stays until a controller removes that.
    """
    for api_version, plural in (("v1", "services"), (API_VERSION, PLURAL)):
        listed = await _unless_gone(api, "GET", path(api_version, plural, namespace))
        for item in json.loads(listed)["items"] if listed else ():
            where = path(api_version, plural, namespace, item["metadata"]["name"])
            await _unless_gone(api, "PATCH", where, {"metadata": {"finalizers": None}})
            await _unless_gone(api, "DELETE", where)


async def _unless_gone(api: Api, method: str, where: str, body: dict[str, object] | None = None) -> bytes:
    """Return the answer; empty if there is no such object, or if no such kind is defined."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                return await api.call(method, where, body, MERGE_PATCH) if body else await api.call(method, where)
            except ApiError as error:
                if error.status == HTTPStatus.NOT_FOUND:
                    return b""
                if error.status != HTTPStatus.TOO_MANY_REQUESTS:  # as after the definition of a kind is replaced
                    raise
            await asyncio.sleep(0.1)
