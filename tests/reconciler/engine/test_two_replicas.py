"""The rules of the design in a cluster: changes of leaders, late and lost messages, and frozen replicas."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from reconciler.core.record import State
from reconciler.core.spec import Spec
from reconciler.plan import Zero
from tests.fakes.simulation.checks import CheckedWorld
from tests.fakes.simulation.clients import NAME
from tests.fakes.simulation.parts import report_to_leader
from tests.fakes.simulation.replica import Replica
from tests.fakes.simulation.rules import ENVOYS, LATE, REPLICAS, Rules

SPEC = Spec(name=NAME, replicas=2, idle_after=4, wake_timeout=5, drain_timeout=4, hold_timeout=120)
PHASES = ["asleep", "waking", "unwanted", "awake", "draining", "draining", "zero sent", "zero sent", "rollout"]


class ClusterRules(Rules):
    """The rules, with the faults of a cluster. A subclass sets the number of replicas."""

    number: ClassVar[int]

    @initialize(
        phase=st.sampled_from(PHASES),
        seconds=st.sampled_from([1, 2, 3]),
        skews=st.sampled_from([(0.0, 0.0, 0.0), (0.0, 5.0, -5.0), (5.0, 0.0, 0.0), (0.0, -600.0, 0.0)]),
        has_busy_check=st.sampled_from([False, False, True]),
        late=LATE,
    )
    def begin(self, phase: str, seconds: int, skews: tuple[float, ...], has_busy_check: bool, late: str) -> None:
        """Start in any phase, including those that random steps rarely reach."""
        world = self.world = CheckedWorld(replace(SPEC, has_busy_check=has_busy_check), skews[: self.number])
        world.all_goes_well_until(world.is_asleep, at_most=18)
        if phase == "asleep":
            return
        world.arrive("b")
        if phase == "waking":
            return
        if phase == "unwanted":
            self._wake_without_client(seconds)
            return
        world.all_goes_well(3)
        world.all_goes_well(seconds)
        if phase == "rollout":
            world.workload.change_template()
        elif phase != "awake":
            world.sleep()
            self.all_acknowledge(0.2, late)
        if phase == "zero sent":
            self._send_zero(delivers=seconds > 1)

    def _send_zero(self, delivers: bool) -> None:
        """Let the leader send a patch to zero, and perhaps let the followers receive its record."""
        self.a_sample_is_taken_and_arrives_late(None, 0.0)
        self.samples_arrive()
        for replica in self.world.replicas.values():
            replica.work()
        self.world.peers.deliver(up=False, many=9 if delivers else 0)

    def _wake_without_client(self, seconds: int) -> None:
        """Bring about a wake whose client is gone, which all components know."""
        world = self.world
        self.all_acknowledge(0.2)
        for replica in world.replicas.values():
            replica.work()
        for client in world.held():
            world.end(client, "gave up")
        for _ in range(3):
            self.all_acknowledge(0.2)
            self.a_sample_is_taken_and_arrives_late(None, 0.0)
            self.samples_arrive()
        if seconds > 1:
            world.workload.get_ready()

    def all_acknowledge(self, seconds: float, but: str = "") -> None:
        """Deliver records and reports, and let Envoys and holders apply what was sent."""
        for _ in range(3):
            self.world.peers.deliver(up=False, many=9)
            report_to_leader(self.world)
            super().all_acknowledge(0.0, but)
        report_to_leader(self.world)
        self.world.now += seconds

    # Peer streams

    @rule(up=st.booleans(), many=st.sampled_from([1, 1, 9]))
    def messages_travel(self, up: bool, many: int) -> None:
        for replica in self.world.replicas.values():
            self.world.peers.flush(replica)
        self.world.peers.deliver(up, many)

    @rule()
    def the_peer_streams_are_cut(self) -> None:
        self.world.peers.cut()

    @rule()
    def the_peer_streams_break(self) -> None:
        for link in list(self.world.peers.links):
            self.world.peers.end(link)

    @rule(name=REPLICAS, seconds=st.sampled_from([0.0, 0.2, 1.0]), late=st.booleans())
    def a_replica_goes_ahead(self, name: str, seconds: float, late: bool) -> None:
        """Let one replica and its proxies proceed with new clients, without messages to the others."""
        world = self.world
        if not late:
            world.parts()[f"reports {name}"]()
        for proxy, envoy in list(world.envoys.items()):
            if envoy.at == name:
                world.arrive(proxy)
                world.obeys(proxy)
                world.holder_releases(proxy)
                world.arrive(proxy)
        world.passes(seconds)

    # Proxies

    @rule(proxy=ENVOYS)
    def a_proxy_obeys(self, proxy: str) -> None:
        self.world.obeys(proxy)

    @rule(proxy=ENVOYS, to=REPLICAS)
    def a_proxy_moves(self, proxy: str, to: str) -> None:
        self.world.leaves(proxy)
        self.world.joins(proxy, to)

    @rule(proxy=ENVOYS)
    def a_proxy_s_streams_break(self, proxy: str) -> None:
        self.world.leaves(proxy)

    @rule(proxy=ENVOYS)
    def a_proxy_dies(self, proxy: str) -> None:
        self.world.proxy_dies(proxy)

    @rule(proxy=ENVOYS, dies=st.booleans())
    def a_holder_dies_or_is_cut_off(self, proxy: str, dies: bool) -> None:
        (self.world.holder_dies if dies else self.world.holder_leaves)(proxy)

    @rule(seconds=st.sampled_from([1, 3, 8]), finishing=st.booleans())
    def both_proxies_are_gone_for_a_while(self, seconds: int, finishing: bool) -> None:
        for proxy in self.world.envoys:
            self.world.proxy_dies(proxy)
        self.world.all_goes_well(seconds, finishing, "start of")

    # Replicas

    @rule(name=REPLICAS, seconds=st.sampled_from([0, 1, 3, 7, 12, 30]), notices_first=st.booleans())
    def a_replica_is_frozen(self, name: str, seconds: int, notices_first: bool) -> None:
        self.world.freezes(name)
        self.world.all_goes_well(seconds)
        self.world.thaws(name, notices_first)

    @rule(name=REPLICAS)
    def a_replica_freezes(self, name: str) -> None:
        self.world.freezes(name)

    @rule(name=REPLICAS, notices_first=st.booleans())
    def a_replica_thaws(self, name: str, notices_first: bool) -> None:
        if self.world.replicas[name].is_frozen:
            self.world.thaws(name, notices_first)

    @rule(name=REPLICAS, releases=st.booleans())
    def a_replica_restarts(self, name: str, releases: bool) -> None:
        if not self.world.replicas[name].is_frozen:
            self.world.restarts(name, releases)

    @rule(name=REPLICAS, seconds=st.sampled_from([0.0, 2.0, 5.0]))
    def a_deadline_passes(self, name: str, seconds: float) -> None:
        replica = self.world.replicas[name]
        deadline = replica.deadline
        while deadline and replica.now() < deadline.at + seconds:
            self.world.now += max(1.0, (deadline.at - replica.now()) / 4)
            self.world.lease.elect(replica)
        replica.alarm()

    @rule()
    def the_lease_expires(self) -> None:
        self.world.all_goes_well(7, but="lease")

    @rule()
    def messages_are_late(self) -> None:
        self.world.all_goes_well(2, but="peers")

    # The workload and its object

    @rule(number=st.sampled_from([0, 1, 3]))
    def somebody_else_scales(self, number: int) -> None:
        self.world.workload.scale_to(number, "another controller")

    @rule(seconds=st.sampled_from([0, 1, 3]), finishing=st.booleans())
    def somebody_changes_the_template(self, seconds: int, finishing: bool) -> None:
        self.world.workload.change_template()
        self.world.all_goes_well(seconds, finishing)

    @rule()
    def terminating_pods_end(self) -> None:
        self.world.workload.roll_out(())

    @precondition(lambda self: self.world.spec)
    @rule(seconds=st.sampled_from([0, 0, 1, 3, 8]), finishing=st.booleans())
    def somebody_deletes_the_service(self, seconds: int, finishing: bool) -> None:
        self.world.delete()
        self.world.all_goes_well(seconds, finishing)

    # Invariants

    @invariant()
    def followers_never_scale_to_zero(self) -> None:
        for replica in self.world.replicas.values():
            assert replica.engine.leads or not isinstance(replica.scale, Zero)

    @invariant()
    def at_most_one_leads(self) -> None:
        assert sum(replica.is_valid() for replica in self.world.replicas.values()) <= 1

    @invariant()
    def demand_wakes_wherever_it_is_held(self) -> None:
        """Check that no replica, leader or follower, leaves a service asleep whose client it holds."""
        for replica in self.world.replicas.values():
            if _is_held_at(replica):
                assert replica.state is not State.ScaledToZero

    def restore(self) -> None:
        world = self.world
        for name, replica in world.replicas.items():
            if replica.is_frozen:
                world.thaws(name)
        if world.spec and world.spec.departing:
            world.all_goes_well_until(lambda: world.spec is None, at_most=100)
            assert world.spec is None, "its object is never removed"
        if world.spec is None:
            world.all_goes_well(1)
            world.add_again()
        super().restore()


def _is_held_at(replica: Replica) -> bool:
    return bool(replica.record and not replica.is_frozen and replica.service.seen.held)


class RulesOfOne(ClusterRules):
    """A cluster with one replica."""

    number = 1


class RulesOfTwo(ClusterRules):
    """A cluster with two replicas."""

    number = 2


class RulesOfThree(ClusterRules):
    """A cluster with three replicas."""

    number = 3


TestOneReplica, TestTwoReplicas, TestThreeReplicas = RulesOfOne.TestCase, RulesOfTwo.TestCase, RulesOfThree.TestCase
TestOneReplica.settings = TestTwoReplicas.settings = TestThreeReplicas.settings = settings(
    max_examples=250, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
