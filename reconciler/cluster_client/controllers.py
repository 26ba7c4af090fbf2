"""The pods of the controller and of the proxy, and the live data that only a controller has.

No command depends on live data: without an answer, commands show what the objects contain.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import urllib.error
import urllib.request
from typing import Any

import msgspec

from reconciler.cluster_client.cluster import LEASE, ClusterClient
from reconciler.kubernetes.client.errors import ApiError, Unreachable
from reconciler.kubernetes.client.port_forward import MAX_RESPONSE_BYTES, PortForwardError
from reconciler.kubernetes.types.builtin import Lease
from reconciler.kubernetes.types.objects import decoder, path
from reconciler.proxy_environment import proxy_for

CONTROLLER_LABEL = "app.kubernetes.io/component=reconciler"
PROXY_LABEL = "app.kubernetes.io/component=proxy"
INSPECT_PORT = 18082
TIMEOUT_SECONDS = 5.0
LEASE_API = "coordination.k8s.io/v1"


class InstalledPodSpec(msgspec.Struct, rename="camel"):
    """The part of a pod's spec that says how the program runs."""

    service_account_name: str = "default"
    containers: list[dict[str, Any]] = []


class InstalledPod(msgspec.Struct):
    """A pod of zenvoy."""

    metadata: dict[str, Any]
    spec: InstalledPodSpec
    status: dict[str, Any] = {}

    @property
    def name(self) -> str:
        return str(self.metadata["name"])

    @property
    def is_ready(self) -> bool:
        conditions = self.status.get("conditions", [])
        return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

    @property
    def phase(self) -> str:
        return str(self.status.get("phase", "unknown"))

    @property
    def waiting_reason(self) -> str:
        """The reason that Kubernetes reports for containers that do not run; the phase if it reports none."""
        states = self.status.get("containerStatuses", []) + self.status.get("initContainerStatuses", [])
        waiting = [one["state"]["waiting"] for one in states if "waiting" in one.get("state", {})]
        conditions = self.status.get("conditions", [])
        unscheduled = [one for one in conditions if one["type"] == "PodScheduled" and one["status"] == "False"]
        reasons = [f"{one.get('reason', '')}: {one.get('message', '')}".rstrip(": ") for one in waiting or unscheduled]
        return "; ".join(reasons) or self.phase


async def controller_pods(cluster: ClusterClient) -> list[InstalledPod]:
    """Return the controller's pods that have not ended. Raises `ApiError` and `Unreachable`."""
    return await _labeled(cluster, CONTROLLER_LABEL)


async def proxy_pods(cluster: ClusterClient) -> list[InstalledPod]:
    """Return the proxy's pods that run or should run. Raises `ApiError` and `Unreachable`."""
    return [pod for pod in await _labeled(cluster, PROXY_LABEL) if "deletionTimestamp" not in pod.metadata]


async def _labeled(cluster: ClusterClient, label: str) -> list[InstalledPod]:
    where = path("v1", "pods", cluster.options.system)
    found = await cluster.list_objects(where, decoder(InstalledPod), {"labelSelector": label})
    # Kubernetes keeps pods that have ended, for example because they were evicted
    return [pod for pod in found if pod.phase not in ("Failed", "Succeeded")]


class ControllerSilent(Exception):
    """The controller does not answer; the message has the reason."""


async def fetch_live(cluster: ClusterClient, asked: str, pod: str | None = None, port: int = INSPECT_PORT) -> Any:
    """Return the JSON of a path such as `/v1/overview` of one controller. Raises `ControllerSilent`.

    That is the controller at the URL that the options name; without one, that of a pod, or of the leader.
    """
    if url := cluster.options.controller:
        return await asyncio.to_thread(_fetch_from_url, url.rstrip("/"), asked)
    pod = pod or await leader_pod(cluster)
    try:
        where = path("v1", "pods", cluster.options.system, pod, "portforward")
        status, body = await cluster.api.forwarded(where, port, asked, TIMEOUT_SECONDS)
        found = json.loads(body)
    except (ApiError, Unreachable, PortForwardError, ValueError, RecursionError) as error:
        reason = error.message if isinstance(error, ApiError) else error
        raise ControllerSilent(f"the controller {pod} does not answer through the API server: {reason}") from None
    if status != 200:
        raise ControllerSilent(f"the controller {pod} answers: {_error_in(body, f'HTTP status {status}')}")
    return found


def _fetch_from_url(url: str, asked: str) -> Any:
    proxy, scheme = proxy_for(url, os.environ), url.partition(":")[0]
    # Without it, urllib would use the proxy for 127.0.0.1 too.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({scheme: proxy} if proxy else {}))
    try:
        try:
            with opener.open(f"{url}{asked}", timeout=TIMEOUT_SECONDS) as response:
                body = response.read(MAX_RESPONSE_BYTES + 1)
        except urllib.error.HTTPError as error:
            with error:
                message = _error_in(error.read(MAX_RESPONSE_BYTES), f"{url} returned HTTP status {error.code}")
                raise ControllerSilent(message) from None
        if len(body) > MAX_RESPONSE_BYTES:
            raise ValueError(f"the answer has over {MAX_RESPONSE_BYTES} bytes")
        return json.loads(body)
    except (OSError, ValueError, RecursionError, http.client.HTTPException) as error:
        raise ControllerSilent(f"{url} does not answer: {error}") from None


async def read_lease(cluster: ClusterClient) -> Lease | None:
    """Return the leader's Lease, if it exists. Raises `ApiError` and `Unreachable`."""
    found = await cluster.api.find(path(LEASE_API, "leases", cluster.options.system, LEASE))
    return None if found is None else decoder(Lease)(found)


async def leader_pod(cluster: ClusterClient) -> str:
    """Return the name of the leader's pod. Raises `ControllerSilent`."""
    system = cluster.options.system
    try:
        found = await read_lease(cluster)
    except (ApiError, Unreachable, msgspec.DecodeError) as error:
        raise ControllerSilent(f"cannot read the leader from the Lease {system}/{LEASE}: {error}") from None
    if found is None or not found.spec.holder_identity:
        raise ControllerSilent(
            f"there is no leader: the Lease {system}/{LEASE} has no holder; if zenvoy is installed elsewhere, name "
            "its namespace with --system-namespace"
        )
    return found.spec.holder_identity


def _error_in(body: bytes, otherwise: str) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return otherwise
