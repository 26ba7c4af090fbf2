"""A table's data, drawn: merged into rows as Grafana does, sorted, as many as fit. Counterpart: `draw.py`."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes

from grafana.answers import Answers
from grafana.model import Column, Panel
from grafana.theme import INK, LINE, SMALL, shade
from grafana.units import readable

LINE_INCHES = 0.235


def draw_table(panel: Panel, answers: Answers, axes: Axes, height: float) -> None:
    """On axes of one by one that are `height` inches high."""
    rows = cells(panel, answers)
    line = LINE_INCHES / height
    shown = rows[: int(1 / line) - 1]
    left = 0.0
    widths = [
        max(len(column.title), *(len(row[place]) for row in rows)) + 2 for place, column in enumerate(panel.columns)
    ]
    for place, column in enumerate(panel.columns):
        axes.text(left, 1 - line / 2, column.title, va="center", color=shade("blue"), fontsize=SMALL, weight="bold")
        for number, row in enumerate(shown, 1):
            axes.text(left, 1 - (number + 0.5) * line, row[place], va="center", color=INK, fontsize=SMALL)
        left += widths[place] / sum(widths)
    for number in range(1, len(shown) + 1):
        axes.axhline(1 - number * line, color=LINE, linewidth=0.6)


def cells(panel: Panel, answers: Answers) -> list[tuple[str, ...]]:
    """The table's text, row by row."""
    rows = sorted(_merged(answers), key=lambda row: sorted(row[0].items()))
    by = next((column.source for column in panel.columns if column.title == panel.sort), "")
    if by:
        rows.sort(key=lambda row: row[1].get(by, 0.0), reverse=True)
    return [tuple(_cell(column, *row) for column in panel.columns) for row in rows]


def _merged(answers: Answers) -> list[tuple[dict[str, str], dict[str, float]]]:
    """As Grafana's `merge` does: one row for each set of labels, with each query's value by its letter."""
    merged: dict[frozenset[tuple[str, str]], dict[str, float]] = {}
    for letter, found in zip("ABCDEFGH", answers, strict=False):
        for one in found:
            labels = frozenset((name, value) for name, value in one.labels.items() if name != "__name__")
            merged.setdefault(labels, {})[letter] = one.last
    return [(dict(labels), values) for labels, values in merged.items()]


def _cell(column: Column, labels: Mapping[str, str], values: Mapping[str, float]) -> str:
    if len(column.source) > 1:
        value = labels.get(column.source, "")
        return column.words.get(value, value)
    return readable(values[column.source], column.unit) if column.source in values else ""
