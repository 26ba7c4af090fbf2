"""The state machine of a service: the whole product in one table.

A service is asleep (`ScaledToZero`), starting (`Waking`), in use (`Active`), without traffic (`Idle`), or about to stop
(`Draining`). While it is asleep, waking or draining, its route leads to the hold address, so that a new connection is
held and never lost. While it is active or idle, its route leads to the pods. `reconciler.plan` derives the route from
the state.

A row of the table is `(source, event, target, when)`. The rows of one state and event are tried from the top, and the
first whose guard holds is taken. A row whose target is its source keeps the state and `since`; it may update `stalled`,
`zeroed`, or the reason of a service that works. If every guard fails, the record does not change. A pair of state and
event without a row is an error of the caller and raises `UnlistedEvent`.

Invariants of the table:

- Unknown usage keeps a service awake and never blocks a wake: `TrafficUnknown` ends only `Idle` and `Draining`.
- A service that has a client never becomes `ScaledToZero` by our decision: `Draining` ends there only by `Drained`,
  and `Waking` only if the service has no client. `ReplicasAtZero` reports that someone else scaled it to zero.
- Events may be late or repeated. Where that is harmless, the table has a row that keeps the state.

Sans-IO and without a clock: `now` is an argument. The `transitions` library runs this table.
Counterparts: `events.py` (the input), `judge.py` (events from observations), `record.py` (the persisted values).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from transitions import Machine, MachineError

from reconciler.core import events
from reconciler.core.events import Event
from reconciler.core.record import Record, State

ScaledToZero, Waking, Active, Idle, Draining = State


class UnlistedEvent(Exception):
    """The table has no row for this state and event."""


Guard = Callable[[Record, Event], bool]


def zero_was_confirmed(record: Record, _: Event) -> bool:
    """Return whether zero replicas were observed while asleep: a ready endpoint then means an external scale-up."""
    return record.zeroed


def no_client(_: Record, event: Event) -> bool:
    """Return whether no client is waiting or connected; unknown counts as a client."""
    return isinstance(event, events.WakeTimedOut) and not event.wanted


def not_paused(_: Record, event: Event) -> bool:
    """Return whether the service is not paused."""
    return not (isinstance(event, events.IdleElapsed) and event.paused)


class Row(NamedTuple):
    """A row of the table; `when` is the guard, or None if there is none."""

    source: State
    event: type[Event]
    target: State
    when: Guard | None = None


TABLE: tuple[Row, ...] = (
    # Asleep: demand wakes it; a ready endpoint after an observed zero was scaled up by someone else.
    Row(ScaledToZero, events.DemandSeen, Waking),
    Row(ScaledToZero, events.WakeCommanded, Waking),
    Row(ScaledToZero, events.Ready, Active, zero_was_confirmed),
    Row(ScaledToZero, events.ReplicasAtZero, ScaledToZero),
    Row(ScaledToZero, events.SleepCommanded, ScaledToZero),
    Row(ScaledToZero, events.ProgramOutdated, ScaledToZero),
    Row(ScaledToZero, events.DeletionStarted, Waking),
    # Waking: a successful dial completes it; a timeout ends it only without a client.
    Row(Waking, events.Ready, Active),
    Row(Waking, events.WakeStalled, Waking),
    Row(Waking, events.WakeTimedOut, ScaledToZero, no_client),
    Row(Waking, events.WakeTimedOut, Waking),
    Row(Waking, events.ReplicasAtZero, ScaledToZero),
    Row(Waking, events.DemandSeen, Waking),
    Row(Waking, events.WakeCommanded, Waking),
    Row(Waking, events.SleepCommanded, Waking),
    Row(Waking, events.ProgramOutdated, Waking),
    # Active: in use, or not known to be unused.
    Row(Active, events.Quiet, Idle),
    Row(Active, events.EndpointsLost, Waking),
    Row(Active, events.RolloutStarted, Waking),
    Row(Active, events.ReplicasAtZero, ScaledToZero),
    Row(Active, events.SleepCommanded, Draining),
    Row(Active, events.ProgramOutdated, Draining),
    Row(Active, events.Ready, Active),
    Row(Active, events.DemandSeen, Active),
    Row(Active, events.Traffic, Active),
    Row(Active, events.TrafficUnknown, Active),
    Row(Active, events.WakeCommanded, Active),
    Row(Active, events.BusySeen, Active),
    # Idle: traffic, work, and unknown usage make it active again.
    Row(Idle, events.Traffic, Active),
    Row(Idle, events.DemandSeen, Active),
    Row(Idle, events.TrafficUnknown, Active),
    Row(Idle, events.WakeCommanded, Active),
    Row(Idle, events.BusySeen, Active),
    Row(Idle, events.IdleElapsed, Draining, not_paused),
    Row(Idle, events.SleepCommanded, Draining),
    Row(Idle, events.ProgramOutdated, Draining),
    Row(Idle, events.EndpointsLost, Waking),
    Row(Idle, events.RolloutStarted, Waking),
    Row(Idle, events.ReplicasAtZero, ScaledToZero),
    Row(Idle, events.Ready, Idle),
    Row(Idle, events.Quiet, Idle),
    # Draining: the pods still run, so becoming active again costs nothing.
    Row(Draining, events.Traffic, Active),
    Row(Draining, events.DemandSeen, Active),
    Row(Draining, events.TrafficUnknown, Active),
    Row(Draining, events.WakeCommanded, Active),
    Row(Draining, events.BusySeen, Active),
    Row(Draining, events.DeletionStarted, Active),
    Row(Draining, events.Drained, ScaledToZero),
    Row(Draining, events.DrainTimedOut, Active),
    Row(Draining, events.ReplicasAtZero, ScaledToZero),
    Row(Draining, events.Ready, Draining),
    Row(Draining, events.Quiet, Draining),
    Row(Draining, events.SleepCommanded, Draining),
    Row(Draining, events.ProgramOutdated, Draining),
)


@dataclass(slots=True)
class _Model:
    """The model for `transitions`."""

    state: State


_MACHINE = Machine(model=None, states=State, initial=None, auto_transitions=False)
for _row in TABLE:
    _MACHINE.add_transition(_row.event.__name__, _row.source, _row.target, _row.when)


def step(record: Record, event: Event, now: float) -> Record:
    """Return the record after `event`, which is applied at `now` (seconds since the epoch).

    Returns the same object if nothing changed. Raises `UnlistedEvent` for a pair that the table does not list.
    """
    model = _Model(record.state)
    try:
        _MACHINE.events[event.name].trigger(model, record, event)
    except (KeyError, MachineError):
        raise UnlistedEvent(f"{event.name} is not listed for {record.state}") from None
    if model.state is record.state:
        return _refreshed(record, event)
    is_zeroed = isinstance(event, events.ReplicasAtZero)
    return Record(model.state, now, event.reason, record.replicas, record.hold_address, stalled=None, zeroed=is_zeroed)


def diagram(table: Iterable[Row] = TABLE) -> str:
    """Return the table as a Mermaid `stateDiagram-v2`, without a newline at its end.

    Events with the same source and target share an arrow, with the guard in brackets. Rows that do not change the state
    are left out.
    """
    arrows: dict[tuple[State, State], list[str]] = {}
    for row in table:
        if row.target is not row.source:
            guard = f" [{row.when.__name__.replace('_', ' ')}]" if row.when else ""
            arrows.setdefault((row.source, row.target), []).append(f"{row.event.__name__}{guard}")
    lines = ["stateDiagram-v2"]
    lines += [f"    {source} --> {target}: {'<br/>'.join(labels)}" for (source, target), labels in arrows.items()]
    return "\n".join(lines)


def _refreshed(record: Record, event: Event) -> Record:
    match event:
        case events.ReplicasAtZero() if not record.zeroed:
            return replace(record, zeroed=True)
        case events.WakeStalled() | events.WakeTimedOut() if record.stalled != event.reason:
            return replace(record, stalled=event.reason)
        case events.BusySeen() if record.reason != event.reason:
            return replace(record, reason=event.reason)
    return record
