"""The backend with pods that answer their probes before Kubernetes calls them ready."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from reconciler.core.reasons import Reason
from reconciler.kubernetes.config.service_config import Readiness
from reconciler.kubernetes.workloads.probes import early_endpoints
from tests.reconciler.kubernetes.workloads.scene import DOWN, PODS, UP, Scene, entry
from tests.servers import serving

HERE = "127.0.0.1"
RUNS: dict[str, Any] = {"running": {}}


class App:
    """An HTTP server whose readiness a test sets."""

    def __init__(self) -> None:
        self.status = 503
        self.requests = 0
        self.asked = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            self.requests += 1
            self.asked.set()
            writer.write(f"HTTP/1.1 {self.status} x\r\nContent-Length: 0\r\n\r\n".encode())
            await writer.drain()
        writer.close()

    async def until_asked(self) -> None:
        """Wait for an answer that the prober has received: the next request is sent after it."""
        for _ in range(2):
            self.asked.clear()
            async with asyncio.timeout(60):
                await self.asked.wait()


@pytest.fixture
async def app() -> AsyncIterator[tuple[App, int]]:
    made = App()
    async with serving(made.serve, HERE) as port:
        yield made, port


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early_endpoints, "VERIFY_EVERY_SECONDS", 0.02)


def http(port: int) -> dict[str, Any]:
    return {"httpGet": {"path": "/ready", "port": port}, "periodSeconds": 10}


def put_pod(
    scene: Scene,
    probe: dict[str, Any] | None = None,
    name: str = "one",
    beside: dict[str, Any] | None = None,
    beside_probe: dict[str, Any] | None = None,
    restarts: int = 0,
    ready: bool = False,
    **spec: Any,
) -> str:
    """Set a running pod that is not ready, and return its uid.

    `beside` is the state of another container, and `restarts` how often it was restarted.
    """
    containers = [{"name": "app", **({"readinessProbe": probe} if probe else {})}]
    containers += [{"name": "beside", **({"readinessProbe": beside_probe} if beside_probe else {})}] if beside else []
    status = {
        "phase": "Running",
        "podIP": HERE,
        "podIPs": [{"ip": HERE}],
        "containerStatuses": [
            {"name": "app", "state": RUNS, "ready": ready},
            *([{"name": "beside", "state": beside, "restartCount": restarts}] if beside else []),
        ],
        "conditions": [{"type": "Ready", "status": "False"}],
    }
    body = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": containers, **spec}, "status": status}
    scene.api.say(PODS, "shop", name, body)
    return f"uid-of-{name}"


async def woken(scene: Scene) -> None:
    """Wake the service from zero replicas."""
    scene.deploy(0)
    scene.configure()
    await scene.until(lambda running: running.replicas == 0)
    scene.converge(UP)
    await scene.until(lambda running: running.replicas == 2)


async def test_early_endpoint_is_used_before_ready(scene: Scene, app: tuple[App, int]) -> None:
    server, port = app
    await woken(scene)
    uid = put_pod(scene, http(port))
    scene.slice(port, uid, ready=False)
    await server.until_asked()
    assert not scene.now.endpoints
    server.status = 200
    awake = await scene.until(lambda running: running.endpoints)
    assert awake.endpoints == (f"{HERE}:{port}",)
    assert list(awake.milestones)[-1] == "ready"


async def test_early_endpoint_is_used_by_followers(scene: Scene, app: tuple[App, int]) -> None:
    server, port = app
    server.status = 200
    scene.leads = False
    scene.backend.lead(False)
    await woken(scene)
    scene.slice(port, put_pod(scene, http(port)), ready=False)
    await scene.until(lambda running: running.endpoints)


async def test_early_endpoint_without_probe_is_used(scene: Scene, port: int) -> None:
    await woken(scene)
    scene.slice(port, put_pod(scene), ready=False)
    awake = await scene.until(lambda running: running.endpoints == (f"{HERE}:{port}",))
    assert awake.early


async def test_endpoint_with_late_slice_is_used_but_is_not_early(scene: Scene, port: int) -> None:
    """The kubelet runs a command, for example, and the pod is updated before the EndpointSlice."""
    await woken(scene)
    probe = {"exec": {"command": ["ready"]}}
    uid = put_pod(scene, probe)
    scene.slice(port, uid, ready=False)
    await scene.until(lambda running: "running" in running.milestones)
    put_pod(scene, probe, ready=True)
    awake = await scene.until(lambda running: running.endpoints == (f"{HERE}:{port}",))
    assert not awake.early


async def test_early_endpoint_needs_containers_that_still_run(scene: Scene, app: tuple[App, int]) -> None:
    """A container without a probe has passed while it runs, and only then."""
    server, port = app
    await woken(scene)
    uid = put_pod(scene, http(port), beside=RUNS)
    scene.slice(port, uid, ready=False)
    await server.until_asked()
    put_pod(scene, http(port), beside={"terminated": {"exitCode": 1}})
    await scene.until(lambda running: running.diagnosis and running.diagnosis.code is Reason.CRASHED)
    server.status = 200
    await asyncio.sleep(0.1)
    assert not scene.now.endpoints
    put_pod(scene, http(port), beside=RUNS, restarts=1)
    await scene.until(lambda running: running.endpoints)


async def test_early_endpoint_needs_the_probes_of_all_containers(scene: Scene, app: tuple[App, int]) -> None:
    server, port = app
    server.status = 200
    beside = App()
    async with serving(beside.serve, HERE) as other:
        await woken(scene)
        scene.slice(port, put_pod(scene, http(port), beside=RUNS, beside_probe=http(other)), ready=False)
        await beside.until_asked()
        await server.until_asked()
        assert not scene.now.endpoints
        beside.status = 200
        await scene.until(lambda running: running.endpoints)
        beside.status = 503
        await scene.until(lambda running: not running.endpoints)


async def test_early_endpoint_with_restarted_container_starts_again(scene: Scene, app: tuple[App, int]) -> None:
    server, port = app
    server.status = 200
    await woken(scene)
    probe = {**http(port), "successThreshold": 10**6}
    uid = put_pod(scene, probe, beside=RUNS)
    scene.slice(port, uid, ready=False)
    await server.until_asked()
    put_pod(scene, http(port), beside=RUNS)
    await server.until_asked()
    assert not scene.now.endpoints, "the same run of the containers has the same probes"
    put_pod(scene, http(port), beside=RUNS, restarts=1)
    await scene.until(lambda running: running.endpoints)


async def test_early_endpoint_is_handed_over_without_a_gap(scene: Scene, app: tuple[App, int], port: int) -> None:
    server, early = app
    server.status = 200
    await woken(scene)
    uid = put_pod(scene, http(early))
    scene.slice(early, uid, ready=False)
    awake = await scene.until(lambda running: running.endpoints)
    assert (awake.early, awake.saved_seconds) == (True, None)
    scene.converge(None)
    said = len(scene.reports)
    scene.slice(early, uid, ready=True)
    scene.slice(port, "other", name="web-b")
    confirmed = await scene.until(lambda running: len(running.endpoints) == 2)
    assert not confirmed.early
    assert confirmed.saved_seconds is not None
    server.status = 503
    await asyncio.sleep(0.1)
    assert all(f"{HERE}:{early}" in running.endpoints for running in scene.reports[said:]), "Kubernetes decides now"
    scene.slice(early, uid, ready=False)
    scene.slice(port, name="web-b")
    await scene.until(lambda running: not running.endpoints)
    server.status = 200
    scene.converge(UP)
    before = server.requests
    await asyncio.sleep(0.1)
    assert (scene.now.endpoints, server.requests) == ((), before), "it was ready before"


async def test_early_endpoint_is_withdrawn_after_failure(scene: Scene, app: tuple[App, int]) -> None:
    server, port = app
    server.status = 200
    await woken(scene)
    scene.slice(port, put_pod(scene, http(port)), ready=False)
    await scene.until(lambda running: running.endpoints)
    scene.converge(None)
    server.status = 503
    await scene.until(lambda running: not running.endpoints)
    scene.converge(UP)
    await server.until_asked()
    server.status = 200
    await scene.until(lambda running: running.endpoints)


async def test_early_endpoint_needs_its_own_port(scene: Scene, app: tuple[App, int], port: int) -> None:
    """The probe's port may answer before the Service's."""
    server, probed = app
    server.status = 200
    with socket.socket() as later:
        later.bind((HERE, 0))
        await woken(scene)
        scene.slice(later.getsockname()[1], put_pod(scene, http(probed)), ready=False)
        await server.until_asked()
        assert not scene.now.endpoints
        later.listen()
        await scene.until(lambda running: running.endpoints)


@pytest.mark.parametrize(
    ("probe", "spec"),
    [
        ({"exec": {"command": ["ready"]}}, {}),
        (None, {"hostNetwork": True}),
        (None, {"readinessGates": [{"conditionType": "a.example/b"}]}),
        ({"tcpSocket": {"port": 80, "host": "127.0.0.1"}}, {}),
    ],
)
async def test_endpoints_left_to_kubernetes_are_not_dialled(
    scene: Scene, port: int, probe: dict[str, Any] | None, spec: dict[str, Any]
) -> None:
    await woken(scene)
    uid = put_pod(scene, probe, **spec)
    scene.slice(port, uid, ready=False)
    await scene.until(lambda running: "running" in running.milestones)
    await asyncio.sleep(0.05)
    assert not scene.now.endpoints
    scene.slice(port, uid, ready=True)
    await scene.until(lambda running: running.endpoints)


async def test_endpoint_with_foreign_address_is_not_dialled(scene: Scene, port: int) -> None:
    await woken(scene)
    uid = put_pod(scene)
    scene.slice(port, uid, name="web-6", family="IPv6", ready=False)
    await scene.until(lambda running: "running" in running.milestones)
    await asyncio.sleep(0.05)
    assert not scene.now.endpoints


async def test_early_endpoint_is_not_used_after_zero(scene: Scene, app: tuple[App, int]) -> None:
    server, port = app
    server.status = 200
    await woken(scene)
    uid = put_pod(scene, http(port))
    scene.slice(port, uid, ready=False)
    await scene.until(lambda running: running.endpoints)
    scene.converge(None)
    scene.converge(DOWN)
    assert not scene.now.endpoints, "reported before the call returns"
    await scene.until(lambda running: running.replicas == 0)
    said = len(scene.reports)
    scene.converge(UP)
    await scene.until(lambda running: running.replicas == 2)
    await asyncio.sleep(0.1)
    assert not any(running.endpoints for running in scene.reports[said:]), "the pod ends"


async def test_probes_stop_if_clients_are_gone(scene: Scene, app: tuple[App, int]) -> None:
    server, port = app
    await woken(scene)
    scene.slice(port, put_pod(scene, http(port)), ready=False)
    await server.until_asked()
    scene.converge(DOWN)
    await scene.until(lambda running: running.replicas == 0)
    await asyncio.sleep(0.02)
    before = server.requests
    await asyncio.sleep(0.2)
    assert server.requests - before <= 1


async def test_readiness_of_kubernetes_is_awaited_if_configured(scene: Scene, app: tuple[App, int]) -> None:
    server, port = app
    await woken(scene)
    uid = put_pod(scene, http(port))
    scene.slice(port, uid, ready=False)
    await server.until_asked()
    scene.configure(entry(readiness=Readiness.KUBERNETES))
    server.status = 200
    await asyncio.sleep(0.2)
    assert not scene.now.endpoints
    scene.slice(port, uid, ready=True)
    await scene.until(lambda running: running.endpoints)
