"""Restoration of replicas when a ScaledService is deleted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from structlog.testing import capture_logs

from reconciler.kubernetes.client.errors import ApiError, Unreachable
from reconciler.kubernetes.client.work_queue import WorkQueueTiming
from reconciler.kubernetes.status.finalizer import CHECK_AGAIN_SECONDS, FinalizerController
from reconciler.kubernetes.types.scaled_service import FINALIZER, ScaledService
from tests.fakes.objects import Objects

FAST = WorkQueueTiming(batch_window=0.001, attempts=3, backoff_min=0.001, backoff_max=0.002, retry_after=0.01)
PATIENT = 60.0
DELETED = {"deletionTimestamp": "2026-11-23T10:00:00Z"}
ASLEEP = {"state": "ScaledToZero", "replicas": 3}


@dataclass
class Scene:
    server: Objects = field(default_factory=Objects)
    heard: dict[str, ScaledService] = field(default_factory=dict)
    leads: bool = True
    patience: float = 60.0
    reported: list[tuple[str, str, bool]] = field(default_factory=list)
    needed: str | None = None
    """Why it cannot go yet."""
    asked: int = 0

    def __post_init__(self) -> None:
        self.finalizers = FinalizerController(
            self.server,
            self.heard,
            lambda: self.leads,
            lambda service, note: self.reported.append((service, note.text, note.warning)),
            self._needed,
            self._release,
            FAST,
            self.patience,
            landing=0.001,
        )

    async def _release(self, item: ScaledService) -> None:
        pass

    def _needed(self, service: str) -> str | None:
        self.asked += 1
        return self.needed

    def has_gone(self, path: str) -> bool:
        return FINALIZER not in self.server.kept[path]["metadata"]["finalizers"]

    async def is_asked(self, times: int) -> None:
        """A few times more."""
        many = self.asked + times
        while self.asked < many:
            await asyncio.sleep(0.001)

    def listen(self) -> None:
        """The informer catches up."""
        before, now = dict(self.heard), self.server.items()
        self.heard.clear()
        self.heard.update(now)
        for name in before.keys() | now.keys():
            if before.get(name) != now.get(name):
                self.finalizers.saw(name, now.get(name))

    def service(self, status: dict[str, Any] | None = None, spec: dict[str, Any] | None = None, **meta: Any) -> str:
        path = self.server.scaled_service("web", metadata=meta, status=status or {}, spec=spec or {})
        self.listen()
        return path

    def deleted(self, status: dict[str, Any], spec: dict[str, Any] | None = None) -> str:
        return self.service(status, spec, finalizers=["other/one", FINALIZER], **DELETED)

    async def done(self) -> None:
        assert await self.finalizers.queue.drain(PATIENT)


@asynccontextmanager
async def running(scene: Scene) -> AsyncIterator[None]:
    task = asyncio.create_task(scene.finalizers.queue.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_finalizer_is_added_once() -> None:
    scene = Scene()
    path = scene.service(finalizers=["other/one"])
    async with running(scene):
        scene.finalizers.configure({"shop/web"})
        await scene.done()
        scene.listen()
        scene.finalizers.configure({"shop/web"})
        scene.finalizers.lead()
        await scene.done()
    assert scene.server.kept[path]["metadata"]["finalizers"] == ["other/one", FINALIZER]
    assert len(scene.server.calls) == 1


async def test_finalizer_not_in_effect_is_not_added() -> None:
    scene = Scene()
    scene.service()
    async with running(scene):
        scene.finalizers.configure(set())
        scene.finalizers.lead()
        await scene.done()
    assert scene.server.calls == []


async def test_finalizer_conflict_keeps_others() -> None:
    scene = Scene()
    path = scene.service()
    scene.server.scaled_service("web", metadata={"finalizers": ["other/one"]})
    async with running(scene):
        scene.finalizers.configure({"shop/web"})
        await scene.done()
    assert scene.server.kept[path]["metadata"]["finalizers"] == ["other/one", FINALIZER]


async def test_finalizer_follower_writes_nothing() -> None:
    scene = Scene(leads=False)
    path = scene.service()
    async with running(scene):
        scene.finalizers.configure({"shop/web"})
        await scene.done()
        assert scene.server.calls == []
        scene.leads = True
        while "finalizers" not in scene.server.kept[path]["metadata"]:
            await asyncio.sleep(0.001)


@pytest.mark.parametrize(
    ("status", "spec", "before", "after", "said"),
    [
        (ASLEEP, {}, 0, 3, "Deployment shop/web was restored to 3 replicas"),
        ({"state": "Waking", "replicas": 1}, {}, 0, 1, "Deployment shop/web was restored to 1 replica"),
        ({"state": "Waking"}, {}, 0, 1, "Deployment shop/web was restored to 1 replica"),
        (ASLEEP, {"replicas": 5}, 0, 5, "Deployment shop/web was restored to 5 replicas"),
        (ASLEEP, {"replicas": "last"}, 0, 3, "Deployment shop/web was restored to 3 replicas"),
        (ASLEEP, {}, 2, 2, "Deployment shop/web has 2 replicas"),
        ({"state": "Active", "replicas": 2}, {}, 2, 2, "Deployment shop/web has 2 replicas"),
        ({}, {}, 0, 0, "nothing to restore: never in force"),
    ],
)
async def test_deletion_restores_replicas_first(
    status: dict[str, Any], spec: dict[str, Any], before: int, after: int, said: str
) -> None:
    scene = Scene()
    scale = scene.server.deployment("web", before)
    async with running(scene):
        path = scene.deleted(status, spec)
        await scene.done()
    assert scene.server.kept[scale]["spec"].get("replicas", 0) == after
    assert scene.server.kept[path]["metadata"]["finalizers"] == ["other/one"]
    assert scene.reported == [("shop/web", said, False)]


async def test_deletion_during_sleep_wakes_target() -> None:
    scene = Scene()
    scale = scene.server.deployment("web", 2)
    async with running(scene):
        scene.deleted({"state": "Draining", "replicas": 2})
        while ("GET", scale, None) not in scene.server.calls:
            await asyncio.sleep(0)
        scene.server.deployment("web", 0)
        await scene.done()
    assert scene.server.kept[scale]["spec"] == {"replicas": 2}


async def test_deletion_explicit_zero_is_restored() -> None:
    scene = Scene()
    scale = scene.server.deployment("web", 0)
    scene.server.put(scale, {"spec": {"replicas": 0}})
    async with running(scene):
        scene.deleted(ASLEEP)
        await scene.done()
    assert scene.server.kept[scale]["spec"] == {"replicas": 3}


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({}, "nothing to restore: Deployment shop/web does not exist"),
        (
            {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deploiment", "name": "web"}},
            "nothing to restore: NoSuchKind: apps/v1 has no kind Deploiment; did you mean Deployment?",
        ),
    ],
)
async def test_deletion_missing_target_continues(spec: dict[str, Any], said: str) -> None:
    scene = Scene()
    scene.server.deployment("other", 1)
    async with running(scene):
        path = scene.deleted(ASLEEP, spec)
        await scene.done()
    assert scene.server.kept[path]["metadata"]["finalizers"] == ["other/one"]
    assert scene.reported == [("shop/web", said, False)]


async def test_deletion_forbidden_target_continues() -> None:
    scene = Scene()
    scale = scene.server.deployment("web", 0)
    scene.server.refused[scale] = ApiError(403, "Forbidden", "no right to deployments/scale")
    with capture_logs() as logs:
        async with running(scene):
            path = scene.deleted(ASLEEP)
            await scene.done()
    assert scene.server.kept[path]["metadata"]["finalizers"] == ["other/one"]
    said = "failed to restore Deployment shop/web: 403 Forbidden: no right to deployments/scale"
    assert scene.reported == [("shop/web", f"{said}; scale it by hand", True)]
    assert [reported["event"] for reported in logs] == ["restored the replicas of a deleted service"]


async def test_deletion_transient_error_waits() -> None:
    scene = Scene()
    scale = scene.server.deployment("web", 0)
    scene.server.refused[scale] = Unreachable("GET: refused")
    async with running(scene):
        path = scene.deleted(ASLEEP)
        while len(scene.server.calls) < 20:
            await asyncio.sleep(0.001)
        assert FINALIZER in scene.server.kept[path]["metadata"]["finalizers"]
        scene.server.refused.clear()
        while FINALIZER in scene.server.kept[path]["metadata"]["finalizers"]:
            await asyncio.sleep(0.001)
    assert scene.server.kept[scale]["spec"] == {"replicas": 3}


async def test_deletion_long_error_continues() -> None:
    scene = Scene(patience=0.02)
    scale = scene.server.deployment("web", 0)
    scene.server.refused[scale] = ApiError(503, "ServiceUnavailable", "a webhook is away")
    async with running(scene):
        path = scene.deleted(ASLEEP)
        while FINALIZER in scene.server.kept[path]["metadata"]["finalizers"]:
            await asyncio.sleep(0.001)
    [(_, said, failed)] = scene.reported
    assert (said, failed) == (
        "failed to restore Deployment shop/web: 503 ServiceUnavailable: a webhook is away; scale it by hand",
        True,
    )


async def test_deletion_is_reported_once_despite_errors() -> None:
    scene = Scene()
    scene.server.deployment("web", 0)
    async with running(scene):
        path = scene.deleted(ASLEEP)
        while not scene.reported:
            await asyncio.sleep(0)
        scene.server.faults.extend([ApiError(409, "Conflict", "changed"), Unreachable("PATCH: cut")])
        await scene.done()
    assert scene.server.kept[path]["metadata"]["finalizers"] == ["other/one"]
    assert len(scene.reported) == 1


async def test_deletion_waits_until_not_needed() -> None:
    scene = Scene(needed="a client is waiting")
    scale = scene.server.deployment("web", 0)
    async with running(scene):
        path = scene.deleted(ASLEEP)
        await scene.is_asked(2)
        assert scene.server.kept[scale]["spec"] == {"replicas": 3}
        assert not scene.has_gone(path)
        calls = len(scene.server.calls)
        await scene.is_asked(2)
        assert len(scene.server.calls) == calls
        scene.needed = None
        while not scene.has_gone(path):
            await asyncio.sleep(0.001)
    assert len(scene.reported) == 1


async def test_deletion_waits_at_most_wake_timeout() -> None:
    scene = Scene(needed="ImagePullBackOff: no such image")
    scene.server.deployment("web", 0)
    async with running(scene):
        path = scene.deleted(ASLEEP, {"wakeTimeout": "50ms"})
        while not scene.reported:
            await asyncio.sleep(0)
        scene.server.faults.extend([ApiError(409, "Conflict", "changed"), Unreachable("PATCH: cut")])
        while not scene.has_gone(path):
            await asyncio.sleep(0.001)
    said = "still needed after its wakeTimeout, deleting anyway: ImagePullBackOff: no such image"
    assert scene.reported[1:] == [("shop/web", said, True)]


async def test_deletion_failed_restore_does_not_wait() -> None:
    scene = Scene(needed="a client is waiting")
    scale = scene.server.deployment("web", 0)
    scene.server.refused[scale] = ApiError(403, "Forbidden", "no right to deployments/scale")
    async with running(scene):
        path = scene.deleted(ASLEEP)
        await scene.done()
    assert scene.has_gone(path)
    assert not scene.asked


async def test_deletion_waiting_does_not_block_others() -> None:
    scene = Scene(needed="a client is waiting")
    for number in range(2 * FAST.concurrency):
        scene.server.deployment(f"old-{number}", 1)
        meta = {"finalizers": [FINALIZER], **DELETED}
        scene.server.scaled_service(f"old-{number}", metadata=meta, status={"state": "Active"})
    async with running(scene):
        scene.listen()
        await scene.is_asked(4 * FAST.concurrency)
        path = scene.server.scaled_service("new")
        scene.listen()
        scene.finalizers.configure({"shop/new"})
        while "finalizers" not in scene.server.kept[path]["metadata"]:
            await asyncio.sleep(0.001)


async def test_deletion_after_term_keeps_finalizer() -> None:
    scene = Scene(needed="a client is waiting")
    scene.server.deployment("web", 1)
    async with running(scene):
        path = scene.deleted(ASLEEP)
        await scene.is_asked(1)
        scene.leads, scene.needed = False, None
        asked = scene.asked
        await asyncio.sleep(5 * CHECK_AGAIN_SECONDS)
        assert (scene.has_gone(path), scene.asked) == (False, asked)
        scene.leads = True
        while not scene.has_gone(path):
            await asyncio.sleep(0.001)
