"""The state machine as a picture, drawn from the table itself, so that the two cannot differ.

Pure: text out of `machine.TABLE`. Shown by `zenvoy diagram` and in ARCHITECTURE.md.
"""

from __future__ import annotations

from collections.abc import Iterable

from reconciler.core.machine import TABLE, Row
from reconciler.core.record import State


def diagram(table: Iterable[Row] = TABLE) -> str:
    """The table as a Mermaid `stateDiagram-v2`, without a newline at its end.

    Events that lead from one state to the same other share an arrow, and a guard stands in brackets behind its event.
    Rows that stay where they are would only be noise as arrows: they are left out.
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
