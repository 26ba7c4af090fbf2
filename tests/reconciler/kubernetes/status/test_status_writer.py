"""Records and conditions on their way into the status of ScaledServices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from reconciler.core.reasons import Diagnosis, Reason
from reconciler.core.record import Record, State
from reconciler.kubernetes.client.errors import ApiError, Unreachable
from reconciler.kubernetes.client.work_queue import WorkQueueTiming
from reconciler.kubernetes.status.status_writer import StatusWriter
from reconciler.kubernetes.types.scaled_service import ScaledService
from tests.fakes.objects import Objects
from tests.reconciler.kubernetes.status.test_conditions import BAD

ACTIVE = Record(State.Active, 1_795_000_000.5, "reachable", 2, "127.64.0.1:18001")
WAKING = Record(State.Waking, 1_795_000_060.5, "a client is waiting", 2, "127.64.0.1:18001")
ASLEEP = Record(State.ScaledToZero, 1_795_000_030.0, "idle for all of idleAfter", 2, "127.64.0.1:18001", zeroed=True)
FAST = WorkQueueTiming(batch_window=0.001, attempts=3, backoff_min=0.001, backoff_max=0.002, retry_after=0.01)
PATIENT = 60.0


@dataclass
class Scene:
    """A store, the API server that it writes to, and what its informer has heard."""

    server: Objects = field(default_factory=Objects)
    heard: dict[str, ScaledService] = field(default_factory=dict)
    leads: bool = True

    def __post_init__(self) -> None:
        self.store = StatusWriter(
            self.server, self.heard, lambda: self.leads, iter(range(7, 100)).__next__, lambda: 1_795_000_100.0, FAST
        )
        if self.leads:
            self.store.lead()

    def listen(self) -> None:
        """The informer catches up."""
        before, now = dict(self.heard), self.server.items()
        self.heard.clear()
        self.heard.update(now)
        for name in before.keys() | now.keys():
            if before.get(name) != now.get(name):
                self.store.saw(name, now.get(name))

    def status(self, name: str = "web") -> dict[str, Any]:
        found = next(kept for path, kept in self.server.kept.items() if path.endswith(f"/{name}"))
        return found.get("status", {})

    async def written(self) -> None:
        assert await self.store.queue.drain(PATIENT)


@pytest.fixture
def scene() -> Scene:
    made = Scene()
    made.server.scaled_service("web")
    made.listen()
    return made


@asynccontextmanager
async def writing(scene: Scene) -> AsyncIterator[None]:
    task = asyncio.create_task(scene.store.queue.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_record_is_restored_after_restart(scene: Scene) -> None:
    async def save() -> None:
        async with writing(scene):
            scene.store.save("shop/web", ASLEEP)
            await scene.written()

    asyncio.run(save())
    again = Scene(scene.server)
    again.listen()
    assert again.store.records() == {"shop/web": ASLEEP}


async def test_status_has_record_and_conditions(scene: Scene) -> None:
    scene.server.scaled_service("web", metadata={"uid": "uid-1", "generation": 3})
    scene.listen()
    async with writing(scene):
        scene.store.save("shop/web", ACTIVE)
        scene.store.set_diagnosis("shop/web", None)
        scene.store.set_problems("shop/web", ())
        scene.store.set_command("shop/web", "wake@2026-11-23T10:00:00.000000Z")
        await scene.written()
    about = {"observedGeneration": 3, "lastTransitionTime": "2026-11-18T11:08:20Z"}
    assert scene.status() == {
        "state": "Active",
        "target": "Deployment/web",
        "since": "2026-11-18T11:06:40.500000Z",
        "reason": "reachable",
        "replicas": 2,
        "holdAddress": "127.64.0.1:18001",
        "observedGeneration": 3,
        "observedCommand": "wake@2026-11-23T10:00:00.000000Z",
        "conditions": [
            {"type": "Ready", "status": "True", "reason": "Active", "message": "reachable", **about},
            {"type": "Awake", "status": "True", "reason": "Active", "message": "reachable", **about},
            {"type": "Stalled", "status": "False", "reason": "AsExpected", "message": "", **about},
        ],
    }
    [(_, _, body)] = scene.server.writes()
    assert body["metadata"] == {"resourceVersion": "102", "uid": "uid-1"}


async def test_status_rapid_changes_are_written_once(scene: Scene) -> None:
    async with writing(scene):
        for record in (ACTIVE, ASLEEP, WAKING):
            scene.store.save("shop/web", record)
        await scene.written()
    assert scene.status()["state"] == "Waking"
    assert len(scene.server.writes()) == 1


async def test_status_change_during_write_is_written_after(scene: Scene) -> None:
    async with writing(scene):
        scene.store.save("shop/web", ASLEEP)
        while not scene.server.writes():
            await asyncio.sleep(0)
        scene.store.save("shop/web", WAKING)
        await scene.written()
    assert [body["status"]["state"] for _, _, body in scene.server.writes()] == ["ScaledToZero", "Waking"]
    assert scene.server.writes()[1][2]["status"]["zeroed"] is None


async def test_status_unchanged_is_not_written(scene: Scene) -> None:
    async with writing(scene):
        for _ in range(3):
            scene.store.save("shop/web", ACTIVE)
            await scene.written()
            scene.listen()
            await scene.written()
    assert len(scene.server.calls) == 1


async def test_status_writes_have_bounded_concurrency(scene: Scene) -> None:
    names = [f"web-{number}" for number in range(50)]
    for name in names:
        scene.server.scaled_service(name)
    scene.listen()
    async with writing(scene):
        for name in names:
            scene.store.save(f"shop/{name}", ACTIVE)
        await scene.written()
    assert {scene.status(name)["state"] for name in names} == {"Active"}
    assert 1 < scene.server.most_at_once <= FAST.concurrency


async def test_save_returns_at_once(scene: Scene) -> None:
    scene.server.faults.append(Unreachable("PATCH: refused"))
    scene.store.save("shop/web", WAKING)
    assert scene.server.calls == []


async def test_status_new_leader_writes_differences(scene: Scene) -> None:
    scene.server.scaled_service("db", status={"state": "Active"})
    scene.listen()
    scene.store.follow()
    async with writing(scene):
        scene.store.save("shop/web", WAKING)
        await scene.written()
        assert scene.server.calls == []
        scene.store.lead()
        await scene.written()
    assert [path.rpartition("shop/")[2] for _, path, _ in scene.server.writes()] == ["scaledservices/web/status"]
    assert scene.status()["state"] == "Waking"


async def test_status_write_waits_for_late_renewal(scene: Scene) -> None:
    scene.leads = False
    async with writing(scene):
        scene.store.save("shop/web", WAKING)
        await scene.written()
        assert scene.server.calls == []
        scene.leads = True
        while not scene.status():
            await asyncio.sleep(0.001)
    assert scene.status()["state"] == "Waking"


async def test_status_follower_forgets_deleted_object(scene: Scene) -> None:
    scene.store.follow()
    scene.store.save("shop/web", WAKING)
    scene.server.kept.clear()
    scene.listen()
    scene.server.scaled_service("web")
    scene.listen()
    async with writing(scene):
        scene.store.lead()
        await scene.written()
    assert scene.server.calls == []


async def test_status_deleted_object_with_problems_is_forgotten(scene: Scene) -> None:
    scene.store.set_problems("shop/web", [BAD])
    scene.server.kept.clear()
    scene.listen()
    scene.store.set_diagnosis("shop/web", Diagnosis(Reason.TARGET_NOT_FOUND, "it is late news"))
    scene.server.scaled_service("web")
    scene.listen()
    async with writing(scene):
        scene.store.lead()
        await scene.written()
    assert scene.server.calls == []


async def test_status_write_after_term_is_not_retried(scene: Scene) -> None:
    scene.server.faults.append(Unreachable("PATCH: refused"))
    async with writing(scene):
        scene.store.save("shop/web", WAKING)
        while not scene.server.calls:
            await asyncio.sleep(0)
        scene.leads = False
        await scene.written()
    assert len(scene.server.calls) == 1
    assert scene.status() == {}


async def test_status_write_of_former_leader_is_rejected(scene: Scene) -> None:
    """It was frozen between being asked whether it leads and sending; meanwhile its successor wrote."""
    path = scene.server.scaled_service("web", status={"state": "Active", "holdAddress": "127.64.0.9:18001"})
    scene.server.faults.append(ApiError(409, "Conflict", "the object has been modified"))
    async with writing(scene):
        scene.store.save("shop/web", WAKING)
        while not scene.server.calls:
            await asyncio.sleep(0)
        scene.leads = False
        await scene.written()
    assert scene.server.kept[path]["status"] == {"state": "Active", "holdAddress": "127.64.0.9:18001"}


async def test_status_conflict_is_retried_with_new_version(scene: Scene) -> None:
    scene.server.scaled_service("web", spec={"paused": True}, status={"replicas": 9})
    async with writing(scene):
        scene.store.save("shop/web", ACTIVE)
        await scene.written()
    assert [method for method, _, _ in scene.server.calls] == ["PATCH", "GET", "PATCH"]
    assert (scene.status()["state"], scene.status()["replicas"]) == ("Active", 2)


@pytest.mark.parametrize(
    "fault",
    [Unreachable("PATCH: refused"), ApiError(429, "TooManyRequests", "later"), ApiError(500, "InternalError", "etcd")],
    ids=str,
)
async def test_status_transient_error_is_retried(scene: Scene, fault: Exception) -> None:
    scene.server.faults.extend([fault, fault])
    async with writing(scene):
        with capture_logs() as logs:
            scene.store.save("shop/web", ACTIVE)
            await scene.written()
    assert scene.status()["state"] == "Active"
    assert logs == []


async def test_status_permanent_error_is_logged_once(scene: Scene) -> None:
    scene.server.scaled_service("db")
    scene.listen()
    fault = ApiError(403, "Forbidden", 'scaledservices.zenvoy.dev "web" is forbidden')
    for name in ("web", "db"):
        scene.server.refused[_status_path(name)] = fault
    async with writing(scene):
        with capture_logs() as logs:
            scene.store.save("shop/web", ACTIVE)
            scene.store.save("shop/db", ACTIVE)
            while len(scene.server.calls) < 5:
                await asyncio.sleep(0.001)
        scene.server.refused.clear()
        while not (scene.status("web") and scene.status("db")):
            await asyncio.sleep(0.001)
    [reported] = logs
    assert reported["event"] == "failed to write status, retrying"
    assert reported["error"] == '403 Forbidden: scaledservices.zenvoy.dev "web" is forbidden'


async def test_status_of_deleted_object_is_not_written(scene: Scene) -> None:
    scene.server.kept.clear()
    async with writing(scene):
        with capture_logs() as logs:
            scene.store.save("shop/web", ACTIVE)
            await scene.written()
            scene.listen()
            scene.store.save("shop/web", WAKING)
            await scene.written()
    assert len(scene.server.calls) == 1
    assert logs == []


async def test_status_forgotten_is_not_written(scene: Scene) -> None:
    async with writing(scene):
        scene.store.save("shop/web", ACTIVE)
        scene.store.forget("shop/web")
        await scene.written()
    assert scene.server.calls == []


async def test_status_written_by_someone_else_is_corrected(scene: Scene) -> None:
    async with writing(scene):
        scene.store.save("shop/web", ACTIVE)
        await scene.written()
        scene.server.scaled_service("web", metadata={"uid": "uid-1"}, status={"state": "ScaledToZero"})
        scene.listen()
        await scene.written()
    assert scene.status()["state"] == "Active"


async def test_status_of_recreated_object_gets_record(scene: Scene) -> None:
    async with writing(scene):
        scene.store.save("shop/web", ACTIVE)
        await scene.written()
        scene.server.scaled_service("web")
        scene.listen()
        await scene.written()
    assert scene.status()["holdAddress"] == ACTIVE.hold_address


async def test_status_stays_until_first_report(scene: Scene) -> None:
    """At a restart nothing is known yet of the target, which is no reason to call it well."""
    diagnosis = Diagnosis(Reason.TARGET_NOT_FOUND, "there is no Deployment web")
    async with writing(scene):
        scene.store.save("shop/web", ACTIVE)
        scene.store.set_diagnosis("shop/web", diagnosis)
        await scene.written()
    again = Scene(scene.server)
    again.listen()
    async with writing(again):
        again.store.records()
        again.store.set_problems("shop/web", ())
        again.store.lead()
        await again.written()
        assert len(scene.server.writes()) == 1
        again.store.set_diagnosis("shop/web", None)
        await again.written()
    ready = again.status()["conditions"][0]
    assert (ready["status"], ready["reason"]) == ("True", "Active")


async def test_status_observed_generation_follows_informer(scene: Scene) -> None:
    async with writing(scene):
        scene.store.save("shop/web", ACTIVE)
        await scene.written()
        assert scene.status()["observedGeneration"] == 1
        status = scene.status()
        scene.server.scaled_service("web", metadata={"uid": "uid-1", "generation": 2}, status=status)
        scene.listen()
        await scene.written()
    assert scene.status()["observedGeneration"] == 2
    assert [one["observedGeneration"] for one in scene.status()["conditions"]] == [2, 2, 2]


async def test_status_of_a_recreated_object_has_its_generation(scene: Scene) -> None:
    scene.server.scaled_service("web", metadata={"uid": "uid-1", "generation": 7})
    scene.listen()
    scene.store.set_problems("shop/web", [BAD])
    scene.server.scaled_service("web", metadata={"uid": "uid-2", "generation": 1})
    scene.listen()
    async with writing(scene):
        await scene.written()
    assert scene.status()["observedGeneration"] == 1


async def test_status_problems_without_record_are_written(scene: Scene) -> None:
    async with writing(scene):
        scene.store.set_problems("shop/web", [BAD])
        await scene.written()
    ready = scene.status()["conditions"][0]
    assert (ready["status"], ready["reason"]) == ("False", "BadSpec")
    assert ready["message"] == "spec.port: there is no port 81; write 80 or 443"


async def test_pause_of_follower_changes_the_spec(scene: Scene) -> None:
    scene.leads = False
    async with writing(scene):
        scene.store.pause("shop/web", True)
        await scene.written()
        assert scene.server.items()["shop/web"].spec.paused
        scene.store.pause("shop/web", False)
        await scene.written()
    assert not scene.server.items()["shop/web"].spec.paused
    assert scene.store.paused() == frozenset()


def test_next_index_comes_from_the_leader(scene: Scene) -> None:
    assert [scene.store.next_index(), scene.store.next_index()] == [7, 8]


async def test_flush_reports_incomplete_writes(scene: Scene) -> None:
    scene.server.refused[_status_path("web")] = Unreachable("PATCH: refused")
    async with writing(scene):
        scene.store.save("shop/web", replace(ACTIVE, replicas=3))
        assert not await scene.store.queue.drain(0.05)


def _status_path(name: str) -> str:
    return f"/apis/zenvoy.dev/v1alpha1/namespaces/shop/scaledservices/{name}/status"
