"""The README of the dashboards: the purpose of each panel, and when it may be empty. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from grafana.model import Board, Panel, Row

HEAD = """\
# Dashboards

<!-- Generated from grafana/ by `make golden` or `python -m grafana.build`. -->

Import the JSON files in this folder into Grafana 11.6 or later (Dashboards → New → Import, or provision the folder).
Choose the data source at the top of each dashboard. The dashboards need only the metrics in
[docs/metrics.md](../../docs/metrics.md): no recording rules and no plugins. To see exemplars in the wake latency, start
Prometheus with `--enable-feature=exemplar-storage`.

A panel is never blank. If a query returns no data, the panel shows the text quoted below.
"""


def text(boards: Sequence[Board]) -> str:
    """Return the whole document."""
    return "\n".join([HEAD, *(line for board in boards for line in _board(board))])


def _board(board: Board) -> Iterator[str]:
    yield from (f"## {board.title}", "", f"{board.description} File: [{board.uid}.json]({board.uid}.json).", "")
    if board.variables:
        chosen = " ".join(f"`{variable.name}`: {variable.description}" for variable in board.variables)
        yield from (f"Variables, in addition to the data source: {chosen}", "")
    for row in board.rows:
        yield from _row(row)


def _row(row: Row) -> Iterator[str]:
    yield from (f"### {row.title}", "")
    for panel in row.panels:
        yield f"- **{panel.title}**: {panel.description}{_emptiness(panel)}"
    yield ""


def _emptiness(panel: Panel) -> str:
    reasons = dict.fromkeys(query.may_be_empty for query in panel.queries if query.may_be_empty)
    return f" Shows “{panel.no_value}” if {' or '.join(reasons)}." if reasons else ""
