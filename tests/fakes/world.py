"""A simulated world around one service: clients, two Envoys, a holder, pods, and the reconciler's engine.

Nothing happens by itself: each method is one event at the time `now`. The actual state is separate from the reports to
the engine, so that a test can compare the two. The world implements all ports of the engine. A restart of the engine
keeps only the store.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import inf

from reconciler.core.busy import BusyAnswer
from reconciler.core.events import Event
from reconciler.core.judge import SETTLE_SECONDS
from reconciler.core.reasons import Blocker, Diagnosis, Reason
from reconciler.core.record import Record, State
from reconciler.core.spec import Spec
from reconciler.core.traffic import Counters, EnvoyReading, Pace, Sample
from reconciler.engine.engine import Adapters, Engine
from reconciler.engine.hold_addresses import AnyIp
from reconciler.engine.lifecycles import Lifecycles
from reconciler.engine.service import ManagedService
from reconciler.engine.wake import Wake
from reconciler.plan import AtLeast, Deadline, Scale, Zero
from reconciler.ports.backend import WorkloadStatus
from reconciler.ports.clock import Clock
from reconciler.ports.holders import HoldOrder, HoldStatus
from reconciler.ports.router import RouteState
from reconciler.ports.transitions import Transition

NAME = "web"
STALE_AFTER = 3.0
INSTANT = 0.001
"""Offset that keeps arrivals of clients apart from the times of samples."""
EXCUSED = ("crash", "another controller", "Envoy died", "holder died", "hold timed out", "gave up")
"""Ends of connections that sleep did not cause."""

EXITED = Diagnosis(Reason.EXITED, "exit code 1")


@dataclass
class Client:
    """A connection with one request."""

    envoy: str
    arrived: float
    pod: str | None = None
    """The pod that serves it; None while it is held."""
    direct: bool = False
    ended: float | None = None
    end: str | None = None
    """`served`, or the reason for another end."""


@dataclass
class Envoy:
    """An Envoy with its latest route. Workers may use the old route until SETTLE_SECONDS after the acknowledgement."""

    up: bool = True
    started: float = 0.0
    route: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    sent: tuple[str, ...] | None = None
    sent_at: float = 0.0
    acked_at: float | None = None
    requests: int = 0
    bytes: int = 0


@dataclass
class Holder:
    """A holder, which uses `order` until the test lets it apply `sent`."""

    up: bool = True
    connected: bool = True
    order: HoldOrder | None = None
    sent: HoldOrder | None = None
    sent_at: float = 0.0
    acked_at: float | None = None


@dataclass
class Programs:
    """The configured program of the service and the program of each pod, as versions."""

    configured: int = 1
    running: dict[str, int] = field(default_factory=dict)
    asked: bool = False
    """True if the reconciler asked for the configured program."""

    def outdated(self) -> frozenset[str]:
        """Return the service if it runs an earlier program."""
        return frozenset({NAME} if set(self.running.values()) - {self.configured} else ())

    def restart(self, service: str) -> None:
        """Ask for the configured program."""
        self.asked = True


@dataclass
class World:
    """A simulated world. Durations in the spec are short, so that few steps exceed them."""

    spec: Spec
    now: float = 1_000_000.0
    replicas: int = 0
    pods: dict[str, str] = field(default_factory=dict)
    """Phase of each pod by address: `starting`, `ready` or `crashed`."""
    programs: Programs = field(default_factory=lambda: Programs())
    fates: dict[str, str] = field(default_factory=dict)
    """The reason why a pod is no longer ready."""
    fleet: dict[str, Envoy] = field(default_factory=lambda: {"a": Envoy(), "b": Envoy()})
    holder: Holder = field(default_factory=Holder)
    clients: list[Client] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    """The sample that is taken and not yet delivered."""
    sampled_of: frozenset[str] = frozenset()
    """Envoys that were connected when the latest sample was delivered."""
    saved: dict[str, Record] = field(default_factory=dict)
    on_pause: set[str] = field(default_factory=set)
    transitions: list[Transition] = field(default_factory=list)
    wakes: list[Wake] = field(default_factory=list)
    scale: Scale = None
    deadline: Deadline | None = None
    job: Blocker | None = None
    """The answer of the busy check; None: the program is idle."""
    asked_at: float | None = None
    """Time of the question that is not answered yet."""
    clock_changes: float = 0.0
    """Seconds by which the clock was changed; the monotonic clock was not."""
    noted: Sample | None = None
    """The sample before which the lifecycles noted the held connections."""
    removed_at: float | None = None
    """Time of the service's removal from the configuration, by the monotonic clock."""
    theirs: bool = False
    """True if someone else scaled the service up and it was not scaled to zero since."""
    _indexes: int = 0
    _addresses: int = 0

    def __post_init__(self) -> None:
        for envoy in self.fleet.values():
            envoy.started = self.now - 100
        self.restart()
        self.report_backend()

    # Inputs and outputs of the engine

    def restart(self) -> None:
        """Restart the reconciler after a crash."""
        self.samples.clear()
        self.noted = None
        self.deadline, self.scale, self.asked_at = None, None, None
        self.holder.sent = self.holder.acked_at = None
        for envoy in self.fleet.values():
            envoy.sent = envoy.acked_at = None
        clock = Clock(lambda: self.now, self.ticks)
        self.engine = Engine(clock, Pace(STALE_AFTER), AnyIp(18001), self)
        self.lifecycles = Lifecycles(clock, self.engine, self.envoys, self.programs)
        self.engine.start(Adapters(self, self, self, self, self, lambda at: None, busy_checks=self))
        self.engine.configure([self.spec])

    @property
    def service(self) -> ManagedService:
        return self.engine.services[NAME]

    @property
    def record(self) -> Record | None:
        return self.service.record

    @property
    def state(self) -> State | None:
        return self.record.state if self.record else None

    def saw(self, transition: Transition) -> None:
        self.transitions.append(transition)

    def woke(self, service: str, wake: Wake) -> None:
        self.wakes.append(wake)

    def converge(self, service: str, scale: Scale) -> None:
        self.scale = scale

    async def close(self) -> None: ...

    def route(self, service: str, endpoints: tuple[str, ...], held: bool) -> None:
        for envoy in self.fleet.values():
            envoy.sent, envoy.sent_at, envoy.acked_at = endpoints, self.now, None

    def order(self, service: str, order: HoldOrder | None) -> None:
        self.holder.sent, self.holder.sent_at, self.holder.acked_at = order, self.now, None

    def arm(self, service: str, deadline: Deadline | None) -> None:
        self.deadline = deadline

    def ask(self, service: str, at: float) -> None:
        self.asked_at = at if self.asked_at is None else self.asked_at

    def answer(self) -> None:
        """Answer the busy check, if it is asked."""
        if self.asked_at is not None:
            at, self.asked_at = self.asked_at, None
            self.engine.answered(NAME, BusyAnswer(at, self.job))

    def records(self) -> dict[str, Record]:
        return dict(self.saved)

    def save(self, service: str, record: Record) -> None:
        self.saved[service] = record

    def forget(self, service: str) -> None:
        self.saved.pop(service, None)

    def paused(self) -> frozenset[str]:
        return frozenset(self.on_pause)

    def pause(self, service: str, paused: bool) -> None:
        (self.on_pause.add if paused else self.on_pause.discard)(service)

    def next_index(self) -> int:
        self._indexes += 1
        return self._indexes - 1

    # Clients

    def living(self, pod: str | None = None) -> list[Client]:
        return [client for client in self.clients if client.ended is None and (pod is None or client.pod == pod)]

    def held(self) -> list[Client]:
        return [client for client in self.living() if client.pod is None]

    def served(self) -> list[Client]:
        return [client for client in self.living() if client.pod]

    def arrive(self, name: str, lagging_worker: bool) -> None:
        self.now += INSTANT
        envoy, client = self.fleet[name], Client(name, self.now)
        if not envoy.up or not envoy.route:
            return
        envoy.requests += 1
        envoy.bytes += 100
        self.clients.append(client)
        lags = lagging_worker and self._lags(envoy)
        self._connect(client, envoy.before if lags else envoy.route)
        self.report_holder()

    def _lags(self, envoy: Envoy) -> bool:
        return bool(envoy.before) and envoy.acked_at is not None and self.now < envoy.acked_at + SETTLE_SECONDS

    def _connect(self, client: Client, route: tuple[str, ...]) -> None:
        if route[0].startswith("127."):
            if not self.holder.up:
                self.end(client, "holder died")
            return
        ready = [pod for pod in route if self.pods.get(pod) == "ready"]
        if ready:
            client.pod, client.direct = ready[0], True
        else:
            self.end(client, self.fates.get(route[0], "no listener"))

    def end(self, client: Client, how: str) -> None:
        client.ended, client.end = self.now, how

    def finish(self, client: Client) -> None:
        self.end(client, "served")
        self.fleet[client.envoy].bytes += 100
        self.report_holder()

    def give_up(self, client: Client) -> None:
        self.end(client, "gave up")
        self.report_holder()

    # The holder

    def report_holder(self) -> None:
        """Report the holder's counts if there is a stream; called when they change."""
        relayed = [client for client in self.served() if not client.direct]
        if self.holder.up and self.holder.connected:
            self.engine.held(HoldStatus(NAME, len(self.held()), len(relayed), self.holder.acked_at))
        else:
            self.engine.held(HoldStatus(NAME, None, None))

    def holder_obeys(self) -> None:
        if self.holder.up and self.holder.connected and self.holder.sent:
            if self.holder.acked_at is None:
                self.holder.order, self.holder.acked_at = self.holder.sent, self.now
            self.report_holder()

    def holder_releases(self) -> None:
        order = self.holder.order
        ready = [pod for pod in (order.release_to if order else ()) if self.pods.get(pod) == "ready"]
        if self.holder.up and ready:
            for client in self.held():
                client.pod = ready[0]
            self.report_holder()

    def holder_dies(self) -> None:
        for client in self.living():
            if not client.direct:
                self.end(client, "holder died")
        self.holder = Holder(False, False, sent=self.holder.sent, sent_at=self.holder.sent_at)
        self.report_holder()

    def holder_stream(self, connected: bool) -> None:
        """Break or restore the stream (a dead holder starts); acknowledgements before that become void."""
        self.holder.up = self.holder.up or connected
        self.holder.connected, self.holder.acked_at = connected, None
        self.report_holder()

    # Envoys

    def envoys(self) -> frozenset[str]:
        return frozenset(name for name, envoy in self.fleet.items() if envoy.up)

    def away(self) -> frozenset[str]:
        return frozenset()

    def report_router(self) -> None:
        """Report the acknowledgement of the last connected Envoy, or the Envoys that lack one."""
        acks = {name: self.fleet[name].acked_at for name in sorted(self.envoys())}
        late = [name for name, at in acks.items() if at is None]
        times = [at for at in acks.values() if at is not None]
        if not acks or late:
            self.engine.routed(RouteState(NAME, None, late[0] if late else "no Envoy is connected"))
        else:
            self.engine.routed(RouteState(NAME, max(times), ""))

    def envoy_obeys(self, name: str) -> None:
        envoy = self.fleet[name]
        if envoy.up and envoy.sent and envoy.acked_at is None:
            envoy.before, envoy.route, envoy.acked_at = envoy.route, envoy.sent, self.now
            self.report_router()

    def envoy_dies(self, name: str) -> None:
        for client in self.living():
            if client.envoy == name:
                self.end(client, "Envoy died")
        before = self.fleet[name]
        self.fleet[name] = Envoy(up=False, started=inf, sent=before.sent, sent_at=before.sent_at)
        self.report_holder()
        self.report_router()

    def envoy_starts(self, name: str) -> None:
        envoy = self.fleet[name]
        if not envoy.up:
            envoy.up, envoy.started = True, self.now
            self.report_router()

    # The clock

    def ticks(self) -> float:
        """Return the monotonic time."""
        return self.now - self.clock_changes

    def clock_is_set(self, seconds: float) -> None:
        """Change the clock by some seconds. Actual times move with it; reported times do not."""
        self.now += seconds
        self.clock_changes += seconds
        for envoy in self.fleet.values():
            envoy.started += seconds
            envoy.sent_at += seconds
            envoy.acked_at = None if envoy.acked_at is None else envoy.acked_at + seconds
        self.holder.sent_at += seconds
        if self.holder.acked_at is not None:
            self.holder.acked_at += seconds
        for client in self.clients:
            client.arrived += seconds
            client.ended = None if client.ended is None else client.ended + seconds
        self.transitions = [replace(transition, at=transition.at + seconds) for transition in self.transitions]

    # Samples

    def take_sample(self, without: str | None = None) -> None:
        self.now += INSTANT
        if not self.samples:
            self.lifecycles.before_sample()
        readings = {
            name: EnvoyReading(self.now // 1 - self.fleet[name].started // 1, self._counters(name))
            for name in self.envoys() - {without}
        }
        sample = Sample(self.now, readings, {without: "timed out"} if without else {})
        self.noted = self.noted if self.samples else sample
        self.samples.append(sample)

    def _counters(self, name: str) -> dict[str, Counters]:
        """Return an Envoy's counters, which include the service only after its first use."""
        envoy, active = self.fleet[name], sum(client.envoy == name for client in self.living())
        requests = envoy.requests
        return {NAME: Counters(requests, requests, envoy.bytes, active, active)} if requests else {}

    def deliver_sample(self) -> None:
        if self.samples:
            self.sampled_of = self.envoys()
            sample = self.samples.pop(0)
            self.engine.sampled(sample)
            # The reconciler takes one sample at a time.
            if sample is self.noted and self.lifecycles.sampled(sample):
                self._removal_ends()

    # Pods

    def report_backend(self) -> None:
        ready = tuple(pod for pod, state in self.pods.items() if state == "ready")
        diagnosis = EXITED if "crashed" in self.pods.values() else None
        self.engine.ran(WorkloadStatus(NAME, self.replicas, ready, diagnosis))

    def backend_works(self) -> None:
        """Apply the scale of the plan; the backend observes its own changes immediately."""
        match self.scale:
            case Zero() if self.replicas:
                self._set_replicas(0, "asleep")
                self.report_backend()
            case AtLeast(replicas) if not self.replicas:
                self._set_replicas(replicas, "")
                self.report_backend()

    def somebody_scales(self, replicas: int) -> None:
        self._set_replicas(replicas, "another controller")
        self.theirs = replicas > 0

    def _set_replicas(self, replicas: int, why: str) -> None:
        self.theirs = False
        self.replicas = replicas
        for pod in list(self.pods)[replicas:]:
            self._pod_ends(pod, why)
            del self.pods[pod], self.programs.running[pod]
        while len(self.pods) < replicas:
            self._addresses += 1
            self._starts(f"10.0.0.{self._addresses}:80")

    def _starts(self, pod: str) -> None:
        self.pods[pod], self.programs.running[pod] = "starting", self.programs.configured

    def remove(self) -> None:
        """Remove the service from the configuration: it has no route, and held clients are refused."""
        self.removed_at = self.ticks()
        self.lifecycles.configure([])
        self.engine.configure([])
        self.scale = None
        for envoy in self.fleet.values():
            envoy.route, envoy.before, envoy.sent = (), (), None
        for client in self.held():
            self.end(client, "refused")
        if not self.lifecycles.removed:
            self._removal_ends()

    def add_again(self) -> None:
        """Configure the service again."""
        self.removed_at = None
        self.lifecycles.configure([self.spec])
        self.engine.configure([self.spec])
        self.report_backend()

    def _removal_ends(self) -> None:
        assert self.removed_at is not None
        timed_out = self.ticks() >= self.removed_at + self.spec.drain_timeout
        self._set_replicas(0, "drain timed out" if timed_out else "removal")

    def program_changes(self) -> None:
        """Configure another program; as on one machine, pods that were never ready start again with it."""
        self.programs.configured += 1
        for pod, phase in self.pods.items():
            if phase == "starting":
                self._starts(pod)

    def program_is_replaced(self) -> None:
        """Replace the pods if the reconciler asked for it."""
        if self.programs.asked and self.replicas:
            replicas = self.replicas
            self._set_replicas(0, "rollout")
            self._set_replicas(replicas, "")
            self.report_backend()
        self.programs.asked = False

    def _pod_ends(self, pod: str, why: str) -> None:
        self.fates[pod] = why
        for client in self.living(pod):
            self.end(client, why)
        self.report_holder()

    def pods_get_ready(self) -> None:
        self.pods = {pod: "ready" if state == "starting" else state for pod, state in self.pods.items()}

    def pods_crash(self) -> None:
        for pod in self.pods:
            self.pods[pod] = "crashed"
            self._pod_ends(pod, "crash")

    def pods_start_again(self) -> None:
        for pod, phase in self.pods.items():
            if phase == "crashed":
                self._starts(pod)

    # Time and people

    def pass_time(self, seconds: float) -> None:
        """Advance the clock without alarms; the holder refuses clients that have waited too long."""
        self.now += seconds
        for client in self.held():
            if self.now > client.arrived + self.spec.hold_timeout:
                self.end(client, "hold timed out")
        self.report_holder()

    def alarms(self) -> None:
        """Report the due deadline once, perhaps late."""
        due = self.deadline
        if due and due.at <= self.now:
            self.deadline = None
            self.engine.passed(NAME, due)

    def command(self, event: Event) -> None:
        self.engine.command(NAME, event)

    def all_goes_well(self, seconds: int, finishing: bool, but: str = "") -> None:
        """Run all components each second without new clients; `but` is the prefix of components that do not run."""
        for _ in range(seconds):
            for part, happens in self.parts().items():
                if not but or not part.startswith(but):
                    happens()
            for client in self.served() if finishing else ():
                self.finish(client)
            self.pass_time(0.5)
            if but != "samples":
                self.take_sample(but.removeprefix("sample of ") if but.startswith("sample of ") else None)
            self.pass_time(0.5)
            while self.samples:
                self.deliver_sample()
            if but != "alarms":
                self.alarms()

    def parts(self) -> dict[str, Callable[[], None]]:
        """Return the action of each component, in an order without faults."""
        return {
            "restarts of pods": self.pods_start_again,
            "rollout": self.program_is_replaced,
            "backend": self.backend_works,
            "readiness": self.pods_get_ready,
            "reports": self.report_backend,
            "start of a": lambda: self.envoy_starts("a"),
            "start of b": lambda: self.envoy_starts("b"),
            "envoy a": lambda: self.envoy_obeys("a"),
            "envoy b": lambda: self.envoy_obeys("b"),
            "stream": lambda: None if self.holder.connected else self.holder_stream(True),
            "holder": self.holder_obeys,
            "releases": self.holder_releases,
        }
