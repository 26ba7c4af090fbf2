"""Events of a service, as `kubectl describe` shows them, and their rate limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from structlog.testing import capture_logs

from reconciler.core.reasons import Problem, Reason
from reconciler.core.record import State, Transition
from reconciler.kubernetes.client.errors import ApiError, Unreachable
from reconciler.kubernetes.config.service_config import SERVICE
from reconciler.kubernetes.status import event_messages
from reconciler.kubernetes.status.event_messages import EventMessage
from reconciler.kubernetes.status.event_recorder import EventLimits, EventRecorder
from reconciler.kubernetes.types.builtin import Service
from reconciler.kubernetes.types.objects import ObjectMeta, ObjectRef
from reconciler.kubernetes.types.scaled_service import ScaledService
from tests.fakes.objects import Objects
from tests.reconciler.kubernetes.status.test_conditions import TAKEN

AT = 1_795_000_000.25
FAST = EventLimits(gather=0.001, attempts=3, first_wait=0.001, longest_wait=0.002, each_second=100_000)
EVENTS = "/apis/events.k8s.io/v1/namespaces/shop/events"
PATIENT = 60.0


def transition(source: State, event: str, target: State, reason: str) -> Transition:
    return Transition("shop/web", source, event, target, reason, AT)


TO_IDLE = transition(State.Active, "Quiet", State.Idle, "no traffic")
TO_ACTIVE = transition(State.Idle, "Traffic", State.Active, "3 requests moved, 0 in flight")
TO_WAKING = transition(State.ScaledToZero, "DemandSeen", State.Waking, "a client is waiting")
STALLED = transition(State.Waking, "WakeStalled", State.Waking, "ImagePullBackOff: image web:1 cannot be pulled")


@dataclass
class Scene:
    server: Objects = field(default_factory=Objects)
    items: dict[str, ScaledService] = field(default_factory=dict)
    services: dict[str, Service] = field(default_factory=dict)
    leads: bool = True
    now: float = AT
    pace: EventLimits = FAST

    def __post_init__(self) -> None:
        self.server.scaled_service("web")
        self.items.update(self.server.items())
        self.services["shop/web"] = Service(ObjectMeta("web", "shop", "uid-7"))
        self.events = EventRecorder(
            self.server, self.items, self.services, lambda: self.leads, "zenvoy-0", lambda: self.now, self.pace
        )

    def saw(self, moved: Transition, peer: str | None = None) -> None:
        self.events.record(moved.service, event_messages.transition_message(moved, peer))

    def written(self) -> list[tuple[str, str, str, int]]:
        """Type, reason, note and how often, in the order of their writing."""
        kept = [kept for path, kept in self.server.kept.items() if path.startswith(EVENTS)]
        return [(one["type"], one["reason"], one["note"], one.get("series", {}).get("count", 1)) for one in kept]


@asynccontextmanager
async def writing(scene: Scene) -> AsyncIterator[None]:
    task = asyncio.create_task(scene.events.run())
    try:
        yield
        assert await scene.events.flush(PATIENT)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    ("move", "note"),
    [
        (TO_IDLE, EventMessage("Idle", "no traffic", "Idle", like_others=True)),
        (TO_ACTIVE, EventMessage("Active", "3 requests moved, 0 in flight", "Active", like_others=True)),
        (TO_WAKING, EventMessage("WakeRequested", "a client is waiting", "Waking")),
        (
            transition(State.Idle, "IdleElapsed", State.Draining, "idle for all of idleAfter"),
            EventMessage("Draining", "idle for all of idleAfter", "Draining", like_others=True),
        ),
        (
            transition(State.Draining, "Drained", State.ScaledToZero, "idle for all of idleAfter"),
            EventMessage("ScaledToZero", "idle for all of idleAfter", "ScaledToZero", like_others=True),
        ),
        (
            transition(State.Active, "EndpointsLost", State.Waking, "no endpoint can be reached"),
            EventMessage(
                "EndpointsLost",
                "no endpoint can be reached; holding connections until an endpoint is ready",
                "Waking",
                warning=True,
            ),
        ),
        (
            STALLED,
            EventMessage("WakeStalled", "ImagePullBackOff: image web:1 cannot be pulled", "Waking", warning=True),
        ),
    ],
    ids=lambda value: value.reason if isinstance(value, EventMessage) else "",
)
def test_transition_message_of_each_transition(move: Transition, note: EventMessage) -> None:
    assert event_messages.transition_message(move) == note


@pytest.mark.parametrize("source", State)
@pytest.mark.parametrize("target", State)
def test_transition_message_always_has_text(source: State, target: State) -> None:
    note = event_messages.transition_message(transition(source, "Something", target, "why"))
    assert note.reason in event_messages.TRANSITION_REASONS and note.text == "why" and note.action == target


def test_transition_message_names_client_and_envoy() -> None:
    assert (
        event_messages.transition_message(TO_WAKING, "10.1.2.3:4567").text
        == "a client is waiting, first client 10.1.2.3:4567"
    )
    through = event_messages.transition_message(TO_WAKING, "10.1.2.3:4567", "proxy-0")
    assert through.text == "a client is waiting, first client 10.1.2.3:4567 through Envoy proxy-0"


def test_wake_message_lists_parts() -> None:
    parts = {"signal": 0.0021, "scale": 0.012, "scheduled": 0.004, "running": 1.25, "ready": 0.1, "firstByte": 0.0006}
    note = event_messages.wake_message(1.3687, parts, "10.1.2.3:4567")
    assert (note.reason, note.warning) == ("Woken", False)
    assert note.text == (
        "awake after 1.37 s, first client 10.1.2.3:4567: "
        "signal 2 ms, scale 12 ms, scheduled 4 ms, running 1.25 s, ready 100 ms, first byte 1 ms"
    )
    assert event_messages.wake_message(None, {}).text == "awake"
    early = event_messages.wake_message(1.5, {"ready": 1.5}, early=True)
    assert early.text == "awake after 1.50 s: ready 1.50 s; Kubernetes does not call the pod ready yet"


def test_deletion_message_follows_outcome() -> None:
    restored = event_messages.deletion_message("Deployment shop/web was restored to 3 replicas", False)
    assert restored == EventMessage("Restored", "Deployment shop/web was restored to 3 replicas", "Restoring")
    failed = event_messages.deletion_message("failed to restore Deployment shop/web: 403", True)
    assert failed == EventMessage(
        "RestoreFailed", "failed to restore Deployment shop/web: 403", "Restoring", warning=True
    )


def test_shorten_long_note_fits_the_limit() -> None:
    assert event_messages.shorten("é" * 512) == "é" * 512
    shortened = event_messages.shorten("é" * 513)
    assert len(shortened.encode()) <= 1024
    assert shortened.endswith("é…")


async def test_event_regards_the_object() -> None:
    scene = Scene()
    async with writing(scene):
        scene.saw(TO_WAKING, "10.1.2.3:4567")
    [(method, path, body)] = scene.server.writes()
    assert (method, path) == ("POST", EVENTS)
    assert body == {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"web.{int(AT * 1e9):x}", "namespace": "shop"},
        "eventTime": "2026-11-18T11:06:40.250000Z",
        "type": "Normal",
        "reason": "WakeRequested",
        "action": "Waking",
        "note": "a client is waiting, first client 10.1.2.3:4567",
        "regarding": {
            "apiVersion": "zenvoy.dev/v1alpha1",
            "kind": "ScaledService",
            "namespace": "shop",
            "name": "web",
            "uid": "uid-1",
        },
        "reportingController": "zenvoy.dev/reconciler",
        "reportingInstance": "zenvoy-0",
    }


async def test_event_repetition_is_counted_in_series() -> None:
    scene = Scene()
    async with writing(scene):
        for _ in range(3):
            for move in (TO_IDLE, TO_ACTIVE):
                scene.saw(move)
            assert await scene.events.flush(PATIENT)
            scene.now += 30
    assert scene.written() == [
        ("Normal", "Idle", "no traffic", 3),
        ("Normal", "Active", "3 requests moved, 0 in flight", 3),
    ]
    assert [method for method, _, _ in scene.server.writes()] == ["POST"] * 2 + ["PATCH"] * 4


async def test_event_queued_repetitions_are_written_once() -> None:
    scene = Scene()
    for _ in range(5):
        scene.saw(TO_IDLE)
    async with writing(scene):
        pass
    assert scene.written() == [("Normal", "Idle", "no traffic", 5)]
    assert len(scene.server.writes()) == 1


async def test_event_with_other_text_is_new() -> None:
    scene = Scene()
    async with writing(scene):
        scene.saw(TO_WAKING, "10.1.2.3:4567")
        scene.saw(TO_WAKING, "10.1.2.4:4567")
    assert [note for _, _, note, _ in scene.written()] == [
        "a client is waiting, first client 10.1.2.3:4567",
        "a client is waiting, first client 10.1.2.4:4567",
    ]


async def test_event_after_pause_or_expiry_is_new() -> None:
    scene = Scene()
    async with writing(scene):
        scene.saw(TO_IDLE)
        assert await scene.events.flush(PATIENT)
        scene.now += 601
        scene.saw(TO_IDLE)
        assert await scene.events.flush(PATIENT)
        for path in [path for path in scene.server.kept if path.startswith(EVENTS)]:
            del scene.server.kept[path]
        scene.saw(TO_IDLE)
    assert [method for method, _, _ in scene.server.writes()] == ["POST", "POST", "PATCH", "POST"]
    assert scene.written() == [("Normal", "Idle", "no traffic", 1)]


async def test_event_follower_records_nothing() -> None:
    scene = Scene(leads=False)
    async with writing(scene):
        scene.saw(TO_IDLE)
        scene.leads = True
        scene.saw(TO_ACTIVE)
        scene.leads = False
    assert scene.server.calls == []


async def test_event_overflow_drops_oldest() -> None:
    scene = Scene(pace=EventLimits(waiting=3, gather=0.001, each_second=100_000))
    with capture_logs() as logs:
        for peer in range(6):
            scene.saw(TO_WAKING, f"10.0.0.{peer}:1")
    async with writing(scene):
        pass
    assert [note[-10:] for _, _, note, _ in scene.written()] == ["10.0.0.3:1", "10.0.0.4:1", "10.0.0.5:1"]
    assert [reported["event"] for reported in logs] == ["too many Events, dropping the oldest"]


async def test_event_warnings_are_written_first() -> None:
    scene = Scene()
    for move in (TO_IDLE, TO_ACTIVE, STALLED):
        scene.saw(move)
    async with writing(scene):
        pass
    assert [reason for _, reason, _, _ in scene.written()] == ["WakeStalled", "Idle", "Active"]


def noisy(number: int) -> tuple[ObjectRef, EventMessage]:
    """Return an Event of another namespace."""
    regarding = ObjectRef("v1", "Service", "noisy", "web", "uid-noisy")
    return regarding, EventMessage("BadAnnotation", f"mistake {number}", "Configuring", warning=True)


async def test_event_of_another_namespace_is_not_delayed_by_many() -> None:
    scene = Scene()
    for number in range(5):
        scene.events.record_about(*noisy(number))
    scene.saw(TO_IDLE)
    scene.saw(TO_ACTIVE)
    async with writing(scene):
        pass
    reasons = [body["reason"] for _, _, body in scene.server.writes()]
    assert reasons == ["BadAnnotation", "Idle", "BadAnnotation", "Active", *["BadAnnotation"] * 3]


async def test_event_overflow_drops_those_of_the_namespace_with_most() -> None:
    scene = Scene(pace=EventLimits(waiting=3, gather=0.001, each_second=100_000))
    scene.saw(TO_IDLE)
    for number in range(9):
        scene.events.record_about(*noisy(number))
    async with writing(scene):
        pass
    assert sorted(body["note"] for _, _, body in scene.server.writes()) == ["mistake 7", "mistake 8", "no traffic"]


async def test_event_rate_is_limited() -> None:
    scene = Scene(pace=EventLimits(at_once=10, gather=0.001, each_second=50))
    for peer in range(20):
        scene.saw(TO_WAKING, f"10.0.0.{peer}:1")
    begin = time.monotonic()
    async with writing(scene):
        pass
    assert time.monotonic() - begin >= 0.19
    assert len(scene.written()) == 20


@pytest.mark.parametrize(
    "fault", [Unreachable("POST: cut"), ApiError(429, "TooManyRequests", "later"), ApiError(503, "X", "")], ids=str
)
async def test_event_transient_error_is_retried(fault: Exception) -> None:
    scene = Scene()
    scene.server.faults.extend([fault, fault])
    with capture_logs() as logs:
        async with writing(scene):
            scene.saw(TO_IDLE)
    assert scene.written() == [("Normal", "Idle", "no traffic", 1)]
    assert len({body["metadata"]["name"] for _, _, body in scene.server.writes()}) == 1
    assert logs == []


async def test_event_without_answer_is_written_once() -> None:
    scene = Scene()
    scene.server.faults.append(ApiError(409, "AlreadyExists", "it exists"))
    with capture_logs() as logs:
        async with writing(scene):
            scene.saw(TO_IDLE)
    assert len(scene.server.calls) == 1
    assert logs == []


async def test_event_rejected_is_dropped_and_logged_once() -> None:
    scene = Scene()
    scene.server.refused[EVENTS] = ApiError(403, "Forbidden", "events.events.k8s.io is forbidden")
    with capture_logs() as logs:
        async with writing(scene):
            for move in (TO_IDLE, TO_ACTIVE, STALLED):
                scene.saw(move)
    assert len(scene.server.calls) == 3
    [reported] = logs
    assert reported["event"] == "failed to write an Event"
    assert reported["error"] == "403 Forbidden: events.events.k8s.io is forbidden"


async def test_event_of_deleted_service_is_not_recorded() -> None:
    scene = Scene()
    scene.items.clear()
    async with writing(scene):
        scene.saw(TO_IDLE)
    assert scene.server.calls == []


BAD = Problem(
    Reason.BAD_ANNOTATION, "zenvoy.dev/idle-after", "'5 parsecs' is not a duration", "write it as 5m", on=SERVICE
)


async def test_event_problem_is_recorded_once_per_occurrence() -> None:
    scene = Scene()
    async with writing(scene):
        for problems in ([BAD], [BAD], [BAD, TAKEN], [TAKEN], [BAD, TAKEN]):
            scene.events.problems("shop/web", problems)
            assert await scene.events.flush(PATIENT)
    assert scene.written() == [
        ("Warning", "BadAnnotation", str(BAD), 2),
        ("Warning", "HostTaken", str(TAKEN), 1),
    ]
    assert scene.server.writes()[0][2]["regarding"] == {
        "apiVersion": "v1",
        "kind": "Service",
        "namespace": "shop",
        "name": "web",
        "uid": "uid-7",
    }


async def test_event_new_leader_records_problems() -> None:
    scene = Scene(leads=False)
    async with writing(scene):
        scene.events.problems("shop/web", [TAKEN])
        scene.events.problems("shop/gone", [BAD])
        scene.leads = True
        scene.events.lead()
        scene.events.lead()
    assert scene.written() == [("Warning", "HostTaken", str(TAKEN), 1)]


async def test_event_fixed_problem_is_not_recorded() -> None:
    scene = Scene(leads=False)
    async with writing(scene):
        scene.events.problems("shop/web", [TAKEN])
        scene.events.problems("shop/web", [])
        scene.leads = True
        scene.events.lead()
    assert scene.written() == []


async def test_event_names_are_unique_and_valid() -> None:
    scene = Scene()
    async with writing(scene):
        for _ in range(3):
            scene.events.record_about(
                ObjectRef("v1", "Service", "shop", "a" * 199 + "-b", "uid-8"), EventMessage("A", f"{_}", "B")
            )
    names = [body["metadata"]["name"] for _, _, body in scene.server.writes()]
    assert len(set(names)) == 3
    assert all(name.startswith("a" * 199 + ".") and len(name) < 253 for name in names)
