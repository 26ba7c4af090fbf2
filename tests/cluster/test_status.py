"""Statuses on a real API server: content, writers, and restarts of the API server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from reconciler.core.events import Event
from reconciler.core.reasons import Problem, Reason
from reconciler.core.record import Record, State
from reconciler.kubernetes.client.api import MERGE_PATCH, Api, connect
from reconciler.kubernetes.config.commands import CommandController
from reconciler.kubernetes.status.finalizer import FinalizerController
from reconciler.kubernetes.status.status_writer import StatusWriter
from reconciler.kubernetes.types.objects import micro_time
from reconciler.kubernetes.types.scaled_service import COMMAND_ANNOTATION, FINALIZER
from tests.cluster import crd
from tests.cluster.harness import Cluster
from tests.cluster.written import GENEROUS_SECONDS, Written, release_nothing, until

ACTIVE = Record(State.Active, 1_795_000_000.123457, "reachable", 2, "127.64.0.1:18001")
ASLEEP = Record(State.ScaledToZero, 1_795_000_060.0, "idle for all of idleAfter", 2, "127.64.0.1:18001", zeroed=True)
STALLED = Record(
    State.Waking, 1_795_000_090.5, "a client is waiting", 2, "127.64.0.1:18001", "ImagePullBackOff: no web:1"
)
BAD = Problem(Reason.PORT_NOT_FOUND, "spec.port", "Service shop/web has no port 81", "write 80")


class Scene(Written):
    """With a store that writes, and another one that would."""

    leads = True

    def store(self, writing: bool = True) -> StatusWriter:
        made = StatusWriter(self.api, self.items, lambda: self.leads, lambda: 0)
        self.listeners.append(made.saw)
        if writing:
            self.run(made.queue.run())
            made.lead()
        return made


@pytest.fixture
async def scene(api: Api, namespace: str) -> AsyncIterator[Scene]:
    await crd.install(api)
    scene = Scene(api, namespace)
    await scene.start()
    await scene.make()
    yield scene
    await scene.end()


async def test_status_record_is_read_by_the_next_reconciler(scene: Scene) -> None:
    store = scene.store()
    for record in (ACTIVE, ASLEEP, STALLED, ACTIVE):
        store.save(scene.named(), record)
        assert await store.queue.drain(GENEROUS_SECONDS)
        again = Scene(scene.api, scene.namespace)
        await again.start()
        found = again.store(writing=False).records()
        await again.end()
        assert found == {scene.named(): record}


async def test_status_shows_state_and_conditions(scene: Scene, control_plane: Cluster) -> None:
    store, began = scene.store(), datetime.now(UTC).replace(microsecond=0)
    store.save(scene.named(), STALLED)
    assert await store.queue.drain(GENEROUS_SECONDS)
    titles, row = (line.split() for line in control_plane.kubectl("get", "ssvc", "-n", scene.namespace).splitlines())
    assert titles == ["NAME", "STATE", "TARGET", "READY", "AWAKE", "SINCE", "AGE"]
    assert row[:5] == ["web", "Waking", "Deployment/web", "False", "False"]
    wide, line = control_plane.kubectl("get", "ssvc", "-n", scene.namespace, "-o", "wide").splitlines()
    assert wide.split() == [*titles, "SERVICE", "REPLICAS", "REASON", "STALLED"]
    for title, said in (("REASON", STALLED.reason), ("STALLED", STALLED.stalled)):
        assert said and line[wide.index(title) :].startswith(said)
    control_plane.kubectl("wait", "ssvc/web", "-n", scene.namespace, "--for=condition=Stalled", "--timeout=240s")
    store.save(scene.named(), ACTIVE)
    store.set_problems(scene.named(), [BAD])
    assert await store.queue.drain(GENEROUS_SECONDS)
    control_plane.kubectl("wait", "ssvc/web", "-n", scene.namespace, "--for=condition=Stalled=false", "--timeout=240s")
    status = await scene.status()
    times = [one.pop("lastTransitionTime") for one in status["conditions"]]
    assert all(began <= datetime.fromisoformat(at) <= datetime.now(UTC) for at in times)
    assert status == {
        "state": "Active",
        "target": "Deployment/web",
        "since": "2026-11-18T11:06:40.123457Z",
        "reason": "reachable",
        "replicas": 2,
        "holdAddress": "127.64.0.1:18001",
        "observedGeneration": 1,
        "conditions": [
            {
                "type": "Ready",
                "status": "False",
                "reason": "PortNotFound",
                "message": "spec.port: Service shop/web has no port 81; write 80",
                "observedGeneration": 1,
            },
            {
                "type": "Awake",
                "status": "True",
                "reason": "Active",
                "message": "reachable",
                "observedGeneration": 1,
            },
            {"type": "Stalled", "status": "False", "reason": "AsExpected", "message": "", "observedGeneration": 1},
        ],
    }


async def test_status_spec_changed_meanwhile_is_written(scene: Scene) -> None:
    store = scene.store()
    for number in range(10):
        change = {"spec": {"idleAfter": f"{number + 1}m"}}
        store.save(scene.named(), Record(State.Active, 1000.0 + number, "reachable", 2, "127.64.0.1:18001"))
        await scene.api.patch(scene.at(), change, MERGE_PATCH)
    assert await store.queue.drain(GENEROUS_SECONDS)
    found = await scene.read()
    assert (found["spec"]["idleAfter"], found["status"]["since"]) == ("10m", "1970-01-01T00:16:49Z")


async def test_status_thawed_leader_overwrites_nothing(scene: Scene, api: Api) -> None:
    """A leader freezes after it has checked its leadership, and writes when another one has led for long."""
    frozen = Scene(api, scene.namespace)
    await frozen.start()
    asked: list[bool] = []

    def led_when_it_was_asked_first() -> bool:
        asked.append(not asked)
        return asked[-1]

    before = StatusWriter(api, dict(frozen.items), led_when_it_was_asked_first, lambda: 0)
    await frozen.end()
    store = scene.store()
    store.save(scene.named(), ACTIVE)
    assert await store.queue.drain(GENEROUS_SECONDS)
    written = await scene.read()
    before.lead()
    before.save(scene.named(), ASLEEP)
    scene.run(before.queue.run())
    assert await before.queue.drain(GENEROUS_SECONDS)
    assert asked[:2] == [True, False]
    assert await scene.read() == written


async def test_status_changed_by_somebody_else_is_corrected(scene: Scene) -> None:
    store = scene.store()
    store.save(scene.named(), ACTIVE)
    assert await store.queue.drain(GENEROUS_SECONDS)
    await scene.stand(state="ScaledToZero", conditions=None)
    async with asyncio.timeout(GENEROUS_SECONDS):
        while (status := await scene.status()).get("state") != "Active" or "conditions" not in status:
            await asyncio.sleep(0.02)


async def test_status_of_a_recreated_object_is_written(scene: Scene) -> None:
    store = scene.store()
    store.save(scene.named(), ACTIVE)
    assert await store.queue.drain(GENEROUS_SECONDS)
    await scene.delete()
    store.save(scene.named(), STALLED)
    await scene.make()
    async with asyncio.timeout(GENEROUS_SECONDS):
        while (await scene.status()).get("state") != "Waking":
            await asyncio.sleep(0.02)
    await scene.delete()
    store.save(scene.named(), ASLEEP)
    assert await store.queue.drain(GENEROUS_SECONDS)


async def test_pause_changes_the_spec(scene: Scene) -> None:
    store = scene.store()
    for paused in (True, False):
        store.pause(scene.named(), paused)
        assert await store.queue.drain(GENEROUS_SECONDS)
        assert (await scene.read())["spec"]["paused"] is paused


async def test_status_of_many_objects_is_written(scene: Scene) -> None:
    names = [f"web-{number}" for number in range(200)]
    await asyncio.gather(*(scene.make(name) for name in names))
    store, calls = scene.store(), list[str]()
    scene.api.called = lambda method, _: calls.append(method)
    for name in names:
        store.save(scene.named(name), ACTIVE)
    assert not calls, "saving waits for nothing"
    assert await store.queue.drain(GENEROUS_SECONDS)
    assert {(await scene.status(name))["state"] for name in names} == {"Active"}


async def test_status_and_finalizers_are_written_together(scene: Scene) -> None:
    names = [f"web-{number}" for number in range(50)]
    await asyncio.gather(*(scene.make(name) for name in names))
    store = scene.store()
    finalizers = FinalizerController(
        scene.api, scene.items, lambda: True, lambda *_: None, lambda _: None, release_nothing
    )
    scene.listeners.append(finalizers.saw)
    scene.run(finalizers.queue.run())
    for name in names:
        store.save(scene.named(name), ACTIVE)
    finalizers.configure([scene.named(name) for name in names])
    assert await store.queue.drain(GENEROUS_SECONDS)
    assert await finalizers.queue.drain(GENEROUS_SECONDS)
    for name in names:
        found = await scene.read(name)
        assert (found["status"]["state"], found["metadata"]["finalizers"]) == ("Active", [FINALIZER])
        await scene.api.patch(scene.at(name), {"metadata": {"finalizers": None}}, MERGE_PATCH)


async def test_command_annotation_is_recorded_and_not_repeated(scene: Scene) -> None:
    store, heard = scene.store(), []

    def obey(name: str, event: Event) -> bool:
        heard.append(event.name)
        store.save(name, STALLED)
        return True

    commands = CommandController(scene.items, lambda: True, obey, store.set_command)
    scene.listeners.append(commands.saw)
    value = f"wake@{micro_time(time.time())}"
    await scene.api.patch(scene.at(), {"metadata": {"annotations": {COMMAND_ANNOTATION: value}}}, MERGE_PATCH)
    await until(lambda: scene.items[scene.named()].status.observed_command == value)
    assert scene.items[scene.named()].status.state == "Waking"
    again = Scene(scene.api, scene.namespace)
    restarted = CommandController(again.items, lambda: True, obey, store.set_command)
    again.listeners.append(restarted.saw)
    await again.start()
    await again.end()
    assert heard == ["WakeCommanded"]


async def test_status_api_server_restart_loses_none(apiserver: Cluster, api: Api, namespace: str) -> None:
    await crd.install(api)
    own = await connect(apiserver.kubeconfig)
    scene = Scene(own, namespace)
    await scene.start()
    await scene.make()
    store = scene.store()
    apiserver.stop_apiserver()
    for record in (ACTIVE, STALLED, ASLEEP):
        store.save(scene.named(), record)
        await asyncio.sleep(0.1)
    apiserver.start_apiserver()
    async with asyncio.timeout(240):
        while (await scene.status()).get("state") != "ScaledToZero":
            await asyncio.sleep(0.1)
    await scene.end()
    await own.close()
