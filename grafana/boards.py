"""Translation of a dashboard to Grafana's JSON. Pure."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    GridPos,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from grafana.model import Board, Row, Variable, layout
from grafana.panels import DATASOURCE, panel

TAG = "zenvoy"
ALL = VariableOption(text="All", value="$__all", selected=True)


def text(board: Board) -> str:
    """Return the JSON of a dashboard; the same board always gives the same bytes."""
    return JSONEncoder(sort_keys=True, indent=2, ensure_ascii=False).encode(_dashboard(board).build()) + "\n"


def _dashboard(board: Board) -> dashboard.Dashboard:
    made = dashboard.Dashboard(board.title).uid(board.uid).description(board.description).tags([TAG])
    made.timezone("browser").time("now-1h", "now").refresh("10s").tooltip(DashboardCursorSync.CROSSHAIR).editable()
    made.link(_siblings()).with_variable(
        dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
    )
    for variable in board.variables:
        made.with_variable(_variable(variable))
    for number, (item, place) in enumerate(layout(board), 1):
        if isinstance(item, Row):
            grid = GridPos(place.height, place.width, place.x, place.y)
            made.with_row(dashboard.Row(item.title).id(number).grid_pos(grid))
        else:
            made.with_panel(panel(item, number, place))
    return made


def _siblings() -> dashboard.DashboardLink:
    """Link zenvoy's dashboards at the top, keeping the time range and the variables."""
    link = dashboard.DashboardLink("zenvoy").type(DashboardLinkType.DASHBOARDS).tags([TAG])
    return link.as_dropdown(False).include_vars(True).keep_time(True)


def _variable(variable: Variable) -> dashboard.QueryVariable:
    made = dashboard.QueryVariable(variable.name).label(variable.label).description(variable.description)
    made.datasource(DATASOURCE).query(variable.query)
    made.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).sort(VariableSort.ALPHABETICAL_ASC)
    if variable.include_all:
        made.include_all(True).all_value(".*").multi(True).current(ALL)
    return made
