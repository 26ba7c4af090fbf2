"""The rules of the design with two replicas: changes of leaders, late and lost messages, and frozen replicas."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from reconciler.core import events
from reconciler.core.record import State
from reconciler.core.spec import Spec
from reconciler.plan import Zero
from reconciler.ports.transitions import Transition
from tests.fakes.pair import EXCUSED, NAME, Pair, Replica

SPEC = Spec(name=NAME, replicas=2, idle_after=3, wake_timeout=5, drain_timeout=4, hold_timeout=120)
REPLICAS, PROXIES = st.sampled_from("LF"), st.sampled_from("ab")
SECONDS = st.sampled_from([1, 2, 3, 5, 8])
BUT = ["lease", "peers", "proxy a", "proxy b", "samples"]


def check(replica: Replica, transition: Transition) -> None:
    """Check a replica's transition against the actual state of the world."""
    pair = replica.pair
    if transition.target is not State.ScaledToZero or transition.source is State.ScaledToZero:
        return
    if transition.event in ("ReplicasAtZero", "LeaderChanged"):
        return
    assert transition.event in ("Drained", "WakeTimedOut"), transition
    assert pair.now < replica.valid_until, "it does not lead"
    assert pair.holder == replica.name
    assert not pair.served(), f"asleep although a client is served: {transition}"
    for proxy in pair.proxies.values():
        if proxy.up and proxy.route:
            assert proxy.route[0].startswith("127."), "an Envoy does not hold"
        if proxy.up and proxy.order:
            assert not proxy.order.release_to, "a holder connects to pods"


class Rules(RuleBasedStateMachine):
    """Possible events, and the invariants after each."""

    @initialize(
        phase=st.sampled_from(
            ["asleep", "waking", "unwanted", "awake", "draining", "draining", "zero sent", "zero sent"]
        ),
        seconds=st.sampled_from([1, 2, 3]),
        skews=st.sampled_from([(0.0, 0.0), (0.0, 5.0), (5.0, 0.0), (0.0, -600.0)]),
    )
    def begin(self, phase: str, seconds: int, skews: tuple[float, float]) -> None:
        pair = self.pair = Pair(SPEC, skews)
        pair.checks = check
        pair.all_goes_well(18)
        if phase == "asleep":
            return
        pair.arrive("b")
        if phase == "waking":
            return
        if phase == "unwanted":
            self._wake_without_client(seconds)
            return
        pair.all_goes_well(3)
        pair.all_goes_well(seconds)
        if phase != "awake":
            self.a_person_commands_sleep()
            self.all_acknowledge(0.2)
        if phase == "zero sent":
            self.a_sample_is_taken(None)
            self.samples_arrive()
            for name in pair.replicas:
                pair.scales(name)
            pair.delivers(up=False, many=9 if seconds > 1 else 0)

    @rule(proxy=PROXIES, lagging_worker=st.booleans())
    def somebody_comes(self, proxy: str, lagging_worker: bool) -> None:
        self.pair.arrive(proxy, lagging_worker)

    @precondition(lambda self: self.pair.living())
    @rule(which=st.integers(0, 7), gives_up=st.booleans())
    def somebody_leaves(self, which: int, gives_up: bool) -> None:
        clients = self.pair.living() if gives_up else self.pair.served()
        if clients:
            self.pair.end_client(clients[which % len(clients)], "gave up" if gives_up else "served")

    @rule(seconds=SECONDS, finishing=st.booleans())
    def all_goes_well(self, seconds: int, finishing: bool) -> None:
        self.pair.all_goes_well(seconds, finishing)

    @rule(seconds=SECONDS, finishing=st.booleans(), but=st.sampled_from(BUT))
    def all_goes_well_but(self, seconds: int, finishing: bool, but: str) -> None:
        self.pair.all_goes_well(seconds, finishing, but)

    @rule(name=REPLICAS)
    def a_replica_observes(self, name: str) -> None:
        self.pair.observes(name)

    @rule(name=REPLICAS)
    def a_replica_scales(self, name: str) -> None:
        self.pair.scales(name)

    @rule(name=REPLICAS)
    def a_zero_arrives(self, name: str) -> None:
        self.pair.zero_arrives(name)

    @rule(name=REPLICAS)
    def a_replica_looks_at_the_lease(self, name: str) -> None:
        self.pair.elects(name)

    @rule(up=st.booleans(), many=st.sampled_from([1, 1, 9]))
    def words_travel(self, up: bool, many: int) -> None:
        for replica in self.pair.replicas.values():
            replica.flush()
        self.pair.delivers(up, many)

    @rule(proxy=PROXIES)
    def a_proxy_obeys(self, proxy: str) -> None:
        self.pair.obeys(proxy)

    @rule(proxy=PROXIES)
    def a_holder_releases(self, proxy: str) -> None:
        self.pair.releases(proxy)

    @rule()
    def pods_get_ready(self) -> None:
        self.pair.pods_get_ready()

    @rule()
    def pods_crash(self) -> None:
        self.pair.pods_crash()

    @rule(proxy=PROXIES, to=REPLICAS)
    def a_proxy_moves(self, proxy: str, to: str) -> None:
        self.pair.leaves(proxy)
        self.pair.joins(proxy, to)

    @rule(proxy=PROXIES)
    def a_proxy_s_streams_break(self, proxy: str) -> None:
        self.pair.leaves(proxy)

    @rule(proxy=PROXIES)
    def a_proxy_dies(self, proxy: str) -> None:
        self.pair.proxy_dies(proxy)

    @rule()
    def the_peer_stream_is_cut(self) -> None:
        self.pair.cuts()

    @rule()
    def the_peer_stream_breaks(self) -> None:
        for link in list(self.pair.links):
            self.pair.end(link)

    @rule(name=REPLICAS, seconds=st.sampled_from([0, 1, 3, 7, 12, 30]), notices_first=st.booleans())
    def a_replica_is_frozen(self, name: str, seconds: int, notices_first: bool) -> None:
        self.pair.freezes(name)
        self.pair.all_goes_well(seconds)
        self.pair.thaws(name, notices_first)

    @rule(name=REPLICAS)
    def a_replica_freezes(self, name: str) -> None:
        self.pair.freezes(name)

    @rule(name=REPLICAS, notices_first=st.booleans())
    def a_replica_thaws(self, name: str, notices_first: bool) -> None:
        if self.pair.replicas[name].frozen:
            self.pair.thaws(name, notices_first)

    @rule(name=REPLICAS, releases=st.booleans())
    def a_replica_restarts(self, name: str, releases: bool) -> None:
        if not self.pair.replicas[name].frozen:
            self.pair.restarts(name, releases)

    @rule(number=st.sampled_from([0, 1, 3]))
    def somebody_else_scales(self, number: int) -> None:
        self.pair.scale_to(number, "another controller")

    def _wake_without_client(self, seconds: int) -> None:
        """Bring about a wake whose client is gone, which all components know."""
        pair = self.pair
        self.all_acknowledge(0.2)
        for name in pair.replicas:
            pair.scales(name)
        for client in pair.held():
            pair.end_client(client, "gave up")
        for _ in range(3):
            self.all_acknowledge(0.2)
            self.a_sample_is_taken(None)
            self.samples_arrive()
        if seconds > 1:
            pair.pods_get_ready()

    @rule()
    def samples_arrive(self) -> None:
        for name in self.pair.replicas:
            self.pair.samples_arrive(name)

    @rule(name=REPLICAS, seconds=st.sampled_from([0.0, 0.2, 1.0]), late=st.booleans())
    def a_replica_goes_ahead(self, name: str, seconds: float, late: bool) -> None:
        """Let one replica and its proxies proceed with new clients, without messages to the other."""
        pair = self.pair
        if not late:
            pair.observes(name)
        for proxy, one in pair.proxies.items():
            if one.at == name:
                pair.arrive(proxy)
                pair.obeys(proxy)
                pair.releases(proxy)
                pair.arrive(proxy)
        pair.passes(seconds)

    @rule(name=REPLICAS, seconds=st.sampled_from([0.0, 2.0, 5.0]))
    def a_deadline_passes(self, name: str, seconds: float) -> None:
        deadline = self.pair.replicas[name].deadline
        while deadline and self.pair.replicas[name].now() < deadline.at + seconds:
            self.pair.now += 1
            self.pair.elects(name)
        self.pair.alarms(name)

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.2]))
    def all_acknowledge(self, seconds: float) -> None:
        pair = self.pair
        for _ in range(3):
            for replica in pair.replicas.values():
                replica.flush()
            for up in (False, True):
                pair.delivers(up, 9)
            for proxy in pair.proxies:
                pair.obeys(proxy)
        pair.now += seconds

    @rule(without=st.none() | PROXIES)
    def a_sample_is_taken(self, without: str | None) -> None:
        for name, replica in self.pair.replicas.items():
            if replica.leading:
                self.pair.sample(name, without)

    @rule(seconds=st.sampled_from([0.05, 0.1, 0.5, 2.0, 7.0]), on_time=st.booleans())
    def time_passes(self, seconds: float, on_time: bool) -> None:
        self.pair.passes(seconds)
        for name in self.pair.replicas if on_time else ():
            self.pair.alarms(name)

    @rule()
    def a_person_commands_sleep(self) -> None:
        for replica in self.pair.replicas.values():
            if not replica.frozen and replica.record:
                replica.engine.command(NAME, events.SleepCommanded("requested by a user"))

    @rule(name=REPLICAS)
    def a_person_commands_a_wake(self, name: str) -> None:
        replica = self.pair.replicas[name]
        if not replica.frozen and replica.record:
            replica.engine.command(NAME, events.WakeCommanded("requested by a user"))

    # Invariants

    @invariant()
    def nobody_is_lost_by_sleep(self) -> None:
        lost = [client for client in self.pair.clients if client.end not in (None, "served", *EXCUSED)]
        assert not lost, (lost, self.pair.transitions[-6:])

    @invariant()
    def followers_never_scale_to_zero(self) -> None:
        for replica in self.pair.replicas.values():
            assert replica.engine.leads or not isinstance(replica.scale, Zero)

    @invariant()
    def at_most_one_leads(self) -> None:
        assert sum(self.pair.now < replica.valid_until for replica in self.pair.replicas.values()) <= 1

    @invariant()
    def demand_wakes_wherever_it_is_held(self) -> None:
        """Check that no replica, leader or follower, leaves a service asleep whose client it holds."""
        for replica in self.pair.replicas.values():
            if not replica.frozen and replica.record and replica.engine.services[NAME].seen.held:
                assert replica.record.state is not State.ScaledToZero

    def teardown(self) -> None:
        """Check that, without faults, all held clients are served and the service then sleeps."""
        if not hasattr(self, "pair"):
            return
        pair = self.pair
        for name, replica in pair.replicas.items():
            if replica.frozen:
                pair.thaws(name)
        waiting = pair.held()
        pair.all_goes_well(30)
        assert all(client.end in ("served", "hold timed out") for client in waiting), waiting
        pair.all_goes_well(100)
        assert pair.number == 0, (pair.transitions[-5:], [replica.record for replica in pair.replicas.values()])
        self.nobody_is_lost_by_sleep()


TestRules = Rules.TestCase
TestRules.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
