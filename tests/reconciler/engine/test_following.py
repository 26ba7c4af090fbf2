"""Tests of two replicas in single scenarios; `test_two_replicas` covers random ones."""

from __future__ import annotations

from reconciler.core import events
from reconciler.core.reasons import Diagnosis, Reason
from reconciler.core.record import State
from reconciler.core.spec import Spec
from reconciler.ports.backend import WorkloadStatus
from tests.fakes.simulation.clients import NAME
from tests.fakes.simulation.lease import LEASE
from tests.fakes.simulation.peers import NOTICE
from tests.fakes.simulation.replica import DETACH_AFTER, Replica
from tests.fakes.simulation.world import World

SPEC = Spec(name=NAME, replicas=2, idle_after=600, wake_timeout=5, drain_timeout=60, hold_timeout=600)


def pair() -> World:
    """Return a world in which `L` leads with proxy `a`, `F` follows with `b`, and the service is asleep."""
    made = World(SPEC, (0.0, 0.0))
    made.all_goes_well(12)
    assert state(made, "L") is state(made, "F") is State.ScaledToZero
    return made


def awake() -> World:
    made = pair()
    made.arrive("b")
    made.all_goes_well(3)
    assert made.workload.replicas
    return made


def state(world: World, name: str) -> State | None:
    record = world.replicas[name].record
    return record.state if record else None


def talk(world: World, seconds: float = 0.2) -> None:
    """Deliver records and reports, and let proxies apply them."""
    for _ in range(4):
        for name, replica in world.replicas.items():
            world.lease.elect(world.replicas[name])
            world.peers.flush(replica)
        world.peers.deliver(up=False, many=9)
        for proxy in world.envoys:
            world.obeys(proxy)
        for replica in world.replicas.values():
            world.peers.flush(replica)
        world.peers.deliver(up=True, many=9)
    world.passes(seconds)


def look(world: World) -> None:
    for _ in range(2):
        world.replicas["L"].take_sample()
        world.replicas["L"].deliver_samples()


def draining() -> World:
    world = awake()
    world.replicas["L"].engine.command(NAME, events.SleepCommanded("requested by a user"))
    talk(world)
    assert state(world, "L") is state(world, "F") is State.Draining
    return world


def unwanted() -> World:
    """Return a world with a wake whose client is gone, which all components know."""
    world = pair()
    world.arrive("b")
    talk(world)
    for name in world.replicas:
        world.replicas[name].work()
    world.end(world.held()[0], "gave up")
    for name in world.replicas:
        world.replicas[name].report_workload()
    talk(world)
    look(world)
    assert state(world, "L") is state(world, "F") is State.Waking
    return world


def times_out(replica: Replica) -> None:
    assert replica.deadline
    while replica.world.now < replica.deadline.at:
        replica.world.now += 1
        replica.world.lease.elect(replica)
    replica.alarm()


def lost(world: World) -> list[str]:
    return [client.end for client in world.clients if client.end == "asleep"]


def test_wake_without_client_ends_at_time_out() -> None:
    world = unwanted()
    look(world)
    times_out(world.replicas["L"])
    assert state(world, "L") is State.ScaledToZero


def test_follower_does_not_continue_wake_without_client() -> None:
    world = unwanted()
    world.workload.get_ready()
    world.replicas["F"].report_workload()
    assert state(world, "F") is State.Waking
    world.arrive("b")  # a client that the leader does not know yet
    world.obeys("b")
    world.holder_releases("b")
    assert world.held()
    times_out(world.replicas["L"])
    world.replicas["L"].work()
    world.replicas["L"].zero_arrives()
    assert not lost(world)
    world.all_goes_well(10)
    assert not lost(world)
    assert not world.held()


def test_follower_continues_wake_with_client() -> None:
    world = pair()
    world.arrive("b")
    world.freezes("L")
    assert state(world, "F") is State.Waking
    world.replicas["F"].report_workload()
    world.replicas["F"].work()
    world.workload.get_ready()
    world.replicas["F"].report_workload()
    world.obeys("b")
    world.holder_releases("b")
    assert world.served()


def test_follower_adopts_diagnosis_of_leader() -> None:
    world = pair()
    world.arrive("b")
    talk(world)
    for name in world.replicas:
        world.replicas[name].work()
    follower = world.replicas["F"]
    times_out(follower)
    assert follower.record
    assert follower.record.stalled == "TimedOut: not ready, and no reason is reported"
    world.replicas["L"].engine.ran(WorkloadStatus(NAME, 2, diagnosis=Diagnosis.parse("there is no such image")))
    talk(world)
    times_out(follower)
    assert follower.record.stalled == "there is no such image"


def test_follower_holds_while_leader_drains() -> None:
    world = draining()
    world.arrive("b")
    world.obeys("b")
    world.holder_releases("b")
    assert state(world, "F") is State.Draining
    assert world.held()
    world.peers.flush(world.replicas["F"])
    world.peers.deliver(up=True)
    assert state(world, "L") is State.Active


def test_follower_does_not_connect_to_terminating_pod() -> None:
    world = draining()
    look(world)
    world.replicas["L"].work()
    assert state(world, "L") is State.ScaledToZero
    world.peers.deliver(up=False, many=9)
    world.arrive("b")
    world.replicas["F"].report_workload()
    world.obeys("b")
    world.holder_releases("b")
    assert state(world, "F") is State.Waking
    assert world.held()
    world.replicas["L"].zero_arrives()
    assert not lost(world)
    world.all_goes_well(10)
    assert not lost(world)
    assert not world.held()


def test_leader_with_expired_lease_puts_nothing_to_sleep() -> None:
    world = draining()
    world.now = world.replicas["L"].valid_until
    look(world)
    assert state(world, "L") is not State.ScaledToZero


def test_leader_after_freeze_puts_nothing_to_sleep() -> None:
    world = draining()
    world.replicas["L"].take_sample()
    world.freezes("L")
    world.all_goes_well(int(LEASE) + 1)
    world.replicas["L"].take_sample()
    world.thaws("L")
    world.replicas["L"].deliver_samples()
    world.replicas["L"].work()
    assert world.replicas["L"].backend.sent is None
    assert world.workload.replicas


def test_acknowledgement_of_earlier_record_does_not_count() -> None:
    world = draining()
    leader = world.replicas["L"]
    leader.engine.command(NAME, events.WakeCommanded("requested by a user"))
    leader.engine.command(NAME, events.SleepCommanded("requested by a user"))
    world.obeys("a")
    world.replicas["F"].has_report = True
    world.peers.flush(world.replicas["F"])  # for the earlier record, whose state is the same
    world.peers.deliver(up=True, many=9)
    assert leader.engine.services[NAME].seen.route_acked_at is None
    talk(world)
    assert leader.engine.services[NAME].seen.route_acked_at is not None


def test_sleep_with_disconnected_envoy_is_delayed() -> None:
    world = draining()
    world.leaves("b")
    talk(world)
    look(world)
    assert state(world, "L") is not State.ScaledToZero


def test_sleep_with_lost_replica_is_prevented() -> None:
    world = draining()
    for link in list(world.peers.links):
        world.peers.end(link)
    look(world)
    assert state(world, "L") is State.Active


def test_new_leader_expects_envoys_of_previous_leader() -> None:
    world = awake()
    talk(world)
    world.restarts("L", releases=True)
    world.lease.elect(world.replicas["F"])
    assert world.replicas["F"].envoys() == {"a", "b"}


def test_follower_after_lost_leader_ends_drain() -> None:
    world = draining()
    world.peers.cut()
    world.arrive("b")
    world.passes(NOTICE + DETACH_AFTER - 1)
    assert state(world, "F") is State.Draining
    world.passes(2)
    assert state(world, "F") is State.Active
    world.obeys("b")
    world.holder_releases("b")
    assert world.served()


def test_leader_after_demotion_ends_drain() -> None:
    world = draining()
    world.now = world.replicas["L"].valid_until
    world.lease.notice(world.replicas["L"])
    assert state(world, "L") is State.Active


def test_service_without_index_waits_for_allocation() -> None:
    world = World(SPEC, (0.0, 0.0))
    world.records.has_no_index = True
    world.all_goes_well(3)
    leader = world.replicas["L"]
    assert leader.record is None
    assert not leader.engine.synced
    world.records.has_no_index = False
    leader.engine.allocate()
    talk(world)
    assert state(world, "L") is state(world, "F") is State.ScaledToZero
    assert leader.engine.synced


def test_follower_allocates_and_saves_nothing() -> None:
    world = pair()
    world.replicas["F"].store.unsaved.clear()
    indexes = world.records.indexes
    world.arrive("b")
    world.replicas["F"].report_workload()
    world.replicas["F"].work()
    assert state(world, "F") is State.Waking
    assert world.workload.replicas == 2
    assert not world.replicas["F"].store.unsaved
    assert world.records.indexes == indexes


def moves(world: World, name: str) -> list[tuple[State, str, State]]:
    """Return the transitions in a replica's history, the latest first."""
    return [(move.source, move.event, move.target) for move in world.replicas[name].engine.history.of(NAME)]


def test_follower_history_has_transitions_of_leader() -> None:
    world = pair()
    world.replicas["L"].engine.command(NAME, events.WakeCommanded("requested by a user"))
    talk(world)
    world.replicas["L"].engine.ran(WorkloadStatus(NAME, 0, (), Diagnosis(Reason.IMAGE_PULL_BACK_OFF, "no such image")))
    talk(world)
    world.replicas["L"].engine.ran(WorkloadStatus(NAME, 2, ("10.0.0.1:80",)))
    talk(world)
    world.replicas["L"].engine.command(NAME, events.SleepCommanded("requested by a user"))
    talk(world)
    assert moves(world, "F")[:4] == [
        (State.Active, "SleepCommanded", State.Draining),
        (State.Waking, "Ready", State.Active),
        (State.Waking, "WakeStalled", State.Waking),
        (State.ScaledToZero, "WakeCommanded", State.Waking),
    ]
    assert moves(world, "L")[:4] == moves(world, "F")[:4]


def test_follower_history_has_common_transition_once() -> None:
    world = pair()
    world.arrive("b")
    talk(world)
    talk(world)
    wakes = [move for move in moves(world, "F") if move[2] is State.Waking]
    assert wakes == [(State.ScaledToZero, "DemandSeen", State.Waking)]


def test_follower_publishes_own_steps_once_it_leads() -> None:
    world = pair()
    world.freezes("L")
    world.arrive("b")
    talk(world)
    assert state(world, "F") is State.Waking
    world.passes(LEASE + NOTICE)
    world.lease.elect(world.replicas["F"])
    engine = world.replicas["F"].engine
    assert engine.leads
    (unreported,) = engine.leadership.unreported()
    assert (unreported.event, unreported.target) == ("DemandSeen", State.Waking)
    assert engine.leadership.unreported() == []


def test_follower_does_not_publish_known_steps_of_leader() -> None:
    world = pair()
    world.arrive("b")
    talk(world)
    assert state(world, "L") is state(world, "F") is State.Waking
    world.freezes("L")
    world.passes(LEASE + NOTICE)
    world.lease.elect(world.replicas["F"])
    assert world.replicas["F"].engine.leads
    assert world.replicas["F"].engine.leadership.unreported() == []


def test_engine_scaled_while_draining_records_replicas() -> None:
    world = draining()
    leader = world.replicas["L"]
    leader.engine.ran(WorkloadStatus(NAME, 3, leader.engine.services[NAME].seen.endpoints))
    assert leader.record
    assert (leader.record.state, leader.record.replicas) == (State.Draining, 3)


def test_engine_scaled_before_zero_records_replicas() -> None:
    """A patch to zero fails if someone else has scaled the target since; the number is known only then."""
    world = draining()
    leader = world.replicas["L"]
    for client in world.served():
        world.end(client, "served")
    talk(world)
    look(world)
    leader.engine.ran(WorkloadStatus(NAME, 3, ()))
    assert leader.record
    assert (leader.record.state, leader.record.replicas) == (State.ScaledToZero, 3)
