"""Translation of a panel to a builder of the Grafana SDK. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from grafana_foundation_sdk.builders import bargauge, common, prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.builders.dashboard import DashboardLink, FieldColor, ThresholdsConfig
from grafana_foundation_sdk.models import common as values
from grafana_foundation_sdk.models.dashboard import (
    DashboardLinkType,
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    GridPos,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMapping,
    ValueMappingResult,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from grafana.model import Column, Kind, Panel, Place, Query, Unit

Builder = timeseries.Panel | stat.Panel | bargauge.Panel | table.Panel | statetimeline.Panel

DATASOURCE = DataSourceRef("prometheus", "${datasource}")
SERVICE_UID = "zenvoy-service"
_SERVICE_URL = f"/d/{SERVICE_UID}?${{datasource:queryparam}}&${{__url_time_range}}&var-service="
NEUTRAL = "text"
_FIXED = "fixed"


def panel(of: Panel, identifier: int, place: Place) -> Builder:
    """Return the builder of a panel, with its id and place in the dashboard."""
    made = _KINDS[of.kind](of)
    made.id(identifier).title(of.title).description(of.description).datasource(DATASOURCE)
    made.grid_pos(GridPos(place.height, place.width, place.x, place.y)).unit(of.unit.value).no_value(of.no_value)
    made.thresholds(_levels(of)).mappings(_names(of.names))
    if of.decimals is not None:
        made.decimals(of.decimals)
    if of.links_to_service:
        made.data_links([_link("${__field.labels.service}")])
    for letter, query in zip("ABCDEFGH", of.queries, strict=False):
        made.with_target(_query(of, query, letter))
    for name, color in of.colors.items():
        made.override_by_name(name, [DynamicConfigValue("color", {"mode": _FIXED, "fixedColor": color})])
    return made


def _query(of: Panel, query: Query, letter: str) -> prometheus.Dataquery:
    made = prometheus.Dataquery().expr(query.expr).ref_id(letter).datasource(DATASOURCE)
    made.legend_format(query.legend or "__auto")
    if query.exemplars:
        made.exemplar(True)
    if of.kind is Kind.TABLE:
        return made.instant().format(PromQueryFormat.TABLE)
    return made.instant() if of.kind is Kind.BARS else made.range()


def _lines(of: Panel) -> timeseries.Panel:
    made = timeseries.Panel().min(0).show_points(values.VisibilityMode.NEVER).line_width(1 if of.stacked else 2)
    made.legend(_legend(values.LegendPlacement.BOTTOM)).fill_opacity(70 if of.stacked else 10)
    made.tooltip(common.VizTooltipOptions().mode(values.TooltipDisplayMode.MULTI).sort(values.SortOrder.DESCENDING))
    made.color_scheme(FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
    if of.as_bars:
        made.draw_style(values.GraphDrawStyle.BARS).bar_width_factor(0.8)
    elif of.stacked:
        made.line_interpolation(values.LineInterpolation.STEP_AFTER)
    if of.unit is Unit.COUNT:
        made.axis_soft_max(1)
    if of.stacked:
        made.stacking(common.StackingConfig().mode(values.StackingMode.NORMAL).group("A"))
    return made


def _number(of: Panel) -> stat.Panel:
    made = stat.Panel().color_mode(values.BigValueColorMode.VALUE).graph_mode(values.BigValueGraphMode.AREA)
    made.reduce_options(_last()).color_scheme(FieldColor().mode(FieldColorModeId.THRESHOLDS))
    if len(of.queries) > 1:
        made.text_mode(values.BigValueTextMode.VALUE_AND_NAME)
    return made


def _bars(of: Panel) -> bargauge.Panel:
    made = bargauge.Panel().min(0).orientation(values.VizOrientation.HORIZONTAL).reduce_options(_last())
    made.display_mode(values.BarGaugeDisplayMode.BASIC).value_mode(values.BarGaugeValueMode.TEXT)
    return made.color_scheme(FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC_BY_NAME))


def _timeline(of: Panel) -> statetimeline.Panel:
    made = statetimeline.Panel().merge_values(True).row_height(0.8).line_width(0).fill_opacity(85)
    made.show_value(values.VisibilityMode.AUTO).legend(_legend(values.LegendPlacement.BOTTOM))
    return made.color_scheme(FieldColor().mode(FieldColorModeId.THRESHOLDS))


def _table(of: Panel) -> table.Panel:
    """Build a table with one row per label set, across all queries, that shows only `of.columns`."""
    made = table.Panel().show_header(True).filterable(True)
    sources = {_field(of, column): column for column in of.columns}
    for column in of.columns:
        made.override_by_name(column.title, _column(column))
    if of.sort:
        made.sort_by([common.TableSortByFieldState().display_name(of.sort).desc(True)])
    made.with_transformation(DataTransformerConfig("merge", options={}))
    made.with_transformation(DataTransformerConfig("filterFieldsByName", options={"include": {"names": list(sources)}}))
    order = {name: place for place, name in enumerate(sources)}
    titles = {name: column.title for name, column in sources.items()}
    return made.with_transformation(
        DataTransformerConfig("organize", options={"indexByName": order, "renameByName": titles})
    )


def _field(of: Panel, column: Column) -> str:
    """Return Grafana's field name; the value of a single query is called `Value`."""
    if len(column.source) > 1:
        return column.source
    return f"Value #{column.source}" if len(of.queries) > 1 else "Value"


def _column(column: Column) -> list[DynamicConfigValue]:
    properties = [DynamicConfigValue("unit", column.unit.value)] if column.unit is not Unit.NONE else []
    if column.width:
        properties.append(DynamicConfigValue("custom.width", column.width))
    if column.words:
        results = {
            word: ValueMappingResult(text, index=place) for place, (word, text) in enumerate(column.words.items())
        }
        properties.append(DynamicConfigValue("mappings", [ValueMap(results)]))
    if column.links_to_service:
        properties.append(DynamicConfigValue("links", [_link("${__value.raw}").build()]))
    return properties


def _link(service: str) -> DashboardLink:
    return DashboardLink("This service").type(DashboardLinkType.LINK).url(_SERVICE_URL + service)


def _last() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)


def _legend(where: values.LegendPlacement) -> common.VizLegendOptions:
    return common.VizLegendOptions().display_mode(values.LegendDisplayMode.LIST).placement(where).show_legend(True)


def _levels(of: Panel) -> ThresholdsConfig:
    steps = [Threshold(level.above, level.color) for level in of.levels] or [Threshold(None, NEUTRAL)]
    return ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def _names(names: Mapping[int, tuple[str, str]]) -> list[ValueMapping]:
    if not names:
        return []
    results = {
        str(number): ValueMappingResult(text, color, index=place)
        for place, (number, (text, color)) in enumerate(names.items())
    }
    return [ValueMap(results)]


_KINDS: Mapping[Kind, Callable[[Panel], Builder]] = {
    Kind.LINES: _lines,
    Kind.NUMBER: _number,
    Kind.BARS: _bars,
    Kind.TIMELINE: _timeline,
    Kind.TABLE: _table,
}
