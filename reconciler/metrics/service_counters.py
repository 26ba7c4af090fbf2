"""The counters of one service: transitions, wakes, and the time that it slept and that its clients waited.

Times are arguments: seconds since the epoch, except `ticks`, which are seconds of a monotonic clock. Only counters that
no record has are kept here; they start at 0 with the process, as Prometheus expects. Counters of events that never
happened, which are most of them, are one object shared by all services.
Written by `metrics.py` on the event loop, read by `services.py` in a thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from reconciler.core.record import Record, State, Transition
from reconciler.ports.backend import ResourceRequests
from reconciler.ports.holders import HoldStatus


@dataclass(frozen=True, slots=True)
class Rising:
    """A total over all holders that never falls, although the sum of the present holders does when one leaves."""

    total: int = 0
    _last: int = 0

    def saw(self, value: int, news: bool) -> Rising:
        """Add the increase to the total if it is news: what a new holder counted before did not happen just now."""
        if value == self._last:
            return self
        return Rising(self.total + max(0, value - self._last) if news else self.total, value)


NEVER = Rising()
NO_REFUSALS: Mapping[str, Rising] = MappingProxyType({})
NO_TRANSITIONS: Mapping[tuple[str, str, str], int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Meter:
    """A total that grows by `rate` per second. Immutable, so that a reading thread never sees half a change."""

    total: float = 0.0
    rate: float = 0.0
    at: float = 0.0

    def read(self, ticks: float) -> float:
        return self.total + self.rate * max(0.0, ticks - self.at)

    def at_rate(self, rate: float, ticks: float) -> Meter:
        """Return a meter that grows by this rate from `ticks` on."""
        return self if rate == self.rate else Meter(self.read(ticks), rate, ticks)


@dataclass(slots=True)
class ServiceCounters:
    """The counters of one service."""

    slept: Meter = Meter()
    """Replica-seconds that were not run."""
    slept_cpu: Meter = Meter()
    """Core-seconds that were not requested."""
    slept_memory: Meter = Meter()
    """Byte-seconds that were not requested."""
    waited: Meter = Meter()
    """Sum of the seconds that held connections waited."""
    waking_since: float | None = None
    stalled: bool = False
    """True if the present wake has stalled."""
    wakes_ready: int = 0
    """Wakes that ended awake."""
    wakes_stalled: int = 0
    wakes_late: int = 0
    """Wakes that exceeded their timeout, without the present one."""
    begun: bool = False
    """True after the first wake began."""
    recovers: bool = False
    """True while Waking without having slept: lost endpoints return, or are replaced."""
    before_wake: tuple[int, int] | None = None
    """Requests and released connections when the last wake began; None if this process saw no wake begin."""
    last_wake: tuple[float, Mapping[str, float]] | None = None
    """Seconds in total, and by part."""
    transitions: Mapping[tuple[str, str, str], int] = field(default_factory=lambda: NO_TRANSITIONS)
    """By source state, target state and event."""
    released: Rising = NEVER
    refused: Rising = NEVER
    gone: Rising = NEVER
    refusals: Mapping[str, Rising] = field(default_factory=lambda: NO_REFUSALS)
    """By reason, from its first refusal on."""
    _holders: frozenset[str] = frozenset()

    @classmethod
    def of(cls, record: Record, asks: ResourceRequests, ticks: float, recovers: bool = False) -> ServiceCounters:
        """Return the counters of a service that this process observes for the first time."""
        counters = cls(recovers=recovers)
        if record.state is State.ScaledToZero:
            counters.sleeps(record.replicas, asks, ticks)
        elif record.state is State.Waking:
            counters.waking_since, counters.begun, counters.stalled = record.since, True, record.stalled is not None
        return counters

    def timed_out(self, now: float, wake_timeout: float) -> int:
        """Return the wakes that exceeded `wake_timeout`, including the present one."""
        present = self.waking_since is not None and now - self.waking_since >= wake_timeout
        return self.wakes_late + present

    def saw_held(self, held: HoldStatus, holders: frozenset[str], ticks: float) -> None:
        """Record the counts of the connected `holders`. Totals are ignored until all holders have reported."""
        self.waited = self.waited.at_rate(held.held or 0, ticks)
        if held.relayed is None:
            return
        news, self._holders = holders == self._holders, holders
        self.released = self.released.saw(held.released, news)
        self.refused = self.refused.saw(held.refused, news)
        self.gone = self.gone.saw(held.gone, news)
        if held.refused_by:
            known = {**dict.fromkeys(held.refused_by, NEVER), **self.refusals}
            self.refusals = {
                reason: refused.saw(held.refused_by.get(reason, 0), news) for reason, refused in known.items()
            }

    def saw_transition(self, transition: Transition, record: Record, requests: int, wake_timeout: float) -> None:
        """Record a transition; `record` is the record after it, `requests` the total so far."""
        source, target = transition.source, transition.target
        move = (source.value, target.value, transition.event)
        self.transitions = {**self.transitions, move: self.transitions.get(move, 0) + 1}
        if source is target:
            self.wakes_stalled += not self.stalled
            self.stalled = True
            return
        if source is State.Waking:
            self.wakes_late, self.waking_since = self.timed_out(transition.at, wake_timeout), None
            self.wakes_ready += target is State.Active and not self.recovers
        if target is State.Waking:
            self.waking_since, self.begun, self.stalled = record.since, True, False
            self.recovers = source is not State.ScaledToZero
            if not self.recovers:
                self.before_wake = (requests, self.released.total)

    def sleeps(self, replicas: int, asks: ResourceRequests, ticks: float) -> None:
        """Count, from now on, replicas with these resource requests as not run."""
        self.slept = self.slept.at_rate(replicas, ticks)
        self.slept_cpu = self.slept_cpu.at_rate(replicas * (asks.cpu_cores or 0), ticks)
        self.slept_memory = self.slept_memory.at_rate(replicas * (asks.memory_bytes or 0), ticks)
