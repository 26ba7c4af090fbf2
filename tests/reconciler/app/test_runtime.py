"""The runtime: notifications of transitions and wakes, and garbage collection once it is open."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from typing import ClassVar

import pytest
from structlog.testing import capture_logs

from reconciler.app.runtime import GC_ALLOCATIONS, Runtime, TransitionNotifier
from reconciler.core.record import State, Transition
from reconciler.core.traffic import Pace
from reconciler.engine.hold_addresses import AnyIp
from reconciler.engine.service import Wake
from reconciler.envoy.xds_router import XdsRouter
from reconciler.metrics.metrics import Sources
from tests.reconciler.metrics.scene import Scene

STALLED = Transition("web", State.Waking, "WakeStalled", State.Waking, "exited with code 1", 1000.0, "abc")


class Listener:
    """A listener that notes what it receives."""

    def __init__(self) -> None:
        self.received: list[object] = []

    def saw(self, transition: Transition) -> None:
        self.received.append(transition)

    def woke(self, service: str, wake: Wake) -> None:
        self.received.append(wake)


async def test_notifier_transition_is_reported_after_its_effects() -> None:
    listener = Listener()
    with capture_logs() as lines:
        notifier = TransitionNotifier(Scene().metrics)
        notifier.on_transition = listener.saw
        notifier.saw(STALLED)
        assert not listener.received and not lines
        await asyncio.sleep(0)
    assert listener.received == [STALLED]
    assert [(line["event"], line["service"], line["reference"]) for line in lines] == [("transition", "web", "abc")]


async def test_notifier_wake_is_reported_at_once() -> None:
    listener, wake = Listener(), Wake(1000.0, 999.9, "192.0.2.7", None, ready_at=1000.5, first_byte_at=1000.6)
    with capture_logs() as lines:
        notifier = TransitionNotifier(Scene().metrics)
        notifier.on_wake = listener.woke
        notifier.woke("web", wake)
    assert listener.received == [wake]
    assert [(line["event"], line["peer"]) for line in lines] == [("woken", "192.0.2.7")]


class Cycle:
    """An object that only the garbage collector frees."""

    alive: ClassVar[int] = 0

    def __init__(self) -> None:
        self.itself = self
        Cycle.alive += 1

    def __del__(self) -> None:
        Cycle.alive -= 1


@pytest.fixture
def collector() -> Iterator[None]:
    """Let the test change the garbage collector of this process."""
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()
    gc.collect()
    gc.freeze()  # as tests/conftest.py does


@pytest.mark.usefixtures("collector")
async def test_runtime_open_exempts_only_present_objects() -> None:
    runtime = Runtime(Sources(dict, dict, list, list, lambda: True, lambda: True), Pace(1.0), AnyIp(18001))
    runtime._router = XdsRouter(lambda *_: None, lambda *_: None, lambda _: None)
    present = Cycle()
    runtime.open()
    del present
    gc.collect()
    assert Cycle.alive == 1, "the present objects are exempt"
    most = 0
    for _ in range(5 * GC_ALLOCATIONS):
        Cycle()
        most = max(most, Cycle.alive)
    assert GC_ALLOCATIONS / 2 < most < 2 * GC_ALLOCATIONS, "later cycles are collected, rarely"
