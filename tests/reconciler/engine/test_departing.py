"""Tests of deleted services with one and two replicas: earlier clients are served, and nothing sleeps."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.core.events import SleepCommanded
from reconciler.core.lifecycle import Stage, deletion_blocker
from reconciler.core.record import State
from reconciler.core.spec import Spec
from reconciler.engine.engine import Engine
from reconciler.plan import AtLeast
from tests.fakes.simulation.clients import NAME
from tests.fakes.simulation.world import World

SPEC = Spec(name=NAME, replicas=2, idle_after=6, wake_timeout=5, drain_timeout=60, hold_timeout=600)
DEPARTING = replace(SPEC, departing=True)


def needed(engine: Engine, now: float) -> str | None:
    service = engine.services[NAME]
    assert service.record
    stage = Stage.Deleting if service.spec.departing else Stage.Current
    reason = deletion_blocker(stage, service.record, service.seen, False, now)
    return str(reason) if reason else None


def asleep() -> World:
    world = World(SPEC)
    world.all_goes_well(20, finishing=True)
    assert world.state is State.ScaledToZero
    return world


def deleted(world: World) -> World:
    world.spec = DEPARTING
    world.engine.configure([DEPARTING])
    return world


def draining() -> World:
    world = asleep()
    world.arrive("a", False)
    world.all_goes_well(5, finishing=False)
    world.engine.command(NAME, SleepCommanded("requested by a user"))
    assert world.state is State.Draining
    return world


def test_deleted_service_asleep_is_woken() -> None:
    world = deleted(asleep())
    assert (world.state, world.replica.scale) == (State.Waking, AtLeast(2))
    world.all_goes_well(3, finishing=True)
    assert world.workload.replicas == 2
    assert needed(world.engine, world.now) is None


def test_deleted_service_serves_held_clients_first() -> None:
    world = asleep()
    world.holder_obeys()
    world.arrive("a", False)
    deleted(world)
    for part, happens in world.parts().items():
        if part == "releases":
            assert needed(world.engine, world.now)
        happens()
    assert [client.pod for client in world.clients[-1:]] != [None]


def test_deleted_service_needs_all_envoys_on_its_endpoints() -> None:
    world = deleted(asleep())
    world.all_goes_well(3, finishing=True, but="envoy b")
    assert needed(world.engine, world.now) == "the route is not acknowledged: b"
    world.arrive("b", False)
    world.holder_releases()
    world.envoy_obeys("b")
    world.passes(1)
    assert world.clients[-1].pod
    assert needed(world.engine, world.now) is None


def test_deleted_service_draining_becomes_active() -> None:
    world = deleted(draining())
    assert world.state is State.Active
    world.all_goes_well(3, finishing=False)
    assert needed(world.engine, world.now) is None


def test_deleted_service_never_sleeps() -> None:
    world = deleted(asleep())
    world.all_goes_well(60, finishing=True)
    before = world.state
    assert before is State.Idle
    world.engine.command(NAME, SleepCommanded("requested by a user"))
    assert world.state is State.Active


def test_deleted_service_continues_timed_out_wake() -> None:
    world = deleted(asleep())
    world.all_goes_well(30, finishing=True, but="readiness")
    assert (world.state, world.replica.scale) == (State.Waking, AtLeast(2))


def test_deleted_service_survives_restart() -> None:
    world = deleted(asleep())
    world.restart()
    world.replica.report_workload()
    assert world.state is State.Waking


def test_service_after_deleted_namesake_sleeps() -> None:
    world = deleted(asleep())
    world.all_goes_well(5, finishing=True)
    world.spec = SPEC
    world.engine.configure([SPEC])
    world.all_goes_well(30, finishing=True)
    assert world.state is State.ScaledToZero


@pytest.mark.parametrize("first", ["L", "F"])
def test_deleted_service_serves_clients_of_follower_first(first: str) -> None:
    world = World(SPEC, (0.0, 0.0))
    world.all_goes_well(20)
    world.arrive("b")
    for name in (first, "F" if first == "L" else "L"):
        world.replicas[name].engine.configure([DEPARTING])
    leader = world.replicas["L"].engine
    while needed(leader, world.now):
        assert world.now < world.clients[0].arrived + 60
        world.all_goes_well(1)
    assert world.clients[-1].end in (None, "served")
    assert not world.held()
    assert {replica.record.state for replica in world.replicas.values() if replica.record} <= {State.Active, State.Idle}


def test_deletion_under_new_leader_waits_for_all_replicas() -> None:
    """A new leader does not know yet what the other replicas hold."""
    world = World(SPEC, (0.0, 0.0))
    world.all_goes_well(20)
    world.arrive("a")
    world.all_goes_well(3)
    world.workload.crash()
    world.replicas["F"].report_workload()
    world.obeys("b")
    world.arrive("b")
    world.workload.start_again()
    world.workload.get_ready()
    world.restarts("L", releases=True)
    leader = world.replicas["L"]
    leader.report_workload()
    world.lease.elect(leader)
    world.joins("a", "L")
    world.delete()
    leader.observe_configuration()
    world.obeys("a")
    world.passes(1)
    world.finalize()
    assert world.held()
    spec = world.spec
    assert spec, "the object is still there"
    world.all_goes_well(30)
    assert world.spec is None
    assert world.clients[-1].end == "served"
