"""The engine's state of one service: spec, record, observation, last wake, and the values last sent to adapters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2s
from typing import Protocol

from reconciler.core.judge import SETTLE_SECONDS, Observed
from reconciler.core.lifecycle import NOT_TERMINATING, Block, TerminatingEndpoints
from reconciler.core.record import Record, State, Transition
from reconciler.core.spec import Spec, UsageUnit
from reconciler.core.traffic import ServiceUsage, Usage, is_without_bytes
from reconciler.engine.unserved import NONE, UnservedWakes
from reconciler.plan import Deadline
from reconciler.ports.backend import UNKNOWN_REQUESTS, ResourceRequests, WorkloadStatus
from reconciler.ports.holders import HoldOrder, HoldStatus
from reconciler.ports.router import RouteState

ASLEEP = Observed()
SLACK_SECONDS = 1.0
"""Tolerance for times in the future: deadlines may pass slightly early, and samples may be slightly ahead."""
NOT_ROUTED = RouteState("", None, "no route yet")


@dataclass(frozen=True, slots=True)
class Wake:
    """One wake, from the first held connection to its first byte. Times are seconds since the epoch; None until known.

    They come from the holder (first held, first byte), the engine (decided), and the backend.
    """

    decided_at: float
    held_since: float | None = None
    """Arrival of the first held connection; None without one, as after a command."""
    peer: str | None = None
    via: str | None = None
    """Holder of that connection."""
    reason: str = ""
    milestones: Mapping[str, float] = field(default_factory=dict)
    ready_at: float | None = None
    first_byte_at: float | None = None
    early: bool = False
    """True if it used an endpoint before the cluster called it ready."""
    saved_seconds: float | None = None
    """Time that this saved; None until the cluster calls the endpoint ready."""

    @property
    def began_at(self) -> float:
        return self.held_since or self.decided_at

    def parts(self) -> dict[str, float]:
        """Return the seconds of each completed part, by name, in order; their sum is `total()`."""
        moments = {"signal": self.decided_at}
        moments |= {name: at for name, at in self.milestones.items() if at >= self.decided_at}
        if not self.milestones and self.ready_at is not None:
            moments["ready"] = self.ready_at
        if self.first_byte_at is not None:
            moments["firstByte"] = self.first_byte_at
        parts, before = {}, self.began_at
        for name, at in moments.items():
            parts[name] = max(0.0, at - before)
            before = max(before, at)
        return parts

    def total(self) -> float | None:
        """Return the seconds from the first held connection to its first byte, or to readiness without one."""
        end = self.ready_at if self.held_since is None else self.first_byte_at
        return None if end is None else max(0.0, end - self.began_at)


class TransitionListener(Protocol):
    """A receiver of transitions and wakes."""

    def saw(self, transition: Transition) -> None:
        """Receive a transition."""

    def woke(self, service: str, wake: Wake) -> None:
        """Receive a wake that is over."""


@dataclass(slots=True)
class ManagedService:
    """One service. Only the engine changes it."""

    spec: Spec
    """The configured spec, with the effective `paused`."""
    record: Record | None = None
    """None until the number of replicas is known."""
    seen: Observed = ASLEEP
    routed: RouteState = NOT_ROUTED
    held: HoldStatus | None = None
    route: tuple[str, ...] = ()
    """The route that was last sent to Envoys."""
    ordered: HoldOrder | None = None
    """The order that was last sent to holders."""
    deadline: Deadline | None = None
    wake: Wake | None = None
    """The present wake, or the last one."""
    recovers: bool = False
    """True if the last Waking began while awake, as after a crash: a recovery is not counted as a wake."""
    unserved: UnservedWakes = NONE
    """Always `NONE` unless the service is idle by bytes."""
    requests: int = 0
    """Requests (HTTP) or connections (TCP, TLS) that Envoy counted since this process started."""
    always_paused: bool = False
    """True if the configuration pauses it; commands do not change that."""
    shared: Record | None = None
    """The record that the leader shared last: with its followers, or as one of them, with this replica."""
    fence: bool = False
    """True if followers must not step that record, because the leader may decide on it."""
    terminating: TerminatingEndpoints = NOT_TERMINATING
    unreported: tuple[Transition, ...] = ()
    """Follower only: own transitions since the leader's latest record. The leader does not publish them."""
    cause: str = ""
    """Name of the event that led to the record's state; empty if unknown."""
    running: tuple[str, ...] = ()
    """Endpoints in the backend's latest report."""
    asks: ResourceRequests = UNKNOWN_REQUESTS
    """The last known resource requests of each replica."""

    @property
    def effective_spec(self) -> Spec:
        """The spec with the idle time that is in force."""
        return self.spec if self.unserved is NONE else self.unserved.effective(self.spec)

    @property
    def saved_seconds(self) -> float | None:
        """Time that the last wake saved; None if the cluster called the endpoint ready first, or has not done so."""
        return self.wake.saved_seconds if self.wake else None

    @property
    def woke_early(self) -> bool | None:
        """True if the last wake ended before the cluster called the endpoint ready; None without a wake."""
        return self.wake.early if self.wake else None

    def set_back(self, now: float) -> Record | None:
        """Move times after `now` (seconds since the epoch) to `now`, after the clock was set back.

        Discards a sample from the future, because its age is unknown. Returns the record if it changed, otherwise None.
        """
        latest = now + SLACK_SECONDS
        if (self.seen.route_acked_at or 0.0) > latest:
            self.routed = replace(self.routed, acked_at=_at_most(self.routed.acked_at, now))
            self.held = self.held and replace(self.held, acked_at=_at_most(self.held.acked_at, now))
            self._acknowledged()
        if self.seen.traffic and self.seen.traffic.taken_at > latest:
            self.seen = replace(self.seen, traffic=None, silent_since=None)
        if self.seen.busy and self.seen.busy.asked_at > latest:
            self.seen = replace(self.seen, busy=None)
        if (self.seen.sleep_commanded_at or 0.0) > latest:
            self.seen = replace(self.seen, sleep_commanded_at=now)
        if self.record is None or self.record.since <= latest:
            return None
        self.record = replace(self.record, since=now)
        return self.record

    def note_route(self, route: tuple[str, ...]) -> None:
        """Note a route as sent to Envoys; none has acknowledged it yet."""
        self.route, self.routed = route, NOT_ROUTED
        self._acknowledged()

    def note_order(self, order: HoldOrder) -> None:
        """Note an order as sent to holders; none has acknowledged it yet."""
        self.ordered = order
        if self.held and self.held.acked_at is not None:
            self.held = replace(self.held, acked_at=None)
        self._acknowledged()

    def reference(self, release_to: tuple[str, ...]) -> str:
        """Return the id of the present hold; empty if connections are released.

        The id is constant during a hold, so that a wake does not need a new order. A restart may change it.
        """
        if release_to or self.record is None:
            return ""
        before = self.ordered.reference if self.ordered else ""
        return before or blake2s(f"{self.spec.name} {self.record.since}".encode(), digest_size=4).hexdigest()

    def is_in_force(self) -> bool:
        """Return whether the plan of a leader's awake service is already in force, as for most observations."""
        record, order, pods = self.record, self.ordered, self.seen.endpoints
        if not (record and order and pods) or self.shared is not record:
            return False
        if self.route != pods or order.release_to != pods or order.spec is not self.spec:
            return False
        return record.state is (State.Active if self.deadline is None else State.Idle)

    def lacks_sample_after(self) -> float | None:
        """Return the time from which a drain needs a sample (seconds since the epoch); None if it needs none yet."""
        if self.seen.route_acked_at is None:
            return None
        at = self.seen.route_acked_at + SETTLE_SECONDS
        return None if self.seen.traffic and self.seen.traffic.taken_at >= at else at

    def awaits(self, coming: Deadline | None, now: float) -> bool:
        """Return whether the present deadline has passed without its event: the next one must not replace it."""
        present = self.deadline
        return bool(present and coming and present.event is coming.event and present.at <= now < coming.at)

    def stepped(self, before: Record, after: Record, cause: str) -> Wake | None:
        """Apply a change of state with its cause; return a wake that it completes, if no client was held."""
        self.cause = cause
        if self.spec.idle_by is UsageUnit.BYTES:
            self.unserved = self.unserved.stepped(before, after, cause, self.seen.traffic)
        if after.state is State.Waking:
            self.recovers = before.state is not State.ScaledToZero
        if self.recovers:
            return None
        if after.state is State.Waking:
            held = self.held if self.seen.held else None
            since, peer, via = (held.held_since, held.peer, held.via) if held else (None, None, None)
            self.wake = Wake(after.since, since, peer, via, after.reason)
        elif before.state is State.Waking and after.state is State.Active and self.wake:
            self.wake = replace(self.wake, ready_at=after.since)
            return self.wake if self.wake.held_since is None else None
        return None

    def saw_running(self, running: WorkloadStatus) -> None:
        """Apply a report of the backend."""
        self.running = running.endpoints
        if running.asks != UNKNOWN_REQUESTS:
            self.asks = running.asks
        self.terminating = self.terminating.observed(running.replicas, running.endpoints)
        endpoints = self.terminating.usable(running.endpoints)
        self.seen = replace(
            self.seen,
            replicas=running.replicas,
            endpoints=endpoints,
            withdrawn=bool(running.endpoints) and not endpoints,
            diagnosis=running.diagnosis,
            end=running.end,
        )
        if self.wake and not self.recovers and self.record and self.record.state is State.Waking:
            self.wake = replace(self.wake, milestones=running.milestones, early=running.early)
        elif self.wake and self.wake.early and running.saved_seconds is not None and self.saved_seconds is None:
            self.wake = replace(self.wake, saved_seconds=running.saved_seconds)

    def block(self, block: Block) -> None:
        """Block its endpoints, or lift the block."""
        self.terminating = self.terminating.blocked(block, self.running)
        endpoints = self.terminating.usable(self.running)
        self.seen = replace(self.seen, endpoints=endpoints, withdrawn=bool(self.running) and not endpoints)

    def saw_traffic(self, traffic: ServiceUsage) -> None:
        """Apply the usage in the latest sample."""
        since = self.seen.silent_since
        is_held = self.record is not None and self.record.state is State.Draining
        is_silent = is_held and is_without_bytes(self.spec, traffic)
        if (traffic.moved and not is_silent) or traffic.usage is Usage.UNKNOWN:
            since = None
        elif since is None:
            since = traffic.window_start
        self.seen = replace(self.seen, traffic=traffic, silent_since=since)
        if self.unserved is not NONE:
            self.unserved = self.unserved.used(traffic)

    def saw_route(self, routed: RouteState) -> None:
        """Apply a report of the router."""
        self.routed = routed
        self._acknowledged()

    def saw_held(self, held: HoldStatus) -> None:
        """Apply a report of the holders."""
        self.held = held
        if held.held != self.seen.held or held.relayed != self.seen.relayed:
            self.seen = replace(self.seen, held=held.held, relayed=held.relayed)
        self._acknowledged()
        if self.recovers:
            return
        waking = self.record is not None and self.record.state is State.Waking
        if waking and held.held and self.wake and self.wake.held_since is None:
            # Envoy's counters or a command caused the wake; its duration is that of the first held client.
            self.wake = replace(self.wake, held_since=held.held_since, peer=held.peer, via=held.via)
        elif self.wake and held.peer and self.wake.held_since == held.held_since and self.wake.peer != held.peer:
            self.wake = replace(self.wake, peer=held.peer)  # the request has arrived and names its client
        wake, first_byte = self.wake, held.first_byte_at
        if wake and first_byte and wake.first_byte_at is None and wake.held_since and first_byte > wake.held_since:
            self.wake = replace(wake, first_byte_at=first_byte)

    def _acknowledged(self) -> None:
        """Update the acknowledgement of the route: the later of those of Envoys and holders."""
        at, waiting_for = self.routed.acked_at, self.routed.waiting_for
        held_at = self.held.acked_at if self.held else None
        if at is not None and held_at is None:
            at, waiting_for = None, "a holder"
        elif at is not None and held_at is not None:
            at = max(at, held_at)
        if at != self.seen.route_acked_at or waiting_for != self.seen.waiting_for:
            self.seen = replace(self.seen, route_acked_at=at, waiting_for=waiting_for)


def _at_most(at: float | None, now: float) -> float | None:
    return None if at is None else min(at, now)


class ServiceIndex:
    """The services by name, and their names by state, so that no operation has to scan all services."""

    def __init__(self) -> None:
        self.services: dict[str, ManagedService] = {}
        self.unknown: set[str] = set()
        """Services without a record, whose number of replicas is unknown."""
        self.awake: set[str] = set()
        """Services with a record in any state except ScaledToZero."""

    def note(self, name: str, record: Record | None) -> None:
        """Index a service by its present record."""
        self.drop(name)
        if record is None:
            self.unknown.add(name)
        elif record.state is not State.ScaledToZero:
            self.awake.add(name)

    def drop(self, name: str) -> None:
        """Remove a service."""
        if name in self.unknown:
            self.unknown.discard(name)
            if not self.unknown:
                self.unknown.clear()  # frees the memory: at the start the set had all services
        self.awake.discard(name)
