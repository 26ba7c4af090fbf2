"""Service: one service in full: its states beside what was asked of it, each wake with its parts, why it changed."""

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
NEVER_WOKEN = "a service that never woke has no wake to tell of"
STATE = state_code(service)
ENVOY = 'envoy_cluster_name=~"$service"'
"""By pattern: Envoy's label has `~` for every dot of the name, and a dot matches that."""

_LAST_WAKE = service("last_wake_duration_seconds")
_TRANSITIONS = service("transitions_total")
_WHY = service("stalled_info")
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
            "The state that the service is in. Stalled: it is Waking, and known not to get on.",
            Kind.NUMBER,
            (Query(STATE, "State"),),
            width=4,
            height=4,
            names=NAMES,
        ),
        _number(
            "For",
            "How long it has been in that state.",
            f"time() - {each(service('state_entered_timestamp_seconds'))}",
            Unit.SECONDS,
        ),
        _number(
            "Until its deadline",
            "When the state's deadline passes: Idle, then it is put to sleep; Waking, then it has taken too long; "
            "Draining, then it is left awake. 0: Active and ScaledToZero have none.",
            f"{each(service('deadline_timestamp_seconds'))} - time() or 0 * {each(service('stalled'))}",
            Unit.SECONDS,
        ),
        _number("Replicas", "Replicas that exist or are wanted.", each(service("replicas")), Unit.COUNT),
        _number(
            "Held",
            "Connections that wait for it at this moment.",
            f"sum({each(service('held'))}) or vector(0)",
            Unit.COUNT,
            *(Level(None, GOOD), Level(1, WARNING)),
        ),
        _number(
            "Last wake",
            "How long the last wake took, from the first held connection to its first byte.",
            each(_LAST_WAKE),
            Unit.SECONDS,
            maybe=NEVER_WOKEN,
        ),
    ),
)

OVER_TIME = Row(
    "States, and what was asked of it",
    (
        Panel(
            "State over time",
            "Its states. Compare with the requests and connections below: what it was used for, and what woke it.",
            Kind.TIMELINE,
            (Query(STATE, "{{service}}"),),
            width=24,
            height=4,
            names=NAMES,
        ),
        Panel(
            "Requests",
            "Requests a second by Envoy's count; connections, where Envoy knows no requests.",
            Kind.LINES,
            (Query(each(f"rate({service('requests_total')}[$__rate_interval])"), "requests"),),
            Unit.PER_SECOND,
            width=8,
            colors={"requests": STATE_COLORS["Active"]},
        ),
        Panel(
            "Connections from Envoy",
            "Open from Envoys to the service, or to a holder instead.",
            Kind.LINES,
            (Query(f"sum(envoy_cluster_upstream_cx_active{{{ENVOY}}}) or vector(0)", "open"),),
            width=8,
            colors={"open": "#6e9fff"},
        ),
        Panel(
            "Connections in holders",
            "Held: waiting for it to wake. Relayed: connected to it through a holder, since they came while it was "
            "waking.",
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
            "Each wake, with its parts",
            f"A bar for each wake, when it ended: {PARTS_EXPLAINED}. Of several wakes between two points, the last.",
            Kind.LINES,
            by_part(lambda part: where(_part(part), began(_LAST_WAKE)), NEVER_WOKEN),
            Unit.SECONDS,
            stacked=True,
            as_bars=True,
            no_value="No wake in this range",
            colors=PART_COLORS,
        ),
        Panel(
            "The last wake, by part",
            "Where the time of the last wake went, as its parts followed one another.",
            Kind.BARS,
            by_part(_part, NEVER_WOKEN),
            Unit.SECONDS,
            width=6,
            no_value="It has not woken yet",
            colors=PART_COLORS,
        ),
        Panel(
            "How wakes went",
            "Wakes in the range: that ended awake; that stalled on the way; that took longer than its wakeTimeout. One "
            "may be all three.",
            Kind.BARS,
            (Query(f"sum by (result) ({counted(service('wakes_total'))})", "{{result}}", NEVER_WOKEN),),
            width=6,
            no_value="It has not woken yet",
            colors={"woken": GOOD, "stalled": WARNING, "timed_out": BAD},
        ),
    ),
)

REASONS = Row(
    "Reasons",
    (
        Panel(
            "Last reasons",
            "What made it change its state: each kind of transition in the range, the latest first, with how often it "
            "happened. The whole sentence of each is in the log, and the present one in `zenvoy status $service`.",
            Kind.TABLE,
            (
                Query(
                    f"1000 * max by (from, to, event) (max_over_time(timestamp({_HAPPENED})[$__range:$__interval]))",
                    may_be_empty="nothing need have changed in the range",
                ),
                Query(
                    f"sum by (from, to, event) ({counted(_TRANSITIONS)}) > 0",
                    may_be_empty="nothing need have changed in the range",
                ),
            ),
            width=10,
            no_value="Its state has not changed",
            sort="Latest",
            columns=(
                Column("A", "Latest", Unit.MOMENT),
                Column("from", "From"),
                Column("to", "To"),
                Column("event", "Because of"),
                Column("B", "Times", Unit.COUNT),
            ),
        ),
        Panel(
            "Why it stalled",
            "What kept its wakes from getting on in the range, in one word, which docs/metrics.md and "
            "docs/troubleshooting.md explain; the latest first.",
            Kind.TABLE,
            (
                Query(
                    f"1000 * max by (why) (max_over_time(timestamp({_WHY})[$__range:$__interval]))",
                    may_be_empty="nothing need have stalled",
                ),
            ),
            width=4,
            no_value="No wake stalled",
            sort="Until",
            columns=(Column("why", "Why"), Column("A", "Until", Unit.MOMENT)),
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
            width=5,
            no_value="Nothing was refused",
            colors=REASON_COLORS,
        ),
        Panel(
            "Its ledger",
            "In the range: replica-seconds not run because it slept, and what its clients waited for that, all waits "
            "added up.",
            Kind.NUMBER,
            (
                Query(f"sum({counted(service('slept_replica_seconds_total'))})", "Replica-time not run"),
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
    "One service: its states over time beside requests and connections, each wake with its parts, and the reasons.",
    (NOW, OVER_TIME, WAKES, REASONS),
    (NAMESPACE, SERVICE),
)
