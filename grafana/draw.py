"""A panel's data, drawn by matplotlib on axes of its own, one function for each kind. Counterpart: `picture.py`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from grafana.answers import Answers, Series, Span
from grafana.draw_table import draw_table
from grafana.model import Kind, Panel, Unit
from grafana.theme import FAINT, INK, LINE, PANEL, SMALL, Palette, shade
from grafana.units import readable, ticks

BARS = 90
"""As many would fit a panel side by side."""
LEGEND_CHARACTERS = 13.0
"""How many fit an inch."""
LEGEND_BESIDE = 5
"""As many are taken by a name's colour and the space after it."""
LEGEND_LINE, BELOW_AXIS = 0.17, 0.25
"""Inches of a legend's line, and from the axes down to the first."""
BIG_POINTS = 22.0


@dataclass(frozen=True, slots=True)
class Canvas:
    """Axes of so many inches, for a time range."""

    axes: Axes
    width: float
    height: float
    span: Span


def draw(panel: Panel, answers: Answers, canvas: Canvas) -> None:
    """Draw the panel's content, or what it says when there is none."""
    if any(answers):
        _KINDS[panel.kind](panel, answers, canvas)
        return
    _bare(canvas.axes)
    canvas.axes.text(0.5, 0.5, panel.no_value, ha="center", va="center", color=FAINT, fontsize=SMALL + 2)


def named(panel: Panel, answers: Answers) -> list[tuple[str, Series]]:
    """All series with the names that their legends give them."""
    return [
        (one.named(query.legend), one) for query, found in zip(panel.queries, answers, strict=True) for one in found
    ]


def _lines(panel: Panel, answers: Answers, canvas: Canvas) -> None:
    axes, palette = canvas.axes, Palette(panel.colors)
    order = {name: place for place, name in enumerate(panel.colors)}
    series = sorted(named(panel, answers), key=lambda pair: order.get(pair[0], len(order)))
    moments = sorted({at for _, one in series for at, _ in one.points})
    below = [0.0] * len(moments)
    for name, one in series:
        color, at = palette.of(name), dict(one.points)
        values = [at.get(moment, math.nan) for moment in moments]
        if not panel.stacked:
            axes.fill_between(moments, values, color=color, alpha=0.08, linewidth=0)
            axes.plot(moments, values, color=color, linewidth=1.3)
            continue
        values = [0.0 if math.isnan(value) else value for value in values]
        top = [low + value for low, value in zip(below, values, strict=True)]
        if panel.as_bars:
            width = (canvas.span.end - canvas.span.start) / BARS
            axes.bar(moments, values, width, bottom=below, color=color, alpha=0.9)
        else:
            axes.fill_between(moments, below, top, step="post", color=color, alpha=0.8, linewidth=0)
        below = top
    _scales(axes, panel.unit, canvas)
    _legend(axes, [Line2D([], [], color=palette.of(name), linewidth=2.5, label=name) for name, _ in series], canvas)


def _scales(axes: Axes, unit: Unit, canvas: Canvas) -> None:
    axes.set_xlim(canvas.span.start, canvas.span.end)
    top = max(axes.get_ylim()[1], 1.0 if unit is Unit.COUNT else 1e-9)
    axes.set_ylim(0, top)
    axes.set_yticks(ticks(top, unit))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: readable(value, unit)))
    _time_axis(axes, canvas)
    axes.set_axisbelow(True)
    axes.grid(color=LINE, linewidth=0.6)


def _time_axis(axes: Axes, canvas: Canvas) -> None:
    start, end = canvas.span.start, canvas.span.end
    step = ticks(end - start, Unit.SECONDS, max(1, int(canvas.width / 0.75)))[1]
    first = math.ceil((start + 0.05 * (end - start)) / step) * step
    axes.set_xticks([first + at for at in range(0, int(0.96 * end + 0.04 * start - first) + 1, max(1, int(step)))])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: datetime.fromtimestamp(at).strftime("%H:%M:%S")))
    axes.tick_params(colors=FAINT, labelsize=SMALL - 1, length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _legend(axes: Axes, handles: Sequence[Line2D], canvas: Canvas, left: float = -0.45) -> None:
    """Below the axes, from so many inches right of their left end on."""
    lengths = [len(str(handle.get_label())) for handle in handles]
    columns = legend_columns(lengths, int((canvas.width - left) * LEGEND_CHARACTERS))
    rows = -(-len(handles) // columns)
    box = axes.get_position()
    high = canvas.height - rows * LEGEND_LINE
    up = (1 - high / canvas.height) * box.height
    for one in axes.figure.axes:
        if one.get_position().bounds == box.bounds:
            one.set_position((box.x0, box.y0 + up, box.width, box.height - up))
    axes.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(left / canvas.width, -BELOW_AXIS / high),
        ncols=columns,
        frameon=False,
        fontsize=SMALL - 0.5,
        labelcolor=INK,
        handlelength=1.2,
        columnspacing=1.2,
        labelspacing=0.25,
        borderpad=0,
        borderaxespad=0,
    )


def legend_columns(lengths: Sequence[int], room: int) -> int:
    """In how many columns names of such lengths fit into so many characters, the first ones fuller; at least one."""
    for columns in range(len(lengths), 1, -1):
        share, over = divmod(len(lengths), columns)
        starts = [column * share + min(column, over) for column in range(columns + 1)]
        widest = [max(lengths[first:end]) for first, end in pairwise(starts)]
        if sum(widest) + LEGEND_BESIDE * columns <= room:
            return columns
    return 1


def _number(panel: Panel, answers: Answers, canvas: Canvas) -> None:
    axes, series = canvas.axes, named(panel, answers)
    _bare(axes)
    share = 1 / len(series)
    for place, (name, one) in enumerate(series):
        text, color = panel.names.get(int(one.last)) or (readable(one.last, panel.unit), _level(panel, one.last))
        middle = (place + 0.5) * share
        fits = canvas.width * share * 72 / (0.62 * max(len(text), 1))
        axes.text(
            middle, 0.62, text, ha="center", va="center", color=color, fontsize=min(BIG_POINTS, fits), weight="bold"
        )
        if len(series) > 1:
            axes.text(middle, 0.95, name, ha="center", va="top", color=FAINT, fontsize=SMALL)
        if not panel.names:
            _spark(axes, one, color, place * share, share)


def _spark(axes: Axes, one: Series, color: str, left: float, width: float) -> None:
    """The number's past, small, below it."""
    values = [value if value == value else 0.0 for _, value in one.points]
    highest = max(values, default=0.0) or 1.0
    across = [left + width * place / max(1, len(values) - 1) for place in range(len(values))]
    up = [0.25 * value / highest for value in values]
    axes.fill_between(across, up, color=color, alpha=0.18, linewidth=0)
    axes.plot(across, up, color=color, linewidth=0.9, alpha=0.8)


def _level(panel: Panel, value: float) -> str:
    reached = [level.color for level in panel.levels if level.above is None or value >= level.above]
    return shade(reached[-1]) if reached else INK


def _bars(panel: Panel, answers: Answers, canvas: Canvas) -> None:
    axes, palette = canvas.axes, Palette(panel.colors)
    _bare(axes)
    series = named(panel, answers)
    highest = max((one.last for _, one in series if one.last == one.last), default=1.0) or 1.0
    each = 1 / max(len(series), 3)
    for place, (name, one) in enumerate(series):
        middle = 1 - (place + 0.5) * each
        value = 0.0 if one.last != one.last else one.last
        axes.barh(middle, 0.5, each * 0.62, left=0.3, color=LINE)
        axes.barh(middle, 0.5 * value / highest, each * 0.62, left=0.3, color=palette.of(name))
        axes.text(0.28, middle, name, ha="right", va="center", color=INK, fontsize=SMALL)
        axes.text(0.82, middle, readable(one.last, panel.unit), va="center", color=INK, fontsize=SMALL, weight="bold")


def _timeline(panel: Panel, answers: Answers, canvas: Canvas) -> None:
    axes, series = canvas.axes, sorted(named(panel, answers), key=lambda pair: pair[0], reverse=True)
    axes.set_xlim(canvas.span.start, canvas.span.end)
    axes.set_ylim(-0.5, len(series) - 0.5)
    all_named = True
    for place, (_, one) in enumerate(series):
        for start, end, value in stretches(one, canvas.span.step):
            text, color = panel.names.get(int(value), (readable(value, panel.unit), INK))
            axes.barh(place, end - start, 0.74, left=start, color=shade(color), edgecolor=PANEL, linewidth=0.6)
            room = (end - start) / (canvas.span.end - canvas.span.start) * canvas.width
            if room > len(text) * 0.085:
                axes.text((start + end) / 2, place, text, ha="center", va="center", color=PANEL, fontsize=SMALL - 1)
            else:
                all_named = False
    if not all_named:
        names = [(text, shade(color)) for text, color in panel.names.values()]
        _legend(axes, [Line2D([], [], color=color, linewidth=4, label=text) for text, color in names], canvas, 0.0)
    axes.set_yticks(range(len(series)), [name for name, _ in series])
    _time_axis(axes, canvas)
    axes.tick_params(axis="y", colors=INK, labelsize=SMALL)


def stretches(one: Series, step: float) -> list[tuple[float, float, float]]:
    """Start, end and value of each stretch in which a series stays the same."""
    found: list[tuple[float, float, float]] = []
    for at, value in one.points:
        if found and found[-1][2] == value and at - found[-1][1] < step / 2:
            found[-1] = (found[-1][0], at + step, value)
        else:
            found.append((at, at + step, value))
    return found


def _bare(axes: Axes) -> None:
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)


def _table(panel: Panel, answers: Answers, canvas: Canvas) -> None:
    _bare(canvas.axes)
    draw_table(panel, answers, canvas.axes, canvas.height)


_KINDS: Mapping[Kind, Callable[[Panel, Answers, Canvas], None]] = {
    Kind.LINES: _lines,
    Kind.NUMBER: _number,
    Kind.BARS: _bars,
    Kind.TIMELINE: _timeline,
    Kind.TABLE: _table,
}
