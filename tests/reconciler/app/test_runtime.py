"""Notifications of transitions and wakes."""

from __future__ import annotations

import asyncio

from structlog.testing import capture_logs

from reconciler.app.runtime import TransitionNotifier
from reconciler.core.record import State, Transition
from reconciler.engine.service import Wake
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
