"""Cost of listing, keeping, and listing again 10,000 EndpointSlices with 3 endpoints each.

The informer is the real one. The API server is a substitute in its own process that lists objects like a real one. The
reference is reading the same pages with `json.loads`, the minimum for any Python client.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from kubernetes.aio.client import Configuration

from bench.processes import free_port, resident_bytes, running, say, wait_for
from bench.table import Row
from reconciler.kubernetes.client.api import Api
from reconciler.kubernetes.client.informer import PAGE, Informer
from reconciler.kubernetes.types.builtin import EndpointSlice
from reconciler.kubernetes.types.objects import decoder, path
from tests.fakes.api_server import ApiServer

SERVICES = 10_000
ENDPOINTS = 3
SLICES = path("discovery.k8s.io/v1", "endpointslices")
MAX_CPU_SECONDS, MAX_MIB = 10.0, 200.0
MIB = 1024 * 1024


def measure() -> list[Row]:
    """Return all rows."""
    port = free_port()
    with running([sys.executable, "-m", "bench.kubernetes", str(port)]) as server:
        say(f"kubernetes: an API server with {SERVICES} EndpointSlices")
        wait_for(lambda: listens(port) or server.poll() is not None, "the API server")
        return asyncio.run(_measure(port))


async def _measure(port: int) -> list[Row]:
    async with client(port) as api:
        await api.get(SLICES, {"limit": "1"})
        before, begin = resident_bytes(os.getpid()), time.process_time()
        synced = asyncio.Event()
        informer = Informer(api, SLICES, decoder(EndpointSlice), lambda key, item: None, on_sync=synced.set)
        task = asyncio.create_task(informer.run())
        await synced.wait()
        listed, size = time.process_time() - begin, resident_bytes(os.getpid()) - before
        assert len(informer.items) == SERVICES
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        begin = time.process_time()
        await _read_by_json(api)
        plain = time.process_time() - begin
    return [
        Row("CPU to list 10,000 EndpointSlices", listed, "s", "json.loads", plain, MAX_CPU_SECONDS),
        Row("memory for 10,000 EndpointSlices", size / MIB, "MiB", most=MAX_MIB),
    ]


async def _read_by_json(api: Api) -> None:
    query, kept = {"limit": str(PAGE)}, []
    while True:
        page = json.loads(await api.get(SLICES, query))
        kept += page["items"]
        if "continue" not in page["metadata"]:
            return
        query["continue"] = page["metadata"]["continue"]


@asynccontextmanager
async def client(port: int) -> AsyncIterator[Api]:
    """Return a client of the substitute API server."""
    configuration = Configuration()
    configuration.host = f"http://127.0.0.1:{port}"
    api = Api(configuration, "default")
    try:
        yield api
    finally:
        await api.close()


def listens(port: int) -> bool:
    """Return whether a process listens on the port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _serve(port: int) -> None:
    """Run the substitute API server."""
    server = ApiServer()
    for number in range(SERVICES):
        endpoints = [_endpoint(number, index) for index in range(1, ENDPOINTS + 1)]
        labels = {
            "kubernetes.io/service-name": f"service-{number}",
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        }
        managed = {"manager": "kube-controller-manager", "operation": "Update", "fieldsV1": {"f:endpoints": {}}}
        server.put(
            f"service-{number}-x7k2p",
            metadata={"labels": labels, "managedFields": [managed], "uid": f"{number:032}"},
            addressType="IPv4",
            endpoints=endpoints,
            ports=[{"name": "http", "port": 8080, "protocol": "TCP"}],
        )
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    web.run_app(app, host="127.0.0.1", port=port, print=None)


def _endpoint(number: int, index: int) -> dict[str, object]:
    pod = {
        "kind": "Pod",
        "namespace": "shop",
        "name": f"service-{number}-6f7d8b9c5d-abcd{index}",
        "uid": f"{number:032}",
    }
    conditions = {"ready": True, "serving": True, "terminating": False}
    address = f"10.{number >> 8 & 255}.{number & 255}.{index}"
    return {"addresses": [address], "conditions": conditions, "nodeName": f"node-{index}", "targetRef": pod}


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
