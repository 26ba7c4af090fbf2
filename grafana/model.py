"""What a dashboard consists of, as plain values. No SDK and no I/O here.

Counterparts: `translate.py` makes Grafana's JSON of these, `draw.py` a picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

GRID_WIDTH = 24
"""Columns of Grafana's grid."""
ROW_HEIGHT = 1


class Kind(StrEnum):
    """How a panel shows its data; the value is the id of Grafana's panel plugin."""

    LINES = "timeseries"
    NUMBER = "stat"
    BARS = "bargauge"
    TABLE = "table"
    TIMELINE = "state-timeline"


class Unit(StrEnum):
    """Grafana's ids of the units in use."""

    COUNT = "short"
    SECONDS = "s"
    MOMENT = "dateTimeAsIsoNoDateIfToday"
    """Of milliseconds since the epoch."""
    PER_SECOND = "reqps"
    EVENTS_PER_SECOND = "ops"
    SHARE = "percentunit"
    BYTES = "bytes"
    BYTES_PER_SECOND = "Bps"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL query; `legend` names its series in Grafana's way, such as `{{service}}`."""

    expr: str
    legend: str = ""
    may_be_empty: str = ""
    """Why no data is no fault: then the panel shows its `no_value`. Empty: there must always be data."""
    exemplars: bool = False


@dataclass(frozen=True, slots=True)
class Column:
    """A table's column: a label, or the value of the query of that letter (`A` is the first)."""

    source: str
    title: str
    unit: Unit = Unit.NONE
    width: int = 0
    words: Mapping[str, str] = field(default_factory=dict)
    """What to show in the place of a label's value."""
    links_to_service: bool = False


@dataclass(frozen=True, slots=True)
class Level:
    """From this value on, a number has this colour."""

    above: float | None
    color: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. `colors` are by the series' name as the legend shows it; `names` gives numbers a name and a colour."""

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
    """The title of the column by which a table is sorted, the highest first."""
    links_to_service: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under a title, side by side as far as they fit."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable that lists a label's values."""

    name: str
    label: str
    query: str
    description: str
    include_all: bool


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard; `uid` is its address and its file's name."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...]

    def panels(self) -> Iterator[Panel]:
        """All panels, from the top."""
        for row in self.rows:
            yield from row.panels


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row's title or a panel is, in cells of Grafana's grid."""

    x: int
    y: int
    width: int
    height: int


def layout(board: Board) -> list[tuple[Row | Panel, Place]]:
    """Every row's title and every panel with its place, left to right and from the top."""
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
