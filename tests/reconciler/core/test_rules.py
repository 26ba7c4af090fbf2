"""The rules of the design as invariants of a simulated world, for any order of events.

Hypothesis acts as clients, Envoys, the holder, pods, other people and the clock. The real engine drives the core, as in
production. The reconciler may restart between any two steps.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from reconciler.core import events
from reconciler.core.judge import SETTLE_SECONDS
from reconciler.core.lifecycle import Stage
from reconciler.core.record import State
from reconciler.core.spec import IdleBy, Spec
from reconciler.core.traffic import Usage
from reconciler.plan import Zero
from reconciler.ports.transitions import Transition
from tests.fakes.world import EXCUSED, STALE_AFTER, Client, World

SPEC = Spec(
    name="web", replicas=2, idle_after=6, wake_timeout=5, drain_timeout=4, hold_timeout=60, idle_by=IdleBy.REQUESTS
)
ENVOYS = st.sampled_from(["a", "b"])
SECONDS = st.sampled_from([1, 2, 3, 5, 8, 12])
PARTS = [
    "restarts of pods",
    "rollout",
    "backend",
    "readiness",
    "reports",
    "start of a",
    "start of b",
    "envoy a",
    "envoy b",
    "stream",
    "holder",
    "releases",
]
BREAKS = {
    "holder": "stream",
    "stream": "stream",
    "envoys a": "start of a",
    "envoys b": "start of b",
    "envoys a b": "start of",
    "pods": "restarts of pods",
    "reconciler": "",
}
"""Faults, each with the part of the world that repairs it."""
BROKEN = [*PARTS, "samples", "sample of b", "alarms"]


EXCUSED_HERE = (*EXCUSED, "was silent")


class Watched(World):
    """A world that checks each transition against the actual state when it happens."""

    sleep_commanded_at = 0.0
    """Time of the latest sleep command; one that arrives during a drain applies to that drain."""

    def command(self, event: events.Event) -> None:
        if isinstance(event, events.SleepCommanded):
            self.sleep_commanded_at = self.now
        super().command(event)

    def clock_is_set(self, seconds: float) -> None:
        self.sleep_commanded_at += seconds
        super().clock_is_set(seconds)

    def busy(self) -> list[Client]:
        """Return the clients that must not be cut; by bytes, only those that were not silent for long enough."""
        return [client for client in self.living() if not self._may_be_cut(client)]

    def _may_be_cut(self, client: Client) -> bool:
        if self.spec.idle_by is not IdleBy.BYTES:
            return False
        drains = [t.at for t in self.transitions if t.target is State.Draining and t.source is not t.target]
        commanded = bool(drains) and self.sleep_commanded_at >= drains[-1]
        silence = min(self.spec.idle_after, self.spec.drain_timeout / 2) if commanded else self.spec.idle_after
        return self.now - client.arrived >= silence

    def end(self, client: Client, how: str) -> None:
        super().end(client, "was silent" if how == "asleep" and self._may_be_cut(client) else how)

    def saw(self, transition: Transition) -> None:
        super().saw(transition)
        check = getattr(self, f"_check_{transition.event}", None)
        if check and transition.source is not transition.target:
            check(transition)
        if transition.target is State.ScaledToZero and transition.event != "ReplicasAtZero":
            assert transition.event in ("Drained", "WakeTimedOut"), transition
            assert not self.busy(), f"asleep although a client is present: {transition} {self.busy()}"

    def _entered_before(self) -> float:
        """Return the time at which the source state of the latest transition was entered."""
        changes = [t for t in self.transitions if t.source is not t.target]
        return changes[-2].at if len(changes) > 1 else 0.0

    def _fresh(self) -> bool:
        traffic = self.service.seen.traffic
        return bool(traffic) and self.now - traffic.taken_at <= STALE_AFTER  # type: ignore[union-attr]

    def _unseen(self, start: float, end: float) -> list[Client]:
        """Return the clients that a complete sample from `start` to `end` must include: new and present ones."""
        return [
            client
            for client in self.clients
            if self.fleet[client.envoy].started <= client.arrived <= end
            and (client.arrived > start or self._is_seen_after(client, start, end))
        ]

    def _is_seen_after(self, client: Client, start: float, end: float) -> bool:
        """Return whether a sample until `end` includes a client from before `start`: it is present, or it has ended."""
        if self.spec.idle_by is IdleBy.BYTES:
            return client.end == "served" and client.ended is not None and start <= client.ended < end
        return client.ended is None or client.ended > end

    def _check_Quiet(self, transition: Transition) -> None:
        traffic = self.service.seen.traffic
        assert traffic
        assert traffic.usage is Usage.QUIET
        assert self.sampled_of, "no Envoy was connected, and unknown is not idle"
        assert self._fresh(), "an old sample is unknown, and unknown is not idle"
        assert not self._unseen(traffic.window_start, traffic.taken_at)

    def _check_IdleElapsed(self, transition: Transition) -> None:
        traffic, since = self.service.seen.traffic, self._entered_before()
        assert traffic
        assert traffic.usage is Usage.QUIET
        assert self._fresh(), "an old sample is unknown, and unknown is not idle"
        assert "web" not in self.on_pause
        assert transition.at - since >= SPEC.idle_after
        assert not self._unseen(since, traffic.taken_at), "not quiet for all of idleAfter"

    def _check_Drained(self, transition: Transition) -> None:
        traffic, since = self.service.seen.traffic, self._entered_before()
        assert traffic
        assert traffic.usage is not Usage.UNKNOWN
        assert self.envoys(), "no Envoy is connected"
        for part in (*(self.fleet[name] for name in self.envoys()), self.holder):
            at = part.acked_at
            assert at is not None, "an acknowledgement is missing"
            # A service without known endpoints had the route of the drain before.
            assert at >= min(since, part.sent_at), "that acknowledgement was for the route before"
            assert traffic.taken_at >= at + SETTLE_SECONDS, "the sample was too early"
        assert all(self.fleet[name].route[0].startswith("127.") for name in self.envoys())
        assert self.holder.order
        assert not self.holder.order.release_to

    def _check_WakeTimedOut(self, transition: Transition) -> None:
        assert self.service.seen.held == 0


class Rules(RuleBasedStateMachine):
    """Possible events, and the invariants after each."""

    spec = SPEC

    @initialize(
        phase=st.sampled_from(["asleep", "waking", "awake", "draining", "rollout"]),
        seconds=SECONDS,
        in_use=st.booleans(),
    )
    def begin(self, phase: str, seconds: int, in_use: bool) -> None:
        """Start in any phase, including those that random steps rarely reach."""
        world = self.world = Watched(self.spec)
        world.all_goes_well(2, finishing=True)
        if phase == "asleep":
            return
        world.arrive("a", lagging_worker=False)
        if phase == "waking":
            return
        world.all_goes_well(3, finishing=True)
        world.all_goes_well(min(seconds, 5), finishing=True)
        if in_use or phase == "rollout":
            world.arrive("b", lagging_worker=False)
            world.all_goes_well(1, finishing=False)
        if phase == "draining":
            world.command(events.SleepCommanded("requested by a user"))
        if phase == "rollout":
            self._roll_out(in_use)

    def _roll_out(self, in_use: bool) -> None:
        """Change the program of a service that is used until its endpoints are withdrawn, and longer if `in_use`."""
        self.world.program_changes()
        for _ in range(12):
            if self.world.lifecycles.stage("web") is not Stage.Withdrawn:
                self.world.all_goes_well(1, finishing=False)
        for client in () if in_use else self.world.served():
            self.world.finish(client)

    @rule(envoy=ENVOYS, lagging_worker=st.booleans())
    def somebody_comes(self, envoy: str, lagging_worker: bool) -> None:
        self.world.arrive(envoy, lagging_worker)

    @precondition(lambda self: self.world.living())
    @rule(which=st.integers(0, 7), gives_up=st.booleans())
    def somebody_leaves(self, which: int, gives_up: bool) -> None:
        clients = self.world.living() if gives_up else self.world.served()
        if clients:
            (self.world.give_up if gives_up else self.world.finish)(clients[which % len(clients)])

    @rule(seconds=SECONDS, finishing=st.booleans())
    def all_goes_well(self, seconds: int, finishing: bool) -> None:
        self.world.all_goes_well(seconds, finishing)

    @rule(seconds=SECONDS, finishing=st.booleans(), but=st.sampled_from(BROKEN))
    def all_goes_well_but(self, seconds: int, finishing: bool, but: str) -> None:
        self.world.all_goes_well(seconds, finishing, but)

    @rule(part=st.sampled_from(PARTS))
    def something_acts(self, part: str) -> None:
        self.world.parts()[part]()

    @rule(what=st.sampled_from(list(BREAKS)), seconds=st.sampled_from([0, 0, 1, 3, 8]), finishing=st.booleans())
    def something_breaks_for_a_while(self, what: str, seconds: int, finishing: bool) -> None:
        match what.split():
            case ["holder"]:
                self.world.holder_dies()
            case ["stream"]:
                self.world.holder_stream(False)
            case ["envoys", *names]:
                for name in names:
                    self.world.envoy_dies(name)
            case ["pods"]:
                self.world.pods_crash()
            case ["reconciler"]:
                self.world.restart()
        self.world.all_goes_well(seconds, finishing, BREAKS[what])

    @rule(seconds=st.sampled_from([-3600, -30, 30, 3600]))
    def somebody_sets_the_clock(self, seconds: int) -> None:
        self.world.clock_is_set(seconds)

    @rule()
    def somebody_changes_the_program(self) -> None:
        self.world.program_changes()

    @rule(replicas=st.sampled_from([0, 1, 3]))
    def somebody_else_scales(self, replicas: int) -> None:
        self.world.somebody_scales(replicas)

    @rule(seconds=st.sampled_from([0.0, 0.05, 0.1, 0.2]), lagging_worker=st.booleans())
    def all_acknowledge_and_a_sample_follows(self, seconds: float, lagging_worker: bool) -> None:
        for part in ("envoy a", "envoy b", "holder"):
            self.world.parts()[part]()
        self.world.pass_time(seconds)
        self.world.take_sample()
        if lagging_worker:
            self.world.arrive("a", lagging_worker)
        self.world.deliver_sample()

    @rule(without=st.none() | ENVOYS, seconds=st.sampled_from([0.05, 0.1, 2.0]))
    def a_sample_is_taken_and_arrives_late(self, without: str | None, seconds: float) -> None:
        self.world.take_sample(without)
        self.world.pass_time(seconds)

    @rule()
    def samples_arrive(self) -> None:
        while self.world.samples:
            self.world.deliver_sample()

    @rule(seconds=st.sampled_from([0.05, 0.1, 0.5, 2.0, 7.0]), on_time=st.booleans())
    def time_passes(self, seconds: float, on_time: bool) -> None:
        self.world.pass_time(seconds)
        if on_time:
            self.world.alarms()

    @precondition(lambda self: self.world.record)
    @rule(what=st.sampled_from(["wake", "sleep", "sleep", "pause", "resume"]))
    def a_person_commands(self, what: str) -> None:
        match what:
            case "wake":
                self.world.command(events.WakeCommanded("requested by a user"))
            case "sleep":
                self.world.command(events.SleepCommanded("requested by a user"))
            case _:
                self.world.engine.pause("web", what == "pause")

    # Invariants

    @invariant()
    def nobody_is_lost_by_sleep(self) -> None:
        lost = [client for client in self.world.clients if client.end not in (None, "served", *EXCUSED_HERE)]
        assert not lost

    @invariant()
    def zero_is_not_wanted_while_somebody_is_there(self) -> None:
        if isinstance(self.world.scale, Zero):
            assert self.world.state is State.ScaledToZero
            assert not any(client.pod for client in self.world.busy())
            assert not self.world.held() or self.world.service.seen.held is None

    @invariant()
    def somebody_else_s_pods_are_left_alone(self) -> None:
        record = self.world.record
        if record and record.state is State.ScaledToZero and record.zeroed:
            assert self.world.scale is None

    @invariant()
    def doubt_never_blocks_a_wake(self) -> None:
        if self.world.service.seen.held:
            assert self.world.state in (State.Waking, State.Active)

    @invariant()
    def a_crash_is_answered_by_holding(self) -> None:
        seen, state = self.world.service.seen, self.world.state
        if seen.replicas and not seen.endpoints:
            assert state not in (State.Active, State.Idle)
        if seen.replicas == 0:
            assert state in (State.ScaledToZero, State.Waking)

    @invariant()
    def a_state_that_must_end_has_a_deadline(self) -> None:
        paused = "web" in self.world.on_pause
        if self.world.state in (State.Waking, State.Draining) or (self.world.state is State.Idle and not paused):
            assert self.world.deadline
        elif self.world.record:
            assert not self.world.deadline

    @invariant()
    def what_is_remembered_is_saved(self) -> None:
        if self.world.record:
            assert self.world.saved["web"] == self.world.record

    def teardown(self) -> None:
        """Check that, without faults, all held clients are served and the service then sleeps."""
        if not hasattr(self, "world"):
            return
        waiting = self.world.held()
        self.world.all_goes_well(10, finishing=True)
        assert all(client.end in ("served", "hold timed out") for client in waiting), waiting
        assert not self.world.living()
        self.world.all_goes_well(20, finishing=True)
        if "web" not in self.world.on_pause:
            assert (self.world.state, self.world.replicas) == (State.ScaledToZero, 0), self.world.transitions[-5:]
        self.nobody_is_lost_by_sleep()


class RulesByBytes(Rules):
    """The same rules for a service that may sleep while silent connections are open."""

    spec = replace(SPEC, idle_by=IdleBy.BYTES)


TestRules = Rules.TestCase
TestRulesByBytes = RulesByBytes.TestCase
TestRules.settings = TestRulesByBytes.settings = settings(
    max_examples=200, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
