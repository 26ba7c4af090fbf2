"""The dashboards as a document for people: what each panel shows, and when it may be empty. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from grafana.model import Board, Panel, Row

HEAD = """\
# Dashboards

<!-- Generated: `make golden` or `python -m grafana.build` writes it anew from grafana/. -->

Import the JSON files of this folder into Grafana 11.6 or later (Dashboards → New → Import, or by provisioning the
folder); the data source is chosen at the top of each. They need nothing but the metrics of
[docs/metrics.md](../../docs/metrics.md): no recording rules, no plugins. To see exemplars in the wake latency, start
Prometheus with `--enable-feature=exemplar-storage`.

`python -m grafana.render` draws them with the data of a real run into [docs/img](../../docs/img).

A panel is never blank: where a query finds nothing, it shows the words quoted below.
"""


def text(boards: Sequence[Board]) -> str:
    """The whole document."""
    return "\n".join([HEAD, *(line for board in boards for line in _board(board))])


def _board(board: Board) -> Iterator[str]:
    yield from (f"## {board.title}", "", f"{board.description} File: [{board.uid}.json]({board.uid}.json).", "")
    if board.variables:
        chosen = "; ".join(f"`{variable.name}`: {variable.description}" for variable in board.variables)
        yield from (f"Variables besides the data source: {chosen}", "")
    for row in board.rows:
        yield from _row(row)


def _row(row: Row) -> Iterator[str]:
    yield from (f"### {row.title}", "")
    for panel in row.panels:
        yield f"- **{panel.title}**: {panel.description}{_emptiness(panel)}"
    yield ""


def _emptiness(panel: Panel) -> str:
    reasons = dict.fromkeys(query.may_be_empty for query in panel.queries if query.may_be_empty)
    return f" May be empty (“{panel.no_value}”), since {', '.join(reasons)}." if reasons else ""
