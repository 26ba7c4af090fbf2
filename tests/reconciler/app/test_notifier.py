"""The Event of a wake: late enough to name who sent the request, and never after what follows it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from reconciler.app.notifier import CLIENT_SECONDS, Teller
from reconciler.core.record import State
from reconciler.core.spec import Spec
from reconciler.engine.service import Service
from reconciler.engine.wake import Wake
from reconciler.ports.transitions import Transition
from tests.reconciler.metrics.scene import Scene

WOKE = Transition("shop/web", State.ScaledToZero, "Demand", State.Waking, "somebody waits", 1000.0)
READY = Transition("shop/web", State.Waking, "Ready", State.Active, "reachable", 1000.05)


class Told:
    """What is told, and of whom."""

    def __init__(self) -> None:
        self.service = Service(Spec(name="shop/web"), wake=Wake(1000.0, 999.9, "127.0.0.1:5", "proxy-1"))
        self.events: list[tuple[str, str | None]] = []
        self.teller = Teller(lambda: {"shop/web": self.service}, {}, Scene().metrics)
        nobody: Any = None
        here: Any = self
        self.teller.attach(nobody, here, nobody)

    def saw(self, transition: Transition, peer: str | None, envoy: str | None) -> None:
        self.events.append((transition.target.value, peer))

    def woke(self, service: str, total: float | None, parts: Mapping[str, float], peer: str | None) -> None:
        self.events.append((f"Woken in {total:.2f} s, {', '.join(parts)}", peer))

    async def says(self, *transitions: Transition) -> None:
        for transition in transitions:
            self.teller.saw(transition)
        await asyncio.sleep(0)

    def request_arrives(self) -> None:
        self.service.wake = Wake(1000.0, 999.9, "192.0.2.7", "proxy-1")


async def test_who_sent_the_request_is_waited_for() -> None:
    told = Told()
    await told.says(WOKE)
    told.request_arrives()
    async with asyncio.timeout(100 * CLIENT_SECONDS):
        while not told.events:
            await asyncio.sleep(0.005)
    assert told.events == [("Waking", "192.0.2.7")]


async def test_what_follows_at_once_is_told_afterwards() -> None:
    told = Told()
    await told.says(WOKE, READY)
    assert [state for state, _ in told.events] == ["Waking", "Active"]
    await asyncio.sleep(2 * CLIENT_SECONDS)
    assert len(told.events) == 2


async def test_what_waits_is_told_before_all_ends() -> None:
    told = Told()
    await told.says(WOKE)
    assert told.events == []
    told.teller.close()
    assert told.events == [("Waking", "127.0.0.1:5")]


async def test_what_is_told_again_by_a_new_leader_is_told_once() -> None:
    told = Told()
    await told.says(WOKE)
    told.teller.again([WOKE])
    await asyncio.sleep(2 * CLIENT_SECONDS)
    assert told.events == [("Waking", "127.0.0.1:5")]


async def test_a_wake_that_was_over_before_anybody_led_is_told_as_one_that_is() -> None:
    told, asked = Told(), ("Waking", "127.0.0.1:5")
    told.service.wake = replace(told.service.wake, ready_at=READY.at, first_byte_at=1000.1)
    told.teller.again([WOKE, READY])
    assert told.events == [
        asked,
        ("Active", "127.0.0.1:5"),
        ("Woken in 0.20 s, signal, ready, firstByte", "127.0.0.1:5"),
    ]


@pytest.mark.parametrize("wake", [{"ready_at": READY.at}, {"ready_at": 900.0, "first_byte_at": 901.0}])
async def test_a_wake_that_goes_on_or_was_over_before_is_not_told_again(wake: dict[str, float]) -> None:
    told = Told()
    told.service.wake = replace(told.service.wake, **wake)
    told.teller.again([READY])
    assert [state for state, _ in told.events] == ["Active"]
