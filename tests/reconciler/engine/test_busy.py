"""Tests of services that work without a client: when they are asked, and what their answers do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.core.busy import BusyUntil, busy, check_failed
from reconciler.core.events import SleepCommanded
from reconciler.core.reasons import Blocker, Reason
from reconciler.core.record import State
from reconciler.core.spec import Spec
from reconciler.engine import view
from tests.fakes.simulation.clients import NAME
from tests.fakes.simulation.world import World

SPEC = Spec(name=NAME, replicas=1, idle_after=5, wake_timeout=50, drain_timeout=60, hold_timeout=600)
CHECKED = replace(SPEC, has_busy_check=True)
BUSY = busy("GET /busy is answered with 200")
FAILED = check_failed("GET /busy is not answered")


def awake(spec: Spec) -> World:
    """Return a world whose service has just served a client."""
    world = World(spec)
    world.all_goes_well(2, finishing=True)
    world.arrive("a", lagging_worker=False)
    world.all_goes_well(2, finishing=True)
    assert world.state in (State.Active, State.Idle)
    return world


def until(world: World, state: State) -> None:
    """Let answers arrive and time pass until the service has this state."""
    for _ in range(100):
        if world.state is state:
            return
        if world.replica.asked_at is not None:
            world.replica.answer()
        else:
            world.all_goes_well(1, finishing=True)
    raise AssertionError(f"{state} is not reached: {world.record}")


def test_service_in_use_is_not_asked() -> None:
    world = awake(CHECKED)
    for _ in range(20):
        world.arrive("a", lagging_worker=False)
        world.all_goes_well(1, finishing=True)
    assert world.replica.questions == 0


def test_service_without_check_is_not_asked() -> None:
    world = awake(SPEC)
    until(world, State.ScaledToZero)
    assert world.replica.questions == 0


def test_idle_service_is_asked_before_and_after_its_drain() -> None:
    world = awake(CHECKED)
    until(world, State.Draining)
    assert world.replica.questions == 1
    until(world, State.ScaledToZero)
    assert world.replica.questions == 2


def test_unanswered_question_keeps_awake_and_is_not_repeated() -> None:
    world = awake(CHECKED)
    world.all_goes_well(30, finishing=True, but="busy check")
    assert (world.state, world.replica.questions) == (State.Idle, 1)


@pytest.mark.parametrize("blocker", [BUSY, FAILED])
def test_answer_keeps_awake_with_its_reason(blocker: Blocker) -> None:
    world = awake(CHECKED)
    world.job = blocker
    until(world, State.Idle)
    until(world, State.Active)
    assert world.record and world.record.reason == f"{blocker.code}: {blocker.message}"
    for _ in range(20):
        world.replica.answer()
        world.all_goes_well(1, finishing=True)
    assert world.state is State.Active
    assert 3 <= world.replica.questions <= 6, "once for each idleAfter, not once for each sample"
    world.job = None
    until(world, State.ScaledToZero)


def test_other_reason_replaces_the_reason_without_a_transition() -> None:
    world = awake(CHECKED)
    world.job = BUSY
    until(world, State.Idle)
    until(world, State.Active)
    moves = len(world.transitions)
    world.job = FAILED
    world.all_goes_well(6, finishing=True)
    world.replica.answer()
    assert world.record and world.record.reason.startswith(Reason.BUSY_CHECK_FAILED)
    assert len(world.transitions) == moves


def test_work_that_begins_before_the_drain_ends_is_not_cut() -> None:
    world = awake(CHECKED)
    until(world, State.Draining)
    world.job = BUSY
    until(world, State.Active)
    assert "ScaledToZero" not in {move.target for move in world.transitions[-2:]}


def test_sleep_command_does_not_cut_work() -> None:
    world = awake(CHECKED)
    world.job = BUSY
    world.engine.command(NAME, SleepCommanded("requested by a user"))
    assert world.state is State.Draining
    until(world, State.Active)
    assert world.record and world.record.reason.startswith(Reason.BUSY)


def test_drain_that_waits_for_the_answer_has_its_blocker() -> None:
    world = awake(CHECKED)
    world.engine.command(NAME, SleepCommanded("requested by a user"))
    world.all_goes_well(5, finishing=True, but="busy check")
    blocker = view.drain_blocker(world.service)
    assert blocker and blocker.code is Reason.BUSY_CHECK_PENDING


def test_paused_service_is_not_asked() -> None:
    world = awake(CHECKED)
    world.engine.pause(NAME, True)
    world.all_goes_well(20, finishing=True)
    assert (world.state, world.replica.questions) == (State.Idle, 0)


def test_annotation_keeps_awake_until_its_time() -> None:
    world = awake(SPEC)
    end = world.now + 60
    world.engine.set_busy_until(NAME, BusyUntil(end, Blocker(Reason.BUSY_UNTIL, "busy-until")))
    world.all_goes_well(50, finishing=True)
    assert world.state is State.Active
    assert world.record and world.record.reason == "BusyUntil: busy-until"
    until(world, State.ScaledToZero)
    assert world.now >= end + SPEC.idle_after


def test_annotation_that_is_removed_keeps_awake_no_longer() -> None:
    world = awake(SPEC)
    world.engine.set_busy_until(NAME, BusyUntil(world.now + 9999, Blocker(Reason.BUSY_UNTIL, "busy-until")))
    world.all_goes_well(20, finishing=True)
    world.engine.set_busy_until(NAME, None)
    until(world, State.ScaledToZero)


def test_annotation_from_before_the_service_counts() -> None:
    world = awake(SPEC)
    world.engine.set_busy_until(NAME, BusyUntil(world.now + 9999, Blocker(Reason.BUSY_UNTIL, "busy-until")))
    world.engine.configure([])
    world.engine.configure([SPEC])
    assert world.service.seen.busy_until is not None


def test_annotation_does_not_wake() -> None:
    world = awake(SPEC)
    until(world, State.ScaledToZero)
    world.engine.set_busy_until(NAME, BusyUntil(world.now + 9999, Blocker(Reason.BUSY_UNTIL, "busy-until")))
    world.all_goes_well(10, finishing=True)
    assert world.state is State.ScaledToZero


def test_answer_from_the_future_does_not_count() -> None:
    world = awake(CHECKED)
    until(world, State.Idle)
    while world.replica.asked_at is None:
        world.all_goes_well(1, finishing=True)
    world.clock_is_set(-3600)
    world.replica.answer()
    assert world.state is not State.Draining
    until(world, State.ScaledToZero)
