"""The rules of the design as invariants of a simulated world, for any order of events.

Hypothesis acts as clients, Envoys, holders, pods, other people and clocks. The real engine drives the core, as in
production. The tests add the actions that exist in one place only, on one machine or in a cluster.
"""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from reconciler.core import events
from reconciler.core.busy import busy, check_failed
from reconciler.core.reasons import Blocker
from reconciler.core.record import State
from reconciler.plan import Zero
from tests.fakes.simulation.checks import SILENT, CheckedWorld
from tests.fakes.simulation.clients import EXCUSED, NAME, NOT_CONFIGURED
from tests.fakes.simulation.replica import Replica

ENVOYS = st.sampled_from(["a", "b"])
SECONDS = st.sampled_from([1, 2, 3, 5, 8, 12])
PARTS = st.runner().flatmap(lambda rules: st.sampled_from(list(rules.world.parts())))
BROKEN = st.runner().flatmap(lambda rules: st.sampled_from([*rules.world.parts(), "samples", "sample of b", "alarms"]))
REPLICAS = st.runner().flatmap(lambda rules: st.sampled_from(list(rules.world.replicas)))
LATE = st.sampled_from(["", "", "holder", "envoy b"])
"""Components that do not acknowledge in time."""
ANSWERS = st.sampled_from([None, busy("GET /busy is answered with 200"), check_failed("GET /busy is not answered")])


class Rules(RuleBasedStateMachine):
    """Possible events, and the invariants after each. A subclass creates `world`."""

    world: CheckedWorld
    excused: tuple[str, ...] = (*EXCUSED, SILENT)
    ended_by_removal: tuple[str, ...] = (NOT_CONFIGURED,)

    def leaders(self) -> Iterator[Replica]:
        """Return the replicas that lead, are not frozen, and have a record."""
        for replica in self.world.replicas.values():
            if replica.engine.leads and replica.is_valid() and not replica.is_frozen and replica.record:
                yield replica

    # Clients

    @rule(envoy=ENVOYS, lagging_worker=st.booleans())
    def somebody_comes(self, envoy: str, lagging_worker: bool) -> None:
        self.world.arrive(envoy, lagging_worker)

    @precondition(lambda self: self.world.living())
    @rule(which=st.integers(0, 7), gives_up=st.booleans())
    def somebody_leaves(self, which: int, gives_up: bool) -> None:
        clients = self.world.living() if gives_up else self.world.served()
        if not clients:
            return
        client = clients[which % len(clients)]
        if gives_up:
            self.world.end(client, "gave up")
        else:
            self.world.finish(client)

    # Components

    @rule(seconds=SECONDS, finishing=st.booleans())
    def all_goes_well(self, seconds: int, finishing: bool) -> None:
        self.world.all_goes_well(seconds, finishing)

    @rule(seconds=SECONDS, finishing=st.booleans(), but=BROKEN)
    def all_goes_well_but(self, seconds: int, finishing: bool, but: str) -> None:
        self.world.all_goes_well(seconds, finishing, but)

    @rule(part=PARTS)
    def something_acts(self, part: str) -> None:
        self.world.parts()[part]()

    @rule()
    def pods_crash(self) -> None:
        self.world.workload.crash()

    @rule(seconds=st.sampled_from([1, 3, 8]), finishing=st.booleans())
    def pods_stay_crashed(self, seconds: int, finishing: bool) -> None:
        self.world.workload.crash()
        self.world.all_goes_well(seconds, finishing, "restarts of pods")

    # Samples and time

    @rule(seconds=st.sampled_from([0.0, 0.05, 0.1, 0.2]), lagging_worker=st.booleans(), but=LATE)
    def all_acknowledge_and_a_sample_follows(self, seconds: float, lagging_worker: bool, but: str) -> None:
        self.all_acknowledge(seconds, but)
        for replica in self.world.replicas.values():
            if replica.leads:
                replica.take_sample()
        if lagging_worker:
            self.world.arrive("a", lagging_worker)
        for replica in self.world.replicas.values():
            replica.deliver_sample()

    def all_acknowledge(self, seconds: float, but: str = "") -> None:
        """Let Envoys and holders, except those called `but`, apply what was sent, and let the time pass."""
        for part, acts in self.world.parts().items():
            if part.startswith(("envoy", "holder")) and not (but and part.startswith(but)):
                acts()
        self.world.passes(seconds)

    @rule(without=st.none() | ENVOYS, seconds=st.sampled_from([0.0, 0.05, 0.1, 2.0]))
    def a_sample_is_taken_and_arrives_late(self, without: str | None, seconds: float) -> None:
        for replica in self.world.replicas.values():
            if replica.leads:
                replica.take_sample(without)
        self.world.passes(seconds)

    @rule()
    def samples_arrive(self) -> None:
        for replica in self.world.replicas.values():
            replica.deliver_samples()

    @rule(seconds=st.sampled_from([0.05, 0.1, 0.5, 2.0, 7.0]), on_time=st.booleans())
    def time_passes(self, seconds: float, on_time: bool) -> None:
        self.world.passes(seconds)
        if on_time:
            self.world.alarms()

    @rule(name=REPLICAS, seconds=st.sampled_from([-3600, -30, 30, 3600]))
    def somebody_sets_a_clock(self, name: str, seconds: int) -> None:
        self.world.clock_is_set(seconds, name)

    # People and programs

    @rule()
    def a_person_commands_sleep(self) -> None:
        self.world.sleep()

    @rule(name=REPLICAS)
    def a_person_commands_a_wake(self, name: str) -> None:
        replica = self.world.replicas[name]
        if replica.record and not replica.is_frozen:
            replica.engine.command(NAME, events.WakeCommanded("requested by a user"))

    @rule(paused=st.booleans())
    def a_person_pauses_or_resumes(self, paused: bool) -> None:
        self.world.pause(paused)

    @rule(job=ANSWERS)
    def a_job_begins_or_ends(self, job: Blocker | None) -> None:
        """Change the answer of the program, unless it already stops: an idle program starts no work by itself."""
        states = {replica.state for replica in self.world.replicas.values()}
        if not states & {State.Draining, State.ScaledToZero}:
            self.world.job = job

    @precondition(lambda self: self.world.spec is None)
    @rule()
    def somebody_adds_the_service_again(self) -> None:
        self.world.add_again()

    # Invariants

    @invariant()
    def nobody_is_lost_by_sleep(self) -> None:
        lost = [client for client in self.world.clients if client.end not in (None, "served", *self.excused)]
        assert not lost, (lost, self.world.transitions[-6:])

    @invariant()
    def zero_is_not_wanted_while_somebody_is_there(self) -> None:
        for replica in self.leaders():
            if isinstance(replica.scale, Zero):
                assert replica.state is State.ScaledToZero
                assert not any(client.pod for client in self.world.busy())
                assert not replica.service.seen.held

    @invariant()
    def somebody_else_s_pods_are_left_alone(self) -> None:
        for replica in self.leaders():
            if replica.record and replica.state is State.ScaledToZero and replica.record.zeroed:
                assert replica.scale is None

    @invariant()
    def doubt_never_blocks_a_wake(self) -> None:
        for replica in self.leaders():
            if replica.service.seen.held:
                assert replica.state in (State.Waking, State.Active)

    @invariant()
    def a_crash_is_answered_by_holding(self) -> None:
        for replica in self.leaders():
            seen = replica.service.seen
            if seen.replicas and not seen.endpoints:
                assert replica.state not in (State.Active, State.Idle)
            if seen.replicas == 0:
                assert replica.state in (State.ScaledToZero, State.Waking)

    @invariant()
    def a_state_that_must_end_has_a_deadline(self) -> None:
        for replica in self.leaders():
            spec = replica.service.spec
            stays = spec.paused or spec.departing or spec.has_busy_check  # Idle may last
            if replica.state in (State.Waking, State.Draining) or (replica.state is State.Idle and not stays):
                assert replica.deadline
            elif replica.state is not State.Idle:
                assert not replica.deadline

    @invariant()
    def what_is_remembered_is_saved(self) -> None:
        for replica in self.leaders():
            if replica.is_configured():
                assert replica.store.latest(NAME) == replica.record

    # When all goes well

    def teardown(self) -> None:
        """Check that, without faults, all clients are served, and that the service then sleeps and wakes again."""
        if not hasattr(self, "world"):
            return
        world, waiting = self.world, self.world.held()
        world.job = None
        self.restore()
        world.all_goes_well(2)
        world.all_goes_well_until(lambda: not world.living(), at_most=30)
        assert all(client.end in ("served", "hold timed out", *self.ended_by_removal) for client in waiting), waiting
        assert not world.living()
        world.all_goes_well_until(world.is_asleep, at_most=100)
        assert world.is_asleep(), (world.transitions[-5:], [one.record for one in world.replicas.values()])
        world.all_goes_well(2)
        world.arrive("a")
        client = world.clients[-1]
        world.all_goes_well_until(lambda: client.ended is not None, at_most=10)
        assert client.end == "served", "it does not wake again"
        self.nobody_is_lost_by_sleep()

    def restore(self) -> None:
        """End all faults and pauses that only a person ends."""
        self.world.pause(False)
