"""The pods of the controller."""

from __future__ import annotations

from typing import Any

import msgspec

from reconciler.adapters.kubernetes.objects import decoder, path
from reconciler.app.cluster.reach import Cluster

COMPONENT = "app.kubernetes.io/component=reconciler"
"""The label by which the chart's pods are known."""


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


_POD = decoder(Pod)


async def controllers(cluster: Cluster) -> list[Pod]:
    """Raises `ApiError` and `Unreachable`."""
    where = path("v1", "pods", cluster.where.system)
    found: list[Pod] = await cluster.listed(where, _POD, {"labelSelector": COMPONENT})
    return found
