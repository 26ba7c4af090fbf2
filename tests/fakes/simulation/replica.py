"""A simulated process of the reconciler: its engine, and the ports of the engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from reconciler.core.busy import BusyAnswer
from reconciler.core.record import Record, State, Transition
from reconciler.core.spec import Spec
from reconciler.core.traffic import Counters, EnvoyReading, Pace, Sample
from reconciler.engine.engine import Adapters, Engine
from reconciler.engine.hold_addresses import AnyIp
from reconciler.engine.lifecycles import Lifecycles
from reconciler.engine.service import ManagedService, Wake
from reconciler.plan import Deadline, Scale
from reconciler.ports.backend import WorkloadStatus
from reconciler.ports.clock import Clock
from reconciler.replication.fleet import ReplicaContext
from reconciler.replication.messages import RecordUpdate
from reconciler.replication.replication import Replication
from tests.fakes.member_list import MemberList
from tests.fakes.simulation.backends import ClusterBackend, MachineBackend
from tests.fakes.simulation.clients import INSTANT, NAME
from tests.fakes.simulation.lease import LEASE
from tests.fakes.simulation.peers import Link
from tests.fakes.simulation.proxies import Streams
from tests.fakes.simulation.store import RecordStore

if TYPE_CHECKING:
    from tests.fakes.simulation.world import World

STALE_AFTER = 3.0
DETACH_AFTER, FORGET, ENVOY_RETURNS = 10.0, 40.0, 8.0


class Replica:
    """One process. On one machine it leads forever; in a cluster it starts as a follower."""

    replication: Replication
    """Set in a cluster only."""

    def __init__(self, world: World, name: str, skew: float) -> None:
        """Create a process whose wall clock is `skew` seconds ahead of the actual time."""
        self.world, self.name, self.skew = world, name, skew
        self.is_frozen = False
        self.frozen_at = 0.0
        self._inbox: list[Callable[[], None]] = []
        self.valid_until = -1.0
        self.leads = not world.is_cluster
        self.link: Link | None = None
        self.lost_at = self.entered_at = world.now
        self.has_report = False
        """True if the leader does not have the latest report of this follower."""
        self.deadline: Deadline | None = None
        self.samples: list[Sample] = []
        """Samples that are taken and not yet delivered."""
        self.sampled_at: dict[float, float] = {}
        """Actual times of samples, by the time of this replica's clock."""
        self.sampled_of: frozenset[str] = frozenset()
        """Envoys that were expected when the latest sample was delivered."""
        self._applied: Spec | None = None
        self._removals = 0
        self._noted: Sample | None = None
        self.questions = 0
        """Number of questions of the busy check."""
        self.asked_at: float | None = None
        """Time of the question of the busy check that is not answered yet."""
        self.store = RecordStore(world.records, is_immediate=not world.is_cluster)
        self.streams = Streams(lambda: world.now)
        self.engine = Engine(self.clock, Pace(STALE_AFTER), AnyIp(18001), self)
        programs = None if world.is_cluster else world.workload
        self.lifecycles = Lifecycles(self.clock, self.engine, self.streams.envoys, programs)
        self.backend = self._make_backend()
        self._connect()

    @property
    def clock(self) -> Clock:
        return Clock(self.now, lambda: self.world.now)

    def now(self) -> float:
        """Return the time of this replica's wall clock."""
        return self.world.now + self.skew

    def _make_backend(self) -> MachineBackend | ClusterBackend:
        world = self.world
        if not world.is_cluster:
            return MachineBackend(world.workload, world.workload_status)
        return ClusterBackend(world.workload, world.workload_status, lambda: world.now, self.may_sleep)

    def _connect(self) -> None:
        """Connect the engine to its ports."""
        store, streams = self.store, self.streams
        if not self.world.is_cluster:
            self._report_route, self._report_held = self.engine.routed, self.engine.held
            self.engine.start(
                Adapters(self.backend, streams, streams, self.arm, store, lambda at: None, ask_busy=self.ask)
            )
            return
        context = ReplicaContext(
            self.name,
            MemberList(self.world.replicas),
            self.is_valid,
            self.clock,
            settle_seconds=LEASE,
            forget_seconds=FORGET,
            return_seconds=ENVOY_RETURNS + 1,
        )
        replication = self.replication = Replication(context)
        replication.attach(self.engine, streams, streams)
        replication.updates.on_update = lambda _: self.world.peers.send_record(self)
        replication.updates.on_report = lambda _: self._needs_report()
        replication.members.on_fleet.append(self._fleet_changed)
        self._report_route, self._report_held = replication.router.routed, replication.holders.held
        router, holders, ask = replication.router, replication.holders, lambda at: None
        self.engine.start(Adapters(self.backend, router, holders, self.arm, store, ask, replication, self.ask))
        self.engine.follow()

    def _needs_report(self) -> None:
        self.has_report = True

    def _fleet_changed(self) -> None:
        self.has_report = True
        self.world.peers.send_fleet(self)

    # Roles

    def is_valid(self) -> bool:
        """Return whether this replica leads now, by the Lease."""
        return not self.world.is_cluster or self.world.now < self.valid_until

    def may_sleep(self) -> bool:
        """Return whether the backend may scale to zero now."""
        return self.replication.members.unknown() is None

    def lead(self) -> None:
        self.leads, self.entered_at = True, self.world.now
        self.replication.lead(self.world.now)
        self.engine.lead(self.now())

    def follow(self) -> None:
        self.leads, self.lost_at = False, self.world.now
        self.replication.follow()
        self.engine.follow()

    def adopt(self, update: RecordUpdate | None) -> None:
        """Adopt the leader's record."""
        if update is None:
            return
        before = self.state
        self.replication.updates.add(update)
        self.engine.adopt(NAME, update.record, update.fence, update.cause)
        if self.state is not before:
            self.entered_at = self.world.now

    # Frozen processes

    def deliver(self, act: Callable[[], None]) -> None:
        """Deliver an input to this process, or queue it while the process is frozen."""
        if self.is_frozen:
            self._inbox.append(act)
        else:
            act()

    def handle_inbox(self) -> None:
        inbox, self._inbox = self._inbox, []
        for act in inbox:
            act()

    # Facts

    @property
    def service(self) -> ManagedService:
        return self.engine.services[NAME]

    @property
    def record(self) -> Record | None:
        return self.engine.services[NAME].record if NAME in self.engine.services else None

    @property
    def state(self) -> State | None:
        return self.record.state if self.record else None

    @property
    def scale(self) -> Scale:
        return self.backend.scale

    def envoys(self) -> frozenset[str]:
        """Return the Envoys that a complete sample must contain."""
        return self.replication.members.envoys() if self.world.is_cluster else self.streams.envoys()

    def needs_object(self) -> bool:
        """Return whether the object of a deleted service is still needed."""
        members = self.replication.members
        blocker = self.lifecycles.deletion_blocker(NAME, members.envoys(), members.unknown(), is_missing=False)
        return blocker is not None

    # Ports of the engine

    def saw(self, transition: Transition) -> None:
        entered, self.entered_at = self.entered_at, self.world.now
        if transition.source is transition.target:
            self.entered_at = entered
        self.world.saw(self, transition, entered)

    def woke(self, service: str, wake: Wake) -> None:
        self.world.wakes.append(wake)

    def arm(self, service: str, deadline: Deadline | None) -> None:
        self.deadline = deadline

    def ask(self, service: str, at: float) -> None:
        self.questions += self.asked_at is None
        self.asked_at = at if self.asked_at is None else self.asked_at

    # Inputs of the engine

    def configure(self) -> None:
        """Apply the present configuration."""
        self._applied, self._removals = self.world.spec, self.world.removals
        self._apply(self.world.spec)

    def _apply(self, spec: Spec | None) -> None:
        specs = [] if spec is None else [spec]
        self.lifecycles.configure(specs)
        if spec is None and NAME in self.engine.services:
            self.streams.route(NAME, (), held=False)
        self.engine.configure(specs)
        if spec is None:
            self.backend.remove()

    def is_configured(self) -> bool:
        """Return whether the present configuration is applied."""
        return self._applied is self.world.spec and self._removals == self.world.removals

    def observe_configuration(self) -> None:
        """Let the informers of a cluster notice a changed configuration."""
        if not (self.is_frozen or self.is_configured()):
            if self._removals != self.world.removals:
                self._apply(None)  # a watch reports that the object was removed, also if there is another one
            self.configure()
            self.report_workload()

    def report_workload(self) -> None:
        """Observe the workload and report it."""
        self._ran(self.backend.observe())

    def work(self) -> None:
        """Let the backend apply or send the scale of the plan."""
        if not self.is_frozen:
            self._ran(self.backend.work())

    def zero_arrives(self) -> None:
        """Let a patch to zero arrive, and its answer."""
        backend = self.backend
        if isinstance(backend, ClusterBackend) and backend.sent is not None:
            backend.zero_arrives()
            self.deliver(lambda: self._ran(backend.answered()))

    def _ran(self, status: WorkloadStatus | None) -> None:
        if status is not None:
            self.engine.ran(status)

    def report_route(self) -> None:
        self._report_route(self.streams.routed())

    def report_held(self) -> None:
        self._report_held(self.streams.held())

    def report_members(self) -> None:
        """Report that an Envoy or a holder connected or disconnected."""
        if self.world.is_cluster:
            self.replication.members.came_or_went(dict.fromkeys(self.streams.acks, ""), sorted(self.streams.obeyed))
        self.report_route()
        self.report_held()

    def answer(self) -> None:
        """Answer the busy check, if it is asked."""
        if self.asked_at is not None and not self.is_frozen:
            at, self.asked_at = self.asked_at, None
            self.engine.answered(NAME, BusyAnswer(at, self.world.job))

    def alarm(self) -> None:
        """Report the due deadline once, perhaps late."""
        due = self.deadline
        if due and not self.is_frozen and due.at <= self.now():
            self.deadline = None
            self.engine.passed(NAME, due)

    # Samples

    def take_sample(self, without: str | None = None) -> None:
        self.world.now += INSTANT
        if not self.samples and not self.world.is_cluster:
            self.lifecycles.before_sample()
        readings = self._readings(self.envoys() - {without})
        sample = Sample(self.now(), readings, {without: "timed out"} if without else {})
        self.sampled_at[sample.taken_at] = self.world.now
        # The reconciler takes one sample at a time; the lifecycles noted the held connections before this one.
        self._noted = self._noted if self.samples else sample
        self.samples.append(sample)

    def _readings(self, names: frozenset[str]) -> dict[str, EnvoyReading]:
        """Return the counters of Envoys, which include the service only after its first use."""
        found, now = {}, self.world.now
        for name in sorted(name for name in names if self.world.envoys[name].up):
            envoy, active = self.world.envoys[name], sum(client.envoy == name for client in self.world.living())
            counters = Counters(envoy.requests, envoy.requests, envoy.bytes, active, active)
            found[name] = EnvoyReading(now // 1 - envoy.started // 1, {NAME: counters} if envoy.requests else {})
        return found

    def deliver_sample(self) -> None:
        if not self.samples or self.is_frozen:
            return
        sample, self.sampled_of = self.samples.pop(0), self.envoys()
        if self.leads:
            self.engine.sampled(sample)
        if sample is self._noted and self.lifecycles.sampled(sample):
            self.world.removal_ended(self)

    def deliver_samples(self) -> None:
        while self.samples and not self.is_frozen:
            self.deliver_sample()
