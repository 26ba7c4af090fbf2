"""Events of a wake: late enough to name the client, and never after the Event that follows."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from reconciler.app.cluster_notifier import CLIENT_SECONDS, EventNotifier
from reconciler.core.record import State, Transition
from reconciler.core.spec import Spec
from reconciler.engine.service import ManagedService, Wake
from reconciler.kubernetes.status.event_messages import EventMessage
from reconciler.kubernetes.status.event_recorder import EventRecorder

PATIENCE_SECONDS = 60.0
WOKE = Transition("shop/web", State.ScaledToZero, "DemandSeen", State.Waking, "a client is waiting", 1000.0)
WAKE = Wake(1000.0, 999.9, "127.0.0.1:5", "proxy-1")
READY = Transition("shop/web", State.Waking, "Ready", State.Active, "reachable", 1000.05)


def waking(client: str) -> tuple[str, str]:
    return "WakeRequested", f"a client is waiting, first client {client} through Envoy proxy-1"


class Recorder(EventRecorder):
    """The Events that a notifier writes."""

    def __init__(self) -> None:
        self.service = ManagedService(Spec(name="shop/web"), wake=WAKE)
        self.events: list[tuple[str, str]] = []
        self.notifier = EventNotifier({"shop/web": self.service}, self)

    def record(self, service: str, note: EventMessage) -> None:
        assert service == "shop/web"
        self.events.append((note.reason, note.text))

    def request_arrives(self) -> None:
        self.service.wake = Wake(1000.0, 999.9, "192.0.2.7", "proxy-1")


async def test_wake_event_client_reported_later_names_client() -> None:
    recorder = Recorder()
    recorder.notifier.saw(WOKE)
    recorder.request_arrives()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not recorder.events:
            await asyncio.sleep(0.005)
    assert recorder.events == [waking("192.0.2.7")]


async def test_wake_event_ready_at_once_is_written_before_ready() -> None:
    recorder = Recorder()
    recorder.notifier.saw(WOKE)
    recorder.notifier.saw(READY)
    assert [state for state, _ in recorder.events] == ["WakeRequested", "Active"]
    await asyncio.sleep(2 * CLIENT_SECONDS)
    assert len(recorder.events) == 2


async def test_wake_event_delayed_is_written_on_close() -> None:
    recorder = Recorder()
    recorder.notifier.saw(WOKE)
    assert recorder.events == []
    recorder.notifier.close()
    assert recorder.events == [waking("127.0.0.1:5")]


async def test_wake_event_repeated_while_delayed_is_written_once() -> None:
    recorder = Recorder()
    recorder.notifier.saw(WOKE)
    recorder.notifier.repeat([WOKE])
    await asyncio.sleep(2 * CLIENT_SECONDS)
    assert recorder.events == [waking("127.0.0.1:5")]


async def test_repeat_wake_over_before_election_writes_woken() -> None:
    recorder = Recorder()
    recorder.service.wake = replace(WAKE, ready_at=READY.at, first_byte_at=1000.1)
    recorder.notifier.repeat([WOKE, READY])
    assert recorder.events == [
        waking("127.0.0.1:5"),
        ("Active", "reachable"),
        ("Woken", "awake after 200 ms, first client 127.0.0.1:5: signal 100 ms, ready 50 ms, first byte 50 ms"),
    ]


@pytest.mark.parametrize("wake", [{"ready_at": READY.at}, {"ready_at": 900.0, "first_byte_at": 901.0}])
async def test_repeat_wake_unfinished_or_older_writes_no_woken(wake: dict[str, Any]) -> None:
    recorder = Recorder()
    recorder.service.wake = replace(WAKE, **wake)
    recorder.notifier.repeat([READY])
    assert [state for state, _ in recorder.events] == ["Active"]
