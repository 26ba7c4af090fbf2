"""The state machine of a service: the whole product in one table.

A service is asleep (`ScaledToZero`), starting (`Waking`), in use (`Active`), without traffic (`Idle`), or about to stop
(`Draining`). While it is asleep, waking or draining, its route leads to the hold address, so that a new connection is
held and never lost. While it is active or idle, its route leads to the pods. `reconciler.plan` derives the route from
the state.

A row of the table is `(source, event, when, target)`. The rows of one state and event are tried from the top, and the
first whose guard holds is taken. A row whose target is its source keeps the state and `since`; it may update `stalled`,
`zeroed`, or the reason of a service that works. If every guard fails, the record does not change. A pair of state and
event without a row is an error of the caller and raises `UnlistedEvent`.

Invariants of the table:

- Unknown usage keeps a service awake and never blocks a wake: `TrafficUnknown` ends only `Idle` and `Draining`.
- A service that has a client never becomes `ScaledToZero` by our decision: `Draining` ends there only by `Drained`,
  and `Waking` only if the service has no client. `ReplicasAtZero` reports that someone else scaled it to zero.
- Events may be late or repeated. Where that is harmless, the table has a row that keeps the state.

Sans-IO and without a clock: `now` is an argument. The `transitions` library runs the table.
Counterparts: `events.py` (the input), `judge.py` (events from observations), `record.py` (the persisted values).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from transitions import EventData, Machine, MachineError

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
    when: Guard | None
    target: State


TABLE: tuple[Row, ...] = (
    # Asleep: demand wakes it; a ready endpoint after an observed zero was scaled up by someone else.
    Row(ScaledToZero, events.DemandSeen, None, Waking),
    Row(ScaledToZero, events.WakeCommanded, None, Waking),
    Row(ScaledToZero, events.Ready, zero_was_confirmed, Active),
    Row(ScaledToZero, events.ReplicasAtZero, None, ScaledToZero),
    Row(ScaledToZero, events.SleepCommanded, None, ScaledToZero),
    Row(ScaledToZero, events.ProgramOutdated, None, ScaledToZero),
    Row(ScaledToZero, events.DeletionStarted, None, Waking),
    # Waking: a successful dial completes it; a timeout ends it only without a client.
    Row(Waking, events.Ready, None, Active),
    Row(Waking, events.WakeStalled, None, Waking),
    Row(Waking, events.WakeTimedOut, no_client, ScaledToZero),
    Row(Waking, events.WakeTimedOut, None, Waking),
    Row(Waking, events.ReplicasAtZero, None, ScaledToZero),
    Row(Waking, events.DemandSeen, None, Waking),
    Row(Waking, events.WakeCommanded, None, Waking),
    Row(Waking, events.SleepCommanded, None, Waking),
    Row(Waking, events.ProgramOutdated, None, Waking),
    # Active: in use, or not known to be unused.
    Row(Active, events.Quiet, None, Idle),
    Row(Active, events.EndpointsLost, None, Waking),
    Row(Active, events.RolloutStarted, None, Waking),
    Row(Active, events.ReplicasAtZero, None, ScaledToZero),
    Row(Active, events.SleepCommanded, None, Draining),
    Row(Active, events.ProgramOutdated, None, Draining),
    Row(Active, events.Ready, None, Active),
    Row(Active, events.DemandSeen, None, Active),
    Row(Active, events.Traffic, None, Active),
    Row(Active, events.TrafficUnknown, None, Active),
    Row(Active, events.WakeCommanded, None, Active),
    Row(Active, events.BusySeen, None, Active),
    # Idle: traffic, work, and unknown usage make it active again.
    Row(Idle, events.Traffic, None, Active),
    Row(Idle, events.DemandSeen, None, Active),
    Row(Idle, events.TrafficUnknown, None, Active),
    Row(Idle, events.WakeCommanded, None, Active),
    Row(Idle, events.BusySeen, None, Active),
    Row(Idle, events.IdleElapsed, not_paused, Draining),
    Row(Idle, events.SleepCommanded, None, Draining),
    Row(Idle, events.ProgramOutdated, None, Draining),
    Row(Idle, events.EndpointsLost, None, Waking),
    Row(Idle, events.RolloutStarted, None, Waking),
    Row(Idle, events.ReplicasAtZero, None, ScaledToZero),
    Row(Idle, events.Ready, None, Idle),
    Row(Idle, events.Quiet, None, Idle),
    # Draining: the pods still run, so becoming active again costs nothing.
    Row(Draining, events.Traffic, None, Active),
    Row(Draining, events.DemandSeen, None, Active),
    Row(Draining, events.TrafficUnknown, None, Active),
    Row(Draining, events.WakeCommanded, None, Active),
    Row(Draining, events.BusySeen, None, Active),
    Row(Draining, events.DeletionStarted, None, Active),
    Row(Draining, events.Drained, None, ScaledToZero),
    Row(Draining, events.DrainTimedOut, None, Active),
    Row(Draining, events.ReplicasAtZero, None, ScaledToZero),
    Row(Draining, events.Ready, None, Draining),
    Row(Draining, events.Quiet, None, Draining),
    Row(Draining, events.SleepCommanded, None, Draining),
    Row(Draining, events.ProgramOutdated, None, Draining),
)


@dataclass(slots=True)
class _Subject:
    """The model for `transitions`: a record and the event to apply."""

    record: Record
    event: Event
    state: State


def _condition(guard: Guard | None) -> Callable[[EventData], bool] | None:
    def holds(data: EventData) -> bool:
        assert guard is not None and isinstance(data.model, _Subject)
        return guard(data.model.record, data.model.event)

    return guard and holds


def _machine() -> Machine:
    machine = Machine(model=None, states=State, initial=None, auto_transitions=False, send_event=True)
    for row in TABLE:
        machine.add_transition(row.event.__name__, row.source, row.target, conditions=_condition(row.when))
    return machine


_MACHINE = _machine()


def step(record: Record, event: Event, now: float) -> Record:
    """Return the record after `event`, which is applied at `now` (seconds since the epoch).

    Returns the same object if nothing changed. Raises `UnlistedEvent` for a pair that the table does not list.
    """
    target = _target(record, event)
    if target is None:
        return record
    if target is record.state:
        return _refreshed(record, event)
    return Record(
        target, now, event.reason, record.replicas, record.hold_address, stalled=None, zeroed=_is_zeroed(event)
    )


def _target(record: Record, event: Event) -> State | None:
    """Return the target state by the table, or None if every guard fails."""
    subject = _Subject(record, event, record.state)
    try:
        taken = _MACHINE.events[event.name].trigger(subject)
    except (KeyError, MachineError):
        raise UnlistedEvent(f"{event.name} is not listed for {record.state}") from None
    return subject.state if taken else None


def diagram(table: Iterable[Row] = TABLE) -> str:
    """Return the table as a Mermaid `stateDiagram-v2`, without a newline at its end.

    Events with the same source and target share an arrow, with the guard in brackets. Rows that do not change the state
    are left out.
    """
    arrows: dict[tuple[State, State], list[str]] = {}
    for row in table:
        if row.target is not row.source:
            arrows.setdefault((row.source, row.target), []).append(_label(row))
    lines = ["stateDiagram-v2"]
    lines += [f"    {source} --> {target}: {'<br/>'.join(labels)}" for (source, target), labels in arrows.items()]
    return "\n".join(lines)


def _label(row: Row) -> str:
    name = row.event.__name__
    return f"{name} [{row.when.__name__.replace('_', ' ')}]" if row.when else name


def _refreshed(record: Record, event: Event) -> Record:
    match event:
        case events.ReplicasAtZero() if not record.zeroed:
            return replace(record, zeroed=True)
        case events.WakeStalled() | events.WakeTimedOut() if record.stalled != event.reason:
            return replace(record, stalled=event.reason)
        case events.BusySeen() if record.reason != event.reason:
            return replace(record, reason=event.reason)
    return record


def _is_zeroed(event: Event) -> bool:
    return isinstance(event, events.ReplicasAtZero)
