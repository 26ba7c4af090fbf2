"""The metrics of each service, as text. Pure, and fast: 10,000 services have a quarter of a million lines.

prometheus-client takes 5 to 13 µs per line, which is seconds for so many. Therefore these metrics are rendered here, in
both of its formats. Formats: https://prometheus.io/docs/instrumenting/exposition_formats/
and https://prometheus.io/docs/specs/om/open_metrics_spec/
"""

from __future__ import annotations

from reconciler.core.busy import blocker_of
from reconciler.core.record import Record, State
from reconciler.metrics.definitions import (
    BUSY_INFO,
    FIGURES,
    LAST_WAKE,
    LAST_WAKE_PART,
    REFUSALS,
    SERVICE_FAMILIES,
    STALLED_INFO,
    STATE,
    TRANSITIONS,
    WAKES,
    Family,
)
from reconciler.metrics.service_counters import ServiceCounters
from reconciler.metrics.sources import ServiceSource

_FRESH = ServiceCounters()
_STATES = {
    present: tuple((f',state="{state.value}"}} ', int(state is present)) for state in State) for present in State
}


class Page:
    """The lines by metric; `now` is seconds since the epoch, `ticks` is for the counters."""

    def __init__(self, now: float, ticks: float) -> None:
        self._now, self._ticks = now, ticks
        self._lines: dict[str, list[str]] = {family.name: [] for family in SERVICE_FAMILIES}
        self._figures = tuple((self._lines[family.name].append, family.sample_name) for family in FIGURES)

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
            self._lines[STALLED_INFO.name].append(f'{STALLED_INFO.name}{tag},reason="{diagnosis.code}"}} 1\n')
        if (service.seen.busy or service.seen.busy_until) and record.state is not State.ScaledToZero:
            blocker = blocker_of(service.spec, service.seen.busy, service.seen.busy_until, self._now)
            if blocker:
                self._lines[BUSY_INFO.name].append(f'{BUSY_INFO.name}{tag},reason="{blocker.code}"}} 1\n')
        if counters is not None:
            self._add_events(tag, counters, service.spec.wake_timeout)

    def text(self, openmetrics: bool, rest: bytes) -> bytes:
        """Return all metrics, followed by `rest`. Joined by metric: one large join would block other threads."""
        parts = [
            "".join((head(family, openmetrics), *self._lines[family.name])).encode() for family in SERVICE_FAMILIES
        ]
        return b"".join((*parts, rest))

    def _add_events(self, tag: str, counters: ServiceCounters, wake_timeout: float) -> None:
        transitions = self._lines[TRANSITIONS.name]
        for (source, target, event), count in counters.transitions.items():
            labels = f'{tag},from="{source}",to="{target}",event="{event}"}}'
            transitions.append(f"{TRANSITIONS.sample_name}{labels} {count}\n")
        refusals = self._lines[REFUSALS.name]
        for reason, refused in counters.refusals.items():
            labels = f'{tag},reason="{escaped(reason)}"}}'
            refusals.append(f"{REFUSALS.sample_name}{labels} {refused.total}\n")
        if counters.begun:
            late = counters.timed_out(self._now, wake_timeout)
            self._lines[WAKES.name] += [
                f'{WAKES.sample_name}{tag},result="{result}"}} {count}\n'
                for result, count in (
                    ("woken", counters.wakes_ready),
                    ("stalled", counters.wakes_stalled),
                    ("timed_out", late),
                )
            ]
        if counters.last_wake:
            total, parts = counters.last_wake
            self._lines[LAST_WAKE.name].append(f"{LAST_WAKE.name}{tag}}} {total}\n")
            self._lines[LAST_WAKE_PART.name] += [
                f'{LAST_WAKE_PART.name}{tag},part="{escaped(part)}"}} {seconds}\n' for part, seconds in parts.items()
            ]


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
