"""Tests of the diagram of the state machine."""

from __future__ import annotations

from reconciler.core import events
from reconciler.core.machine import TABLE, Row, diagram, not_paused
from reconciler.core.record import State


def test_diagram_merges_arrows_and_omits_loops() -> None:
    table = (
        Row(State.Idle, events.IdleElapsed, State.Draining, not_paused),
        Row(State.Idle, events.Quiet, State.Idle),
        Row(State.Idle, events.SleepCommanded, State.Draining),
        Row(State.Draining, events.Drained, State.ScaledToZero),
    )
    assert diagram(table).splitlines() == [
        "stateDiagram-v2",
        "    Idle --> Draining: IdleElapsed [not paused]<br/>SleepCommanded",
        "    Draining --> ScaledToZero: Drained",
    ]


def test_diagram_of_machine_has_every_change_of_state() -> None:
    picture = diagram()
    for row in TABLE:
        arrow = f"{row.source} --> {row.target}: "
        lines = [line for line in picture.splitlines() if arrow in line]
        assert len(lines) == (row.source is not row.target)
        assert all(row.event.__name__ in line for line in lines)
