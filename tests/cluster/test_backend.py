"""The backend on a real API server: objects, wakes, sleeps, and concurrent writers."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

import pytest

from reconciler.kubernetes.client.errors import ApiError
from reconciler.kubernetes.workloads.warm_connections import WARM_BATCH, WARM_CONNECTIONS
from reconciler.plan import AtLeast, Zero
from reconciler.ports.backend import WorkloadStatus
from tests.cluster.stage import GENEROUS_SECONDS, RUNS, Stage, condition, container, endpoint, entry, own_address

UP, DOWN = AtLeast(3), Zero()
HERE = own_address()


@pytest.fixture
def server() -> Iterator[int]:
    """Provide the port of a server that accepts connections."""
    with socket.create_server((HERE, 0)) as listening:
        yield listening.getsockname()[1]


async def test_backend_reports_endpoints_and_scaling(stage: Stage, server: int) -> None:
    await stage.deploy("web", 2)
    await stage.slice("web-a", "web", [endpoint(HERE, "one")], server)
    stage.configure(entry("web", stage.namespace))
    first = await stage.until("web", lambda running: running.replicas == 2)
    assert (first.endpoints, first.diagnosis) == ((f"{HERE}:{server}",), None)
    assert stage.all("web")[0] == first, "nothing is said before it is known"
    await stage.scale("web", 5)
    await stage.until("web", lambda running: running.replicas == 5)
    await stage.scale("web", 0)
    asleep = await stage.until("web", lambda running: running.replicas == 0)
    assert asleep.endpoints == (), "who is about to end is no endpoint"


async def test_backend_sleeps_and_wakes(stage: Stage, server: int) -> None:
    await stage.deploy("web", 3)
    await stage.slice("web-a", "web", [endpoint(HERE, "old")], server)
    stage.configure(entry("web", stage.namespace))
    await stage.until("web", lambda running: running.endpoints)
    stage.converge("web", DOWN)
    sent = stage.now("web")
    assert sent and sent.endpoints == (), "said before the call returns"
    await stage.until("web", lambda running: running.replicas == 0)
    assert await stage.replicas("web") == 0
    stage.converge("web", None)
    await stage.slice("web-a", "web", [endpoint(HERE, "old", ready=False, terminating=True)], server)
    began = time.time()
    stage.converge("web", UP)
    await stage.until_replicas("web", 3)
    waking = await stage.until("web", lambda running: running.replicas == 3 and "scale" in running.milestones)
    assert waking.endpoints == (), "who is still about to end is not who was woken"
    old = endpoint(HERE, "old", ready=False, terminating=True)
    with socket.create_server((HERE, 0)) as new:
        port = new.getsockname()[1]
        await stage.slice("web-b", "web", [endpoint(HERE, "new")], port)
        await stage.slice("web-a", "web", [old], server)
        awake = await stage.until("web", lambda running: running.endpoints)
    assert awake.endpoints == (f"{HERE}:{port}",)
    assert list(awake.milestones) == ["scale", "ready"]
    assert began <= awake.milestones["scale"] <= awake.milestones["ready"] <= time.time()


async def test_backend_follower_wakes_if_the_leader_does_not(stage: Stage) -> None:
    await stage.deploy("web", 0)
    stage.configure(entry("web", stage.namespace))
    await stage.until("web", lambda running: running.replicas == 0)
    stage.leads = False
    stage.converge("web", UP)
    await stage.until_replicas("web", 3)


@pytest.mark.parametrize("kind", ["StatefulSet", "ReplicaSet"])
async def test_backend_other_workload_kinds_sleep_and_wake(stage: Stage, kind: str) -> None:
    await stage.deploy("db", 1, kind)
    stage.configure(entry("db", stage.namespace, kind=kind))
    await stage.until("db", lambda running: running.replicas == 1)
    stage.converge("db", DOWN)
    await stage.until("db", lambda running: running.replicas == 0)
    stage.converge("db", AtLeast(2))
    await stage.until("db", lambda running: running.replicas == 2)
    assert await stage.replicas("db", f"{kind.lower()}s") == 2


async def test_wake_leaves_replicas_set_by_others(stage: Stage) -> None:
    await stage.deploy("web", 7)
    stage.configure(entry("web", stage.namespace))
    await stage.until("web", lambda running: running.replicas == 7)
    stage.converge("web", UP)
    await stage.scale("web", 8)
    await stage.until("web", lambda running: running.replicas == 8)
    assert await stage.replicas("web") == 8


async def test_wake_overrules_a_zero_by_somebody_else(stage: Stage) -> None:
    await stage.deploy("web", 0)
    stage.configure(entry("web", stage.namespace))
    await stage.until("web", lambda running: running.replicas == 0)
    stage.converge("web", UP)
    await stage.until("web", lambda running: running.replicas == 3)
    stage.reports.clear()
    await stage.scale("web", 0)
    await stage.until("web", lambda running: running.replicas == 0)
    await stage.until("web", lambda running: running.replicas == 3)
    stage.converge("web", None)
    await stage.scale("web", 0)
    await stage.until("web", lambda running: running.replicas == 0)
    assert await stage.replicas("web") == 0, "awake, the number is its owner's, zero too"


async def test_sleep_replicas_changed_meanwhile_still_sleeps(stage: Stage) -> None:
    await stage.deploy("web", 3)
    stage.configure(entry("web", stage.namespace))
    await stage.until("web", lambda running: running.replicas == 3)
    stage.leads = False
    stage.converge("web", DOWN)

    def has_replicas(wanted: int, running: WorkloadStatus) -> bool:
        return running.replicas == wanted

    for replicas in (4, 5, 6):
        await stage.scale("web", replicas)
        await stage.until("web", partial(has_replicas, replicas))
    assert await stage.replicas("web") == 6, "who does not lead puts nothing to sleep"
    stage.leads = True
    await stage.until("web", lambda running: running.replicas == 0)


async def test_sleep_with_a_busy_autoscaler_succeeds(
    stage: Stage,
) -> None:
    await stage.deploy("web", 3)
    stage.configure(entry("web", stage.namespace))
    await stage.until("web", lambda running: running.replicas == 3)
    at = f"/apis/apps/v1/namespaces/{stage.namespace}/deployments/web/scale"

    async def autoscale() -> None:
        """Scale it like an HPA: from one number that is not zero to another."""
        for number in range(10_000):
            now = await stage.replicas("web")
            if now:
                test = {"op": "test", "path": "/spec/replicas", "value": now}
                change = {"op": "replace", "path": "/spec/replicas", "value": 2 + number % 5}
                with suppress(ApiError):  # the number was another one already
                    await stage.json_patch(at, test, change)
            await asyncio.sleep(0.005)  # or the real controllers are busy with it for minutes

    autoscaler = asyncio.create_task(autoscale())
    stage.converge("web", DOWN)
    await stage.until("web", lambda running: running.replicas == 0)
    assert await stage.replicas("web") == 0
    stage.converge("web", UP)
    await stage.until("web", lambda running: running.replicas not in (0, None))
    stage.converge("web", None)
    await stage.until("web", lambda running: running.replicas == 6)
    autoscaler.cancel()
    await asyncio.gather(autoscaler, return_exceptions=True)


async def test_wake_during_a_sleep_wins(stage: Stage) -> None:
    await stage.deploy("web", 3)
    stage.configure(entry("web", stage.namespace))
    await stage.until("web", lambda running: running.replicas == 3)
    for _ in range(20):
        stage.converge("web", DOWN)
        await asyncio.sleep(0)
        stage.converge("web", UP)
        await stage.until("web", lambda running: running.replicas == 3)
    await stage.until_replicas("web", 3)


async def test_endpoint_terminating_pod_is_removed_before_its_slice(stage: Stage, server: int) -> None:
    await stage.deploy("web", 1)
    await stage.slice("web-a", "web", [endpoint(HERE, "old")], server)
    stage.configure(entry("web", stage.namespace))
    await stage.until("web", lambda running: running.endpoints)
    stage.converge("web", DOWN)
    await stage.until("web", lambda running: running.replicas == 0)
    woken = time.monotonic()
    stage.converge("web", UP)
    await stage.until("web", lambda running: running.replicas == 3)
    await stage.until("web", lambda running: running.endpoints)
    assert time.monotonic() - woken > 2, "the slice says that it is ready for so long that it was spared"


async def test_sleep_refused_keeps_the_endpoints(stage: Stage, server: int) -> None:
    await stage.deploy("web", 3)
    await stage.slice("web-a", "web", [endpoint(HERE, "old")], server)
    stage.configure(entry("web", stage.namespace))
    await stage.until("web", lambda running: running.endpoints)
    stage.leads = False
    stage.converge("web", DOWN)
    stage.leads = True
    stage.converge("web", UP)
    await stage.until("web", lambda running: running.endpoints)
    assert await stage.replicas("web") == 3


async def test_target_missing_is_reported_until_it_exists(stage: Stage, server: int) -> None:
    stage.configure(entry("web", stage.namespace))
    missing = await stage.until("web", lambda running: running.diagnosis)
    assert str(missing.diagnosis) == f"TargetNotFound: Deployment {stage.namespace}/web does not exist"
    assert missing.replicas == 0, "known: nothing runs"
    stage.converge("web", UP)
    await stage.deploy("web", 0)
    await stage.until("web", lambda running: running.replicas == 3 and running.diagnosis is None)
    stage.converge("web", None)
    await stage.delete("deployments", "web")
    await stage.until("web", lambda running: running.diagnosis and running.replicas == 0)
    await stage.deploy("web", 2)
    await stage.until("web", lambda running: running.replicas == 2 and running.diagnosis is None)


async def test_target_misspelled_other_services_continue(stage: Stage, server: int) -> None:
    await stage.slice("web-a", "web", [endpoint(HERE, "one")], server)
    stage.configure(entry("web", stage.namespace, "wbe"))
    running = await stage.until("web", lambda running: running.diagnosis and running.endpoints)
    assert (running.replicas, running.endpoints) == (1, (f"{HERE}:{server}",))


async def test_target_shared_sleeps_when_unused(stage: Stage, server: int) -> None:
    await stage.deploy("app", 2)
    await stage.slice("web-a", "web", [endpoint(HERE, "one")], server)
    await stage.slice("api-a", "api", [endpoint(HERE, "one")], server)
    stage.configure(entry("web", stage.namespace, "app"), entry("api", stage.namespace, "app"))
    await stage.until("web", lambda running: running.endpoints)
    await stage.until("api", lambda running: running.endpoints)
    stage.converge("web", DOWN)
    await asyncio.sleep(0.3)
    running = stage.now("api")
    assert running and running.endpoints and running.replicas == 2, "it is in use through the other"
    assert await stage.replicas("app") == 2
    stage.converge("web", UP)
    await stage.until("web", lambda running: running.endpoints)
    stage.converge("api", DOWN)
    stage.converge("web", DOWN)
    await stage.until("web", lambda running: running.replicas == 0)
    await stage.until("api", lambda running: running.replicas == 0 and not running.endpoints)
    stage.converge("web", None)
    stage.converge("api", None)
    stage.converge("api", AtLeast(4))
    await stage.until("web", lambda running: running.replicas == 4)


async def test_target_changed_service_moves_to_it(stage: Stage) -> None:
    await stage.deploy("one", 1)
    await stage.deploy("two", 2)
    stage.configure(entry("web", stage.namespace, "one"), entry("other", stage.namespace, "two"))
    await stage.until("web", lambda running: running.replicas == 1)
    stage.configure(entry("web", stage.namespace, "two"))
    await stage.until("web", lambda running: running.replicas == 2)
    stage.reports.clear()
    await stage.scale("two", 3)
    await stage.until("web", lambda running: running.replicas == 3)
    assert not stage.all("other"), "it is no longer configured"
    assert len(stage.backend.targets) == 1


@pytest.mark.usefixtures("node_of")
async def test_endpoints_of_real_controllers_come_and_go(stage: Stage, server: int) -> None:
    """A Service with a selector; only the kubelet is played."""
    ports = [{"name": "http", "port": 80, "targetPort": server}]
    await stage.make(
        "services", {"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": ports}}, "v1"
    )
    await stage.deploy("web", 0)
    stage.configure(entry("web", stage.namespace, port="http"))
    await stage.until("web", lambda running: running.replicas == 0)
    pods: list[str] = []
    for _ in range(2):
        stage.converge("web", AtLeast(1))
        pod = await stage.pod("web", besides=pods)
        pods.append(pod["metadata"]["uid"])
        await stage.bind(pod)
        starting = await stage.until("web", lambda running: "scheduled" in running.milestones)
        assert starting.endpoints == (), "the pod of before still serves, but it ends"
        ready = [condition("PodScheduled", "True"), condition("Ready", "True")]
        await stage.say(
            pod,
            phase="Running",
            podIP=HERE,
            podIPs=[{"ip": HERE}],
            conditions=ready,
            containerStatuses=[container(RUNS)],
        )
        awake = await stage.until("web", lambda running: running.endpoints)
        assert awake.endpoints == (f"{HERE}:{server}",)
        if "running" not in awake.milestones:  # the watch of endpoints may be ahead of the watch of pods
            awake = await stage.until("web", lambda running: "running" in running.milestones)
        assert list(awake.milestones) == ["scale", "scheduled", "running", "ready"]
        stage.converge("web", None)
        stage.converge("web", DOWN)
        await stage.until("web", lambda running: running.replicas == 0)
        await stage.until_pods_end("web")
        stage.converge("web", None)


async def test_endpoints_terminating_are_not_trusted_by_followers(stage: Stage, server: int) -> None:
    await stage.deploy("web", 1)
    await stage.slice("web-a", "web", [endpoint(HERE, "one")], server)
    stage.configure(entry("web", stage.namespace))
    await stage.until("web", lambda running: running.endpoints)
    stage.leads = False
    stage.converge("web", DOWN)
    began = time.monotonic()
    stage.converge("web", UP)
    await stage.until("web", lambda running: running.endpoints)
    assert time.monotonic() - began > 2, "the leader's patch would be through by now"


async def test_scale_forbidden_is_reported_and_retried(stage: Stage, server: int) -> None:
    await stage.slice("web-a", "web", [endpoint(HERE, "one"), endpoint(HERE, "one")], server)
    stage.configure(entry("web", stage.namespace, kind="DaemonSet"))
    running = await stage.until("web", lambda running: running.diagnosis and running.endpoints)
    assert str(running.diagnosis).startswith("NotScalable: DaemonSet (apps/v1) has no scale subresource")
    assert (running.replicas, running.endpoints) == (1, (f"{HERE}:{server}",))
    stage.converge("web", DOWN)
    stage.converge("web", UP)
    await stage.until("web", lambda running: running.endpoints)


async def test_backend_close_changes_nothing(stage: Stage, server: int) -> None:
    await stage.deploy("web", 2)
    stage.configure(entry("web", stage.namespace))
    await stage.until("web", lambda running: running.replicas == 2)
    await stage.backend.close()
    stage.converge("web", DOWN)
    said = len(stage.reports)
    await stage.scale("web", 3)
    await asyncio.sleep(0.2)
    assert len(stage.reports) == said
    assert await stage.replicas("web") == 3


async def test_hundred_wakes_are_sent_at_once(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"web-{number}" for number in range(100)]
    await asyncio.gather(*(stage.deploy(name, 0) for name in names))
    stage.configure(*(entry(name, stage.namespace) for name in names))
    for name in names:
        await stage.until(name, lambda running: running.replicas == 0)
    async with asyncio.timeout(GENEROUS_SECONDS):
        while stage.urgent_calls < sum(range(WARM_BATCH, WARM_CONNECTIONS + 1, WARM_BATCH)):
            await asyncio.sleep(0.05)
    began, began_at = time.monotonic(), time.time()
    for name in names:
        stage.converge(name, UP)
    sent = time.monotonic() - began
    answered = [
        (await stage.until(name, lambda running: "scale" in running.milestones)).milestones["scale"] for name in names
    ]
    with capsys.disabled():
        first, last = min(answered) - began_at, max(answered) - began_at
        print(f"\n100 wakes: asked for in {sent:.3f} s, first answer after {first:.3f} s, last after {last:.3f} s")
    for name in names:
        await stage.until(name, lambda running: running.replicas == 3)
