"""Time until the last wake is sent if 100 sleeping services get their first connection at once.

The engine, the router, the holder streams, and the backend are those of a real replica. A simulated holder reports a
waiting client for each service. The API server is a substitute over real HTTP in its own process; it records the
arrival of each patch, so the result includes slightly more than the target, which ends with sending. The reference is
the same patches by the same client without other work.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

import grpc
from aiohttp import web

from bench.kubernetes import client, listens
from bench.processes import free_port, running, say, wait_for
from bench.table import Row
from reconciler.alarm import SchedulerAlarm
from reconciler.core.record import Record, State
from reconciler.core.spec import Protocol, Spec
from reconciler.core.traffic import Pace
from reconciler.engine.engine import Adapters, Engine
from reconciler.engine.hold_addresses import AnyIp
from reconciler.envoy.xds_router import XdsRouter
from reconciler.kubernetes.client.api import Api
from reconciler.kubernetes.config.service_config import ServiceConfig
from reconciler.kubernetes.types.builtin import ServicePort
from reconciler.kubernetes.types.objects import Target
from reconciler.kubernetes.workloads.backend import KubernetesBackend
from reconciler.kubernetes.workloads.scale import wake_patches
from reconciler.kubernetes.workloads.warm_connections import WARM_BATCH, WARM_CONNECTIONS
from reconciler.ports.clock import Clock
from reconciler.server.holders import HolderStreams
from tests.fakes.api_server import ApiServer
from tests.fakes.listener import NoListener
from tproxy import wire

SERVICES = 100
REPLICAS = 3
MAX_MILLISECONDS = 250.0
ROUNDS = 3
PATIENCE_SECONDS = 60.0
KINDS = [
    {"namespaced": True, "name": f"deployments{of}", "kind": kind}
    for of, kind in (("", "Deployment"), ("/scale", "Scale"))
]
NAMES = [f"shop/web-{number}" for number in range(SERVICES)]


def measure() -> list[Row]:
    """Return all rows."""
    taken, alone = [], []
    for number in range(ROUNDS):
        say(f"many: round {number + 1} of {ROUNDS}")
        taken.append(_milliseconds(_woken))
        alone.append(_milliseconds(_patched))
    what = f"{SERVICES} wakes at once: from the first report to the last patch's arrival"
    return [
        Row(what, sorted(taken)[ROUNDS // 2], "ms", "the patches alone", sorted(alone)[ROUNDS // 2], MAX_MILLISECONDS)
    ]


def _milliseconds(measured: Callable[[int], Coroutine[Any, Any, float]]) -> float:
    """Run a measurement with a new API server; return milliseconds."""
    port = free_port()
    with running([sys.executable, "-m", "bench.many", str(port)]) as server:
        wait_for(lambda: listens(port) or server.poll() is not None, "the API server")
        return asyncio.run(measured(port)) * 1000


async def _woken(port: int) -> float:
    """Return the seconds from the first of 100 reports of demand to the arrival of the last patch."""
    async with client(port) as api, client(port) as urgent:
        replica = _Replica(api, urgent)
        try:
            await replica.sleeps()
            begin = time.monotonic()
            for name in NAMES:
                await replica.holder.write(wire.HolderReport(counts=(replica.waits(name),)))
            return await _last_patch(api) - begin
        finally:
            await replica.close()


async def _patched(port: int) -> float:
    """Return the seconds for the patches alone, on open connections."""
    async with client(port) as api:
        await asyncio.gather(*(api.get("/version") for _ in NAMES))
        begin = time.monotonic()
        await asyncio.gather(
            *(api.patch(_scale(name), wake_patches(REPLICAS)[0], "application/json-patch+json") for name in NAMES)
        )
        return await _last_patch(api) - begin


async def _last_patch(api: Api) -> float:
    """Return the arrival time of the last patch, once all have arrived."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(arrived := json.loads(await api.get("/arrived"))) < SERVICES:
            await asyncio.sleep(0.05)
    assert len(arrived) == SERVICES, "each wake is sent once"
    return float(max(arrived))


def _scale(name: str) -> str:
    return f"/apis/apps/v1/namespaces/shop/deployments/{name.partition('/')[2]}/scale"


class _Replica:
    """A replica that is the leader, with one holder."""

    def __init__(self, api: Api, urgent: Api) -> None:
        self.urgent_calls = 0
        """Number of calls of `urgent` that ended; the first ones open its connections."""
        urgent.called = self._on_urgent_call
        self.engine = Engine(Clock(), Pace(3600.0), AnyIp(18001), NoListener())
        self.backend = KubernetesBackend(api, urgent, {}, self.engine.ran, lambda: True)
        self.router = XdsRouter(self.engine.routed, lambda *_: None, lambda _: None)
        self.holders = HolderStreams(self.engine.held, time.time)
        self.alarm = SchedulerAlarm(self.engine.passed)
        self.alarm.start()
        self.engine.start(Adapters(self.backend, self.router, self.holders, self.alarm.arm, _Asleep(), lambda at: None))
        self.grpc = grpc.aio.server()
        self.grpc.add_generic_rpc_handlers((self.holders.handler(), self.router.server.handler()))

    async def sleeps(self) -> None:
        """Return once all services sleep, the holder has joined, and connections for wakes are open."""
        port = self.grpc.add_insecure_port("127.0.0.1:0")
        await self.grpc.start()
        specs = [
            Spec(name=name, protocol=Protocol.HTTP, hosts=(name.replace("/", "."),), replicas=REPLICAS)
            for name in NAMES
        ]
        self.router.configure("127.0.0.1:10000", None, specs)
        self.engine.configure(specs)
        self.backend.configure({spec.name: _entry(spec) for spec in specs})
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        self.holder = self._channel.stream_stream(wire.METHOD, wire.ENCODER.encode, wire.DOWN.decode)()
        await self.holder.write(wire.HolderReport(hello=wire.HolderHello("one", "anyip")))
        await self._until(lambda: all(one.seen.replicas == 0 for one in self.engine.services.values()))
        opened = sum(range(WARM_BATCH, WARM_CONNECTIONS + 1, WARM_BATCH))
        await self._until(lambda: self.urgent_calls >= opened)

    def waits(self, name: str) -> wire.Count:
        record = self.engine.services[name].record
        assert record and record.state is State.ScaledToZero
        return wire.Count(record.hold_address, 1, 0, 0, 0, 0, time.time(), "10.0.0.1:40000")

    async def close(self) -> None:
        self.holder.cancel()
        await self._channel.close()
        await self.backend.close()
        self.alarm.close()
        await self.router.server.close()
        await self.grpc.stop(None)

    def _on_urgent_call(self, *_: str) -> None:
        self.urgent_calls += 1

    async def _until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not holds():
                await asyncio.sleep(0.01)


class _Asleep:
    """A store in which all services sleep."""

    def records(self) -> dict[str, Record]:
        asleep = Record(State.ScaledToZero, 1.0, "idle", REPLICAS, "", zeroed=True)
        return {
            name: Record(
                asleep.state, asleep.since, asleep.reason, asleep.replicas, f"127.64.0.{index + 1}:18001", zeroed=True
            )
            for index, name in enumerate(NAMES)
        }

    def save(self, service: str, record: Record) -> None:
        """Discard the record."""

    def forget(self, service: str) -> None:
        """Do nothing."""

    def paused(self) -> frozenset[str]:
        return frozenset()

    def pause(self, service: str, paused: bool) -> None:
        """Do nothing."""

    def next_index(self) -> int:
        raise AssertionError("each has its hold address")


def _entry(spec: Spec) -> ServiceConfig:
    name = spec.name.partition("/")[2]
    target = Target("apps/v1", "Deployment", name, "shop")
    return ServiceConfig(spec, target, name, ServicePort("", 80), 0.0, f"uid-{name}", 1)


def _serve(port: int) -> None:
    """Run the substitute API server."""
    deployments, others, arrived = ApiServer(), ApiServer(), []
    for name in NAMES:
        deployments.put(name.partition("/")[2], metadata={"uid": name}, spec={"replicas": 0})

    async def scale(request: web.Request) -> web.Response:
        if request.method == "PATCH":
            arrived.append(time.monotonic())
        spec: dict[str, Any] = {"replicas": REPLICAS} if request.method == "PATCH" else {}
        meta = {"name": request.match_info["name"], "namespace": "shop", "resourceVersion": "1000"}
        return web.json_response({"metadata": meta, "spec": spec, "status": {"replicas": 0, "selector": "app=web"}})

    async def respond(answer: Any) -> web.Response:
        return web.json_response(answer)

    app = web.Application()
    app.router.add_get("/version", lambda _: respond({}))
    app.router.add_get("/arrived", lambda _: respond(arrived))
    app.router.add_get("/apis/apps/v1", lambda _: respond({"resources": KINDS}))
    app.router.add_route("*", "/apis/apps/v1/namespaces/shop/deployments/{name}/scale", scale)
    app.router.add_route("*", "/apis/apps/v1/deployments", deployments.handle)
    app.router.add_route("*", "/{path:.*}", others.handle)
    web.run_app(app, host="127.0.0.1", port=port, print=None)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
