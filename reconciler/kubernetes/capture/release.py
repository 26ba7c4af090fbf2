"""Release of captured Services by an uninstallation, when no controller is left that makes the steps of `plan.py`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from reconciler.kubernetes.capture import requests
from reconciler.kubernetes.capture.requests import read_pods, read_service
from reconciler.kubernetes.client.api import Api
from reconciler.kubernetes.client.errors import ApiError, Unreachable
from reconciler.kubernetes.config.capture import companion_of
from reconciler.kubernetes.config.resolve import service_of
from reconciler.kubernetes.types.builtin import CAPTURE_LABEL, CAPTURED, SERVICES
from reconciler.kubernetes.types.scaled_service import ScaledService

POLL_SECONDS = 0.5


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
        await requests.set_hidden(api, service, hidden=False)
    if await read_pods(api, key, companion=True):
        await _until(end, lambda: read_pods(api, key, companion=False))
    slices = await requests.read_slices(api, key, CAPTURE_LABEL)
    await requests.delete_slices(api, [each for each in slices if each.has_proxies])
    companion = await read_service(api, companion_of(key))
    if companion and companion.captured == key:
        await requests.delete(api, SERVICES, companion.metadata)


async def _until(end: float, holds: Callable[[], Awaitable[object]]) -> None:
    while time.monotonic() < end and not await holds():
        await asyncio.sleep(POLL_SECONDS)
