"""Usage of a service, from two samples of Envoy's counters.

Rule 1 of the project lives here: unknown is not idle. A missing Envoy, a restarted one, a counter that went backwards,
an old sample: each is `Usage.UNKNOWN`, with a reason. No I/O; a sample's source is an adapter (`reconciler.ports`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache

from reconciler.core.reasons import Reason, Unknown
from reconciler.core.spec import IdleBy, Spec
from reconciler.core.text import pluralize


@dataclass(frozen=True, slots=True)
class Counters:
    """Counters of one service in one Envoy since that Envoy started; the last two are gauges."""

    requests: int = 0
    connections: int = 0
    bytes: int = 0
    active_requests: int = 0
    active_connections: int = 0


@dataclass(frozen=True, slots=True)
class EnvoyReading:
    """One Envoy's counters. A service that it does not name was never used through it."""

    uptime: float
    """Whole seconds since this Envoy started, as of its latest flush of statistics."""
    services: Mapping[str, Counters]
    at: float | None = None
    """When it was read, in seconds since the epoch, where each Envoy is read at a time of its own."""
    process: int = 0
    """Process id of the Envoy that answered; 0 where it is not known, as for an Envoy on another machine."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Counters of every Envoy, read at about the same time."""

    taken_at: float
    """When the reading began, in seconds since the epoch: everything before it is counted."""
    envoys: Mapping[str, EnvoyReading]
    """By Envoy's node id; only those that answered in full."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """The error of each Envoy that should have answered and did not, by node id."""
    source_failed: bool = False
    """No Envoy is to blame: who was asked of all of them could not say."""

    def read_at(self, envoy: str) -> float:
        """When this Envoy's reading is from, in seconds since the epoch. Raises `KeyError` for one that is missing."""
        at = self.envoys[envoy].at
        return self.taken_at if at is None else at


class Usage(StrEnum):
    """The judgement on one service over one window between two samples."""

    QUIET = "quiet"
    TRAFFIC = "traffic"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Pace:
    """Timing of a source of samples, in seconds."""

    stale_after: float
    """Age at which a sample is ignored."""
    lag: float = 0.0
    """Longest delay, without a fault, until a sample covers the present."""


@dataclass(frozen=True, slots=True)
class ServiceUsage:
    """One service's use between `window_start` and `taken_at` (seconds since the epoch)."""

    usage: Usage
    taken_at: float
    window_start: float
    in_flight: int
    """Requests, connections, or 1 while bytes move, at `taken_at`; meaningless when unknown."""
    reason: str
    moved: int = 0
    """Requests, connections or bytes that came within the window. When unknown: those that are known of."""
    arrived: int = 0
    """New requests and connections within the window, whichever figure is judged by. When unknown: those known of."""
    open: int = 0
    """Requests, or connections where Envoy knows no requests, that are open at `taken_at`, silent or not."""
    starting: bool = False
    """Unknown only because there are no two samples of each Envoy yet: the next samples decide."""

    @property
    def seen(self) -> str:
        """The use in the window, for people; when unknown, the known part of it."""
        return f"{self.arrived} arrived, {self.moved} moved, {self.in_flight} in flight"


RESTART_TOLERANCE_SECONDS = 2.0
"""Envoy's uptime is whole seconds and as old as the latest flush; a reading may also take a while to arrive."""


@dataclass(frozen=True, slots=True)
class Window:
    """Two samples that follow one another, and the Envoys that had to be in both; those in `away` are not connected."""

    before: Sample | None
    after: Sample
    expected: frozenset[str]
    away: frozenset[str] = frozenset()

    def unknown(self) -> Unknown | None:
        """Return why usage is unknown for every service, or None if this window is complete."""
        if not self.expected:
            return Unknown(Reason.NO_ENVOY, "no Envoy is connected")
        if self.before is None:
            return FIRST_SAMPLE
        if self.before.source_failed and not self.after.source_failed:
            return Unknown(Reason.PROMETHEUS, "the sample before has nothing: Prometheus could not say")
        if self.after.taken_at <= self.before.taken_at:
            return Unknown(Reason.SAMPLE_NOT_NEWER, "the sample is older than the one before")
        for envoy in sorted(self.expected):
            if why := self._unknown_envoy(envoy, self.before):
                return why
        return None

    def _unknown_envoy(self, envoy: str, before: Sample) -> Unknown | None:
        if envoy not in self.after.envoys:
            why = self.after.missing.get(envoy, "not in the sample")
            return Unknown(self._cause_of_missing(envoy), f"Envoy {envoy} is missing: {why}")
        if envoy not in before.envoys:
            return Unknown(Reason.ENVOY_NEW, f"Envoy {envoy} was not in the sample before")
        elapsed = self.after.read_at(envoy) - before.read_at(envoy)
        return _unknown_process(envoy, before.envoys[envoy], self.after.envoys[envoy], elapsed)

    def _cause_of_missing(self, envoy: str) -> Reason:
        if self.after.source_failed:
            return Reason.PROMETHEUS
        return Reason.ENVOY_AWAY if envoy in self.away else Reason.ENVOY_MISSING

    def judge(self, service: str, by: IdleBy, unknown: Unknown | None) -> ServiceUsage:
        """Return the usage of a service in this window; `unknown` is the window's own `unknown()`, computed once.

        When unknown, it has what is known to have come: that is enough to wake, and never enough to sleep.
        """
        if self.before is None:
            unknown = unknown or FIRST_SAMPLE
            return self._judgement(Usage.UNKNOWN, unknown.message, _Sum(), unknown.code in STARTING)
        total, words = _Sum(), unknown and unknown.message
        starting = unknown is not None and unknown.code in STARTING
        for envoy, reading in self.after.envoys.items():
            before = self.before.envoys.get(envoy)
            if before is None or envoy not in self.expected:
                continue
            was, now = before.services.get(service, NEVER_USED), reading.services.get(service, NEVER_USED)
            if now.requests < was.requests or now.connections < was.connections or now.bytes < was.bytes:
                words, starting = words or f"a counter of Envoy {envoy} went backwards", False
            else:
                total.add(was, now, by)
        if words:
            return self._judgement(Usage.UNKNOWN, words, total, starting)
        if total.is_nothing:
            return _quiet(self.before.taken_at, self.after.taken_at, by)
        reason = f"{pluralize(total.moved, by.one)} moved, {total.in_flight} in flight"
        return self._judgement(Usage.TRAFFIC if total.moved or total.in_flight else Usage.QUIET, reason, total)

    def _judgement(self, usage: Usage, reason: str, total: _Sum, starting: bool = False) -> ServiceUsage:
        at = self.after.taken_at
        start = self.before.taken_at if self.before else at
        return ServiceUsage(usage, at, start, total.in_flight, reason, total.moved, total.arrived, total.open, starting)


def _unknown_process(envoy: str, was: EnvoyReading, now: EnvoyReading, elapsed: float) -> Unknown | None:
    """Return why both readings may not be of one process.

    An uptime that is no longer than the window proves neither a restart nor its absence: an Envoy that has just started
    shows the same as one that was replaced meanwhile. Only the process id tells these apart.
    """
    known = was.process != 0 and now.process != 0
    ran = now.uptime - was.uptime
    if (known and was.process != now.process) or ran < 0 or ran < elapsed - RESTART_TOLERANCE_SECONDS:
        return Unknown(Reason.ENVOY_RESTARTED, f"Envoy {envoy} restarted")
    if not known and now.uptime <= elapsed + RESTART_TOLERANCE_SECONDS:
        return Unknown(Reason.ENVOY_NEW, f"Envoy {envoy} has just started: no complete sample yet")
    return None


@dataclass(slots=True)
class _Sum:
    """Sum of one service's usage over Envoys in one window."""

    moved: int = 0
    in_flight: int = 0
    arrived: int = 0
    open: int = 0

    def add(self, was: Counters, now: Counters, by: IdleBy) -> None:
        self.moved += _moved(was, now, by)
        self.in_flight += _in_flight(was, now, by)
        self.arrived += now.requests - was.requests + now.connections - was.connections
        self.open += now.active_requests if now.requests else now.active_connections

    @property
    def is_nothing(self) -> bool:
        return not (self.moved or self.in_flight or self.arrived or self.open)


NEVER_USED = Counters()


@dataclass(frozen=True, slots=True)
class UsageEvidence:
    """The counters of one service, summed over all Envoys, from one complete sample."""

    uses: int
    """Requests and connections since each Envoy started."""
    active_requests: int
    active_connections: int

    def in_flight(self, spec: Spec) -> int:
        """Return the open requests, or the open connections of a protocol without requests."""
        return self.active_requests if spec.protocol.is_http else self.active_connections


def evidence(sample: Sample, expected: frozenset[str], service: str) -> UsageEvidence | None:
    """Return what a sample proves about a service, or None if one of the `expected` Envoys, or every one, is missing.

    Nothing may be stopped, replaced or scaled to zero on the evidence of an incomplete sample.
    """
    if not expected or expected - sample.envoys.keys():
        return None
    counters = [sample.envoys[envoy].services.get(service, NEVER_USED) for envoy in expected]
    return UsageEvidence(
        sum(each.requests + each.connections for each in counters),
        sum(each.active_requests for each in counters),
        sum(each.active_connections for each in counters),
    )


def in_flight(spec: Spec, sample: Sample, expected: frozenset[str]) -> int | None:
    """Return the work in flight to a service, or None if the sample is not complete."""
    found = evidence(sample, expected, spec.name)
    return None if found is None else found.in_flight(spec)


@lru_cache(maxsize=len(IdleBy))
def _quiet(start: float, taken_at: float, by: IdleBy) -> ServiceUsage:
    """One object for all services of a window that were not used: most of those that are awake."""
    return ServiceUsage(Usage.QUIET, taken_at, start, 0, f"{pluralize(0, by.one)} moved, 0 in flight")


STARTING = frozenset({Reason.FIRST_SAMPLE, Reason.ENVOY_NEW})
"""Doubts that end with the next samples of the same Envoys."""
NO_SAMPLE = Unknown(Reason.FIRST_SAMPLE, "no sample yet")
FIRST_SAMPLE = Unknown(Reason.FIRST_SAMPLE, "only one sample so far")


def _moved(was: Counters, now: Counters, by: IdleBy) -> int:
    match by:
        case IdleBy.REQUESTS:
            return now.requests - was.requests
        case IdleBy.CONNECTIONS:
            return now.connections - was.connections
        case IdleBy.BYTES:
            return now.bytes - was.bytes


def _in_flight(was: Counters, now: Counters, by: IdleBy) -> int:
    match by:
        case IdleBy.REQUESTS:
            return now.active_requests
        case IdleBy.CONNECTIONS:
            return now.active_connections
        case IdleBy.BYTES:
            return 1 if now.bytes > was.bytes else 0
