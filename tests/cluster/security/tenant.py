"""A tenant: a ServiceAccount with exactly ClusterRole `edit` in one namespace, and its client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from reconciler.kubernetes.client.api import Api, connect
from reconciler.kubernetes.types.objects import path
from reconciler.kubernetes.types.scaled_service import GROUP
from tests.cluster.cli.parts import Objects
from tests.cluster.harness import Cluster
from tests.cluster.rights import kubeconfig_of, may

ACCOUNT = "tenant"
RBAC = "rbac.authorization.k8s.io/v1"


@dataclass(frozen=True)
class Tenant:
    """`api` has the tenant's token; the namespace is the tenant's own."""

    api: Api
    namespace: str

    @property
    def objects(self) -> Objects:
        return Objects(self.api, self.namespace)


@asynccontextmanager
async def tenant(cluster: Cluster, admin: Api, namespace: str, folder: Path) -> AsyncIterator[Tenant]:
    """Make one in that namespace; returns once its rights include ScaledServices, as the chart aggregates them."""
    account = {"kind": "ServiceAccount", "metadata": {"name": ACCOUNT}}
    await admin.call("POST", path("v1", "serviceaccounts", namespace), account)
    binding = {
        "metadata": {"name": "tenant-edits"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": namespace}],
    }
    await admin.call("POST", path(RBAC, "rolebindings", namespace), binding)
    request = f"create scaledservices.{GROUP} in {namespace}"
    async with asyncio.timeout(240):
        while not await may(admin, ACCOUNT, namespace, request):
            await asyncio.sleep(0.1)
    api = await connect(kubeconfig_of(cluster, namespace, ACCOUNT, folder))
    try:
        yield Tenant(api, namespace)
    finally:
        await api.close()
