"""The rest of Fleet: how long wakes take, what is held and refused, and the ledger of what sleeping saves."""

from __future__ import annotations

from grafana.model import Column, Kind, Level, Panel, Query, Row, Unit
from grafana.queries import PARTS_EXPLAINED, by_part, counted, each, services, total
from grafana.theme import BAD, GOOD, PART_COLORS, REASON_COLORS, STATE_COLORS, WARNING

WINDOW = "10m"
"""Wakes are rare: what is said of them is said of all in so long."""
NO_WAKE = "nothing need have woken in the range"
MOST = 15

NO_REQUESTS = "only pods have requests, and not all of them"
_SLEPT = services("slept_replica_seconds_total")
_SLEPT_CPU, _SLEPT_MEMORY = services("slept_cpu_core_seconds_total"), services("slept_memory_byte_seconds_total")
_ASLEEP = f"avg_over_time({services('state', state='ScaledToZero')}[$__range])"
_RUNNING = f"avg_over_time({services('replicas')}[$__rate_interval])"
_SLEEPING = f"rate({_SLEPT}[$__rate_interval])"
_WAITED = services("waited_seconds_total")
_WOKEN = services("wakes_total", result="woken")
_REFUSED = counted(services("refusals_total"))


def _quantile(share: float, legend: str) -> Query:
    buckets = f"sum by (le) (rate(zenvoy_wake_duration_seconds_bucket[{WINDOW}]))"
    return Query(f"histogram_quantile({share}, {buckets})", legend, NO_WAKE, exemplars=True)


def _mean_part(part: str) -> str:
    took = f'zenvoy_wake_part_duration_seconds_%s{{part="{part}"}}[{WINDOW}]'
    return f"sum(rate({took % 'sum'})) / sum(rate({took % 'count'}))"


WAKES = Row(
    "Wakes",
    (
        Panel(
            "Wake latency",
            f"How long clients waited for a wake, from the first held connection to its first byte, of all wakes in "
            f"the {WINDOW} before. All services; exemplars name the service.",
            Kind.LINES,
            (_quantile(0.5, "half of them"), _quantile(0.95, "95 %"), _quantile(0.99, "99 %")),
            Unit.SECONDS,
            width=8,
            no_value="No wake in this range",
            colors={"half of them": GOOD, "95 %": WARNING, "99 %": BAD},
        ),
        Panel(
            "Wake latency by phase",
            f"What the mean wake consisted of, in the {WINDOW} before: {PARTS_EXPLAINED}.",
            Kind.LINES,
            by_part(_mean_part, NO_WAKE),
            Unit.SECONDS,
            width=8,
            stacked=True,
            no_value="No wake in this range",
            colors=PART_COLORS,
        ),
        Panel(
            "Flapping: wakes by service",
            f"How often each service woke in the range; the {MOST} that did so most often. One that wakes all the time "
            "sleeps too early: give it a longer idleAfter.",
            Kind.BARS,
            (
                Query(
                    f"topk({MOST}, {total(counted(_WOKEN))})",
                    "{{service}}",
                    "a service has this series from its first wake on",
                ),
            ),
            width=8,
            no_value="No wake in this range",
        ),
    ),
)

HELD = Row(
    "Held and refused",
    (
        Panel(
            "Held connections",
            f"Connections that waited for a service to wake, of the {MOST} services with most of them.",
            Kind.LINES,
            (Query(f"topk({MOST}, {each(services('held'))})", "{{service}}"),),
            width=8,
            links_to_service=True,
        ),
        Panel(
            "Released, refused, given up",
            "What became of held connections in the range: connected to their service; refused; left by their client.",
            Kind.NUMBER,
            (
                Query(f"sum({counted(services('released_total'))})", "Released"),
                Query(f"sum({_REFUSED}) or vector(0)", "Refused"),
                Query(f"sum({counted(services('gone_total'))})", "Given up"),
            ),
            width=8,
        ),
        Panel(
            "Refused by reason",
            "Connections refused in the range, by reason: max_held (too many waited already), timeout (held for as "
            "long as allowed), and what else docs/metrics.md lists.",
            Kind.BARS,
            (
                Query(
                    f"sum by (reason) ({_REFUSED}) > 0",
                    "{{reason}}",
                    "nothing need have been refused",
                ),
            ),
            width=8,
            no_value="Nothing was refused",
            colors=REASON_COLORS,
        ),
    ),
)

LEDGER = Row(
    "Savings ledger",
    (
        Panel(
            "The ledger",
            "In the range: replica-seconds that were not run because services slept, and seconds that clients waited "
            "for that, all waits added up.",
            Kind.NUMBER,
            (
                Query(f"sum({total(counted(_SLEPT))})", "Replica-time not run"),
                Query(f"sum({counted(_WAITED)})", "Waited"),
            ),
            Unit.SECONDS,
            width=6,
            levels=(Level(None, GOOD),),
        ),
        Panel(
            "Requests not run",
            "What the pods that were not run in the range would have asked for: their requests of CPU and memory times "
            "how long their services slept, in core-hours and GiB-hours.",
            Kind.NUMBER,
            (
                Query(f"sum({total(counted(_SLEPT_CPU))}) / 3600", "Core-hours", NO_REQUESTS),
                Query(f"sum({total(counted(_SLEPT_MEMORY))}) / {3600 * 2**30}", "GiB-hours", NO_REQUESTS),
            ),
            width=4,
            levels=(Level(None, GOOD),),
            no_value="No pod's requests are known",
        ),
        Panel(
            "Time asleep",
            "Which share of the range services were asleep, all of them together.",
            Kind.NUMBER,
            (Query(f"avg({each(_ASLEEP)})", "Time asleep"),),
            Unit.SHARE,
            width=2,
            levels=(Level(None, STATE_COLORS["ScaledToZero"]),),
        ),
        Panel(
            "Replicas that run and that sleep",
            "Replicas that exist, and those that would, if services that sleep had as many as last.",
            Kind.LINES,
            (
                Query(f"sum({each(_RUNNING)})", "run"),
                Query(f"sum({each(_SLEEPING)})", "sleep"),
            ),
            width=6,
            stacked=True,
            colors={"run": STATE_COLORS["Active"], "sleep": STATE_COLORS["ScaledToZero"]},
        ),
        Panel(
            "The ledger by service",
            f"The {MOST} services that saved most in the range: replica-seconds not run, and what their clients waited "
            "for it, all waits added up.",
            Kind.TABLE,
            (
                Query(f"topk({MOST}, {total(counted(_SLEPT))})"),
                Query(f"{total(counted(_WAITED))} and topk({MOST}, {total(counted(_SLEPT))})"),
            ),
            width=6,
            sort="Not run",
            columns=(
                Column("service", "Service", links_to_service=True),
                Column("A", "Not run", Unit.SECONDS),
                Column("B", "Waited", Unit.SECONDS),
            ),
        ),
    ),
)
