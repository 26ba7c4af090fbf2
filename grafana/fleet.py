"""The Fleet dashboard: all services at a glance."""

from __future__ import annotations

from grafana import fleet_wakes
from grafana.model import Board, Column, Kind, Level, Panel, Query, Row, Unit
from grafana.queries import CODES, NAMESPACE, SERVICE_LABELS, SERVICES, beside, each, services, state_code, where
from grafana.theme import BAD, GOOD, STATE_COLORS, STATE_NAMES, WARNING

STALLED = f"{each(services('stalled'))} == 1"
WAKING = f"{each(services('state', state='Waking'))} == 1"
WAKING_FOR = where(f"(time() - {each(services('state_entered_timestamp_seconds'))})", WAKING)
MAX_IN_TIMELINE = 25
_CHANGES = each(f"changes({services('state_entered_timestamp_seconds')}[$__range] @ end())")
MOST_CHANGED = f"topk({MAX_IN_TIMELINE}, {_CHANGES})"
STALL_REASON = each(services("stalled_info"), f"{SERVICE_LABELS}, reason")


def _number(title: str, description: str, expr: str, *levels: Level, unit: Unit = Unit.COUNT) -> Panel:
    return Panel(title, description, Kind.NUMBER, (Query(expr, title),), unit, width=4, height=4, levels=levels)


def _in_state(pattern: str) -> str:
    return f"sum({each(services('state', state=pattern))}) or vector(0)"


def _alarming(color: str) -> tuple[Level, Level]:
    return Level(None, GOOD), Level(1, color)


NOW = Row(
    "Now",
    (
        _number(
            "Asleep",
            "Services at zero replicas (ScaledToZero).",
            _in_state("ScaledToZero"),
            Level(None, STATE_COLORS["ScaledToZero"]),
        ),
        _number(
            "Awake",
            "Services that are running: Active, Idle, or Draining.",
            _in_state("Active|Idle|Draining"),
            Level(None, STATE_COLORS["Active"]),
        ),
        _number(
            "Waking",
            "Services that a client is waiting for and that are not reachable yet.",
            _in_state("Waking"),
            Level(None, GOOD),
            Level(1, WARNING),
        ),
        _number(
            "Stalled",
            "Services whose wake makes no progress. The tables below show the cause and the duration.",
            f"sum({each(services('stalled'))}) or vector(0)",
            *_alarming(BAD),
        ),
        _number(
            "Held",
            "Connections that are currently waiting for a service to wake.",
            f"sum({each(services('held'))}) or vector(0)",
            Level(None, GOOD),
            Level(1, WARNING),
        ),
        _number(
            "Longest wake in progress",
            "Duration of the longest wake in progress; 0 if no service is waking.",
            f"max({WAKING_FOR}) or vector(0)",
            *(Level(None, GOOD), Level(10, WARNING), Level(60, BAD)),
            unit=Unit.SECONDS,
        ),
    ),
)

STATES = Row(
    "States",
    (
        Panel(
            "Services by state",
            "Number of services in each state over time.",
            Kind.LINES,
            tuple(Query(_in_state(state), state) for state in STATE_COLORS),
            stacked=True,
            colors=STATE_COLORS,
        ),
        Panel(
            "State of each service",
            f"State over time of the {MAX_IN_TIMELINE} services with the most transitions. Red: Waking and stalled.",
            Kind.TIMELINE,
            (
                Query(
                    where(
                        state_code(services),
                        MOST_CHANGED,
                    ),
                    "{{service}}",
                ),
            ),
            names={CODES[state]: shown for state, shown in STATE_NAMES.items()},
            links_to_service=True,
        ),
    ),
)

_SERVICE = Column("service", "Service", links_to_service=True)

WAKING_NOW = Row(
    "Waking and stalled",
    (
        Panel(
            "Waking now",
            "Services that are waking: since when, their wakeTimeout, and the number of connections that wait.",
            Kind.TABLE,
            (
                Query(WAKING_FOR, may_be_empty="no service is waking"),
                Query(
                    where(each(services("wake_timeout_seconds")), WAKING),
                    may_be_empty="no service is waking",
                ),
                Query(where(each(services("held")), WAKING), may_be_empty="no service is waking"),
            ),
            width=8,
            height=6,
            no_value="No service is waking",
            sort="For",
            columns=(
                _SERVICE,
                Column("A", "For", Unit.SECONDS),
                Column("B", "wakeTimeout", Unit.SECONDS),
                Column("C", "Held", Unit.COUNT),
            ),
        ),
        Panel(
            "Stalled",
            "Stalled services and the cause, which docs/metrics.md and docs/troubleshooting.md explain. The log and "
            "`zenvoy status NAME` have the full message.",
            Kind.TABLE,
            tuple(
                Query(where(beside(value, STALL_REASON), STALLED), may_be_empty="no service is stalled")
                for value in (
                    f"(time() - {each(services('state_entered_timestamp_seconds'))})",
                    each(services("held")),
                    f"sum by ({SERVICE_LABELS}) ({services('refused_total')})",
                )
            ),
            width=8,
            height=6,
            no_value="No service is stalled",
            sort="For",
            columns=(
                _SERVICE,
                Column("reason", "Cause"),
                Column("A", "For", Unit.SECONDS),
                Column("B", "Held", Unit.COUNT),
                Column("C", "Refused", Unit.COUNT),
            ),
        ),
        Panel(
            "Time in Waking",
            "Time since each service entered Waking. A line that keeps rising is a wake that does not finish.",
            Kind.LINES,
            (Query(WAKING_FOR, "{{service}}", may_be_empty="no service was waking in the range"),),
            Unit.SECONDS,
            width=8,
            height=6,
            no_value="No service was waking",
            links_to_service=True,
        ),
    ),
)

BOARD = Board(
    "zenvoy-fleet",
    "zenvoy: Fleet",
    "All services that zenvoy puts to sleep and wakes: their states, wakes, held connections, and what sleeping saves.",
    (NOW, STATES, WAKING_NOW, fleet_wakes.WAKES, fleet_wakes.HELD, fleet_wakes.LEDGER),
    (NAMESPACE, SERVICES),
)
