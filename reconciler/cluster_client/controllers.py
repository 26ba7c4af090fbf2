"""The pods of the controller, and of the proxy."""

from __future__ import annotations

from typing import Any

import msgspec

from reconciler.cluster_client.reach import Cluster
from reconciler.kubernetes.objects import decoder, path

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
