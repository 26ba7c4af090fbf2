"""One target and a call that goes wrong: what is tried again, what is reported, and what is never sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.core.reasons import Diagnosis, Reason
from reconciler.kubernetes.client.api import CALL_TIMEOUT_SECONDS, JSON, Api, Query
from reconciler.kubernetes.client.discovery import ScalableResource
from reconciler.kubernetes.client.errors import ApiError, Unreachable
from reconciler.kubernetes.types.objects import Target
from reconciler.kubernetes.workloads import scaler
from reconciler.kubernetes.workloads.scale import ObservedScale
from reconciler.kubernetes.workloads.scaler import TargetScaler
from reconciler.plan import AtLeast, Scale, Zero
from tests.fakes.objects import Objects
from tests.fakes.skipping_loop import SkippingLoop

KIND = ScalableResource("apps/v1", "Deployment", "deployments")
SCALE = KIND.scale_path("shop", "web")
GENEROUS_SECONDS = 60.0


class Urgent(Api):
    """The API server, as wakes reach it."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self.slow_seconds = 0.0
        """Seconds until the API server answers; a call with a shorter timeout has no effect."""

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        content_type: str = JSON,
        query: Query | None = None,
        timeout: float = CALL_TIMEOUT_SECONDS,
    ) -> bytes:
        if self.slow_seconds > timeout:
            raise Unreachable("it is slow")
        return await self._objects.call(method, path, body, content_type, query, timeout)


class Owner:
    """The owner of a scaler, with a record of the calls to it."""

    def __init__(self) -> None:
        self.objects = Objects()
        self.api: Api = self.objects
        self.wakes = Urgent(self.objects)
        self.urgent: Api = self.wakes
        self.reads = asyncio.Semaphore(4)
        self.is_leader = True
        self.leads: Callable[[], bool] = lambda: self.is_leader
        self.may_sleep: Callable[[], bool] = lambda: self.is_leader
        self.terminating = 0
        self.spared = 0
        self.faults: list[BaseException] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.scaled = TargetScaler(Target("apps/v1", "Deployment", "web", "shop"), self)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self.tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self.faults.append(error)

    def changed(self, services: Iterable[str]) -> None:
        assert services == tuple(self.scaled.services)

    def zeroing(self, services: tuple[str, ...]) -> Callable[[], None]:
        self.terminating += 1

        def spare() -> None:
            self.spared += 1

        return spare

    def put(self, spec: dict[str, int], selector: str = "app=web") -> None:
        """The object is so now, and the watch says so."""
        kept = self.objects.put(SCALE, {"metadata": {"name": "web"}, "spec": spec, "status": {"selector": selector}})
        self.scaled.found(KIND, ObservedScale(spec.get("replicas", 0), kept["metadata"]["resourceVersion"]))

    @property
    def replicas(self) -> int:
        return int(self.objects.kept[SCALE]["spec"].get("replicas", 0))

    def patches(self) -> list[Any]:
        return [body for method, _, body in self.objects.calls if method == "PATCH"]

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(GENEROUS_SECONDS):
            while not holds():
                await asyncio.sleep(0.005)


@pytest.fixture
async def owner() -> AsyncIterator[Owner]:
    made = Owner()
    yield made
    made.scaled.close()
    await asyncio.gather(*made.tasks, return_exceptions=True)
    assert not made.faults


@pytest.mark.parametrize("written", [{}, {"replicas": 0}])
async def test_wake_slow_api_server_succeeds(owner: Owner, written: dict[str, int]) -> None:
    owner.wakes.slow_seconds = 11.0
    owner.put(written)
    owner.scaled.set_desired("web", AtLeast(3))
    await owner.until(lambda: owner.replicas == 3)


async def test_wake_is_one_patch(owner: Owner) -> None:
    owner.put({})
    owner.scaled.set_desired("web", AtLeast(3))
    await owner.until(lambda: owner.replicas == 3)
    owner.scaled.set_desired("web", AtLeast(3))
    await owner.until(lambda: not owner.tasks)
    assert len(owner.objects.calls) == 1
    assert owner.scaled.observer.current and owner.scaled.observer.current.replicas == 3
    assert owner.scaled.observer.selector == "app=web"


async def test_wake_explicit_zero_succeeds(owner: Owner) -> None:
    owner.put({"replicas": 0})
    owner.scaled.set_desired("web", AtLeast(2))
    await owner.until(lambda: owner.replicas == 2)
    assert owner.scaled.observer.diagnosis is None


@pytest.mark.parametrize(
    "fault",
    [
        Unreachable("cut"),
        ApiError(409, "Conflict", "modified"),
        ApiError(429, "TooManyRequests", "slow down"),
        ApiError(500, "InternalError", "etcd"),
        ApiError(503, "ServiceUnavailable", "starting"),
    ],
)
async def test_wake_transient_error_is_retried_at_once(
    owner: Owner, fault: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scaler, "REPORT_AFTER_SECONDS", GENEROUS_SECONDS)
    owner.put({})
    owner.objects.faults.extend([fault, fault])
    owner.scaled.set_desired("web", AtLeast(3))
    await owner.until(lambda: owner.replicas == 3)
    assert len(owner.objects.calls) == 3
    assert owner.scaled.observer.diagnosis is None, "it was over before it was worth a word"


async def test_wake_unreachable_api_server_is_reported(owner: Owner) -> None:
    owner.put({})
    owner.objects.refused[SCALE] = Unreachable("refused")
    owner.scaled.set_desired("web", AtLeast(3))
    await owner.until(lambda: owner.scaled.observer.diagnosis)
    assert str(owner.scaled.observer.diagnosis) == "ApiUnreachable: the API server does not answer: refused"
    owner.objects.refused.clear()
    await owner.until(lambda: owner.replicas == 3 and owner.scaled.observer.diagnosis is None)


async def test_wake_permanent_error_is_reported_and_retried(owner: Owner) -> None:
    owner.put({})
    denied = 'admission webhook "policy.example" denied the request: not on Sundays'
    owner.objects.refused[SCALE] = ApiError(403, "Forbidden", denied)
    owner.scaled.set_desired("web", AtLeast(3))
    await owner.until(lambda: owner.scaled.observer.diagnosis)
    assert str(owner.scaled.observer.diagnosis) == f"Forbidden: Deployment shop/web cannot be scaled: {denied}"
    owner.objects.refused.clear()
    await owner.until(lambda: owner.replicas == 3 and owner.scaled.observer.diagnosis is None)


async def test_wake_no_longer_desired_stops(owner: Owner) -> None:
    owner.put({})
    owner.objects.refused[SCALE] = ApiError(503, "ServiceUnavailable", "starting")
    owner.scaled.set_desired("web", AtLeast(3))
    await owner.until(lambda: owner.patches())
    owner.scaled.set_desired("web", None)
    await owner.until(lambda: not owner.tasks)
    owner.objects.refused.clear()
    assert (owner.replicas, owner.scaled.observer.diagnosis) == (0, None)


async def test_wake_by_someone_else_is_accepted(owner: Owner) -> None:
    owner.put({})
    owner.objects.put(SCALE, {"metadata": {"name": "web"}, "spec": {"replicas": 9}, "status": {}})
    owner.scaled.set_desired("web", AtLeast(3))
    await owner.until(lambda: owner.scaled.observer.current and owner.scaled.observer.current.replicas == 9)
    assert owner.replicas == 9


async def test_wake_follower_skips_wake_of_leader(owner: Owner) -> None:
    owner.is_leader = False
    owner.put({})
    owner.scaled.set_desired("web", AtLeast(3))
    await asyncio.sleep(0)  # so that it has looked, and waits
    owner.put({"replicas": 3})
    await owner.until(lambda: not owner.tasks)
    assert not owner.objects.calls


async def test_wake_follower_without_leader_sends_it(owner: Owner) -> None:
    owner.is_leader = False
    owner.put({})
    owner.scaled.set_desired("web", AtLeast(3))
    await owner.until(lambda: owner.replicas == 3)
    assert len(owner.patches()) == 1


async def test_wake_follower_ignores_outdated_replicas(owner: Owner) -> None:
    """Its watch lags: what it believes to run was scaled to zero."""
    owner.is_leader = False
    owner.put({"replicas": 3})
    owner.objects.put(SCALE, {"metadata": {"name": "web"}, "spec": {}, "status": {}})
    owner.scaled.set_desired("web", AtLeast(3))
    await owner.until(lambda: owner.replicas == 3)


def test_wake_undone_repeatedly_backs_off() -> None:
    """In the time of a loop that skips the pauses."""
    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        assert 3 < runner.run(_patches_in_a_second()) < 12


async def _patches_in_a_second() -> int:
    owner, ticks = Owner(), asyncio.get_running_loop().time
    owner.put({})
    owner.scaled.set_desired("web", AtLeast(3))
    end = ticks() + 1
    while ticks() < end:
        await asyncio.sleep(0.001)
        if owner.replicas:
            owner.put({})
    owner.scaled.close()
    await asyncio.gather(*owner.tasks, return_exceptions=True)
    assert not owner.faults
    return len(owner.patches())


async def test_sleep_patch_names_the_observed_scale(owner: Owner) -> None:
    owner.put({"replicas": 3})
    version = owner.objects.kept[SCALE]["metadata"]["resourceVersion"]
    owner.scaled.set_desired("web", Zero())
    await owner.until(lambda: owner.replicas == 0)
    assert owner.patches() == [
        [
            {"op": "test", "path": "/metadata/resourceVersion", "value": version},
            {"op": "test", "path": "/spec/replicas", "value": 3},
            {"op": "replace", "path": "/spec/replicas", "value": 0},
        ]
    ]
    assert (owner.terminating, owner.spared) == (1, 0)


async def test_sleep_without_permission_sends_nothing(owner: Owner) -> None:
    owner.put({"replicas": 3})
    owner.is_leader = False
    owner.scaled.set_desired("web", Zero())
    await asyncio.sleep(0.2)
    assert not owner.objects.calls
    owner.is_leader = True
    await owner.until(lambda: owner.replicas == 0)


async def test_sleep_permission_lost_is_not_retried(owner: Owner) -> None:
    """Leadership is lost between two attempts."""
    owner.put({"replicas": 3})
    owner.objects.put(SCALE, {"metadata": {"name": "web"}, "spec": {"replicas": 4}, "status": {}})
    asked = iter([True])
    owner.may_sleep = lambda: next(asked, False)
    owner.scaled.set_desired("web", Zero())
    await owner.until(lambda: owner.scaled.observer.current and owner.scaled.observer.current.replicas == 4)
    await asyncio.sleep(0.2)
    assert owner.replicas == 4
    assert len(owner.patches()) == 1
    assert (owner.terminating, owner.spared) == (1, 1)


async def test_sleep_conflict_with_same_replicas_retries(owner: Owner) -> None:
    owner.put({"replicas": 3})
    owner.objects.put(SCALE, {"metadata": {"name": "web"}, "spec": {"replicas": 3}, "status": {}})
    owner.scaled.set_desired("web", Zero())
    await owner.until(lambda: owner.replicas == 0)
    assert [method for method, _, _ in owner.objects.calls] == ["PATCH", "GET", "PATCH"]


async def test_sleep_without_answer_retries_and_keeps_marks(owner: Owner) -> None:
    owner.put({"replicas": 3})
    owner.objects.faults.append(Unreachable("cut"))
    owner.scaled.set_desired("web", Zero())
    await owner.until(lambda: owner.replicas == 0)
    assert owner.spared == 0, "its effect is unknown"
    await owner.until(lambda: not owner.scaled.zero_pending)


async def test_wake_during_sleep_wins(owner: Owner) -> None:
    owner.put({"replicas": 3})
    for turns in range(8):
        owner.scaled.set_desired("web", Zero())
        for _ in range(turns):
            await asyncio.sleep(0)
        owner.scaled.set_desired("web", AtLeast(3))
        await owner.until(lambda: not owner.tasks)
        assert owner.replicas == 3


async def test_observer_watch_behind_answer_is_ignored(owner: Owner) -> None:
    owner.put({})
    before = owner.scaled.observer.current
    owner.scaled.set_desired("web", AtLeast(3))
    await owner.until(lambda: owner.replicas == 3)
    await owner.until(lambda: not owner.tasks)
    owner.scaled.found(KIND, before)
    assert owner.scaled.observer.current and owner.scaled.observer.current.replicas == 3


@pytest.mark.parametrize("wanted", [AtLeast(2), Zero()])
async def test_scaler_target_not_in_watch_is_not_called(owner: Owner, wanted: AtLeast | Zero) -> None:
    before = {} if wanted == AtLeast(2) else {"replicas": 3}
    owner.objects.put(SCALE, {"spec": before, "status": {}})
    owner.scaled.set_desired("web", wanted)
    owner.scaled.observer.expect(KIND)
    owner.scaled.observer.find_selector()
    owner.scaled.observer.lost(KIND, Diagnosis(Reason.TARGET_NOT_FOUND, "gone"))
    owner.scaled.observer.find_selector()
    await asyncio.sleep(0.1)
    assert not owner.objects.calls
    owner.put(before)
    await owner.until(lambda: owner.replicas == (2 if wanted == AtLeast(2) else 0))


async def test_wake_with_broken_watch_is_sent(owner: Owner) -> None:
    owner.put({})
    owner.scaled.observer.lost(KIND, Diagnosis(Reason.FORBIDDEN, "zenvoy may not watch deployments"), absent=False)
    owner.scaled.set_desired("web", AtLeast(2))
    await owner.until(lambda: owner.replicas == 2)


async def test_observer_answer_about_another_object_is_ignored(owner: Owner) -> None:
    owner.put({"replicas": 3})
    owner.objects.put(SCALE, {"metadata": {"name": "web", "namespace": "victim"}, "spec": {"replicas": 9}})
    owner.scaled.set_desired("web", AtLeast(5))
    owner.scaled.found(KIND, None)
    await owner.until(lambda: len(owner.objects.calls) > 2)
    assert owner.scaled.observer.current and owner.scaled.observer.current.replicas == 3


async def test_wake_recreated_target_is_woken(owner: Owner) -> None:
    owner.put({"replicas": 1})
    owner.scaled.observer.lost(KIND, Diagnosis(Reason.TARGET_NOT_FOUND, "gone"))
    del owner.objects.kept[SCALE]
    owner.scaled.set_desired("web", AtLeast(2))
    assert owner.scaled.observer.diagnosis and owner.scaled.observer.diagnosis.code is Reason.TARGET_NOT_FOUND
    owner.put({})
    await owner.until(lambda: owner.replicas == 2)
    assert owner.scaled.observer.diagnosis is None


async def test_observer_custom_kind_reads_scale_once(owner: Owner) -> None:
    owner.objects.put(SCALE, {"metadata": {"name": "web"}, "spec": {"replicas": 5}, "status": {}})
    owner.scaled.set_desired("web", None)
    for _ in range(10):
        owner.scaled.found(KIND, None)
    await owner.until(lambda: owner.scaled.observer.current)
    await owner.until(lambda: not owner.tasks)
    assert owner.scaled.observer.current and owner.scaled.observer.current.replicas == 5
    assert len(owner.objects.calls) <= 2


async def test_sleep_needs_all_services_of_a_target(owner: Owner) -> None:
    owner.put({"replicas": 1})
    owner.scaled.set_desired("web", Zero())
    await owner.until(lambda: owner.replicas == 0)
    owner.put({"replicas": 1})
    owner.scaled.set_desired("api", None)
    await owner.until(lambda: not owner.tasks)
    owner.put({"replicas": 1})
    await asyncio.sleep(0.1)
    assert owner.replicas == 1
    owner.scaled.leave("api")
    await owner.until(lambda: owner.replicas == 0)


@given(st.lists(st.sampled_from(["up", "down", "free", "person", "zero", "fault", "cut", "demote", "promote", "turn"])))
@settings(max_examples=150, deadline=None)
def test_scaler_any_sequence_ends_as_desired(doings: list[str]) -> None:
    """Without waiting for the pauses between attempts, which add up."""
    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        runner.run(_ends_as_desired(doings))


async def _ends_as_desired(doings: list[str]) -> None:
    owner, wanted = Owner(), "free"
    owner.put({"replicas": 3})
    wants: dict[str, Scale] = {"up": AtLeast(2), "down": Zero(), "free": None}
    for doing in doings:
        before = owner.replicas
        match doing:
            case "up" | "down" | "free":
                wanted = doing
                owner.scaled.set_desired("web", wants[doing])
            case "person":
                owner.put({"replicas": before + 1})
            case "zero":
                owner.put({})
            case "fault":
                owner.objects.faults.append(ApiError(500, "InternalError", "etcd"))
            case "cut":
                owner.objects.faults.append(Unreachable("cut"))
            case "demote" | "promote":
                owner.is_leader = doing == "promote"
            case "turn":
                await asyncio.sleep(0)
    owner.is_leader = True
    if wanted == "up":
        await owner.until(lambda: owner.replicas > 0)
    elif wanted == "down":
        await owner.until(lambda: owner.replicas == 0)
    await owner.until(lambda: not owner.tasks)
    assert wanted == "free" or (
        owner.scaled.observer.current and owner.scaled.observer.current.replicas == owner.replicas
    )
    assert (owner.replicas > 0) if wanted == "up" else (owner.replicas == 0) if wanted == "down" else True
    assert not owner.faults and not owner.scaled.zero_pending
    owner.scaled.close()
