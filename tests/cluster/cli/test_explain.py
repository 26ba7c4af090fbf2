"""The last transitions in `zenvoy explain`, from Events that zenvoy wrote."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from reconciler.core.reasons import Problem, Reason
from reconciler.core.record import State, Transition
from reconciler.engine.view import moves
from reconciler.kubernetes.status.event_messages import transition_message, wake_message
from reconciler.kubernetes.status.event_recorder import EventRecorder
from reconciler.kubernetes.types.objects import decoder, path
from reconciler.kubernetes.types.scaled_service import API_VERSION, PLURAL, ScaledService
from tests.cluster.cli.parts import Cli, FakeController, Objects
from tests.cluster.written import GENEROUS_SECONDS
from tests.reconciler.cli.test_explanation import answer


class RecordedService:
    """The Events of one service, written at chosen times."""

    def __init__(self, objects: Objects) -> None:
        self.objects, self.name = objects, f"{objects.namespace}/web"
        self.now = datetime.now(UTC) - timedelta(minutes=5)

    async def start(self) -> None:
        await self.objects.scaled_service("web", state="Active", since="2026-01-02T03:04:05Z", reason="ready")
        where = path(API_VERSION, PLURAL, self.objects.namespace, "web")
        items = {self.name: decoder(ScaledService)(await self.objects.api.get(where))}
        self.events = EventRecorder(self.objects.api, items, {}, lambda: True, "zenvoy-0", lambda: self.now.timestamp())
        self.task = asyncio.create_task(self.events.run())

    async def end(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    def move(self, source: State, event: str, target: State, reason: str) -> Transition:
        return Transition(self.name, source, event, target, reason, self.now.timestamp())

    async def saw(self, *moved: tuple[State, str, State, str]) -> None:
        """Record an Event, a minute after the one before."""
        for one in moved:
            self.now += timedelta(seconds=60)
            self.events.record(self.name, transition_message(self.move(*one)))
            assert await self.events.flush(GENEROUS_SECONDS)


@pytest.fixture
async def recorded(objects: Objects) -> AsyncIterator[RecordedService]:
    recorded = RecordedService(objects)
    await recorded.start()
    yield recorded
    await recorded.end()


TO_IDLE = (State.Active, "Quiet", State.Idle, "no traffic")
TO_ACTIVE = (State.Idle, "Traffic", State.Active, "3 requests moved")
TO_WAKING = (State.ScaledToZero, "DemandSeen", State.Waking, "a client is waiting")


async def test_explain_repeated_event_is_shown_at_its_last_time(cli: Cli, recorded: RecordedService) -> None:
    await recorded.saw(TO_WAKING, TO_IDLE, TO_ACTIVE, TO_IDLE)
    recorded.events.record(recorded.name, wake_message(1.5, {"signal": 0.002}))
    recorded.events.problems(recorded.name, [Problem(Reason.HOST_TAKEN, "spec.hosts", "it is taken", "take another")])
    assert await recorded.events.flush(GENEROUS_SECONDS)
    done = await cli("explain", "web", "-n", cli.namespace, "--system-namespace", cli.namespace, "-o", "json")
    assert [(move["event"], move["reason"]) for move in done.json["transitions"]] == [
        ("Idle", "no traffic (2 times)"),
        ("Active", "3 requests moved"),
        ("WakeRequested", "a client is waiting"),
    ]
    last, *_ = done.json["transitions"]
    assert datetime.fromisoformat(last["at"]) == recorded.now.replace(
        microsecond=recorded.now.microsecond // 1000 * 1000
    )


async def test_explain_events_precede_the_first_transition(
    cli: Cli, recorded: RecordedService, controller: FakeController
) -> None:
    """The leader is new; a repeated Event counts where it began."""
    await recorded.saw(TO_WAKING, TO_IDLE, TO_ACTIVE)
    known = recorded.move(*TO_ACTIVE)
    await recorded.saw(TO_WAKING)
    later = recorded.move(*TO_WAKING)
    controller.answers = {f"/v1/services/{recorded.name}/explain": answer(transitions=moves([later, known]))}
    where = ("-n", cli.namespace, "--controller", controller.url)
    done = await cli("explain", "web", *where)
    rows = done.out.partition("Last transitions\n")[2].splitlines()
    assert [" ".join(row.split()[1:]) for row in rows] == [
        "ScaledToZero → Waking DemandSeen a client is waiting",
        "Idle → Active Traffic 3 requests moved",
        "Idle no traffic",
        "WakeRequested a client is waiting (2 times)",
    ]
