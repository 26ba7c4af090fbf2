"""What only the controller knows, fetched through a real API server's pod proxy."""

from __future__ import annotations

import socket
from pathlib import Path

import psutil
import pytest

from reconciler.adapters.kubernetes.api import MERGE_PATCH
from reconciler.adapters.kubernetes.objects import path
from reconciler.app.cluster.live import ByProxy, Silent
from reconciler.app.cluster.reach import Where, reached
from tests.cluster.cli.parts import FakeController, Objects
from tests.cluster.harness import Cluster


def own_address() -> str:
    """One of this machine's that is not loopback: the API server goes to no other pod than one that might be one."""
    addresses = [one for each in psutil.net_if_addrs().values() for one in each if one.family is socket.AF_INET]
    return next(one.address for one in addresses if not one.address.startswith("127."))


async def test_a_pods_figures_come_through_the_api_server(
    apiserver: Cluster, objects: Objects, controller: FakeController
) -> None:
    pod = {"kind": "Pod", "metadata": {"name": "zenvoy-0"}}
    pod["spec"] = {"containers": [{"name": "reconciler", "image": "example/zenvoy:1"}]}  # type: ignore[dict-item]
    await objects.make("v1", "pods", pod)
    address = {"status": {"podIP": own_address(), "podIPs": [{"ip": own_address()}]}}
    await objects.api.patch(path("v1", "pods", objects.namespace, "zenvoy-0", "status"), address, MERGE_PATCH)
    controller.answers = {"/v1/services/shop/web": {"name": "shop/web", "held": 2}}
    where = Where(kubeconfig=Path(apiserver.kubeconfig), system=objects.namespace)
    port = int(controller.url.rpartition(":")[2])
    async with reached(where) as cluster:
        figures = ByProxy(cluster, "zenvoy-0", port)
        assert await figures.fetch("/v1/services/shop/web") == {"name": "shop/web", "held": 2}
        with pytest.raises(Silent, match="it does not know of it"):
            await figures.fetch("/v1/services/shop/db")
        with pytest.raises(Silent, match='pods "zenvoy-9" not found'):
            await ByProxy(cluster, "zenvoy-9", port).fetch("/v1/world")
        with pytest.raises(Silent, match="does not answer through the API server"):
            await ByProxy(cluster, "zenvoy-0", 1).fetch("/v1/world")
