"""Tests of changes of the wall clock: a sleep is late by at most one `idleAfter`, and never early."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.events import SleepCommanded
from reconciler.core.record import State
from reconciler.core.spec import Spec
from reconciler.core.traffic import Sample
from reconciler.engine.sampling import Sampler
from reconciler.ports.clock import Clock
from tests.fakes.simulation.clients import NAME
from tests.fakes.simulation.world import World

IDLE_AFTER = 6
SPEC = Spec(name=NAME, replicas=1, idle_after=IDLE_AFTER, wake_timeout=50, drain_timeout=4, hold_timeout=600)
FEW = 4
"""Seconds for samples and acknowledgements."""
HOUR = 3600


def awake(state: State, in_use: bool = False) -> World:
    world = World(SPEC)
    world.all_goes_well(2, finishing=True)
    world.arrive("a", lagging_worker=False)
    world.all_goes_well(1, finishing=False)
    if state is not State.Active and not in_use:
        world.all_goes_well(3, finishing=True)
    if state is State.Draining:
        world.engine.command(NAME, SleepCommanded("asked for"))
    assert world.state is state
    return world


@pytest.mark.parametrize("state", [State.Active, State.Idle, State.Draining])
@given(back=st.integers(2, 100 * HOUR))
def test_clock_set_back_delays_sleep_by_one_idle_after(state: State, back: int) -> None:
    world = awake(state)
    world.clock_is_set(-back)
    world.all_goes_well(IDLE_AFTER + FEW, finishing=True)
    assert world.state is State.ScaledToZero


@given(step=st.integers(-100 * HOUR, 100 * HOUR), seconds=st.integers(0, 3), asked=st.booleans())
def test_clock_change_does_not_put_used_service_to_sleep(step: int, seconds: int, asked: bool) -> None:
    world = awake(State.Active, in_use=True)
    world.all_goes_well(seconds, finishing=False)
    if asked:
        world.engine.command(NAME, SleepCommanded("asked for"))
    world.clock_is_set(step)
    world.alarms()
    for _ in range(2 * IDLE_AFTER):
        world.all_goes_well(1, finishing=False)
        assert world.workload.replicas
        assert len(world.living()) == 1


def test_clock_set_back_discards_future_sample() -> None:
    world = awake(State.Idle)
    world.clock_is_set(-HOUR)
    world.all_goes_well(IDLE_AFTER + FEW, finishing=True, but="samples")
    assert world.state is State.Active, "usage is unknown"


async def empty_sample() -> Sample:
    return Sample(0.0, {})


async def test_clock_set_back_does_not_stop_sampler() -> None:
    walls, taken = iter([5000.0] + [1000.0] * 1000), asyncio.Event()
    seen: list[Sample] = []

    def sampled(sample: Sample) -> None:
        seen.append(sample)
        if len(seen) > 2:
            taken.set()

    sampler = Sampler(empty_sample, 0.01, 0.001, Clock(lambda: next(walls)), sampled)
    sampler.ask(5000.001)
    running = asyncio.create_task(sampler.run())
    try:
        await asyncio.wait_for(taken.wait(), 60)
    finally:
        running.cancel()
