"""Fleet: all services at a glance. What sleeps, what wakes and for how long, what is stuck, and what it is worth."""

from __future__ import annotations

from grafana import fleet_wakes
from grafana.model import Board, Column, Kind, Level, Panel, Query, Row, Unit
from grafana.queries import CODES, NAMESPACE, SERVICE_LABELS, SERVICES, beside, each, services, state_code, where
from grafana.theme import BAD, GOOD, STATE_COLORS, STATE_NAMES, WARNING

STALLED = f"{each(services('stalled'))} == 1"
WAKING = f"{each(services('state', state='Waking'))} == 1"
WAKING_FOR = where(f"(time() - {each(services('state_entered_timestamp_seconds'))})", WAKING)
MOST_IN_TIMELINE = 25
_CHANGES = each(f"changes({services('state_entered_timestamp_seconds')}[$__range] @ end())")
CHANGED_MOST = f"topk({MOST_IN_TIMELINE}, {_CHANGES})"
WHY = each(services("stalled_info"), f"{SERVICE_LABELS}, why")


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
            "Services whose traffic goes straight to them (Active, Idle), or did until a moment ago (Draining).",
            _in_state("Active|Idle|Draining"),
            Level(None, STATE_COLORS["Active"]),
        ),
        _number(
            "Waking",
            "Services that were asked for and are not reachable yet.",
            _in_state("Waking"),
            Level(None, GOOD),
            Level(1, WARNING),
        ),
        _number(
            "Stalled",
            "Services whose wake is known not to get on. Below: which, why, and for how long.",
            f"sum({each(services('stalled'))}) or vector(0)",
            *_alarming(BAD),
        ),
        _number(
            "Held",
            "Connections that wait for a service to wake, at this moment.",
            f"sum({each(services('held'))}) or vector(0)",
            Level(None, GOOD),
            Level(1, WARNING),
        ),
        _number(
            "Longest wake under way",
            "How long the service that has been waking for longest has been at it; 0 while none is waking.",
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
            "How many services are in each state, over time.",
            Kind.LINES,
            tuple(Query(_in_state(state), state) for state in STATE_COLORS),
            stacked=True,
            colors=STATE_COLORS,
        ),
        Panel(
            "The states of services",
            f"The state of each service over time, of the {MOST_IN_TIMELINE} that changed it most often. Red: Waking, "
            "and known not to get on.",
            Kind.TIMELINE,
            (
                Query(
                    where(
                        state_code(services),
                        CHANGED_MOST,
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
            "Services that are waking at this moment: for how long, how long they may take before it counts as too "
            "long (their own wakeTimeout), and how many connections wait.",
            Kind.TABLE,
            (
                Query(WAKING_FOR, may_be_empty="nothing need be waking at this moment"),
                Query(
                    where(each(services("wake_timeout_seconds")), WAKING),
                    may_be_empty="nothing need be waking at this moment",
                ),
                Query(where(each(services("held")), WAKING), may_be_empty="nothing need be waking at this moment"),
            ),
            width=8,
            height=6,
            no_value="No service is waking",
            sort="For",
            columns=(
                _SERVICE,
                Column("A", "For", Unit.SECONDS),
                Column("B", "May take", Unit.SECONDS),
                Column("C", "Held", Unit.COUNT),
            ),
        ),
        Panel(
            "Stalled",
            "Services whose wake does not get on, and why, in one word, which docs/metrics.md and "
            "docs/troubleshooting.md explain. `zenvoy status NAME` and the log have the whole sentence.",
            Kind.TABLE,
            tuple(
                Query(where(beside(value, WHY), STALLED), may_be_empty="nothing need be stalled")
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
                Column("why", "Why"),
                Column("A", "For", Unit.SECONDS),
                Column("B", "Held", Unit.COUNT),
                Column("C", "Refused", Unit.COUNT),
            ),
        ),
        Panel(
            "Waking, for how long",
            "For each service that was waking: how long it had been at it. A line that goes on rising is stuck.",
            Kind.LINES,
            (Query(WAKING_FOR, "{{service}}", may_be_empty="nothing need have been waking in the range"),),
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
