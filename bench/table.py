"""The results of benchmarks with their references, as a table or as JSON. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

HEAD = ("what", "measured", "reference", "ratio", "target", "met")


@dataclass(frozen=True, slots=True)
class Row:
    """One result. Values are in `unit`; `most` and `max_ratio` are the target, or None without a target."""

    what: str
    measured: float
    unit: str
    beside: str = ""
    """The name of the reference."""
    reference: float | None = None
    most: float | None = None
    max_ratio: float | None = None
    spread: float | None = None
    """The ratio if it differs from `measured / reference`, for example a median of ratios."""

    @property
    def ratio(self) -> float | None:
        """The result as a multiple of the reference."""
        if self.spread is not None or not self.reference:
            return self.spread
        return self.measured / self.reference

    @property
    def met(self) -> bool | None:
        """True if the target is met; None without a target."""
        if self.most is None and self.max_ratio is None:
            return None
        small = self.most is None or self.measured <= self.most
        return small and (self.max_ratio is None or (self.ratio is not None and self.ratio <= self.max_ratio))

    @property
    def target(self) -> str:
        """The target as text."""
        parts = [] if self.most is None else [f"≤ {_number(self.most)} {self.unit}"]
        parts += [] if self.max_ratio is None else [f"ratio ≤ {self.max_ratio:g}"]
        return ", ".join(parts)


def as_json(rows: Mapping[str, Sequence[Row]]) -> dict[str, list[dict[str, Any]]]:
    """Return plain data by benchmark."""
    return {name: [_plain(row) for row in some] for name, some in rows.items()}


def from_json(data: Mapping[str, Iterable[Mapping[str, Any]]]) -> dict[str, list[Row]]:
    """Return the rows from the output of `as_json`."""
    fields = set(Row.__slots__)
    return {
        name: [Row(**{key: row[key] for key in fields & row.keys()}) for row in some] for name, some in data.items()
    }


def _plain(row: Row) -> dict[str, Any]:
    fields = {key: getattr(row, key) for key in Row.__slots__}
    return {**fields, "ratio": row.ratio, "target": row.target, "met": row.met}


def as_text(rows: Mapping[str, Sequence[Row]]) -> str:
    """Return the table as text, with a section for each benchmark."""
    sections = {name: [_cells(row) for row in some] for name, some in rows.items()}
    widths = [max(len(cells[i]) for cells in (HEAD, *chain(*sections.values()))) for i in range(len(HEAD))]
    rule = "  ".join("-" * width for width in widths)
    lines = [_line(HEAD, widths)]
    for name, section in sections.items():
        lines += [rule, *(_line(cells, widths) for cells in section)] if section else [rule, f"{name}: not measured"]
    return "\n".join(lines)


def _cells(row: Row) -> tuple[str, ...]:
    reference = "" if row.reference is None else f"{_number(row.reference)} {row.unit}"
    beside = f"{reference}  {row.beside}".strip()
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    met = {True: "yes", False: "NO", None: ""}[row.met]
    return row.what, f"{_number(row.measured)} {row.unit}".strip(), beside, ratio, row.target, met


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Align numbers to the right, and text to the left."""
    aligned = (
        f"{cell:>{width}}" if i in (1, 3) else f"{cell:<{width}}"
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join(aligned).rstrip()


def _number(value: float) -> str:
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"
