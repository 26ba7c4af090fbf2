"""The busy check of the pods of a service: each ready pod is asked over HTTP.

Only addresses of pods are asked. A tenant can write EndpointSlices, and so lead the question to any address; therefore
the pod is read from the API server, and its address must be the one of the endpoint.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec

from reconciler.core.address import split_address
from reconciler.core.busy import CHECK_SECONDS, check_failed, of_status
from reconciler.core.reasons import Blocker, Reason
from reconciler.http_get import NoStatus, get_status
from reconciler.kubernetes.client.api import Api
from reconciler.kubernetes.client.errors import ApiError, Unreachable
from reconciler.kubernetes.client.informer import find_object
from reconciler.kubernetes.types.builtin import Pod
from reconciler.kubernetes.types.objects import is_subdomain, path
from reconciler.kubernetes.types.scaled_service import BusyCheck
from reconciler.kubernetes.workloads.endpoints import PodEndpoint
from reconciler.kubernetes.workloads.probing import COSTLY_SLOT_SECONDS, CheckSlots

SERVICE_SECONDS = 30.0
"""The longest time of the questions to all pods of a service."""
NO_POD = check_failed("no ready pod can be asked")


class PodBusyCheck:
    """Asks the ready pods of services; any busy one keeps its service awake, and so does any that does not answer."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._slots = CheckSlots()

    async def ask(self, namespace: str, check: BusyCheck, endpoints: Iterable[PodEndpoint]) -> Blocker | None:
        """Return the reason to keep a service awake, or None if every ready pod is idle."""
        ready = {one.pod: one for one in reversed([*endpoints]) if not (one.starting or one.terminating)}
        if not ready:
            return NO_POD
        try:
            async with asyncio.timeout(SERVICE_SECONDS):
                found = await asyncio.gather(*(self._ask_pod(namespace, check, one) for one in ready.values()))
        except TimeoutError:
            return check_failed(f"{len(ready)} pods are not asked within {SERVICE_SECONDS:g} s")
        blockers = [blocker for blocker in found if blocker is not None]
        return min(blockers, key=lambda one: one.code is not Reason.BUSY, default=None)

    async def _ask_pod(self, namespace: str, check: BusyCheck, endpoint: PodEndpoint) -> Blocker | None:
        async with self._slots.slot(namespace, COSTLY_SLOT_SECONDS):
            if reason := await self._refusal(namespace, endpoint):
                return check_failed(f"{endpoint.address} is not asked: {reason}")
            ip, port = split_address(endpoint.address)
            question = f"GET {check.http} of pod {endpoint.pod_name}"
            try:
                return of_status(question, await get_status(ip, check.port or port, check.http, CHECK_SECONDS))
            except NoStatus as error:
                return check_failed(f"{question} {error}")

    async def _refusal(self, namespace: str, endpoint: PodEndpoint) -> str | None:
        """Return why an endpoint may not be asked, or None if it is the address of its pod."""
        name = endpoint.pod_name
        if not is_subdomain(name):
            return "its EndpointSlice names no pod"
        try:
            pod = await find_object(self._api, Pod, path("v1", "pods", namespace), name)
        except (ApiError, Unreachable, msgspec.DecodeError) as error:
            return f"pod {name} cannot be read: {error}"
        if pod is None or pod.metadata.uid != endpoint.pod:
            return f"there is no pod {name}"
        if pod.spec.host_network:
            return f"pod {name} uses the network of its node"
        own = {pod.status.pod_ip, *(one.ip for one in pod.status.pod_ips)}
        return None if split_address(endpoint.address)[0] in own else f"it is not the address of pod {name}"
