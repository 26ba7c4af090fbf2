"""Tests of the wakes that are counted: only those from sleep."""

from __future__ import annotations

from reconciler.core.events import WakeCommanded
from reconciler.core.record import State
from reconciler.core.spec import Spec
from reconciler.engine.view import summary
from reconciler.ports.backend import WorkloadStatus
from reconciler.ports.holders import HoldStatus
from tests.fakes.simulation.clients import NAME
from tests.fakes.simulation.world import World

SPEC = Spec(name=NAME, replicas=1, idle_after=600, wake_timeout=50, drain_timeout=60, hold_timeout=600)


def woken() -> World:
    world = World(SPEC)
    world.engine.command(NAME, WakeCommanded("asked for"))
    world.all_goes_well(3, finishing=True)
    assert (world.state, len(world.wakes)) == (State.Idle, 1)
    return world


def test_recovery_of_awake_service_is_not_a_wake() -> None:
    world = woken()
    before, pods = summary(world.service)["lastWake"], world.service.running
    world.now += 1
    world.engine.ran(WorkloadStatus(NAME, 1, (), milestones={"started": world.now}))
    recovering = world.state
    assert recovering is State.Waking
    world.engine.held(HoldStatus(NAME, 1, 0, held_since=world.now, peer="127.0.0.1:5"))
    world.now += 1
    world.engine.ran(WorkloadStatus(NAME, 1, pods))
    world.engine.held(HoldStatus(NAME, 0, 1, held_since=world.now - 1, peer="127.0.0.1:5", first_byte_at=world.now))
    assert world.state is State.Active
    assert len(world.wakes) == 1
    assert summary(world.service)["lastWake"] == before


def test_wake_saved_time_is_kept() -> None:
    world = World(SPEC)
    early = world.service.woke_early
    assert early is None
    world.engine.command(NAME, WakeCommanded("asked for"))
    pods = ("127.0.0.1:8080",)
    world.engine.ran(WorkloadStatus(NAME, 1, pods, early=True))
    wake = world.service.wake
    assert wake
    assert (world.state, world.service.woke_early, wake.saved_seconds) == (State.Active, True, None)
    assert summary(world.service)["lastWake"]["early"] is True
    world.engine.ran(WorkloadStatus(NAME, 1, pods, saved_seconds=7.25))
    world.engine.ran(WorkloadStatus(NAME, 1, pods))
    saved = world.service.saved_seconds
    assert saved == 7.25
    assert summary(world.service)["lastWake"]["savedSeconds"] == 7.25
    world.engine.ran(WorkloadStatus(NAME, 0, ()))
    world.engine.command(NAME, WakeCommanded("asked for again"))
    world.engine.ran(WorkloadStatus(NAME, 1, pods, saved_seconds=3.0))
    assert (world.service.woke_early, world.service.saved_seconds) == (False, None), "this endpoint was not early"


def test_wake_peer_is_updated_by_request() -> None:
    world = World(SPEC)
    since = world.now
    world.engine.held(HoldStatus(NAME, 1, 0, held_since=since, peer="127.0.0.1:5"))
    assert world.state is State.Waking
    world.engine.held(HoldStatus(NAME, 1, 0, held_since=since, peer="192.0.2.7"))
    assert world.service.wake
    assert world.service.wake.peer == "192.0.2.7"
    world.engine.held(HoldStatus(NAME, 2, 0, held_since=since - 1, peer="192.0.2.8"))
    assert world.service.wake.peer == "192.0.2.7", "that is another wait"


def test_wake_after_sleep_is_counted() -> None:
    world = woken()
    pods = world.service.running
    world.engine.ran(WorkloadStatus(NAME, 1, ()))
    world.engine.ran(WorkloadStatus(NAME, 1, pods))
    world.engine.ran(WorkloadStatus(NAME, 0, ()))
    asleep = world.state
    assert asleep is State.ScaledToZero
    world.engine.command(NAME, WakeCommanded("asked for again"))
    world.engine.ran(WorkloadStatus(NAME, 1, pods))
    assert world.state is State.Active
    assert [wake.reason for wake in world.wakes] == ["asked for", "asked for again"]
