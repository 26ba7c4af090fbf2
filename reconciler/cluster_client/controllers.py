"""The pods of the controller, and of the proxy."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from typing import Any, Protocol

import msgspec

from reconciler.cluster_client.cluster import LEASE, Cluster
from reconciler.kubernetes.client.errors import ApiError, Unreachable
from reconciler.kubernetes.client.port_forward import PortForwardError
from reconciler.kubernetes.types.builtin import Lease
from reconciler.kubernetes.types.objects import decoder, path

COMPONENT = "app.kubernetes.io/component=reconciler"
"""The label by which the chart's pods are known."""
PROXY = "app.kubernetes.io/component=proxy"


class PodSpec(msgspec.Struct, rename="camel"):
    service_account_name: str = "default"
    containers: list[dict[str, Any]] = []


class Pod(msgspec.Struct):
    """With only what tells how it is."""

    metadata: dict[str, Any]
    spec: PodSpec
    status: dict[str, Any] = {}

    @property
    def is_ready(self) -> bool:
        conditions = self.status.get("conditions", [])
        return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

    @property
    def has_ended(self) -> bool:
        """Whether another takes its place, if any: evicted, for example."""
        return self.status.get("phase") in ("Failed", "Succeeded")

    @property
    def waits_for(self) -> str:
        """Why its containers do not run, as Kubernetes says it; its phase when nothing is said."""
        states = self.status.get("containerStatuses", []) + self.status.get("initContainerStatuses", [])
        waiting = [one["state"]["waiting"] for one in states if "waiting" in one.get("state", {})]
        conditions = self.status.get("conditions", [])
        unscheduled = [one for one in conditions if one["type"] == "PodScheduled" and one["status"] == "False"]
        told = [f"{one.get('reason', '')}: {one.get('message', '')}".rstrip(": ") for one in waiting or unscheduled]
        return "; ".join(told) or str(self.status.get("phase", "unknown"))


_POD = decoder(Pod)


async def controllers(cluster: Cluster) -> list[Pod]:
    """Raises `ApiError` and `Unreachable`."""
    return await _labelled(cluster, COMPONENT)


async def proxies(cluster: Cluster) -> list[Pod]:
    """Those that run or should, and are not leaving. Raises `ApiError` and `Unreachable`."""
    found = await _labelled(cluster, PROXY)
    return [pod for pod in found if "deletionTimestamp" not in pod.metadata and not pod.has_ended]


async def _labelled(cluster: Cluster, label: str) -> list[Pod]:
    found: list[Pod] = await cluster.listed(path("v1", "pods", cluster.where.system), _POD, {"labelSelector": label})
    return found


INSPECT_PORT = 18082
TIMEOUT_SECONDS = 5.0
LEASE_API = "coordination.k8s.io/v1"
_LEASE = decoder(Lease)


class Silent(Exception):
    """The controller does not answer, and why."""


class Figures(Protocol):
    """Asks one controller."""

    async def fetch(self, path: str) -> Any:
        """The JSON at such a path as `/v1/world`. Raises `Silent`."""


class AtUrl:
    """At an address that a person named."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    async def fetch(self, path: str) -> Any:
        return await asyncio.to_thread(self._fetch, path)

    def _fetch(self, path: str) -> Any:
        try:
            with urllib.request.urlopen(f"{self._url}{path}", timeout=TIMEOUT_SECONDS) as response:
                return json.loads(response.read())
        except urllib.error.HTTPError as error:
            with error:
                raise Silent(_said(error.read(), f"{self._url} answers {error.code}")) from None
        except (OSError, ValueError) as error:
            raise Silent(f"{self._url} does not answer: {error}") from None


class ByForward:
    """Through the API server, which decides who may, to the pod's loopback; `pod` None: the leader."""

    def __init__(self, cluster: Cluster, pod: str | None = None, port: int = INSPECT_PORT) -> None:
        self._cluster, self._pod, self._port = cluster, pod, port

    async def fetch(self, asked: str) -> Any:
        pod = self._pod or await leader(self._cluster)
        system, api = self._cluster.where.system, self._cluster.api
        try:
            where = path("v1", "pods", system, pod, "portforward")
            status, body = await api.forwarded(where, self._port, asked, TIMEOUT_SECONDS)
            found = json.loads(body)
        except ApiError as error:
            raise Silent(f"the controller {pod} does not answer through the API server: {error.message}") from None
        except (Unreachable, PortForwardError, ValueError) as error:
            raise Silent(f"the controller {pod} does not answer through the API server: {error}") from None
        if status != 200:
            raise Silent(f"the controller {pod} answers: {_said(body, f'HTTP status {status}')}")
        return found


def figures(cluster: Cluster) -> Figures:
    """Of the leader, in the way that a person asked for."""
    return AtUrl(cluster.where.controller) if cluster.where.controller else ByForward(cluster)


async def lease(cluster: Cluster) -> Lease | None:
    """The leader's Lease; None when there is none. Raises `ApiError` and `Unreachable`."""
    try:
        return _LEASE(await cluster.api.get(path(LEASE_API, "leases", cluster.where.system, LEASE)))
    except ApiError as error:
        if error.status != 404:
            raise
        return None


async def leader(cluster: Cluster) -> str:
    """The name of the pod that leads. Raises `Silent`."""
    system = cluster.where.system
    try:
        found = await lease(cluster)
    except (ApiError, Unreachable, msgspec.DecodeError) as error:
        raise Silent(f"who leads cannot be read from the Lease {system}/{LEASE}: {error}") from None
    if found is None or not found.spec.holder_identity:
        raise Silent(f"no controller leads: the Lease {system}/{LEASE} has no holder (see --system-namespace)")
    return found.spec.holder_identity


def _said(body: bytes, otherwise: str) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return otherwise
