"""What only the controller knows: asked at its loopback, through the API server's port-forward, or at an address.

Port: `Figures`. Rule: no command depends on it; without an answer, the objects say what they say.
"""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from typing import Any, Protocol

import msgspec

from reconciler.cluster_client.reach import LEASE, Cluster
from reconciler.kubernetes.api import ApiError, Unreachable
from reconciler.kubernetes.objects import decoder, path
from reconciler.kubernetes.portforward import Broken
from reconciler.kubernetes.workloads import Lease

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
        except (Unreachable, Broken, ValueError) as error:
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
