"""Rows of the Fleet dashboard: wakes, held and refused connections, and savings."""

from __future__ import annotations

from grafana.model import Column, Kind, Level, Panel, Query, Row, Unit
from grafana.queries import PARTS_EXPLAINED, by_part, counted, each, services, total
from grafana.theme import BAD, GOOD, PART_COLORS, REASON_COLORS, STATE_COLORS, WARNING

WINDOW = "10m"
"""Long enough to include several wakes, which are rare."""
NO_WAKE = "no service woke in the range"
MOST = 15

NO_REQUESTS = "no pod declares requests"
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
            f"Time from the first held connection to its first byte, over all wakes in the previous {WINDOW}. "
            "Exemplars name the service.",
            Kind.LINES,
            (_quantile(0.5, "50 %"), _quantile(0.95, "95 %"), _quantile(0.99, "99 %")),
            Unit.SECONDS,
            width=8,
            no_value="No wake in this range",
            colors={"50 %": GOOD, "95 %": WARNING, "99 %": BAD},
        ),
        Panel(
            "Wake latency by phase",
            f"Mean duration of each part of a wake in the previous {WINDOW}. {PARTS_EXPLAINED}.",
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
            f"Wakes in the range, for the {MOST} services that woke most often. If a service wakes too often, increase "
            "its idleAfter.",
            Kind.BARS,
            (
                Query(
                    f"topk({MOST}, {total(counted(_WOKEN))})",
                    "{{service}}",
                    "no service has ever woken",
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
            f"Connections waiting for a service to wake, for the {MOST} services with the most.",
            Kind.LINES,
            (Query(f"topk({MOST}, {each(services('held'))})", "{{service}}"),),
            width=8,
            links_to_service=True,
        ),
        Panel(
            "Released, refused, given up",
            "Held connections in the range: released to the service, refused, or closed by the client.",
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
            "Connections refused in the range, by reason: max_held (maxHeld reached), timeout (holdTimeout passed), "
            "and others in docs/metrics.md.",
            Kind.BARS,
            (
                Query(
                    f"sum by (reason) ({_REFUSED}) > 0",
                    "{{reason}}",
                    "no connection was refused",
                ),
            ),
            width=8,
            no_value="Nothing was refused",
            colors=REASON_COLORS,
        ),
    ),
)

LEDGER = Row(
    "Savings",
    (
        Panel(
            "Saved and waited",
            "Replica-seconds saved by sleeping in the range, and the total time that clients waited for wakes.",
            Kind.NUMBER,
            (
                Query(f"sum({total(counted(_SLEPT))})", "Replica time saved"),
                Query(f"sum({counted(_WAITED)})", "Waited"),
            ),
            Unit.SECONDS,
            width=6,
            levels=(Level(None, GOOD),),
        ),
        Panel(
            "Requests saved",
            "CPU and memory requests of the pods that did not run in the range, multiplied by the time their services "
            "slept, in core-hours and GiB-hours.",
            Kind.NUMBER,
            (
                Query(f"sum({total(counted(_SLEPT_CPU))}) / 3600", "Core-hours", NO_REQUESTS),
                Query(f"sum({total(counted(_SLEPT_MEMORY))}) / {3600 * 2**30}", "GiB-hours", NO_REQUESTS),
            ),
            width=4,
            levels=(Level(None, GOOD),),
            no_value="No requests are known",
        ),
        Panel(
            "Time asleep",
            "Share of the range that services were asleep, averaged over all services.",
            Kind.NUMBER,
            (Query(f"avg({each(_ASLEEP)})", "Time asleep"),),
            Unit.SHARE,
            width=2,
            levels=(Level(None, STATE_COLORS["ScaledToZero"]),),
        ),
        Panel(
            "Running and sleeping replicas",
            "Replicas that exist, and replicas that sleeping services had before they fell asleep.",
            Kind.LINES,
            (
                Query(f"sum({each(_RUNNING)})", "running"),
                Query(f"sum({each(_SLEEPING)})", "asleep"),
            ),
            width=6,
            stacked=True,
            colors={"running": STATE_COLORS["Active"], "asleep": STATE_COLORS["ScaledToZero"]},
        ),
        Panel(
            "Saved and waited by service",
            f"The {MOST} services that saved most in the range: replica-seconds saved, and the total time that their "
            "clients waited.",
            Kind.TABLE,
            (
                Query(f"topk({MOST}, {total(counted(_SLEPT))})"),
                Query(f"{total(counted(_WAITED))} and topk({MOST}, {total(counted(_SLEPT))})"),
            ),
            width=6,
            sort="Saved",
            columns=(
                Column("service", "Service", links_to_service=True),
                Column("A", "Saved", Unit.SECONDS),
                Column("B", "Waited", Unit.SECONDS),
            ),
        ),
    ),
)
