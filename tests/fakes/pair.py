"""A simulation of two replicas around one service, with real engines and real merging of reports.

As in `world`, nothing happens by itself. The actual state is separate from each replica's observations: informers lag,
messages stay in queues until a test delivers or drops them, each replica has its own clock, and it may be frozen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from reconciler.core.judge import SETTLE_SECONDS
from reconciler.core.reasons import Diagnosis
from reconciler.core.record import Record, State
from reconciler.core.spec import Spec
from reconciler.core.traffic import Counters, EnvoyReading, Pace, Sample
from reconciler.engine.engine import Adapters, Engine
from reconciler.engine.hold_addresses import AnyIp
from reconciler.engine.wake import Wake
from reconciler.plan import AtLeast, Deadline, Scale, Zero
from reconciler.ports.backend import WorkloadStatus
from reconciler.ports.clock import Clock
from reconciler.ports.holders import HoldOrder, HoldStatus
from reconciler.ports.router import RouteState
from reconciler.ports.store import NoIndexLeft
from reconciler.ports.transitions import Transition
from reconciler.replication import ReplicaContext, Replication
from reconciler.replication.fleet import FollowerState
from reconciler.replication.messages import Fleet, RecordUpdate, Report, intersection
from tests.fakes.member_list import MemberList

NAME = "web"
STALE_AFTER = 3.0
LEASE, MARGIN, NOTICE, DETACH_AFTER, FORGET, ENVOY_RETURNS = 6.0, 2.0, 2.0, 10.0, 40.0, 8.0
INSTANT = 0.001
EXCUSED = ("crash", "another controller", "Envoy died", "holder died", "hold timed out", "gave up")


@dataclass
class Client:
    """A connection with one request."""

    envoy: str
    arrived: float
    pod: str | None = None
    direct: bool = False
    end: str | None = None


@dataclass
class Proxy:
    """An Envoy and its holder, connected to the same replica or to none."""

    up: bool = True
    started: float = 0.0
    at: str | None = None
    lost_at: float = 0.0
    route: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    acked_at: float | None = None
    """Time at which Envoy applied its replica's latest route, on the actual clock."""
    order: HoldOrder | None = None
    obeyed_at: float | None = None
    requests: int = 0


@dataclass
class Link:
    """A peer stream; `up` and `down` have the undelivered messages."""

    leader: str
    follower: str
    place: FollowerState | None = None
    up: list[Callable[[], None]] = field(default_factory=list)
    down: list[Callable[[], None]] = field(default_factory=list)
    reported: Fleet = field(default_factory=Fleet)
    cut_at: float | None = None
    """Time since which nothing is delivered; each end notices it separately."""


class Replica:
    """A process of the reconciler: its engine and the engine's ports."""

    def __init__(self, pair: Pair, name: str, skew: float) -> None:
        self.pair, self.name, self.skew = pair, name, skew
        self.frozen = False
        self.inbox: list[Callable[[], None]] = []
        self.valid_until = -1.0
        self.leading = False
        self.link: Link | None = None
        self.lost_at = pair.now
        self.dirty = False
        self.dirty_fleet = False
        self.route_now: tuple[str, ...] = ()
        self.acks: dict[str, float | None] = {}
        self.order_now: HoldOrder | None = None
        self.obeyed: dict[str, float | None] = {}
        self.counts: dict[str, tuple[int, int]] = {}
        self.scale: Scale = None
        self.sent: float | None = None
        """Time at which a scale to zero was sent whose result is not known yet."""
        self.hides = False
        self.view: tuple[int, int, tuple[str, ...], Diagnosis | None] | None = None
        self.deadline: Deadline | None = None
        self.samples: list[Sample] = []
        """Samples that are taken and not yet delivered."""
        terms = ReplicaContext(
            name,
            MemberList(pair.replicas),
            lambda: pair.now < self.valid_until,
            Clock(self.now, lambda: pair.now),
            settle_seconds=LEASE,
            forget_seconds=FORGET,
            return_seconds=ENVOY_RETURNS + 1,
        )
        self.replication = Replication(terms)
        self.members = self.replication.members
        self.engine = Engine(Clock(self.now), Pace(STALE_AFTER), AnyIp(1), self)
        self.replication.attach(self.engine, self, self)
        self.replication.updates.on_update = lambda _: self.send_record()
        self.replication.updates.on_report = lambda _: setattr(self, "dirty", True)
        self.members.on_fleet.append(self.send_fleet)
        replicas = self.replication
        self.engine.start(Adapters(self, replicas.router, replicas.holders, self, self, lambda at: None, replicas))
        self.engine.follow()
        self.engine.configure([pair.spec])

    def now(self) -> float:
        return self.pair.now + self.skew

    def deliver(self, act: Callable[[], None]) -> None:
        """Deliver an input to this process, or queue it while the process is frozen."""
        if self.frozen:
            self.inbox.append(act)
        else:
            act()

    def saw(self, transition: Transition) -> None:
        self.pair.saw(self, transition)

    def woke(self, service: str, wake: Wake) -> None: ...

    @property
    def record(self) -> Record | None:
        return self.engine.services[NAME].record

    # Ports of the engine

    def converge(self, service: str, scale: Scale) -> WorkloadStatus | None:
        before, hid = self.scale, self.hides
        self.scale = scale
        if isinstance(scale, Zero) and not isinstance(before, Zero):
            self.hides = True
            return self.running()
        if not isinstance(scale, Zero) and self.sent is None:
            self.hides = False
        return self.running() if hid and not self.hides else None

    async def close(self) -> None: ...

    def route(self, service: str, endpoints: tuple[str, ...], held: bool) -> RouteState:
        self.route_now, self.acks = endpoints, dict.fromkeys(self.acks)
        return self.routed()

    def envoys(self) -> frozenset[str]:
        return frozenset(self.acks)

    def away(self) -> frozenset[str]:
        return frozenset()

    def order(self, service: str, order: HoldOrder | None) -> HoldStatus:
        self.order_now, self.obeyed = order, dict.fromkeys(self.obeyed)
        return self.held()

    def arm(self, service: str, deadline: Deadline | None) -> None:
        self.deadline = deadline

    def records(self) -> dict[str, Record]:
        return dict(self.pair.status)

    def save(self, service: str, record: Record) -> None:
        self.pair.unsaved[service] = record

    def forget(self, service: str) -> None: ...

    def paused(self) -> frozenset[str]:
        return frozenset()

    def pause(self, service: str, paused: bool) -> None: ...

    def next_index(self) -> int:
        if self.pair.no_indexes:
            raise NoIndexLeft
        self.pair.indexes += 1
        return self.pair.indexes

    # Reports of its own components

    def routed(self) -> RouteState:
        late = [name for name, at in sorted(self.acks.items()) if at is None]
        times = [at for at in self.acks.values() if at is not None]
        if late or not times:
            return RouteState(NAME, None, late[0] if late else "no Envoy is connected")
        return RouteState(NAME, max(times), "")

    def held(self) -> HoldStatus:
        late = None in self.obeyed.values()
        times = [at for at in self.obeyed.values() if at is not None]
        held = sum(self.counts.get(name, (0, 0))[0] for name in self.obeyed)
        relayed = sum(self.counts.get(name, (0, 0))[1] for name in self.obeyed)
        known = bool(self.obeyed)
        acked = None if late or not times else max(times)
        return HoldStatus(NAME, held if known else None, relayed if known else None, acked)

    def report_route(self) -> None:
        self.replication.router.routed(self.routed())

    def report_held(self) -> None:
        self.replication.holders.held(self.held())

    def report_fleet(self) -> None:
        self.members.came_or_went(dict.fromkeys(self.acks, ""), sorted(self.obeyed))
        self.report_route()
        self.report_held()

    def running(self) -> WorkloadStatus | None:
        if self.view is None:
            return None
        replicas, _, pods, diagnosis = self.view
        return WorkloadStatus(NAME, replicas, () if self.hides else pods, diagnosis)

    def report_running(self) -> None:
        if running := self.running():
            self.engine.ran(running)

    # The peer stream, as in `leader` and `follower`

    def send_record(self) -> None:
        for link in self.pair.links:
            if link.leader == self.name and link.place is not None:
                update = self.replication.updates.latest[NAME]
                link.down.append(
                    lambda link=link, update=update: self.pair.replicas[link.follower].received_record(link, update)
                )  # type: ignore[misc]

    def send_fleet(self) -> None:
        self.dirty_fleet = True
        for link in self.pair.links:
            if link.leader == self.name and link.place is not None:
                fleet = self.members.ledger.fleet()
                link.down.append(
                    lambda link=link, fleet=fleet: self.pair.replicas[link.follower].received_fleet(link, fleet)
                )  # type: ignore[misc]

    def received_fleet(self, link: Link, fleet: Fleet) -> None:
        if self.link is link:
            self.members.memory = fleet

    def received_record(self, link: Link, update: RecordUpdate) -> None:
        if self.link is link:
            self.replication.updates.add(update)
            self.engine.adopt(NAME, update.record, update.fence, update.cause)

    def flush(self) -> None:
        """Send the due messages if there is a stream."""
        if self.frozen or self.link is None or not (self.dirty or self.dirty_fleet):
            return
        fleet, report = self.members.fleet, self.replication.report(NAME)
        self.dirty = self.dirty_fleet = False
        link = self.link
        stayed, link.reported = intersection(link.reported, fleet), fleet
        link.up.append(lambda: self.pair.replicas[link.leader].received(link, stayed, report))
        link.up.append(lambda: self.pair.replicas[link.leader].received(link, fleet, None))

    def received(self, link: Link, fleet: Fleet | None, report: Report | None) -> None:
        if link.place is not None:
            if fleet is not None:
                self.members.set_follower_fleet(link.follower, link.place, fleet)
            if report is not None:
                self.replication.add_report(link.follower, link.place, report)

    def received_hello(self, link: Link, fleet: Fleet) -> None:
        if self.members.leads and link in self.pair.links:
            link.place = self.members.add_follower(link.follower, fleet)
            if NAME in self.replication.updates.latest:
                self.send_record()
            self.send_fleet()
        else:
            self.pair.end(link)


class Pair:
    """The world: clients, two proxies, pods, a Lease, and two replicas."""

    def __init__(self, spec: Spec, skews: tuple[float, float]) -> None:
        self.spec, self.now = spec, 1_000_000.0
        self.replicas: dict[str, Replica] = {}
        self.links: list[Link] = []
        self.status: dict[str, Record] = {}
        self.unsaved: dict[str, Record] = {}
        self.indexes, self.no_indexes = 0, False
        self.clients: list[Client] = []
        self.pods: dict[str, str] = {}
        self.fates: dict[str, str] = {}
        self.number, self.version, self._addresses = 0, 0, 0
        self.proxies = {name: Proxy(started=self.now - 100) for name in ("a", "b")}
        self.holder: str | None = None
        self.renewed_at = self.now
        self.transitions: list[tuple[str, Transition]] = []
        self.checks: Callable[[Replica, Transition], None] = lambda replica, transition: None
        for name, skew in zip("LF", skews, strict=True):
            self.replicas[name] = Replica(self, name, skew)

    def saw(self, replica: Replica, transition: Transition) -> None:
        self.transitions.append((replica.name, transition))
        self.checks(replica, transition)

    # Clients

    def living(self) -> list[Client]:
        return [client for client in self.clients if client.end is None]

    def served(self) -> list[Client]:
        return [client for client in self.living() if client.pod]

    def held(self) -> list[Client]:
        return [client for client in self.living() if client.pod is None]

    def arrive(self, name: str, lagging_worker: bool = False) -> None:
        self.now += INSTANT
        proxy, client = self.proxies[name], Client(name, self.now)
        if not proxy.up or not proxy.route:
            return
        proxy.requests += 1
        self.clients.append(client)
        lags = lagging_worker and proxy.before and proxy.acked_at and self.now < proxy.acked_at + SETTLE_SECONDS
        route = proxy.before if lags else proxy.route
        if not route[0].startswith("127."):
            ready = [pod for pod in route if self.pods.get(pod) == "ready"]
            client.pod, client.direct = (ready[0], True) if ready else (None, False)
            client.end = None if ready else self.fates.get(route[0], "no listener")
        self.count(name)

    def count(self, name: str) -> None:
        """Report a holder's counts when they change."""
        proxy = self.proxies[name]
        mine = [client for client in self.living() if client.envoy == name and not client.direct]
        counts = (sum(c.pod is None for c in mine), sum(c.pod is not None for c in mine))
        if proxy.at:
            replica = self.replicas[proxy.at]
            replica.deliver(lambda: self._counted(replica, name, counts))

    def _counted(self, replica: Replica, name: str, counts: tuple[int, int]) -> None:
        replica.counts[name] = counts
        if name in replica.obeyed:
            replica.report_held()

    def end_client(self, client: Client, how: str) -> None:
        client.end = how
        self.count(client.envoy)

    # Envoys and holders

    def joins(self, name: str, where: str) -> None:
        proxy, replica = self.proxies[name], self.replicas[where]
        if not proxy.up or proxy.at or replica.frozen:
            return
        proxy.at, proxy.acked_at, proxy.obeyed_at = where, None, None
        replica.acks[name] = replica.obeyed[name] = None
        replica.report_fleet()
        self.count(name)

    def leaves(self, name: str) -> None:
        """Break a proxy's streams; its replica learns of it unless it is frozen."""
        proxy = self.proxies[name]
        if proxy.at:
            replica, proxy.at, proxy.lost_at = self.replicas[proxy.at], None, self.now
            replica.deliver(lambda: self._gone(replica, name))

    def _gone(self, replica: Replica, name: str) -> None:
        if self.proxies[name].at == replica.name:
            return  # it is connected again
        replica.acks.pop(name, None)
        replica.obeyed.pop(name, None)
        replica.report_fleet()

    def obeys(self, name: str) -> None:
        """Let Envoy and the holder apply the latest values from their replica."""
        proxy = self.proxies[name]
        replica = self.replicas[proxy.at] if proxy.at else None
        if replica is None or replica.frozen or not proxy.up:
            return
        if replica.route_now and replica.acks.get(name, 0.0) is None:
            proxy.before, proxy.route = proxy.route, replica.route_now
            proxy.acked_at, replica.acks[name] = self.now, replica.now()
            replica.report_route()
        if replica.order_now and replica.obeyed.get(name, 0.0) is None:
            proxy.order, proxy.obeyed_at, replica.obeyed[name] = replica.order_now, self.now, replica.now()
            replica.report_held()

    def releases(self, name: str) -> None:
        order = self.proxies[name].order
        ready = [pod for pod in (order.release_to if order else ()) if self.pods.get(pod) == "ready"]
        for client in self.held() if ready else ():
            if client.envoy == name:
                client.pod = ready[0]
        self.count(name)

    def proxy_dies(self, name: str) -> None:
        for client in self.living():
            if client.envoy == name:
                client.end = "Envoy died"
        self.leaves(name)
        self.proxies[name] = Proxy(up=False, lost_at=self.now)

    def proxy_starts(self, name: str) -> None:
        if not self.proxies[name].up:
            self.proxies[name] = Proxy(started=self.now, lost_at=self.now)

    # The cluster

    def scale_to(self, number: int, why: str) -> None:
        self.number, self.version = number, self.version + 1
        for pod in list(self.pods)[number:]:
            self._pod_ends(pod, why)
            del self.pods[pod]
        while len(self.pods) < number:
            self._addresses += 1
            self.pods[f"10.0.0.{self._addresses}:80"] = "starting"

    def _pod_ends(self, pod: str, why: str) -> None:
        self.fates[pod] = why
        for client in self.living():
            if client.pod == pod:
                self.end_client(client, why)

    def pods_get_ready(self) -> None:
        self.pods = dict.fromkeys(self.pods, "ready")

    def pods_crash(self) -> None:
        for pod in self.pods:
            self.pods[pod] = "crashed"
            self._pod_ends(pod, "crash")

    def observes(self, name: str) -> None:
        """Update the informers of a replica."""
        replica = self.replicas[name]
        if not replica.frozen:
            ready = tuple(pod for pod, state in self.pods.items() if state == "ready")
            replica.view = (self.number, self.version, ready, None)
            if self.number == 0 and isinstance(replica.scale, Zero):
                replica.hides = True
            replica.report_running()

    def scales(self, name: str) -> None:
        """Let a replica send the scale of its plan."""
        replica = self.replicas[name]
        if replica.frozen or replica.view is None:
            return
        match replica.scale:
            case Zero() if replica.view[0] and replica.sent is None and replica.members.unknown() is None:
                replica.sent = self.now
            case AtLeast(number) if replica.view[0] == 0 and self.number == 0:
                self.scale_to(number, "")

    def zero_arrives(self, name: str) -> None:
        replica = self.replicas[name]
        if replica.sent is None:
            return
        replica.sent = None
        if replica.view and replica.view[1] == self.version:
            self.scale_to(0, "asleep")
        replica.deliver(lambda: self._answered(replica))

    def _answered(self, replica: Replica) -> None:
        if not isinstance(replica.scale, Zero):
            replica.hides = False
        self.observes(replica.name)

    # Samples

    def sample(self, name: str, without: str | None = None) -> None:
        self.now += INSTANT
        replica = self.replicas[name]
        readings = {}
        for envoy in sorted(replica.members.envoys() & {n for n, p in self.proxies.items() if p.up} - {without}):
            proxy = self.proxies[envoy]
            active = sum(client.envoy == envoy for client in self.living())
            used = {NAME: Counters(proxy.requests, proxy.requests, 0, active, active)} if proxy.requests else {}
            readings[envoy] = EnvoyReading(self.now // 1 - proxy.started // 1, used)
        taken = Sample(replica.now(), readings, {without: "timed out"} if without else {})
        replica.samples.append(taken)

    def samples_arrive(self, name: str) -> None:
        replica = self.replicas[name]
        while replica.samples and not replica.frozen:
            replica.engine.sampled(replica.samples.pop(0))

    # The Lease

    def elects(self, name: str) -> None:
        """Let a replica renew the Lease, acquire it, or learn its holder."""
        replica = self.replicas[name]
        if replica.frozen:
            return
        if self.holder in (None, name) or self.now - self.renewed_at >= LEASE:
            began = self.now if self.holder != name or self.now >= replica.valid_until else None
            self.holder, self.renewed_at = name, self.now
            replica.valid_until = self.now + LEASE - MARGIN
            if began is not None:
                self._leads(replica)
        else:
            self.notices(name)
            if replica.link is None and self.holder != name and self.holder:
                self.connects(replica, self.holder)

    def _leads(self, replica: Replica) -> None:
        if replica.link:
            self.end(replica.link)
        for link in [link for link in self.links if link.leader == replica.name]:
            self.end(link)
        replica.leading = True
        replica.replication.lead(self.now)
        replica.engine.lead(replica.now())

    def notices(self, name: str) -> None:
        """Let a replica learn that it no longer leads."""
        replica = self.replicas[name]
        if replica.leading and not replica.frozen and self.now >= replica.valid_until:
            replica.leading = False
            replica.replication.follow()
            replica.engine.follow()
            replica.lost_at = self.now
            for link in [link for link in self.links if link.leader == name]:
                self.end(link)

    def connects(self, follower: Replica, leader: str) -> None:
        link = Link(leader, follower.name)
        self.links.append(link)
        follower.link = link
        follower.replication.updates.clear()
        fleet = link.reported = follower.members.fleet
        follower.dirty = True
        link.up.append(lambda: self.replicas[leader].received_hello(link, fleet))

    def end(self, link: Link) -> None:
        """End a stream; both ends learn of it, a frozen one later."""
        if link in self.links:
            self.links.remove(link)
            for name in (link.leader, link.follower):
                self.replicas[name].deliver(lambda name=name: self._ended(link, name))  # type: ignore[misc]

    def _ended(self, link: Link, name: str) -> None:
        replica = self.replicas[name]
        if name == link.leader and link.place is not None:
            replica.replication.remove_follower(link.follower, link.place)
        if replica.link is link:
            replica.link, replica.lost_at = None, self.now

    def delivers(self, up: bool, many: int = 1) -> None:
        for link in list(self.links):
            for _ in range(many):
                queue, to = (link.up, link.leader) if up else (link.down, link.follower)
                if queue and link.cut_at is None and not self.replicas[to].frozen:
                    queue.pop(0)()

    def cuts(self) -> None:
        """Stop delivery on all peer streams before either end notices."""
        for link in self.links:
            link.cut_at = link.cut_at or self.now

    # Faults and restarts of replicas

    def freezes(self, name: str) -> None:
        self.replicas[name].frozen = True
        for link in self.links:
            link.cut_at = link.cut_at or self.now

    def thaws(self, name: str, notices_first: bool = False) -> None:
        """Thaw a replica, which handles queued inputs, perhaps before it reads the Lease."""
        replica = self.replicas[name]
        replica.frozen = False
        if notices_first:
            self.notices(name)
        inbox, replica.inbox = replica.inbox, []
        for act in inbox:
            act()

    def restarts(self, name: str, releases: bool) -> None:
        """Replace a replica's process by a new one of the same name."""
        old = self.replicas[name]
        if releases and self.now < old.valid_until and self.holder == name:
            self.zero_arrives(name)
            self.holder = None
        for link in [link for link in self.links if name in (link.leader, link.follower)]:
            self.end(link)
        for proxy in self.proxies:
            if self.proxies[proxy].at == name:
                self.leaves(proxy)
        if old.sent is not None:
            self.zero_arrives(name)
        self.replicas[name] = Replica(self, name, old.skew)

    # Time

    def passes(self, seconds: float) -> None:
        left = seconds
        while left > 0:
            step = min(left, 0.5)
            left -= step
            self.now += step
            self._meanwhile()

    def _meanwhile(self) -> None:
        """Apply all effects of the time that has passed."""
        for client in self.held():
            if self.now > client.arrived + self.spec.hold_timeout:
                self.end_client(client, "hold timed out")
        for link in list(self.links):
            if link.cut_at is not None and self.now - link.cut_at >= NOTICE:
                self.end(link)
        for name, replica in self.replicas.items():
            if replica.sent is not None and self.now - replica.sent >= MARGIN:
                self.zero_arrives(name)
            if replica.frozen:
                for proxy, one in self.proxies.items():
                    if one.at == name and self.now - self._frozen_since(name) >= NOTICE:
                        self.leaves(proxy)
                continue
            replica.members.forget()
            alone = replica.link is None and not replica.leading and self.now - replica.lost_at >= DETACH_AFTER
            if alone and not replica.engine.leadership.detached:
                replica.engine.detach()
        for proxy, one in self.proxies.items():
            if one.up and not one.at and self.now - one.lost_at >= ENVOY_RETURNS:
                for name in self.replicas:
                    self.joins(proxy, name)

    def _frozen_since(self, name: str) -> float:
        return min(
            (link.cut_at for link in self.links if link.cut_at and name in (link.leader, link.follower)), default=0
        )

    def alarms(self, name: str) -> None:
        replica = self.replicas[name]
        due = replica.deadline
        if due and not replica.frozen and due.at <= replica.now():
            replica.deadline = None
            replica.engine.passed(NAME, due)

    def writes_status(self) -> None:
        """Write the leader's records to the objects; records without a valid leader are not written."""
        if self.holder and self.now < self.replicas[self.holder].valid_until:
            self.status |= self.unsaved
        self.unsaved.clear()

    def all_goes_well(self, seconds: int, finishing: bool = True, but: str = "") -> None:
        for _ in range(seconds * 2):
            for _ in range(2):
                for name in self.replicas:
                    if but != "lease":
                        self.elects(name)
                    self.observes(name)
                    self.scales(name)
                    self.zero_arrives(name)
                    self.replicas[name].flush()
                if but != "peers":
                    self.delivers(up=True, many=9)
                    self.delivers(up=False, many=9)
                for index, proxy in enumerate(self.proxies):
                    self.proxy_starts(proxy)
                    self.joins(proxy, "LF"[index])
                    if but != f"proxy {proxy}":
                        self.obeys(proxy)
                        self.releases(proxy)
            self.pods = {pod: "starting" if state == "crashed" else state for pod, state in self.pods.items()}
            self.pods_get_ready()
            if finishing:
                for client in self.served():
                    self.end_client(client, "served")
            self.passes(0.5)
            for name in self.replicas:
                if but != "samples" and self.replicas[name].leading:
                    self.sample(name)
                    self.samples_arrive(name)
                self.alarms(name)
            self.writes_status()


__all__ = ["EXCUSED", "NAME", "Client", "Pair", "Replica", "State"]
