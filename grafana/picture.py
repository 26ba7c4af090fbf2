"""A whole dashboard as a picture: each panel where Grafana would have it, with its title. Counterpart: `draw.py`."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from PIL import Image

from grafana import boards
from grafana.answers import Viewer
from grafana.draw import Canvas, draw, named
from grafana.model import GRID_WIDTH, Board, Kind, Panel, Place, Row, layout
from grafana.theme import FAINT, INK, LINE, PAGE, PANEL, SMALL

CELL_WIDTH, CELL_HEIGHT = 0.66, 0.31
"""Inches of a cell of the grid."""
HEAD = 0.55
GAP = 0.05
TITLE = 0.3
DOTS_PER_INCH = 110
OF_BOARD = "Dashboard"
"""The picture's own note of what it shows."""
SIDES = {Kind.LINES: (0.62, 0.12, 0.26), Kind.TIMELINE: (0.2, 0.12, 0.26)}
"""Inches left, right and below the axes, for numbers and names; none for other kinds."""
NAME_CHARACTER = 0.075


def picture(board: Board, viewer: Viewer, path: Path) -> None:
    """Ask for every panel's data, and draw them all into one PNG."""
    mpl.rcParams.update({"font.family": "DejaVu Sans", "svg.hashsalt": "zenvoy"})
    placed = layout(board)
    cells = max(place.y + place.height for _, place in placed)
    sheet = _Sheet(GRID_WIDTH * CELL_WIDTH + 2 * GAP, HEAD + cells * CELL_HEIGHT + 2 * GAP)
    sheet.head(board, viewer)
    for item, place in placed:
        if isinstance(item, Row):
            sheet.row(viewer.filled(item.title), place)
        else:
            sheet.panel(item, place, viewer)
    about = {"Software": None, OF_BOARD: fingerprint(board)}
    sheet.figure.savefig(path, dpi=DOTS_PER_INCH, facecolor=PAGE, metadata=about)


def fingerprint(board: Board) -> str:
    """Of the dashboard's JSON: another dashboard has another."""
    return sha256(boards.text(board).encode()).hexdigest()


def drawn_of(path: Path) -> str | None:
    """The fingerprint of the dashboard that a picture shows."""
    with Image.open(path) as image:
        return image.info.get(OF_BOARD)


class _Sheet:
    """A figure measured in inches from its top left corner."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height))

    def head(self, board: Board, viewer: Viewer) -> None:
        self._text(0.15, HEAD / 2, board.title, INK, SMALL + 6, "bold")
        chosen = "   ".join(
            f"{variable.label}: {_choice(viewer.variables[variable.name])}" for variable in board.variables
        )
        seconds = round(viewer.span.end - viewer.span.start)
        self._text(self.width - 0.15, HEAD / 2, f"{chosen}      last {seconds} s", FAINT, SMALL + 1, align="right")

    def row(self, title: str, place: Place) -> None:
        left, top, _, height = self._box(place)
        self._text(left + 0.1, top + height / 2, f"⌄  {title}", INK, SMALL + 2, "bold")

    def panel(self, panel: Panel, place: Place, viewer: Viewer) -> None:
        left, top, width, height = self._box(place)
        self._frame(left, top, width, height)
        self._text(left + 0.12, top + TITLE / 2 + 0.03, panel.title, INK, SMALL + 1, "bold")
        answers = viewer.answers(panel)
        before, after, below = SIDES.get(panel.kind, (0.12, 0.12, 0.1))
        if panel.kind is Kind.TIMELINE:
            before += NAME_CHARACTER * max((len(name) for name, _ in named(panel, answers)), default=0)
        inner_width, inner_height = width - before - after, height - TITLE - below - 0.06
        bounds = (
            (left + before) / self.width,
            1 - (top + height - below) / self.height,
            inner_width / self.width,
            inner_height / self.height,
        )
        axes = self.figure.add_axes(bounds, facecolor="none")
        draw(panel, answers, Canvas(axes, inner_width, inner_height, viewer.span))

    def _box(self, place: Place) -> tuple[float, float, float, float]:
        """Left, top, width and height, in inches."""
        left, top = GAP + place.x * CELL_WIDTH, HEAD + place.y * CELL_HEIGHT
        return left + GAP, top + GAP, place.width * CELL_WIDTH - 2 * GAP, place.height * CELL_HEIGHT - 2 * GAP

    def _frame(self, left: float, top: float, width: float, height: float) -> None:
        size = {"width": width / self.width, "height": height / self.height}
        corner = (left / self.width, 1 - (top + height) / self.height)
        style = "square,pad=0"
        frame = FancyBboxPatch(
            corner, **size, boxstyle=style, facecolor=PANEL, edgecolor=LINE, linewidth=0.8, zorder=-1
        )
        frame.set_transform(self.figure.transFigure)
        self.figure.add_artist(frame)

    def _text(
        self, x: float, y: float, text: str, color: str, points: float, weight: str = "normal", align: str = "left"
    ) -> None:
        where = (x / self.width, 1 - y / self.height)
        self.figure.text(*where, text, color=color, fontsize=points, weight=weight, ha=align, va="center")


def _choice(value: str) -> str:
    return "All" if value == ".*" else value
