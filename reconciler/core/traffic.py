"""Usage of a service, from two samples of Envoy's counters.

Rule: unknown is not idle. A missing Envoy, a restarted Envoy, a counter that went backwards, and an old sample each
give `Usage.UNKNOWN`, with a reason. No I/O; the source of samples is an adapter (`reconciler.ports`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache

from reconciler.core.reasons import Reason, Unknown
from reconciler.core.spec import Spec, UsageUnit
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
    """One Envoy's counters. A service without an entry was never used through it."""

    uptime: float
    """Whole seconds since this Envoy started, as of its latest flush of statistics."""
    services: Mapping[str, Counters]
    at: float | None = None
    """Time of the reading, in seconds since the epoch, if each Envoy is read at its own time."""
    process: int = 0
    """Process id of the Envoy; 0 if unknown, as for an Envoy on another machine."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Counters of every Envoy, read at about the same time."""

    taken_at: float
    """Start of the reading, in seconds since the epoch: all earlier use is counted."""
    envoys: Mapping[str, EnvoyReading]
    """Complete readings by node id."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Error of each Envoy without a reading, by node id."""
    source_failed: bool = False
    """True if the common source of all readings failed, not an Envoy."""

    def read_at(self, envoy: str) -> float:
        """Return the time of an Envoy's reading, in seconds since the epoch. Raises `KeyError` if it is missing."""
        at = self.envoys[envoy].at
        return self.taken_at if at is None else at


class Usage(StrEnum):
    """The verdict on one service in the window between two samples."""

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
    """Usage of one service between `window_start` and `taken_at` (seconds since the epoch)."""

    usage: Usage
    taken_at: float
    window_start: float
    in_flight: int
    """Requests, connections, or 1 while bytes move, at `taken_at`; not valid if usage is unknown."""
    reason: str
    moved: int = 0
    """New requests, connections or bytes in the window; if usage is unknown, the known part."""
    arrived: int = 0
    """New requests and connections in the window, regardless of `idle.by`; if usage is unknown, the known part."""
    open: int = 0
    """Open requests at `taken_at`, or open connections if Envoy counts no requests; includes silent ones."""
    starting: bool = False
    """True if usage is unknown only until there are two samples of each Envoy."""

    @property
    def seen(self) -> str:
        """The use in the window, for people; if usage is unknown, the known part."""
        return f"{self.arrived} arrived, {self.moved} moved, {self.in_flight} in flight"


PROXY_HEADER_BYTES = 52
"""The longest header that Envoy sends to a hold address before the bytes of the client."""
RESTART_TOLERANCE_SECONDS = 2.0
"""Tolerance for uptimes: whole seconds, as old as Envoy's latest flush, and delayed by the reading itself."""


@dataclass(frozen=True, slots=True)
class Window:
    """Two consecutive samples and the Envoys that both must contain; those in `away` are not connected."""

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
            return Unknown(Reason.PROMETHEUS, "the sample before is empty, because the query to Prometheus failed")
        if self.after.taken_at <= self.before.taken_at:
            return Unknown(Reason.SAMPLE_NOT_NEWER, "the sample is older than the one before")
        for envoy in sorted(self.expected):
            if reason := self._unknown_envoy(envoy, self.before):
                return reason
        return None

    def _unknown_envoy(self, envoy: str, before: Sample) -> Unknown | None:
        if envoy not in self.after.envoys:
            cause = Reason.ENVOY_AWAY if envoy in self.away else Reason.ENVOY_MISSING
            reason = self.after.missing.get(envoy, "not in the sample")
            return Unknown(
                Reason.PROMETHEUS if self.after.source_failed else cause, f"Envoy {envoy} is missing: {reason}"
            )
        if envoy not in before.envoys:
            return Unknown(Reason.ENVOY_NEW, f"Envoy {envoy} was not in the sample before")
        elapsed = self.after.read_at(envoy) - before.read_at(envoy)
        return _unknown_process(envoy, before.envoys[envoy], self.after.envoys[envoy], elapsed)

    def judge(self, service: str, by: UsageUnit, unknown: Unknown | None) -> ServiceUsage:
        """Return the usage of a service in this window; `unknown` is the window's own `unknown()`, computed once.

        Unknown usage includes the known new work, which can cause a wake but never a sleep.
        """
        if self.before is None:
            unknown = unknown or FIRST_SAMPLE
            return self._judgement(Usage.UNKNOWN, unknown.message, _Sum(), unknown.code in STARTING)
        total, cause = _Sum(), unknown.message if unknown else ""
        starting = unknown is not None and unknown.code in STARTING
        is_restart = unknown is not None and unknown.code is Reason.ENVOY_RESTARTED
        for envoy, reading in self.after.envoys.items():
            before = self.before.envoys.get(envoy)
            if before is None or envoy not in self.expected:
                continue
            was, now = before.services.get(service, NEVER_USED), reading.services.get(service, NEVER_USED)
            if now.requests < was.requests or now.connections < was.connections or now.bytes < was.bytes:
                cause = cause or f"a counter of Envoy {envoy} went backwards"
                starting = starting and is_restart  # those of another process begin at 0
            else:
                total.add(was, now, by)
        if cause:
            return self._judgement(Usage.UNKNOWN, cause, total, starting)
        if not (total.moved or total.in_flight or total.arrived or total.open):
            return _quiet(self.before.taken_at, self.after.taken_at, by)
        reason = f"{pluralize(total.moved, by.one)} moved, {total.in_flight} in flight"
        return self._judgement(Usage.TRAFFIC if total.moved or total.in_flight else Usage.QUIET, reason, total)

    def _judgement(self, usage: Usage, reason: str, total: _Sum, starting: bool = False) -> ServiceUsage:
        at = self.after.taken_at
        start = self.before.taken_at if self.before else at
        return ServiceUsage(usage, at, start, total.in_flight, reason, total.moved, total.arrived, total.open, starting)


def _unknown_process(envoy: str, was: EnvoyReading, now: EnvoyReading, elapsed: float) -> Unknown | None:
    """Return why the two readings may come from different processes, or None if they do not.

    An uptime that is not longer than the window proves neither a restart nor its absence: a new Envoy and a replaced
    one show the same. Only the process id distinguishes them.
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

    def add(self, was: Counters, now: Counters, by: UsageUnit) -> None:
        match by:
            case UsageUnit.REQUESTS:
                moved, in_flight = now.requests - was.requests, now.active_requests
            case UsageUnit.CONNECTIONS:
                moved, in_flight = now.connections - was.connections, now.active_connections
            case UsageUnit.BYTES:
                moved, in_flight = now.bytes - was.bytes, int(now.bytes > was.bytes)
        self.moved += moved
        self.in_flight += in_flight
        self.arrived += now.requests - was.requests + now.connections - was.connections
        self.open += now.active_requests if now.requests else now.active_connections


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
    """Return the evidence about a service, or None if an `expected` Envoy is missing or none is expected.

    No service may be stopped, replaced or scaled to zero on the evidence of an incomplete sample.
    """
    if not expected or expected - sample.envoys.keys():
        return None
    counters = [sample.envoys[envoy].services.get(service, NEVER_USED) for envoy in expected]
    return UsageEvidence(
        sum(each.requests + each.connections for each in counters),
        sum(each.active_requests for each in counters),
        sum(each.active_connections for each in counters),
    )


def is_without_bytes(spec: Spec, usage: ServiceUsage) -> bool:
    """Return whether all use of a window may be connections to the hold address whose clients sent nothing.

    Only for a service whose route leads there. The holder reports clients that sent bytes as held, if that is what
    wakes the service.
    """
    most = PROXY_HEADER_BYTES if spec.idle_by is UsageUnit.BYTES else 1
    return spec.waits_for_bytes and usage.moved <= most * usage.arrived


@lru_cache(maxsize=len(UsageUnit))
def _quiet(start: float, taken_at: float, by: UsageUnit) -> ServiceUsage:
    """Return the usage that all unused services of a window share; most awake services are unused."""
    return ServiceUsage(Usage.QUIET, taken_at, start, 0, f"{pluralize(0, by.one)} moved, 0 in flight")


STARTING = frozenset({Reason.FIRST_SAMPLE, Reason.ENVOY_NEW, Reason.ENVOY_RESTARTED})
"""Causes that end with the next samples of the same Envoys."""
NO_SAMPLE = Unknown(Reason.FIRST_SAMPLE, "no sample yet")
FIRST_SAMPLE = Unknown(Reason.FIRST_SAMPLE, "only one sample so far")
