"""What is counted of one service as things happen to it: transitions, wakes, the ledger of sleep against waiting.

Rule: times are arguments: seconds since the epoch, but `ticks`, which are seconds of a clock that is never set. Only
what a counter needs and no record has is kept here; it begins anew with the process, as Prometheus expects of counters.
What did not happen to a service, which is nearly everything, is one object for all of them.
Fed by `metrics.py` on the event loop, read by `services.py` in a thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from reconciler.core.record import Record, State
from reconciler.ports.backend import ResourceRequests
from reconciler.ports.holders import HoldStatus
from reconciler.ports.transitions import Transition


@dataclass(frozen=True, slots=True)
class Rising:
    """A total over all holders that never falls, though the holders' own do when one of them goes."""

    total: int = 0
    _last: int = 0

    def saw(self, value: int, news: bool) -> Rising:
        """What was counted before a holder came to us is no news: it would look as if it had happened just now."""
        if value == self._last:
            return self
        return Rising(self.total + max(0, value - self._last) if news else self.total, value)


NEVER = Rising()
NO_REFUSALS: Mapping[str, Rising] = MappingProxyType({})
NO_TRANSITIONS: Mapping[tuple[str, str, str], int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Meter:
    """Something that grows by `rate` a second. Replaced whole, so that a thread that reads it sees all of a change."""

    total: float = 0.0
    rate: float = 0.0
    at: float = 0.0

    def read(self, ticks: float) -> float:
        return self.total + self.rate * max(0.0, ticks - self.at)

    def at_rate(self, rate: float, ticks: float) -> Meter:
        """From now on it grows by this rate."""
        return self if rate == self.rate else Meter(self.read(ticks), rate, ticks)


@dataclass(slots=True)
class ServiceCounters:
    """One service."""

    slept: Meter = Meter()
    """Replica-seconds not run."""
    slept_cpu: Meter = Meter()
    """Core-seconds not asked for."""
    slept_memory: Meter = Meter()
    """Byte-seconds not asked for."""
    waited: Meter = Meter()
    """Seconds that held connections waited, all added up."""
    waking_since: float | None = None
    stalled: bool = False
    """Whether the present wake has stalled."""
    wakes_ready: int = 0
    """Wakes that ended awake."""
    wakes_stalled: int = 0
    wakes_late: int = 0
    """Wakes that outlasted their time-out, but for the present one."""
    begun: bool = False
    """Whether there was a wake at all."""
    recovers: bool = False
    """Whether it is Waking without having slept: what it lost comes back, or is renewed."""
    before_wake: tuple[int, int] | None = None
    """Requests and released connections when the last wake began; None: it was awake when we came."""
    last_wake: tuple[float, Mapping[str, float]] | None = None
    """Seconds, whole and by part."""
    transitions: Mapping[tuple[str, str, str], int] = field(default_factory=lambda: NO_TRANSITIONS)
    """By state before, state after, and event."""
    released: Rising = NEVER
    refused: Rising = NEVER
    gone: Rising = NEVER
    refusals: Mapping[str, Rising] = field(default_factory=lambda: NO_REFUSALS)
    """By reason, from the first on."""
    _holders: frozenset[str] = frozenset()

    @classmethod
    def of(cls, record: Record, asks: ResourceRequests, ticks: float) -> ServiceCounters:
        """For a service seen for the first time by this process."""
        counters = cls()
        if record.state is State.ScaledToZero:
            counters.sleeps(record.replicas, asks, ticks)
        elif record.state is State.Waking:
            counters.waking_since, counters.begun, counters.stalled = record.since, True, record.stalled is not None
        return counters

    def timed_out(self, now: float, wake_timeout: float) -> int:
        """Wakes that outlasted `wake_timeout`, the present one included."""
        present = self.waking_since is not None and now - self.waking_since >= wake_timeout
        return self.wakes_late + present

    def saw_held(self, held: HoldStatus, holders: frozenset[str], ticks: float) -> None:
        """`holders` are those that are connected. Totals of some of them only are waited with until all have told."""
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
        """`record` is the one after it, `requests` are all so far."""
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
        """From now on so many replicas, which ask for so much, are not run for being asleep."""
        self.slept = self.slept.at_rate(replicas, ticks)
        self.slept_cpu = self.slept_cpu.at_rate(replicas * (asks.cpu_cores or 0), ticks)
        self.slept_memory = self.slept_memory.at_rate(replicas * (asks.memory_bytes or 0), ticks)
