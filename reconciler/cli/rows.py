"""ScaledServices as people know them from `kubectl get`: a table, or a line for each change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.table import Table

from reconciler.cli.render import COLOURS, duration
from reconciler.cli.writing import cell

COLUMNS = ("NAME", "STATE", "TARGET", "READY", "SINCE", "WHY")
WIDTHS = (20, 22, 24, 7, 7)
"""Of a line's columns; a line cannot know the next one's."""


def table(services: Sequence[Mapping[str, Any]], namespaces: bool, now: datetime) -> Table:
    """One row a service; `namespaces`: with the namespace of each."""
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for column in _columns(namespaces):
        drawn.add_column(column, overflow="fold" if column == "WHY" else "ellipsis")
    for service in services:
        cells = _cells(service, namespaces, now)
        at, colour = 2 if namespaces else 1, COLOURS.get(service["state"], "white")
        drawn.add_row(*(cell(text, colour if column == at else "") for column, text in enumerate(cells)))
    return drawn


class Lines:
    """A header, and then a line for each change."""

    def __init__(self, namespaces: bool) -> None:
        self._namespaces, self._begun = namespaces, False

    def of(self, service: Mapping[str, Any], now: datetime) -> list[str]:
        """What to print for this change."""
        wanted = [_cells(service, self._namespaces, now)]
        if not self._begun:
            wanted.insert(0, list(_columns(self._namespaces)))
        self._begun = True
        return [self._line(cells) for cells in wanted]

    def _line(self, cells: Sequence[str]) -> str:
        widths = (20, *WIDTHS) if self._namespaces else WIDTHS
        return "  ".join([*(cell.ljust(width) for cell, width in zip(cells, widths, strict=False)), cells[-1]]).rstrip()


def _columns(namespaces: bool) -> tuple[str, ...]:
    return ("NAMESPACE", *COLUMNS) if namespaces else COLUMNS


def _cells(service: Mapping[str, Any], namespaces: bool, now: datetime) -> list[str]:
    from reconciler.cluster_client.views import why

    since = service["since"]
    cells = [
        service["name"].rpartition("/")[2],
        service["state"] + (" (paused)" if service["paused"] else ""),
        service["target"],
        service["ready"],
        duration(max(0.0, (now - datetime.fromisoformat(since)).total_seconds())) if since else "",
        why(service),
    ]
    return [service["namespace"], *cells] if namespaces else cells
