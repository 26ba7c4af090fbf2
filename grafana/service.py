"""The Service dashboard: one service in detail."""

from __future__ import annotations

from grafana.model import Board, Column, Kind, Level, Panel, Query, Row, Unit
from grafana.queries import (
    CODES,
    NAMESPACE,
    PARTS_EXPLAINED,
    SERVICE,
    began,
    by_part,
    counted,
    each,
    service,
    state_code,
    where,
)
from grafana.theme import BAD, GOOD, PART_COLORS, REASON_COLORS, STATE_COLORS, STATE_NAMES, WARNING

NAMES = {CODES[state]: shown for state, shown in STATE_NAMES.items()}
NEVER_WOKEN = "the service has never woken"
STATE = state_code(service)
ENVOY = 'envoy_cluster_name=~"$service"'
"""A pattern, because Envoy's label has `~` for every dot in the name, and a dot matches it."""

_LAST_WAKE = service("last_wake_duration_seconds")
_TRANSITIONS = service("transitions_total")
_STALL_REASON = service("stalled_info")
_REFUSED = counted(service("refusals_total"))
_HAPPENED = (
    f"{_TRANSITIONS} > {_TRANSITIONS} offset $__interval or {_TRANSITIONS} unless {_TRANSITIONS} offset $__interval"
)


def _part(part: str) -> str:
    return each(service("last_wake_part_duration_seconds", part=part))


def _number(title: str, description: str, expr: str, unit: Unit, *levels: Level, maybe: str = "") -> Panel:
    query = Query(expr, title, maybe)
    return Panel(title, description, Kind.NUMBER, (query,), unit, width=4, height=4, levels=levels, no_value="none")


NOW = Row(
    "$service now",
    (
        Panel(
            "State",
            "The current state. Stalled: the service is Waking and makes no progress.",
            Kind.NUMBER,
            (Query(STATE, "State"),),
            width=4,
            height=4,
            names=NAMES,
        ),
        _number(
            "For",
            "Time since the service entered this state.",
            f"time() - {each(service('state_entered_timestamp_seconds'))}",
            Unit.SECONDS,
        ),
        _number(
            "Until its deadline",
            "Time until the deadline of the state. Idle: the service is put to sleep. Waking: the wake has stalled. "
            "Draining: the service stays awake. Active and ScaledToZero have no deadline and show 0.",
            f"{each(service('deadline_timestamp_seconds'))} - time() or 0 * {each(service('stalled'))}",
            Unit.SECONDS,
        ),
        _number("Replicas", "Desired replicas of the service.", each(service("replicas")), Unit.COUNT),
        _number(
            "Held",
            "Connections that are currently waiting for the service.",
            f"sum({each(service('held'))}) or vector(0)",
            Unit.COUNT,
            *(Level(None, GOOD), Level(1, WARNING)),
        ),
        _number(
            "Last wake",
            "Duration of the last wake, from the first held connection to its first byte.",
            each(_LAST_WAKE),
            Unit.SECONDS,
            maybe=NEVER_WOKEN,
        ),
    ),
)

OVER_TIME = Row(
    "States and traffic",
    (
        Panel(
            "State over time",
            "States over time. Compare them with the requests and connections below.",
            Kind.TIMELINE,
            (Query(STATE, "{{service}}"),),
            width=24,
            height=4,
            names=NAMES,
        ),
        Panel(
            "Requests",
            "Requests per second, or connections per second for TCP and TLS, as counted by Envoy.",
            Kind.LINES,
            (Query(each(f"rate({service('requests_total')}[$__rate_interval])"), "requests"),),
            Unit.PER_SECOND,
            width=8,
            colors={"requests": STATE_COLORS["Active"]},
        ),
        Panel(
            "Connections from Envoy",
            "Open connections from Envoys to the service or, instead, to a holder.",
            Kind.LINES,
            (Query(f"sum(envoy_cluster_upstream_cx_active{{{ENVOY}}}) or vector(0)", "open"),),
            width=8,
            colors={"open": "#6e9fff"},
        ),
        Panel(
            "Connections in holders",
            "Held: waiting for the service to wake. Relayed: connected through a holder, because they arrived while "
            "the service was not awake.",
            Kind.LINES,
            (
                Query(f"sum({each(service('held'))}) or vector(0)", "held"),
                Query(f"sum({each(service('relayed'))}) or vector(0)", "relayed"),
            ),
            width=8,
            colors={"held": WARNING, "relayed": "#a77bd1"},
        ),
    ),
)

WAKES = Row(
    "Wakes",
    (
        Panel(
            "Wakes by part",
            f"One bar for each wake, at the time it ended. {PARTS_EXPLAINED}. If several wakes ended between two "
            "points, the last one is shown.",
            Kind.LINES,
            by_part(lambda part: where(_part(part), began(_LAST_WAKE)), NEVER_WOKEN),
            Unit.SECONDS,
            stacked=True,
            as_bars=True,
            no_value="No wake in this range",
            colors=PART_COLORS,
        ),
        Panel(
            "Last wake by part",
            "Duration of each part of the last wake, in order.",
            Kind.BARS,
            by_part(_part, NEVER_WOKEN),
            Unit.SECONDS,
            width=6,
            no_value="No wake yet",
            colors=PART_COLORS,
        ),
        Panel(
            "Wakes by result",
            "Wakes in the range that woke the service, that stalled, or that took longer than wakeTimeout. A wake can "
            "count in all three.",
            Kind.BARS,
            (Query(f"sum by (result) ({counted(service('wakes_total'))})", "{{result}}", NEVER_WOKEN),),
            width=6,
            no_value="No wake yet",
            colors={"woken": GOOD, "stalled": WARNING, "timed_out": BAD},
        ),
    ),
)

REASONS = Row(
    "Reasons",
    (
        Panel(
            "Transitions",
            "Each kind of transition in the range, the latest first, with its count. The log has the full reason of "
            "each; `zenvoy status $service` shows the current one.",
            Kind.TABLE,
            (
                Query(
                    f"1000 * max by (from, to, event) (max_over_time(timestamp({_HAPPENED})[$__range:$__interval]))",
                    may_be_empty="the state did not change in the range",
                ),
                Query(
                    f"sum by (from, to, event) ({counted(_TRANSITIONS)}) > 0",
                    may_be_empty="the state did not change in the range",
                ),
            ),
            width=10,
            no_value="No transition in this range",
            sort="Latest",
            columns=(
                Column("A", "Latest", Unit.MOMENT),
                Column("from", "From"),
                Column("to", "To"),
                Column("event", "Event"),
                Column("B", "Count", Unit.COUNT),
            ),
        ),
        Panel(
            "Causes of stalls",
            "Causes of stalled wakes in the range, the latest first. docs/metrics.md and docs/troubleshooting.md "
            "explain them.",
            Kind.TABLE,
            (
                Query(
                    f"1000 * max by (reason) (max_over_time(timestamp({_STALL_REASON})[$__range:$__interval]))",
                    may_be_empty="no wake stalled",
                ),
            ),
            width=4,
            no_value="No wake stalled",
            sort="Last seen",
            columns=(Column("reason", "Cause"), Column("A", "Last seen", Unit.MOMENT)),
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
            width=5,
            no_value="Nothing was refused",
            colors=REASON_COLORS,
        ),
        Panel(
            "Saved and waited",
            "Replica-seconds saved by sleeping in the range, and the total time that clients waited for wakes.",
            Kind.NUMBER,
            (
                Query(f"sum({counted(service('slept_replica_seconds_total'))})", "Replica time saved"),
                Query(f"sum({counted(service('waited_seconds_total'))})", "Waited"),
            ),
            Unit.SECONDS,
            width=5,
            levels=(Level(None, GOOD),),
        ),
    ),
)

BOARD = Board(
    "zenvoy-service",
    "zenvoy: Service",
    "One service: states over time, requests and connections, wakes by part, and the reasons for transitions.",
    (NOW, OVER_TIME, WAKES, REASONS),
    (NAMESPACE, SERVICE),
)
