"""The API server goes away and comes back, at every point of a wake and of a sleep."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from reconciler.kubernetes.client.api import connect
from reconciler.plan import AtLeast, Zero
from tests.cluster.harness import Cluster
from tests.cluster.stage import GENEROUS_SECONDS, Stage, endpoint, entry, own_address

HERE = own_address()


@pytest.fixture
async def stage(apiserver: Cluster, namespace: str) -> AsyncIterator[Stage]:
    api, urgent = await connect(apiserver.kubeconfig), await connect(apiserver.kubeconfig)
    made = Stage(api, urgent, namespace)
    yield made
    await made.backend.close()
    await api.close()
    await urgent.close()
    await asyncio.to_thread(apiserver.start_apiserver)


async def test_backend_api_server_restart_loses_nothing(stage: Stage, apiserver: Cluster) -> None:
    with socket.create_server((HERE, 0)) as server:
        port = server.getsockname()[1]
        await stage.deploy("web", 3)
        await stage.slice("web-a", "web", [endpoint(HERE, "one")], port)
        stage.configure(entry("web", stage.namespace))
        await stage.until("web", lambda running: running.endpoints)
        before = len(stage.reports)

        # Awake: running services continue.
        await asyncio.to_thread(apiserver.stop_apiserver)
        await asyncio.to_thread(apiserver.start_apiserver)
        assert len(stage.reports) == before

        # Falling asleep: it does so once it can.
        await asyncio.to_thread(apiserver.stop_apiserver)
        stage.converge("web", Zero())
        await asyncio.to_thread(apiserver.start_apiserver)
        await stage.until("web", lambda running: running.replicas == 0)
        assert await stage.replicas("web") == 0
        stage.converge("web", None)

        # Waking: the reason is reported, and it wakes as soon as possible.
        await asyncio.to_thread(apiserver.stop_apiserver)
        stage.converge("web", AtLeast(2))
        reported = await stage.until("web", lambda running: running.diagnosis)
        assert str(reported.diagnosis).startswith("ApiUnreachable: ")
        await asyncio.to_thread(apiserver.start_apiserver)
        await stage.until("web", lambda running: running.replicas == 2 and running.diagnosis is None)


async def test_wake_frozen_api_server_delays_it_no_longer(stage: Stage, apiserver: Cluster) -> None:
    await stage.deploy("web", 0)
    stage.configure(entry("web", stage.namespace))
    await stage.until("web", lambda running: running.replicas == 0)
    apiserver.freeze("apiserver")
    stage.converge("web", AtLeast(2))
    await asyncio.sleep(0.5)
    apiserver.thaw("apiserver")
    async with asyncio.timeout(GENEROUS_SECONDS):
        await stage.until("web", lambda running: running.replicas == 2)
