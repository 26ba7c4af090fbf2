"""The parts of a dashboard as plain values, independent of the Grafana SDK.

`boards.py` and `panels.py` translate them to Grafana's JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

GRID_WIDTH = 24
"""Columns of Grafana's grid."""
ROW_HEIGHT = 1


class Kind(StrEnum):
    """The visualization of a panel; the value is the id of Grafana's panel plugin."""

    LINES = "timeseries"
    NUMBER = "stat"
    BARS = "bargauge"
    TABLE = "table"
    TIMELINE = "state-timeline"


class Unit(StrEnum):
    """Grafana's unit ids."""

    COUNT = "short"
    SECONDS = "s"
    MOMENT = "dateTimeAsIsoNoDateIfToday"
    """A value in milliseconds since the epoch."""
    PER_SECOND = "reqps"
    EVENTS_PER_SECOND = "ops"
    SHARE = "percentunit"
    BYTES = "bytes"
    BYTES_PER_SECOND = "Bps"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL query; `legend` is Grafana's template for series names, such as `{{service}}`."""

    expr: str
    legend: str = ""
    may_be_empty: str = ""
    """The reason why an empty result is normal. If not set, the query always has data."""
    exemplars: bool = False


@dataclass(frozen=True, slots=True)
class Column:
    """A table column: a label, or the value of the query with that letter (`A` is the first)."""

    source: str
    title: str
    unit: Unit = Unit.NONE
    width: int = 0
    words: Mapping[str, str] = field(default_factory=dict)
    """Replacement texts for label values."""
    links_to_service: bool = False


@dataclass(frozen=True, slots=True)
class Level:
    """The color of a number from this value upwards."""

    above: float | None
    color: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. `colors` maps legend names to colors; `names` maps numbers to a name and a color."""

    title: str
    description: str
    kind: Kind
    queries: tuple[Query, ...]
    unit: Unit = Unit.COUNT
    width: int = 12
    height: int = 8
    stacked: bool = False
    as_bars: bool = False
    decimals: int | None = None
    no_value: str = "0"
    colors: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    levels: tuple[Level, ...] = ()
    columns: tuple[Column, ...] = ()
    sort: str = ""
    """Title of the column by which a table is sorted, in descending order."""
    links_to_service: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under a title, laid out side by side."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """A dashboard variable that lists the values of a label."""

    name: str
    label: str
    query: str
    description: str
    include_all: bool


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard; `uid` is its address and its file name."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...]

    def panels(self) -> Iterator[Panel]:
        """Yield all panels from top to bottom."""
        for row in self.rows:
            yield from row.panels


@dataclass(frozen=True, slots=True)
class Place:
    """Position and size of a row title or a panel, in grid cells."""

    x: int
    y: int
    width: int
    height: int


def layout(board: Board) -> list[tuple[Row | Panel, Place]]:
    """Place every row title and panel, left to right and top to bottom."""
    placed: list[tuple[Row | Panel, Place]] = []
    y = 0
    for row in board.rows:
        placed.append((row, Place(0, y, GRID_WIDTH, ROW_HEIGHT)))
        x, y, tallest = 0, y + ROW_HEIGHT, 0
        for panel in row.panels:
            if x + panel.width > GRID_WIDTH:
                x, y, tallest = 0, y + tallest, 0
            placed.append((panel, Place(x, y, panel.width, panel.height)))
            x, tallest = x + panel.width, max(tallest, panel.height)
        y += tallest
    return placed
