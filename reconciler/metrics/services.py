"""The metrics of each service, as text. Pure, and fast: 10,000 services have a quarter of a million lines.

prometheus-client takes 5 to 13 µs per line, which is seconds for so many. Therefore these metrics are rendered here, in
both of its formats. Formats: https://prometheus.io/docs/instrumenting/exposition_formats/
and https://prometheus.io/docs/specs/om/open_metrics_spec/
"""

from __future__ import annotations

from typing import Protocol

from reconciler.core.busy import blocker_of
from reconciler.core.judge import Observed
from reconciler.core.record import Record, State
from reconciler.core.spec import Spec
from reconciler.metrics import definitions
from reconciler.metrics.definitions import FIGURES, SERVICE_FAMILIES, STATE, Family
from reconciler.metrics.service_counters import ServiceCounters
from reconciler.plan import Deadline
from reconciler.ports.backend import ResourceRequests

_FRESH = ServiceCounters()
_STATES = {
    present: tuple((f',state="{state.value}"}} ', int(state is present)) for state in State) for present in State
}


class ServiceSource(Protocol):
    """One service of the engine, by its structure: adapters do not import the engine. Only the engine changes it."""

    spec: Spec
    record: Record | None
    seen: Observed
    deadline: Deadline | None
    requests: int
    recovers: bool
    asks: ResourceRequests

    @property
    def saved_seconds(self) -> float | None: ...
    @property
    def woke_early(self) -> bool | None: ...


class Page:
    """The lines by metric; `now` is seconds since the epoch, `ticks` is for the counters."""

    def __init__(self, now: float, ticks: float) -> None:
        self._now, self._ticks = now, ticks
        self._lines: dict[str, list[str]] = {family.name: [] for family in SERVICE_FAMILIES}
        self._writers = {
            family.name: (self._lines[family.name].append, family.sample_name) for family in SERVICE_FAMILIES
        }
        self._figures = tuple(self._writers[family.name] for family in FIGURES)

    def add(self, name: str, service: ServiceSource, counters: ServiceCounters | None) -> None:
        """Add all metrics of one service; none while it has no record."""
        if (record := service.record) is None:
            return
        tag = f'{{service="{escaped(name)}"'
        self._lines[STATE.name] += [f"{STATE.name}{tag}{label}{value}\n" for label, value in _STATES[record.state]]
        known = figures(service, record, counters or _FRESH, self._ticks)
        for (append, metric), figure in zip(self._figures, known, strict=True):
            if figure is not None:
                append(f"{metric}{tag}}} {figure}\n")
        if diagnosis := record.diagnosis:
            self._write(definitions.STALLED_INFO, f'{tag},reason="{diagnosis.code}"', 1)
        if (service.seen.busy or service.seen.busy_until) and record.state is not State.ScaledToZero:
            blocker = blocker_of(service.spec, service.seen.busy, service.seen.busy_until, self._now)
            if blocker:
                self._write(definitions.BUSY_INFO, f'{tag},reason="{blocker.code}"', 1)
        if counters is not None:
            self._add_events(tag, counters, service.spec.wake_timeout)

    def text(self, openmetrics: bool, rest: bytes) -> bytes:
        """Return all metrics, followed by `rest`. Joined by metric: one large join would block other threads."""
        parts = [
            "".join((head(family, openmetrics), *self._lines[family.name])).encode() for family in SERVICE_FAMILIES
        ]
        return b"".join((*parts, rest))

    def _add_events(self, tag: str, counters: ServiceCounters, wake_timeout: float) -> None:
        for (source, target, event), count in counters.transitions.items():
            self._write(definitions.TRANSITIONS, f'{tag},from="{source}",to="{target}",event="{event}"', count)
        for reason, refused in counters.refusals.items():
            self._write(definitions.REFUSALS, f'{tag},reason="{escaped(reason)}"', refused.total)
        if counters.begun:
            self._write(definitions.WAKES, f'{tag},result="woken"', counters.wakes_ready)
            self._write(definitions.WAKES, f'{tag},result="stalled"', counters.wakes_stalled)
            self._write(definitions.WAKES, f'{tag},result="timed_out"', counters.timed_out(self._now, wake_timeout))
        if counters.last_wake:
            total, parts = counters.last_wake
            self._write(definitions.LAST_WAKE, tag, total)
            for part, seconds in parts.items():
                self._write(definitions.LAST_WAKE_PART, f'{tag},part="{escaped(part)}"', seconds)

    def _write(self, family: Family, labels: str, value: float) -> None:
        append, metric = self._writers[family.name]
        append(f"{metric}{labels}}} {value}\n")


def figures(
    service: ServiceSource, record: Record, counters: ServiceCounters, ticks: float
) -> tuple[float | None, ...]:
    """Return one value for each of `FIGURES`, in their order; None for no series."""
    spec, seen, deadline = service.spec, service.seen, service.deadline
    return (
        record.since,
        int(record.stalled is not None),
        int(spec.paused),
        seen.replicas,
        seen.held,
        seen.relayed,
        counters.released.total,
        counters.refused.total,
        counters.gone.total,
        service.requests,
        spec.wake_timeout,
        spec.idle_after,
        spec.hold_timeout,
        deadline.at if deadline else None,
        counters.slept.read(ticks),
        counters.slept_cpu.read(ticks) if service.asks.cpu_cores is not None else None,
        counters.slept_memory.read(ticks) if service.asks.memory_bytes is not None else None,
        counters.waited.read(ticks),
        None if service.woke_early is None else int(service.woke_early),
        service.saved_seconds,
    )


def head(family: Family, openmetrics: bool) -> str:
    """Return the two lines that introduce a metric."""
    name = family.name if openmetrics else family.sample_name
    return f"# HELP {name} {family.help}\n# TYPE {name} {family.kind}\n"


def escaped(value: str) -> str:
    """Escape the value of a label."""
    if "\\" in value or '"' in value or "\n" in value:
        return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
    return value
