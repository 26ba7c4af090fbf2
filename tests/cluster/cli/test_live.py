"""Live data from a pod's loopback, through a real API server's port-forward."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import WSMsgType, web

from reconciler.cluster_client.cluster import open_cluster
from reconciler.cluster_client.context_options import ContextOptions
from reconciler.cluster_client.controllers import ControllerSilent, fetch_live
from reconciler.kubernetes.client.api import MERGE_PATCH
from reconciler.kubernetes.types.objects import path
from tests.certificates import Authority
from tests.cluster.cli.parts import FakeController, Objects
from tests.cluster.harness import Cluster


async def forward(request: web.Request) -> web.StreamResponse:
    """Forward a port as a kubelet does; the pod's loopback is this machine's."""
    port = int(request.query["port"])
    channels = web.WebSocketResponse(protocols=("v4.channel.k8s.io",))
    await channels.prepare(request)
    for channel in (b"\0", b"\1"):
        await channels.send_bytes(channel + port.to_bytes(2, "little"))
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError as error:
        await channels.send_bytes(b"\1" + f"error forwarding port {port}: {error.strerror}".encode())
        return channels

    async def answer() -> None:
        while data := await reader.read(65_536):
            await channels.send_bytes(b"\0" + data)
        await channels.close()

    answering = asyncio.create_task(answer())
    async for message in channels:
        if message.type is WSMsgType.BINARY and message.data[:1] == b"\0":
            writer.write(message.data[1:])
    answering.cancel()
    writer.close()
    return channels


@asynccontextmanager
async def kubelet(objects: Objects, folder: Path) -> AsyncIterator[str]:
    """Provide the name of a node whose kubelet forwards ports."""
    app = web.Application()
    app.router.add_get("/portForward/{namespace}/{pod}", forward)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    pair = Authority(folder / "authority").sign(folder / "kubelet", "kubelet", uri="")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(pair / "tls.crt", pair / "tls.key")
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    name = f"node-of-{objects.namespace}"
    await objects.make("v1", "nodes", {"kind": "Node", "metadata": {"name": name}}, None)
    status = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": runner.addresses[0][1]}},
    }
    await objects.api.patch(path("v1", "nodes", name=name, subresource="status"), {"status": status}, MERGE_PATCH)
    try:
        yield name
    finally:
        await objects.api.call("DELETE", path("v1", "nodes", name=name))
        await runner.cleanup()


async def test_live_figures_come_through_the_api_server(
    apiserver: Cluster, objects: Objects, controller: FakeController, tmp_path: Path
) -> None:
    async with kubelet(objects, tmp_path) as node:
        pod: dict[str, Any] = {"metadata": {"name": "zenvoy-0"}}
        pod["spec"] = {"nodeName": node, "containers": [{"name": "reconciler", "image": "example/zenvoy:1"}]}
        await objects.pod(pod)
        controller.answers = {"/v1/services/shop/web": {"name": "shop/web", "held": 2}}
        where = ContextOptions(kubeconfig=Path(apiserver.kubeconfig), system=objects.namespace)
        port = int(controller.url.rpartition(":")[2])
        async with open_cluster(where) as cluster:
            figures = await fetch_live(cluster, "/v1/services/shop/web", "zenvoy-0", port)
            assert figures == {"name": "shop/web", "held": 2}
            with pytest.raises(ControllerSilent, match="there is no /v1/services/shop/db"):
                await fetch_live(cluster, "/v1/services/shop/db", "zenvoy-0", port)
            with pytest.raises(ControllerSilent, match="pod not found"):
                await fetch_live(cluster, "/v1/overview", "zenvoy-9", port)
            with pytest.raises(ControllerSilent, match="error forwarding port 1"):
                await fetch_live(cluster, "/v1/overview", "zenvoy-0", 1)
